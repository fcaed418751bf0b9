"""The closing table of `notifier demo`: what became of each notification on each channel."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from notifier.local.evidence import Evidence, Record
from notifier.local.story import Expected, Key, Tried


@dataclass(frozen=True, slots=True)
class Row:
    """`deliveries` is one, or one for each device; `attempts` are those of all of them.

    `ms` is from publishing to the last arrival, or to giving up; for an alert, from the death it tells of.
    """

    event: str
    recipient: str
    channel: str
    deliveries: int
    outcome: str
    attempts: int
    ms: int | None
    ok: bool


def rows(expected: Sequence[Expected], evidence: Evidence, began_at: Mapping[str, datetime]) -> Iterator[Row]:
    """A row for each that was expected, in that order, and then for whatever else happened."""
    records = evidence.records
    for want in expected:
        record = records.pop(want.key, Record())
        as_expected = tuple(record.trail) == want.trail and len(record.arrivals) == want.arrivals
        yield _row(want.key, record, began_at, as_expected)
    for key, record in records.items():
        yield _row(key, record, began_at, False)


def _row(key: Key, record: Record, began_at: Mapping[str, datetime], ok: bool) -> Row:
    began, last = began_at.get(key.event), record.last_at
    ms = max(0, round((last - began).total_seconds() * 1000)) if began and last else None
    deliveries = max(1, len(record.arrivals))
    return Row(
        key.event, key.recipient, key.channel, deliveries, outcome(record.trail), len(record.trail), ms, ok
    )


def outcome(trail: Sequence[Tried]) -> str:
    """The way in a few words."""
    if not trail:
        return "not tried"
    if trail[-1] != "delivered":
        return trail[-1]
    if "dead" in trail:
        return "delivered (redriven)"
    if "dead-lettered" in trail:
        return "delivered (2nd try)"
    return "delivered (retried)" if "parked" in trail else "delivered"
