"""What is fixed at the first start of an installation: the number of partitions, and the wire version."""

from __future__ import annotations

from typing import Any

from notifier.broker.entries import WIRE_VERSION
from notifier.broker.line import Command
from notifier.broker.scripts import Call, script
from notifier.errors import ConfigurationError, PartitionsMoved
from notifier.keys import Keys

DEFAULT_PARTITIONS = 16
MAX_PARTITIONS = 1024


def checked_partitions(partitions: int | None) -> int | None:
    """Raises ConfigurationError for a number that can't be."""
    if partitions is not None and not 1 <= partitions <= MAX_PARTITIONS:
        raise ConfigurationError("NOTIFIER_PARTITIONS", f"must be from 1 to {MAX_PARTITIONS}")
    return partitions


def claim(namespace: str, partitions: int | None) -> Call:
    """The call that reads what is fixed, and fixes it the first time."""
    wanted = checked_partitions(partitions) or DEFAULT_PARTITIONS
    return Call(script("meta"), (Keys(namespace).meta(),), (wanted, WIRE_VERSION))


def keys(namespace: str, partitions: int | None, reply: Any) -> Keys:
    """The names, from the reply to `claim`. Raises ConfigurationError when it fits not what was asked, and
    PartitionsMoved while the number is being changed."""
    there, version, layout, changing = int(reply[0]), bytes(reply[1]), int(reply[2] or 1), reply[3]
    if changing:
        raise PartitionsMoved(
            f"{namespace} is being changed from {there} to {changing.decode()} partitions; "
            "notifier partitions show says how far it is"
        )
    if partitions is not None and partitions != there:
        raise ConfigurationError(
            "NOTIFIER_PARTITIONS",
            f"is {partitions}, but this installation ({namespace}) has {there}",
        )
    if version != WIRE_VERSION:
        raise ConfigurationError(
            "NOTIFIER_NAMESPACE",
            f"{namespace} holds wire format {version.decode(errors='replace')}; this version speaks "
            f"{WIRE_VERSION.decode()}",
        )
    return Keys(namespace, there, layout)


def lookup(keys: Keys) -> Command:
    """The command that reads what `check` needs."""
    return "HMGET", keys.meta(), "partitions", "layout", "changing"


def has_moved(keys: Keys, reply: Any) -> bool:
    """Whether these names will never count again."""
    partitions, layout, _ = reply
    return bool(partitions) and (int(partitions), int(layout or 1)) != (keys.partitions, keys.layout)


def check(keys: Keys, reply: Any) -> None:
    """Raises PartitionsMoved when these names do not count any more, or not now. An installation that is gone
    from the server says nothing of that: whoever writes to it makes it anew."""
    if reply[2] or has_moved(keys, reply):
        raise PartitionsMoved("the number of partitions has changed; a process that goes on starts again")
