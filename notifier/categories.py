"""What can be muted: the categories of the catalogue, as they hold for one recipient."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from notifier.catalogue import Catalogue, EventKind
from notifier.event import Recipient
from notifier.routing import wants

_OWN = "system."
"""What the event types begin with that are for administrators."""


@dataclass(frozen=True, slots=True)
class Category:
    """`types` are its event types; `channels` those that one of them has, and whether the recipient is told
    on them. When all of its types are mandatory, so is the category: nothing of it can be muted."""

    name: str
    mandatory: bool
    types: Sequence[str]
    channels: Mapping[str, bool]


def categories(catalogue: Catalogue, channels: Sequence[str], recipient: Recipient) -> list[Category]:
    """By name, without those of alerts to administrators. `channels` are the configured ones, in order."""
    by_name: dict[str, list[EventKind]] = {}
    for kind in catalogue.kinds.values():
        if not kind.type.startswith(_OWN):
            by_name.setdefault(kind.category, []).append(kind)
    return [_category(name, kinds, channels, recipient) for name, kinds in sorted(by_name.items())]


def _category(
    name: str, kinds: Sequence[EventKind], channels: Sequence[str], recipient: Recipient
) -> Category:
    mandatory = all(kind.mandatory for kind in kinds)
    used = [channel for channel in channels if any(channel in kind.channels for kind in kinds)]
    return Category(
        name=name,
        mandatory=mandatory,
        types=sorted(kind.type for kind in kinds),
        channels={channel: mandatory or wants(recipient, name, channel) for channel in used},
    )
