"""What was delivered, by whom and when: a file that any number of processes append to."""

from __future__ import annotations

import os
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


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

    def lines(self, what: str = "sent") -> list[Line]:
        rows = (line.split(" ") for line in self.path.read_text().splitlines())
        found = (Line(row[0], row[1], row[2], int(row[3]), float(row[4])) for row in rows)
        return [line for line in found if line.what == what]


@dataclass(frozen=True, slots=True)
class Verdict:
    """How what came out compares with what went in. `first_at` says when each event first came out."""

    missing: Sequence[tuple[str, str]]
    unexpected: Sequence[tuple[str, str]]
    out_of_order: Sequence[str]
    duplicates: int


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
