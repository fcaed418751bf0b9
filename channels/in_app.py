"""The inbox as a channel: it renders an entry, which the worker stores with its acknowledgement."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final
from urllib.parse import urlsplit

from notifier.channel import Address, Block, Delivery, Finding, InboxEntry, Sent
from notifier.event import Actor, Recipient

_BLOCKS: Final = (
    Block("title", "line", max_length=500),
    Block("body", "text", max_length=10_000),
    Block("url", "line", required=False, max_length=2_000),
)
_INBOX: Final = (Address(key="inbox", value=""),)


class InAppChannel:
    """Everybody has an inbox. Nothing is sent over a network, so every send succeeds."""

    name = "in_app"
    blocks: Sequence[Block] = _BLOCKS

    def addresses(self, recipient: Recipient) -> Sequence[Address]:
        return _INBOX

    async def open(self) -> None:
        """Nothing to open."""

    async def send(self, delivery: Delivery, content: Mapping[str, str]) -> Sent:
        event = delivery.event
        return Sent(
            inbox=InboxEntry(
                id=delivery.id,
                type=delivery.event_type,
                title=content["title"],
                body=content["body"],
                url=safe_link(content.get("url")),
                actor=None if event.actor is None else _shown(event.actor),
                data=event.data,
                created_ms=delivery.accepted_ms,
            )
        )

    async def close(self) -> None:
        """Nothing to close."""

    def variables(self) -> Collection[str]:
        """See `notifier.channel.ChecksItself`: none."""
        return ()

    async def check(self) -> Sequence[Finding]:
        """See `notifier.channel.ChecksItself`."""
        return [Finding("ok", "inboxes", "kept in the broker, nothing else to reach")]


def open_channel(environ: Mapping[str, str]) -> InAppChannel:  # noqa: ARG001 - every factory is given it
    """The factory for `NOTIFIER_CHANNELS`. It has no settings."""
    return InAppChannel()


def safe_link(url: str | None) -> str | None:
    """The URL, if a browser can follow it without harm: http, https, or a path of the same site.

    Anything else is None: `javascript:`, another host without a scheme (`//host`, `/\\host`), and what
    browsers would repair into one of these.
    """
    url = (url or "").strip()
    if not url or not url.isprintable() or "\\" in url:
        return None
    try:
        parts = urlsplit(url)
    except ValueError:
        return None
    if parts.scheme in {"http", "https"}:
        return url if parts.hostname else None
    # Whatever has a colon in its first segment is a scheme to somebody.
    is_path = not parts.scheme and not parts.netloc and not url.startswith("//")
    return url if is_path and ":" not in url.partition("/")[0] else None


def _shown(actor: Actor) -> Mapping[str, Any]:
    fields = actor.model_dump(exclude_none=True)
    links = {name: safe_link(fields.pop(name, None)) for name in ("image", "url")}
    return fields | {name: link for name, link in links.items() if link}
