"""Reading dead letters: those that wait in a DLQ for their second try, and the dead.

A dead letter's id is `<queue>:<partition>:<dlq|dead>:<stream id>`, such as
`email:07:dead:1764000000000-0`; the queue `events` has dead letters like a channel.
"""

from __future__ import annotations

import asyncio
import heapq
import json
import re
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final, Literal

from notifier.broker.connection import Client
from notifier.broker.entries import DeliveryEntry, MalformedEntry, entry_ms
from notifier.broker.scripts import ask
from notifier.dead_letters import Failure, split
from notifier.errors import InvalidInput, InvalidRecipient
from notifier.event import parse_to
from notifier.keys import EVENTS, Keys

State = Literal["dlq", "dead"]

STATES: Final[tuple[State, ...]] = ("dlq", "dead")

ID: Final = "[a-z][a-z0-9_]{0,49}:[0-9]{1,4}:(dlq|dead):[0-9]{1,19}-[0-9]{1,19}"
"""What an id looks like."""

POSITION: Final = f"[0-9]{{1,15}}-{ID}"
"""What a position looks like as text."""

_FIRST_PAGE, _MOST = 2, 200  # entries of one stream; few at first, since all streams are asked at once
_PAGE_BYTES = 1 << 20
_UNKNOWN = Failure("Unknown", "the entry says nothing of a failure", "", 0, 0, 0)


@dataclass(frozen=True, slots=True)
class LetterId:
    """Where a dead letter lies."""

    queue: str
    partition: int
    state: State
    entry: str

    def __str__(self) -> str:
        return f"{self.queue}:{self.partition:02d}:{self.state}:{self.entry}"

    def stream(self, keys: Keys) -> str:
        name = keys.dlq if self.state == "dlq" else keys.dead
        return name(self.queue, self.partition)


def parse_id(text: str, keys: Keys, queues: Sequence[str]) -> LetterId:
    """Raises InvalidInput for what can't be an id here."""
    letter_id = _parsed(text.strip())
    if letter_id is None:
        raise InvalidInput("id", f"{text!r} is not of the form email:07:dead:1764000000000-0")
    if letter_id.queue not in queues:
        raise InvalidInput("id", f"{text}: {letter_id.queue} is not one of {', '.join(queues)}")
    if letter_id.partition >= keys.partitions:
        raise InvalidInput("id", f"{text}: there are only {keys.partitions} partitions")
    return letter_id


def _parsed(text: str) -> LetterId | None:
    if not re.fullmatch(ID, text):
        return None
    queue, partition, state, entry = text.split(":")
    return LetterId(queue, int(partition), "dlq" if state == "dlq" else "dead", entry)


@dataclass(frozen=True, slots=True)
class Letter:
    """A dead letter. All times are Unix milliseconds; `since_ms` is when it came where it lies.

    What can't be read of a malformed entry is an empty text. `address_key` is empty in `events`.
    `event` is the JSON as the producer's client encoded it.
    """

    id: LetterId
    failure: Failure
    event_id: str
    type: str
    recipient: str
    address_key: str
    since_ms: int
    accepted_ms: int | None
    expires_ms: int | None
    event: bytes


@dataclass(frozen=True, slots=True)
class Selection:
    """Which dead letters. An empty set means any; `older_than` counts from when they came there."""

    queues: Sequence[str]
    states: Sequence[State] = STATES
    errors: frozenset[str] = field(default_factory=frozenset)
    types: frozenset[str] = field(default_factory=frozenset)
    recipient: str | None = None
    older_than: timedelta = timedelta(0)

    def takes(self, letter: Letter) -> bool:
        return (
            (not self.errors or letter.failure.error in self.errors)
            and (not self.types or letter.type in self.types)
            and (self.recipient is None or letter.recipient == self.recipient)
        )


async def get(client: Client, keys: Keys, letter_id: LetterId) -> Letter | None:
    """The dead letter, if it is still there. Raises BrokerError."""
    [found] = await ask(client, ("XRANGE", letter_id.stream(keys), letter_id.entry, letter_id.entry))
    return _letter(letter_id.queue, letter_id.partition, letter_id.state, *found[0]) if found else None


