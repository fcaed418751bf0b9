"""What lies in the streams and lists: the flat fields of the wire format, version 1.

An event entry is `v to event`; a delivery entry is `v id type event rid to key address at exp`. In both,
`event` is the JSON that the producer's client encoded, untouched. A parked item and a scheduled item
hold the same strings packed one after another; a dead letter has six fields about the failure before
them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

WIRE_VERSION: Final = b"1"
EVENT_FIELDS: Final = (b"v", b"to", b"event")
DELIVERY_FIELDS: Final = (b"v", b"id", b"type", b"event", b"rid", b"to", b"key", b"address", b"at", b"exp")
FAILURE_FIELDS: Final = (b"error", b"reason", b"answer", b"attempts", b"first", b"last")
FAILURE_WIDTH: Final = 2 * len(FAILURE_FIELDS)


class MalformedEntry(ValueError):
    """Strings that are not what the wire format says; `field` names the first one missing."""

    def __init__(self, field: str, reason: str) -> None:
        self.field = field
        self.reason = reason
        super().__init__(f"{field}: {reason}")


def pack(strings: Iterable[bytes]) -> bytes:
    """Each string as its length in decimal, a colon, and its bytes."""
    return b"".join(b"%d:%b" % (len(text), text) for text in strings)


def unpack(item: bytes) -> list[bytes]:
    """The strings of `pack`."""
    strings = []
    at = 0
    while at < len(item):
        colon = item.index(b":", at)
        end = colon + 1 + int(item[at:colon])
        strings.append(item[colon + 1 : end])
        at = end
    return strings


def values(fields: Sequence[bytes], names: tuple[bytes, ...]) -> Sequence[bytes]:
    """The values of flat fields in the order of `names`. Raises MalformedEntry.

    Our own entries have just these fields in this order; another version or another producer may add
    some, or order them otherwise.
    """
    if tuple(fields[::2]) == names:
        return fields[1::2]
    by_name = dict(zip(fields[::2], fields[1::2], strict=False))
    for name in names:
        if name not in by_name:
            raise MalformedEntry(name.decode(), "is missing from the entry")
    return [by_name[name] for name in names]


def entry_ms(entry_id: bytes) -> int:
    """When the server added the entry: Unix milliseconds."""
    return int(entry_id.partition(b"-")[0])


class Message:
    """An entry in hand: from the stream, or from the list of a parked lane.

    `deliveries` counts the owners that have had it. `attempts`, `first_ms` and `failed` tell of earlier
    failures.
    """

    __slots__ = ("attempts", "deliveries", "fields", "first_ms", "id", "lane", "parked", "values")

    def __init__(self, entry_id: bytes, fields: Sequence[bytes], deliveries: int = 1) -> None:
        self.id = entry_id
        self.fields = fields
        self.deliveries = deliveries
        self.attempts = 0
        self.first_ms = 0
        self.lane = b""
        self.parked = False
        self.values: Sequence[bytes] = ()  # of the fields, in the order of the wire format

    def parked_item(self) -> bytes:
        """The form in which it waits in a lane's list; its id comes first, by which scripts know it."""
        return pack((self.id, b"%d" % self.attempts, b"%d" % self.first_ms, *self.fields))

    @classmethod
    def from_parked(cls, item: bytes, lane: bytes, owners: int) -> Message:
        entry_id, attempts, first_ms, *fields = unpack(item)
        message = cls(entry_id, fields, owners)
        message.attempts = int(attempts)
        message.first_ms = int(first_ms)
        message.lane = lane
        message.parked = True
        return message
