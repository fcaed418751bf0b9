"""A channel that posts each notification to one URL, such as that of a chat room.

    NOTIFIER_CHANNELS=…,examples.webhook:open_channel
    NOTIFIER_WEBHOOK_URL    where to post; needed to send

An event type uses it when its folder has a `webhook.jinja` with the block `text`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import httpx

from notifier.channel import (
    Address,
    Block,
    ChannelUnavailable,
    Delivery,
    DeliveryError,
    PermanentFailure,
    Sent,
    TransientFailure,
)
from notifier.errors import ConfigurationError
from notifier.event import Recipient

SETTING = "NOTIFIER_WEBHOOK_URL"


class WebhookChannel:
    """One instance serves one worker process."""

    name = "webhook"
    blocks: Sequence[Block] = (Block("text", "text", max_length=4_000),)

    def __init__(self, url: str) -> None:
        self._url = url
        self._client = httpx.AsyncClient(timeout=10, trust_env=False)

    def addresses(self, recipient: Recipient) -> Sequence[Address]:
        # One place for everybody. A channel with an address of its own for each recipient makes them of
        # the profile, and returns none for those that it can't reach.
        return (Address(key="room", value=""),)

    async def open(self) -> None:
        if not self._url:
            raise ConfigurationError(SETTING, "is needed to post")

    async def send(self, delivery: Delivery, content: Mapping[str, str]) -> Sent:
        message = {"type": delivery.event_type, "recipient": delivery.recipient_id, "text": content["text"]}
        try:
            # The id is the same at every try, so the receiver can tell a repetition.
            answer = await self._client.post(
                self._url, json=message, headers={"Idempotency-Key": delivery.id}
            )
        except httpx.ConnectError as error:
            raise ChannelUnavailable("nobody answers at the URL") from error
        except httpx.TransportError as error:
            raise TransientFailure(f"the connection failed: {type(error).__name__}") from error
        if failure := outcome(answer):
            raise failure
        return Sent(answer=_words(answer))

    async def close(self) -> None:
        await self._client.aclose()


def outcome(answer: httpx.Response) -> DeliveryError | None:
    """What an HTTP answer means for the delivery; None is a success."""
    status, words = answer.status_code, _words(answer)
    if status < 300:
        return None
    if status == 429:
        return ChannelUnavailable("too many posts", answer=words, retry_after=_seconds(answer))
    if status in {401, 403, 404, 410}:  # the URL is wrong, and that holds for every message
        return ChannelUnavailable("the URL is not accepted", answer=words)
    if status in {408, 425} or status >= 500:
        return TransientFailure("try again later", answer=words, retry_after=_seconds(answer))
    return PermanentFailure("the message is refused", answer=words)


def _seconds(answer: httpx.Response) -> float | None:
    text = answer.headers.get("Retry-After", "")
    return float(text) if text.isascii() and text.isdecimal() else None


def _words(answer: httpx.Response) -> str:
    return f"{answer.status_code} {answer.text[:200]}".strip()


def open_channel(environ: Mapping[str, str]) -> WebhookChannel:
    """The factory for NOTIFIER_CHANNELS. Raises ConfigurationError."""
    url = environ.get(SETTING, "")
    if url and not url.startswith(("https://", "http://")):
        raise ConfigurationError(SETTING, "must begin with https:// or http://")
    return WebhookChannel(url)