async def count(client: Client, keys: Keys, selection: Selection) -> int:
    """How many lie in the selection's queues and states, whatever their error, type or recipient."""
    return sum(await ask(client, *(("XLEN", page.stream) for page in _pages(keys, selection))))


@dataclass(frozen=True, slots=True)
class Position:
    """How far a walk has come: it is at `letter`, and passes over what came after `until_ms`."""

    until_ms: int
    letter: LetterId

    def __str__(self) -> str:
        return f"{self.until_ms}-{self.letter}"


def parse_position(text: str) -> Position:
    """From the form of `str`. Raises InvalidInput."""
    until, _, rest = text.partition("-")
    letter_id = _parsed(rest)
    if letter_id is None or not re.fullmatch("[0-9]{1,15}", until):
        raise InvalidInput("after", "is not a cursor of an earlier page")
    return Position(int(until), letter_id)


async def find(client: Client, keys: Keys, selection: Selection) -> AsyncIterator[Letter]:
    """The selected ones in the order in which they came there, oldest first. Raises BrokerError.

    Only what was there at the beginning: whatever comes back while letters are redriven is not found
    again. Letters may be taken away meanwhile. A page of each stream is held at a time, of up to 200 letters
    and about 1 MiB.
    """
    async for letter, _ in walk(client, keys, selection):
        if selection.takes(letter):
            yield letter


async def walk(
    client: Client, keys: Keys, selection: Selection, after: Position | None = None
) -> AsyncIterator[tuple[Letter, Position]]:
    """The same with all that lie in the selection's queues and states, whatever their error, type or
    recipient, and where each is. A walk with the same selection goes on `after` a position; one with another
    begins at its time.
    """
    until_ms = await _until_ms(client, selection) if after is None else after.until_ms
    pages = _pages(keys, selection, after)
    first = [("XRANGE", page.stream, page.start, str(until_ms), "COUNT", _FIRST_PAGE) for page in pages]
    for page, entries in zip(pages, await ask(client, *first), strict=True):
        page.fill(entries, _FIRST_PAGE)
    heap = [(page.first(), number) for number, page in enumerate(pages) if page.entries]
    heapq.heapify(heap)
    while heap:
        page = pages[heap[0][1]]
        entry, fields = page.entries.popleft()
        if not page.entries and not page.ended:
            rest = ("XRANGE", page.stream, f"({page.last.decode()}", str(until_ms), "COUNT", page.size)
            page.fill((await ask(client, rest))[0], page.size)
        if page.entries:
            heapq.heapreplace(heap, (page.first(), heap[0][1]))
        else:
            heapq.heappop(heap)
        letter = _letter(page.queue, page.partition, page.state, entry, fields)
        yield letter, Position(until_ms, letter.id)


@dataclass(frozen=True, slots=True)
class Bounds:
    """What one request may take: how many letters are `taken`, how many are looked at, and for how long."""

    taken: int
    looked_at: int = 50_000
    time: timedelta = timedelta(seconds=10)


async def some(
    client: Client,
    keys: Keys,
    selection: Selection,
    bounds: Bounds,
    after: Position | None = None,
    size: int = 100,
) -> AsyncIterator[tuple[list[Letter], Position | None]]:
    """The selected ones in batches of up to `size`, until there are no more or the bounds are reached.

    With each batch comes the position from which another call goes on, or None at the end. The last batch
    may be empty. Raises BrokerError.
    """
    loop = asyncio.get_running_loop()
    ends = loop.time() + bounds.time.total_seconds()
    batch: list[Letter] = []
    taken = looked_at = 0
    async for letter, position in walk(client, keys, selection, after):
        looked_at += 1
        if selection.takes(letter):
            batch.append(letter)
            taken += 1
        is_over = taken == bounds.taken or looked_at == bounds.looked_at or loop.time() > ends
        if is_over or len(batch) == size:
            yield batch, position
            batch = []
        if is_over or loop.time() > ends:
            return
    yield batch, None


