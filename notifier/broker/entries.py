"""What lies in the streams and lists: the wire format, version 1.

An event entry has the fields `v to event`, where `v` is the version, or the lines of a `Checked`; a delivery
entry has `head event`. In both, `event` is the JSON
that the producer's client encoded, untouched. The head is nine lines, which `DeliveryEntry` names: a
script's cost grows with the number of words that it hands on, so the small ones travel as one. A parked item
and a scheduled item hold the same strings packed one after another; a dead letter has six fields about the
failure before them.

An event and a delivery may have one field more, `trace`: the traceparent of W3C Trace Context. A version that
does not know it passes it over.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Final, NamedTuple

from notifier.event import TRACEPARENT

WIRE_VERSION: Final = b"1"
EVENT_FIELDS: Final = (b"v", b"to", b"event")
DELIVERY_FIELDS: Final = (b"head", b"event")
FAILURE_FIELDS: Final = (b"error", b"reason", b"answer", b"attempts", b"first", b"last")
FAILURE_WIDTH: Final = 2 * len(FAILURE_FIELDS)
TRACE: Final = b"trace"


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
    if (*fields[::2],) == names:
        return fields[1::2]
    by_name = dict(zip(fields[::2], fields[1::2], strict=False))
    for name in names:
        if name not in by_name:
            raise MalformedEntry(name.decode(), "is missing from the entry")
    return [by_name[name] for name in names]


def trace_of(fields: Sequence[bytes]) -> str:
    """The traceparent among the flat fields of an event or a delivery; empty, if there is none."""
    for name, value in zip(fields[::2], fields[1::2], strict=False):
        if name == TRACE:
            text = value.decode(errors="replace")
            return text if _TRACEPARENT.fullmatch(text) else ""
    return ""


_TRACEPARENT: Final = re.compile(TRACEPARENT)


class Checked(NamedTuple):
    """What the router needs to know of an event that its publisher has checked against the model.

    These are the lines of `v` after the version; the id is empty there when `event` begins with it. A
    publisher that only says so is found out by the channel's worker, which parses every event. `expires_ms`
    is in Unix milliseconds, or empty.
    """

    id: str
    type: str
    expires_ms: str

    @classmethod
    def of(cls, version: bytes, event: bytes) -> Checked | None:
        """From the values of `v` and `event`; None, if nobody has checked the event. Raises
        MalformedEntry."""
        if version == WIRE_VERSION:
            return None
        event_id, event_type, expires_ms = _checked_lines(version)
        if not event_id:
            if event.startswith(_ID_FIRST):
                event_id = event[_ID_AT : event.find(b'"', _ID_AT)].decode("utf-8", "replace")
            if not event_id:
                raise MalformedEntry("v", "names no event id, nor does the event begin with it")
        return tuple.__new__(cls, (event_id, event_type, expires_ms))  # in half the time


_ID_FIRST: Final = b'{"id":"'
_ID_AT: Final = len(_ID_FIRST)


@lru_cache(maxsize=1_000)  # without an id it is the same for all events of a type
def _checked_lines(version: bytes) -> tuple[str, str, str]:
    try:
        first, *lines = version.decode().split("\n")
    except UnicodeDecodeError:
        first, lines = "", []
    if first.encode() != WIRE_VERSION:
        raise MalformedEntry("v", _unknown(version.split(b"\n")[0]))
    if len(lines) != len(Checked._fields) or not lines[1] or not (lines[2].isdigit() or not lines[2]):
        raise MalformedEntry("v", "does not have the lines of a checked event")
    return lines[0], lines[1], lines[2]


def checked_line(event_id: str, event_type: str, expires_ms: str, event: bytes) -> str:
    """The value of `v` for an event that is checked. The id is left out where the JSON begins with it: of
    all that waits in the server it would be a tenth."""
    if event.startswith(b'{"id":"%b"' % event_id.encode()):
        event_id = ""
    return f"1\n{event_id}\n{event_type}\n{expires_ms}"


class DeliveryEntry(NamedTuple):
    """A delivery on its way: the event, and the lines of the head after the version.

    `to` is the recipient as templates see them, a bare id or JSON; `accepted_ms` and `expires_ms` are Unix
    milliseconds in decimal, the latter empty for never.
    """

    event: bytes
    id: bytes
    type: bytes
    recipient: bytes
    to: bytes
    key: bytes
    address: bytes
    accepted_ms: bytes
    expires_ms: bytes

    @classmethod
    def of(cls, fields: Sequence[bytes]) -> DeliveryEntry:
        """From flat fields. Raises MalformedEntry."""
        if len(fields) == 4 and fields[0] == b"head" and fields[2] == b"event":
            _, head, _, event = fields
        else:
            head, event = values(fields, DELIVERY_FIELDS)
        lines = head.split(b"\n")
        if lines[0] != WIRE_VERSION:
            raise MalformedEntry("head", _unknown(lines[0]))
        if len(lines) != _HEAD_LINES or not lines[7].isdigit() or (lines[8] and not lines[8].isdigit()):
            raise MalformedEntry("head", "does not have the lines of a delivery")
        lines[0] = event
        return tuple.__new__(cls, lines)  # what _make does, and it looks at the length again


def _unknown(version: bytes) -> str:
    # Whatever else stands there may be about people, and this goes to the log.
    return f"wire format {version[:9].decode() if version[:9].isdigit() else '?'} is not known"


_HEAD_LINES = len(DeliveryEntry._fields)  # the version instead of the event


def heads(
    event: tuple[str, str, str, str],
    accepted_ms: int,
    expires_ms: int | str,
    addresses: Iterable[tuple[str, str]],
) -> list[str]:
    """The heads of one event's deliveries. `event` is id, type, recipient and to; an address is its key and
    its value. Raises MalformedEntry when one of them has a line break or is no Unicode, or a key has
    a slash."""
    event_id, event_type, recipient_id, to = event
    begin = f"1\n{event_id}\n{event_type}\n{recipient_id}\n{to}\n"
    end = f"\n{accepted_ms}\n{expires_ms}"
    found = []
    for key, value in addresses:
        if "/" in key:
            raise MalformedEntry("address", "has a slash in its key")
        found.append(f"{begin}{key}\n{value}{end}")
    together = "".join(found)
    if together.count("\n") != len(found) * (_HEAD_LINES - 1):  # none has fewer
        raise MalformedEntry("address", "has a line break")
    if not together.isascii():
        _check_encodable(together)
    return found


def _check_encodable(heads: str) -> None:
    try:
        heads.encode()
    except UnicodeEncodeError:  # half of a surrogate pair, of which the client would die
        raise MalformedEntry("address", "is not Unicode") from None


def entry_ms(entry_id: bytes) -> int:
    """When the server added the entry: Unix milliseconds."""
    return int(entry_id.partition(b"-")[0])


_NO_ENTRY = DeliveryEntry(*[b""] * len(DeliveryEntry._fields))
"""Of a message that could not be read, or is no delivery."""


class Message:
    """An entry in hand: from the stream, or from the list of a parked lane.

    `deliveries` counts the owners that have had it. `attempts`, `first_ms` and `failed` tell of earlier
    failures.
    """

    __slots__ = ("attempts", "deliveries", "entry", "fields", "first_ms", "id", "lane", "parked")

    def __init__(self, entry_id: bytes, fields: Sequence[bytes], deliveries: int = 1) -> None:
        self.id = entry_id
        self.fields = fields
        self.deliveries = deliveries
        self.attempts = 0
        self.first_ms = 0
        self.lane = b""
        self.parked = False
        self.entry = _NO_ENTRY

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
