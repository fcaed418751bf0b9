"""Moving the entries of a queue, its dead letter queue or its dead from many partitions to many others.

The entries of a recipient all come from one partition and go to one. Those that go to one place are merged by
their ids, the times at which they were added, so a new stream is in order as the old ones were. A step adds
some entries to each new stream, which remembers the last one from each source, and then deletes them from the
old ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from notifier.broker.entries import unpack
from notifier.broker.line import Argument
from notifier.broker.scripts import Call, script
from notifier.errors import InvalidRecipient
from notifier.event import parse_to
from notifier.keys import Keys
from notifier.operations.partitions.names import Name, text
from notifier.operations.partitions.server import Server

_ENTRIES = 1_000  # in one step, over all sources
_ENTRIES_OF_CALL = 100
_BYTES_OF_CALL = 2 << 20


class _Entry(NamedTuple):
    ms: int
    rest: int
    partition: int
    fields: list[bytes]

    @property
    def id(self) -> str:
        return f"{self.ms}-{self.rest}"


async def move_streams(server: Server, new: Keys, sources: Sequence[Name]) -> int:
    """Moves all entries of streams with one suffix. Returns how many there were."""
    open_ = {source.partition: source for source in sources}
    moved = 0
    while open_:
        count = max(5, _ENTRIES // len(open_))
        pages = await server.ask(*(("XRANGE", s.key, "-", "+", "COUNT", count) for s in open_.values()))
        entries: list[_Entry] = []
        bound: tuple[int, int] | None = None
        for partition, page in zip(list(open_), pages, strict=True):
            read = [_entry(partition, row) for row in page]
            entries += read
            if len(read) < count:
                if not read:
                    del open_[partition]
            elif bound is None or read[-1][:2] < bound:
                bound = read[-1][:2]  # what this source holds beyond it has not been seen yet
        entries = sorted(entry for entry in entries if bound is None or entry[:2] <= bound)
        await _take(server, new, sources[0].suffix, entries)
        await _drop(server, open_, entries)
        moved += len(entries)
    await server.ask(*(("UNLINK", source.key) for source in sources))
    return moved


def _entry(partition: int, row: Any) -> _Entry:
    ms, _, rest = row[0].partition(b"-")
    return _Entry(int(ms), int(rest), partition, row[1])


async def _take(server: Server, new: Keys, suffix: str, entries: Sequence[_Entry]) -> None:
    calls: list[Call] = []
    filling: dict[int, tuple[list[Argument], int, int]] = {}
    for entry in entries:
        target = place(new, recipient_of(entry.fields), entry.partition)
        args, count, size = filling.get(target, ([], _ENTRIES_OF_CALL, 0))
        if count >= _ENTRIES_OF_CALL or size >= _BYTES_OF_CALL:
            args, count, size = [], 0, 0
            names = (f"{new.tag(target)}:{suffix}", new.taken(target))
            calls.append(Call(script("partition_take"), names, args))
        source = f"{suffix}:{entry.partition}"
        args += (source, entry.ms, entry.rest, len(entry.fields), *entry.fields)
        filling[target] = (args, count + 1, size + sum(map(len, entry.fields)))
    await server.run(calls)


async def _drop(server: Server, sources: dict[int, Name], entries: Sequence[_Entry]) -> None:
    commands: dict[int, list[Argument]] = {}
    for entry in entries:
        commands.setdefault(entry.partition, ["XDEL", sources[entry.partition].key]).append(entry.id)
    await server.ask(*commands.values())


def recipient_of(fields: Sequence[bytes]) -> str | None:
    """Whose entry it is: an event, a delivery, or one of them as a dead letter. None when it does not say."""
    by_name = dict(zip(fields[::2], fields[1::2], strict=False))
    if b"head" in by_name:
        lines = by_name[b"head"].split(b"\n")
        return text(lines[3]) if len(lines) > 3 else None
    try:
        return parse_to(by_name[b"to"]).id if b"to" in by_name else None
    except InvalidRecipient:
        return None


def recipient_of_item(item: bytes) -> str | None:
    """The same for a scheduled item: the queue, then the entry."""
    return recipient_of(unpack(item)[1:])


def place(new: Keys, recipient: str | None, partition: int) -> int:
    """The new partition. What belongs to nobody has to lie somewhere: it is found out from anywhere."""
    if recipient is None:
        return partition % new.partitions
    try:
        return new.partition_of(recipient)
    except UnicodeEncodeError:
        return partition % new.partitions