async def _until_ms(client: Client, selection: Selection) -> int:
    [[seconds, micros]] = await ask(client, ("TIME",))
    now_ms = int(seconds) * 1000 + int(micros) // 1000
    return max(0, now_ms - int(selection.older_than / timedelta(milliseconds=1)))


@dataclass(slots=True)
class _Page:
    """Where reading one stream stands."""

    queue: str
    partition: int
    state: State
    stream: str
    start: str
    entries: deque[tuple[bytes, Sequence[bytes]]] = field(default_factory=deque)
    last: bytes = b""
    ended: bool = False
    size: int = _FIRST_PAGE

    def fill(self, entries: Sequence[tuple[bytes, Sequence[bytes]]], asked: int) -> None:
        self.entries.extend(entries)
        self.ended = len(entries) < asked
        if entries:
            self.last = entries[-1][0]
            size = sum(len(value) for _, fields in entries for value in fields) // len(entries)
            self.size = min(_MOST, _PAGE_BYTES // (size + 1) + 1)

    def first(self) -> tuple[int, int]:
        milliseconds, _, sequence = self.entries[0][0].partition(b"-")
        return int(milliseconds), int(sequence)


def _pages(keys: Keys, selection: Selection, after: Position | None = None) -> list[_Page]:
    """One for each stream, in the order in which letters of one time are told."""
    partitions: Sequence[int] = range(keys.partitions)
    if selection.recipient is not None:
        partitions = [keys.partition_of(selection.recipient)]
    entry = after.letter.entry if after else ""
    places = [
        LetterId(queue, partition, state, entry)
        for queue in selection.queues
        for state in selection.states
        for partition in partitions
    ]
    # Letters of the position's time have been told of the streams up to its own, and not of the others.
    told = places.index(after.letter) + 1 if after and after.letter in places else 0
    starts = [f"({entry}"] * told + [entry or "-"] * (len(places) - told)
    return [
        _Page(one.queue, one.partition, one.state, one.stream(keys), start)
        for one, start in zip(places, starts, strict=True)
    ]


def _letter(queue: str, partition: int, state: State, entry: bytes, fields: Sequence[bytes]) -> Letter:
    try:
        failure, fields = split(fields)
    except (MalformedEntry, ValueError):
        failure = _UNKNOWN
    own = dict(zip(fields[::2], fields[1::2], strict=False))
    delivery = _delivery_of(queue, fields)
    return Letter(
        id=LetterId(queue, partition, state, entry.decode()),
        failure=failure,
        event_id=delivery.id.decode(errors="replace"),
        type=delivery.type.decode(errors="replace"),
        recipient=delivery.recipient.decode(errors="replace"),
        address_key=delivery.key.decode(errors="replace"),
        since_ms=entry_ms(entry),
        accepted_ms=_ms(delivery.accepted_ms),
        expires_ms=_ms(delivery.expires_ms),
        event=own.get(b"event", b""),
    )


def _delivery_of(queue: str, fields: Sequence[bytes]) -> DeliveryEntry:
    """What can be read of the entry; all empty, if nothing can."""
    if queue != EVENTS:
        with suppress(MalformedEntry):
            return DeliveryEntry.of(fields)
    own = dict(zip(fields[::2], fields[1::2], strict=False))
    body = _json_object(own.get(b"event", b""))
    event_id, kind = (str(body.get(name, "")).encode() for name in ("id", "type"))
    recipient = _recipient_of(own).encode()
    return DeliveryEntry(b"", event_id, kind, recipient, b"", b"", b"", b"", b"")


def _recipient_of(own: Mapping[bytes, bytes]) -> str:
    try:
        return parse_to(own.get(b"to", b"")).id
    except InvalidRecipient:
        return own.get(b"to", b"").decode(errors="replace")


def _json_object(source: bytes) -> dict[str, Any]:
    try:
        found = json.loads(source)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _ms(text: bytes | None) -> int | None:
    return int(text) if text and text.isdigit() else None
