"""What a key of a partition is, by its name."""

from __future__ import annotations

import re
from enum import Enum, auto
from typing import NamedTuple

from notifier.keys import RESERVED, Keys


class Kind(Enum):
    """How the keys of one kind are moved."""

    WHOLE = auto()
    """It belongs to one recipient: it moves as it is."""
    STREAM = auto()
    """Entries of many recipients, in order."""
    SEEN = auto()
    """The recipients of one event."""
    TRACES = auto()
    SUPPRESSED = auto()
    PARKED = auto()
    RETRIES = auto()
    SCHEDULED = auto()
    UNALERTED = auto()
    LEASE = auto()
    LEFT = auto()
    """It stays, or moves with another."""


class Name(NamedTuple):
    """A key of a partition of the old layout. `rest` is what follows the tag; `owner` is whose it is, if it
    moves as a whole; `suffix` is what a stream's name ends in at its new place."""

    key: bytes
    partition: int
    rest: str
    kind: Kind
    owner: str = ""
    suffix: str = ""


MOVING = ":moving"
"""What follows the names of those that had to make room when their partition was closed."""

_SINGLE = {
    "scheduled": Kind.LEFT,
    "scheduled:items": Kind.SCHEDULED,
    "suppressed": Kind.LEFT,
    f"suppressed{MOVING}": Kind.SUPPRESSED,
    "unalerted": Kind.UNALERTED,
    "moved": Kind.LEFT,
}
_QUEUE = re.compile(r"[a-z][a-z0-9_]*(?::dlq)?:(?P<part>lease|parked|retries|lane:(?P<lane>.+))", re.DOTALL)
_STREAM = re.compile(r"(?:[a-z][a-z0-9_]*)(?::dlq|:dead)?")
_PARTS = {"lease": Kind.LEASE, "parked": Kind.PARKED, "retries": Kind.RETRIES}


class Names:
    """The keys of a layout."""

    def __init__(self, keys: Keys) -> None:
        self._partition = {keys.tag(number): number for number in range(keys.partitions)}
        self.pattern = f"{{{keys.namespace}:*"
        """What SCAN is asked for; keys of other layouts match as well."""

    def of(self, key: bytes) -> Name | None:
        """None for a key of another layout. Raises KeyError for one that is in this layout, and unknown."""
        tag, brace, rest = text(key).partition("}")
        partition = self._partition.get(tag + brace)
        if partition is None or not rest.startswith(":"):
            return None
        rest = rest[1:]
        kind, owner, suffix = _kind(rest)
        return Name(key, partition, rest, kind, owner, suffix)


def _kind(rest: str) -> tuple[Kind, str, str]:
    word, colon, tail = rest.partition(":")
    if rest in _SINGLE:
        return _SINGLE[rest], "", ""
    if colon and word in {"recipient", "idempotency"}:
        return Kind.WHOLE, tail, ""
    if colon and word == "inbox":
        return Kind.WHOLE, tail.rpartition(":")[0], ""
    if colon and word == "seen":
        return Kind.SEEN, "", ""
    if colon and word == "trace":
        return Kind.TRACES, "", ""
    if rest in {"events", f"events{MOVING}"}:
        return Kind.STREAM if rest != "events" else Kind.LEFT, "", "events"
    if found := _QUEUE.fullmatch(rest):
        if found["lane"]:
            return Kind.WHOLE, owner_of_lane(found["lane"]), ""
        return _PARTS[found["part"]], "", ""
    if _STREAM.fullmatch(rest) and (word == "events" or word not in RESERVED):
        return Kind.STREAM, "", rest
    raise KeyError(rest)


def target(new: Keys, partition: int, rest: str) -> bytes:
    """The key's name in a partition of the new layout."""
    return f"{new.tag(partition)}:{rest}".encode(errors="surrogateescape")


def text(word: bytes) -> str:
    """Ids are Unicode; whatever else somebody put there survives the way back."""
    return word.decode(errors="surrogateescape")


def owner_of_lane(lane: str) -> str:
    """The recipient's id: what stands before the last slash, since address keys have none."""
    return lane.rpartition("/")[0]
