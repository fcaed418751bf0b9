"""What the figures must be, as docs/reliability.md promises it; each benchmark says which of its own are not.

A small part of the usual number of events, or a machine that is busy with something else, may miss any of
them: only `--strict` makes a miss the end of the command, with 1.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping
from typing import Any, Final, Literal, NamedTuple

Bound = Literal["at least", "at most"]


class Limit(NamedTuple):
    """One figure of a section of the results; a dot leads into a section within a section."""

    section: str
    figure: str
    bound: Bound
    value: float

    def holds(self, found: float) -> bool:
        return found >= self.value if self.bound == "at least" else found <= self.value


LIMITS: Final = (
    Limit("fanout", "ratio", "at least", 0.6),
    Limit("latency_ms", "p50_ratio", "at most", 2.0),
    Limit("latency_ms", "p99", "at most", 10.0),
    Limit("peers.bullmq", "ratio", "at least", 6.0),
    Limit("backlog", "ratio", "at least", 0.9),
    Limit("memory", "ratio", "at most", 1.1),
    Limit("bytes_per_event", "ratio", "at most", 2.0),
)


def judged(sections: Mapping[str, Any]) -> Iterator[tuple[Limit, float]]:
    """The limits whose figures are among these, and the figures."""
    for limit in LIMITS:
        found: Any = sections
        for name in (*limit.section.split("."), limit.figure):
            found = found.get(name) if isinstance(found, Mapping) else None
        if found is not None:
            yield limit, found


def add_strict(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--strict", action="store_true", help="end with 1 when a limit does not hold")


def conclude(sections: Mapping[str, Any], *, strict: bool) -> None:
    """Prints each limit and its figure. Raises SystemExit(1) if one does not hold and `strict` is set."""
    all_hold = True
    for limit, found in judged(sections):
        holds = limit.holds(found)
        all_hold &= holds
        name = f"{limit.section} {limit.figure}"
        print(f"{'holds ' if holds else 'MISSED'}  {name}: {found:g}, {limit.bound} {limit.value:g}")
    if strict and not all_hold:
        sys.exit(1)
