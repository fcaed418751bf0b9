"""Which deliveries follow from an event for a recipient. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from notifier.catalogue import EventKind
from notifier.channel import Address, Channel
from notifier.event import Recipient

EVERY = "*"


class Skip(NamedTuple):
    """A channel that was not used, and why: expired, muted, no_address."""

    channel: str
    reason: str


class Route(NamedTuple):
    """One delivery for each channel and its address, which stand at the same place, and a reason for each
    channel without one."""

    channels: Sequence[str]
    addresses: Sequence[Address]
    skips: Sequence[Skip] = ()


def route(
    recipient: Recipient, kind: EventKind, channels: Mapping[str, Channel], *, expired: bool = False
) -> Route:
    """The deliveries of an event of this kind. `channels` are the configured ones by name."""
    if expired:
        return Route((), (), [Skip(name, "expired") for name in kind.channels])
    names: list[str] = []
    addresses: list[Address] = []
    skips = []
    may_mute = bool(recipient.preferences) and not kind.mandatory
    for name in kind.channels:
        if may_mute and not wants(recipient, kind.category, name):
            skips.append(Skip(name, "muted"))
            continue
        found = channels[name].addresses(recipient)
        if len(found) == 1:
            names.append(name)
            addresses.append(found[0])
        elif found:
            by_key: dict[str, Address] = {}
            for address in found:  # the same device given twice is one device
                by_key.setdefault(address.key, address)
            names += [name] * len(by_key)
            addresses += by_key.values()
        else:
            skips.append(Skip(name, "no_address"))
    return Route(names, addresses, skips)


def wants(recipient: Recipient, category: str, channel: str) -> bool:
    """The most specific of the recipient's preferences; wanted, if none says anything."""
    for group in (category, EVERY):
        of_group = recipient.preferences.get(group, {})
        for way in (channel, EVERY):
            if way in of_group:
                return of_group[way]
    return True


def view(recipient: Recipient) -> str:
    """The recipient as templates see them, in the form of `to`: no address, no preference."""
    name, locale, time_zone = recipient.name, recipient.locale, recipient.time_zone
    if name is locale is time_zone is None and recipient.id[0] != "{":
        return recipient.id
    seen = {"id": recipient.id, "name": name, "locale": locale, "time_zone": time_zone}
    return json.dumps({key: value for key, value in seen.items() if value is not None}, ensure_ascii=False)
