"""What lies in the queues, and who serves them: one round trip, however many partitions there are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from notifier.broker.connection import Client
from notifier.broker.entries import entry_ms
from notifier.broker.scripts import Call, run_all, script
from notifier.errors import BrokerError
from notifier.keys import EVENTS, GROUP, Keys, dlq_of

LANES_COUNTED: Final = 1_000
"""In how many parked lanes of a partition the messages are counted; every further lane counts as one."""


@dataclass(frozen=True, slots=True)
class QueueState:
    """One queue over all partitions.

    `waiting` entries nobody has taken yet; those `in_hand` are with a worker. `parked` messages wait for a
    retry, in `parked_lanes`; there are more of them than that when `parked_exact` is False. `scheduled` is
    what waits for its time, told for the events queue only. `oldest_ms` is the age of the oldest waiting
    entry or entry in hand. `added` is how many were ever added. Owners are workers with a live lease, and how
    many partitions each has.
    """

    queue: str
    waiting: int
    in_hand: int
    parked: int
    parked_lanes: int
    parked_exact: bool
    scheduled: int | None
    dlq: int
    dead: int
    oldest_ms: int | None
    owners: Mapping[str, int]
    dlq_owners: Mapping[str, int]
    added: int = 0

    def served(self, partitions: int) -> bool:
        """Whether every partition has an owner."""
        return sum(self.owners.values()) == partitions


@dataclass(slots=True)
class _Sum:
    entries: int = 0
    in_hand: int = 0
    lanes: int = 0
    messages: int = 0
    exact: bool = True
    dlq: int = 0
    dead: int = 0
    added: int = 0
    oldest_ms: int | None = None
    owners: Counter[str] = field(default_factory=Counter)
    dlq_owners: Counter[str] = field(default_factory=Counter)

    def add(self, now_ms: int, row: Sequence[Any]) -> None:
        entries, in_hand, oldest, lanes, messages, dlq, dead, token, dlq_token, added = row
        self.entries += entries
        self.in_hand += in_hand
        self.lanes += lanes
        self.messages += messages + max(0, lanes - LANES_COUNTED)
        self.exact = self.exact and lanes <= LANES_COUNTED
        self.dlq += dlq
        self.dead += dead
        self.added += added
        if oldest:
            self.oldest_ms = max(self.oldest_ms or 0, now_ms - entry_ms(oldest))
        for owners, held in ((self.owners, token), (self.dlq_owners, dlq_token)):
            if held:
                owners[held.decode().rpartition("#")[0]] += 1


async def look(client: Client, keys: Keys, channels: Sequence[str]) -> list[QueueState]:
    """The events queue and those of the channels, in this order. Raises BrokerError."""
    queues = (EVENTS, *channels)
    scheduled, sums = 0, [_Sum() for _ in queues]
    for reply in await run_all(client, [_call(keys, queues, p) for p in range(keys.partitions)]):
        if isinstance(reply, BrokerError):
            raise reply
        now_ms, waiting_for_their_time, *rows = reply
        scheduled += waiting_for_their_time
        for total, row in zip(sums, rows, strict=True):
            total.add(now_ms, row)
    return [
        QueueState(
            queue=queue,
            waiting=max(0, total.entries - total.in_hand),
            in_hand=total.in_hand,
            parked=total.messages,
            parked_lanes=total.lanes,
            parked_exact=total.exact,
            scheduled=scheduled if queue == EVENTS else None,
            dlq=total.dlq,
            dead=total.dead,
            oldest_ms=total.oldest_ms,
            owners=total.owners,
            dlq_owners=total.dlq_owners,
            added=total.added,
        )
        for queue, total in zip(queues, sums, strict=True)
    ]


def _call(keys: Keys, queues: Sequence[str], partition: int) -> Call:
    names = [keys.scheduled(partition)]
    for queue in queues:
        names += (
            keys.queue(queue, partition),
            keys.parked(queue, partition),
            keys.dlq(queue, partition),
            keys.dead(queue, partition),
            keys.lease(queue, partition),
            keys.lease(dlq_of(queue), partition),
        )
    prefixes = [keys.lane_prefix(queue, partition) for queue in queues]
    return Call(script("queue_counts"), names, (GROUP, LANES_COUNTED, *prefixes))
