"""What was delivered, by whom and when, and what that says of the promises.

`Ledger` is a file that any number of processes append to; `judge` compares it with what was accepted;
`leftovers` says what a service that has come to rest still keeps in its server, and should not.
"""

from __future__ import annotations

import os
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import redis.asyncio

from notifier.inbox import decode_entry
from notifier.keys import Keys


@dataclass(frozen=True, slots=True)
class Line:
    """`at` is in seconds on the machine's monotonic clock, which all processes share."""

    what: str
    address: str
    event_id: str
    pid: int
    at: float


class Ledger:
    """Each line is one write with O_APPEND, so that processes never mix theirs, and a kill -9 loses none."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def note(self, what: str, address: str, event_id: str) -> None:
        line = f"{what} {address} {event_id} {os.getpid()} {time.monotonic()}\n"
        os.write(self._file, line.encode())

    def close(self) -> None:
        os.close(self._file)

    @property
    def size(self) -> int:
        """In bytes; what is noted from now on lies behind it."""
        return self.path.stat().st_size

    def lines(self, what: str = "sent", start: int = 0) -> list[Line]:
        """Those of `what` that lie behind `start` bytes."""
        with self.path.open() as file:
            file.seek(start)
            whole = file.read().rpartition("\n")[0]  # of a line that is being written, a part may be there
        rows = (line.split(" ") for line in whole.splitlines())
        found = (Line(row[0], row[1], row[2], int(row[3]), float(row[4])) for row in rows)
        return [line for line in found if line.what == what]


@dataclass(frozen=True, slots=True)
class Verdict:
    """How what came out compares with what went in. `first_at` says when each event first came out."""

    missing: Sequence[tuple[str, str]]
    unexpected: Sequence[tuple[str, str]]
    out_of_order: Sequence[str]
    duplicates: int

    @property
    def breaches(self) -> list[str]:
        """Whatever no fault excuses; empty, when the ledger is clean. The caller judges the duplicates, and
        knows how many crashes there were."""
        told = {"missing": self.missing, "unexpected": self.unexpected, "out of order": self.out_of_order}
        return [f"{what}: {len(found)}, such as {found[0]}" for what, found in told.items() if found]


def judge(published: Mapping[str, Sequence[str]], lines: Iterable[Line]) -> Verdict:
    """`published` are the event ids of each address, in the order in which they were accepted.

    A repetition is no breach of order: what counts is when an event came out for the first time.
    """
    first: dict[str, list[str]] = defaultdict(list)
    times: Counter[tuple[str, str]] = Counter()
    for line in lines:
        if not times[line.address, line.event_id]:
            first[line.address].append(line.event_id)
        times[line.address, line.event_id] += 1
    expected = {(address, event_id) for address, ids in published.items() for event_id in ids}
    return Verdict(
        missing=sorted(expected - times.keys()),
        unexpected=sorted(times.keys() - expected),
        out_of_order=[
            address
            for address, ids in published.items()
            if first[address] != [event_id for event_id in ids if times[address, event_id]]
        ],
        duplicates=sum(times.values()) - len(times),
    )


async def inbox_events(client: redis.asyncio.Redis, keys: Keys, recipient: str) -> list[str]:
    """The event ids of an inbox's entries, each as often as it is there; read from where they are stored."""
    stored = await client.hvals(f"{keys.inbox(recipient)}:entries")
    return sorted(str(decode_entry(entry).data["event"]) for entry in stored)


async def leftovers(
    client: redis.asyncio.Redis, keys: Keys, queues: Sequence[str], *, dead: int = 0
) -> list[str]:
    """What is not at the baseline once everything is delivered and every worker has stopped cleanly.

    At the baseline streams are empty, with a group that has neither consumers nor pending entries; no lease
    is held; nothing is parked, retried or scheduled; no worker is registered; and what may stay is
    what somebody wants to keep: profiles, inboxes, the dedup window, and `dead` dead letters.
    """
    found: list[str] = []
    died = 0
    for number in range(keys.partitions):
        for queue in queues:
            for name in (queue, f"{queue}:dlq"):
                found += await _queue_leftovers(client, keys, name, number)
            died += await client.xlen(keys.dead(queue, number))
        if await client.exists(keys.scheduled(number)):
            found.append(f"{keys.scheduled(number)} exists")
        # Its field `last` counts, and stays.
        found += [f"item {n!r}" for n in await client.hkeys(keys.scheduled_items(number)) if n != b"last"]
        counts = await client.hgetall(keys.unalerted(number))
        found += [f"{keys.unalerted(number)} {queue!r}: {n!r}" for queue, n in counts.items() if int(n)]
    if died != dead:
        found.append(f"{died} dead letters, not {dead}")
    for queue in queues:
        for name in (queue, f"{queue}:dlq"):
            found += [f"{w!r} is registered" for w in await client.zrange(keys.workers(name), 0, -1)]
    return found


async def _queue_leftovers(client: redis.asyncio.Redis, keys: Keys, queue: str, number: int) -> list[str]:
    stream = keys.queue(queue, number)
    found = [f"{stream} holds {length}"] if (length := await client.xlen(stream)) else []
    groups = await client.xinfo_groups(stream) if await client.exists(stream) else ()
    counts = [(group["pending"], group["consumers"]) for group in groups]
    found += [f"{stream} has {p} pending and {c} consumers" for p, c in counts if p or c]
    if await client.hget(keys.lease(queue, number), "token"):
        found.append(f"{keys.lease(queue, number)} is held")
    lanes = [name async for name in client.scan_iter(f"{keys.lane_prefix(queue, number)}*", count=1_000)]
    names = (keys.parked(queue, number), keys.retries(queue, number), *lanes)
    return found + [f"{name!r} exists" for name in names if await client.exists(name)]
