"""What Prometheus is told: what this process has counted, and what lies in the broker.

What lies in the broker is read when somebody scrapes, and is the same whoever is asked. So it is told by the
processes that are meant to (`notifier api`, and workers with the role `dead_letters`), and whoever reads it
takes the maximum over processes, not the sum.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.registry import Collector

from notifier import metrics
from notifier.broker.connection import Client
from notifier.broker.nodes import ask_each
from notifier.broker.scripts import ask
from notifier.errors import BrokerError
from notifier.keys import Keys, dlq_of
from notifier.operations.queues import QueueState, look

CONTENT_TYPE: Final = CONTENT_TYPE_PLAIN_0_0_4
PATIENCE: Final = timedelta(seconds=3)
"""For the broker; Prometheus waits for 10 s."""

_WHERE: Final = ("waiting", "in_hand", "parked", "scheduled", "dlq", "dead")


@dataclass(frozen=True, slots=True)
class BrokerState:
    """What lies in the broker; nothing but `is_up` is known while it is away.

    `memory` is what each data server uses and may use, in bytes; 0 is no limit.
    """

    is_up: bool
    partitions: int = 0
    queues: Sequence[QueueState] = ()
    memory: Mapping[str, tuple[int, int]] = field(default_factory=dict)


async def exposition(client: Client, keys: Keys, channels: Sequence[str], *, queues: bool = True) -> bytes:
    """In the text format 0.0.4. Without `queues`, of the broker only whether it is up."""
    try:
        async with asyncio.timeout(PATIENCE.total_seconds()):
            state = await _look(client, keys, channels, queues=queues)
    except (BrokerError, TimeoutError):
        state = BrokerState(is_up=False)
    metrics.INFO.labels(_version()).set(1)
    broker = CollectorRegistry()
    broker.register(BrokerMetrics(state))
    return generate_latest() + generate_latest(broker)


async def _look(client: Client, keys: Keys, channels: Sequence[str], *, queues: bool) -> BrokerState:
    if not queues:
        await ask(client, ("HGET", keys.meta(), "partitions"))
        return BrokerState(is_up=True)
    states, memory = await asyncio.gather(look(client, keys, channels), _memory(client))
    return BrokerState(is_up=True, partitions=keys.partitions, queues=states, memory=memory)


async def _memory(client: Client) -> dict[str, tuple[int, int]]:
    try:
        told = await ask_each(client, ("INFO", "memory"))
    except BrokerError:  # our user may not ask; whether the broker is away is known otherwise
        return {}
    return {node: _used_and_allowed(text) for node, text in told.items()}


def _used_and_allowed(info: bytes) -> tuple[int, int]:
    fields = dict(line.split(":", 1) for line in info.decode().splitlines() if ":" in line)
    return int(fields.get("used_memory", 0)), int(fields.get("maxmemory", 0))


def _version() -> str:
    try:
        return version("notifier-service")
    except PackageNotFoundError:  # a checkout that was not installed
        return "unknown"


class BrokerMetrics(Collector):
    """Metrics of a state of the broker."""

    def __init__(self, state: BrokerState) -> None:
        self._state = state

    def collect(self) -> Iterator[Any]:
        up = GaugeMetricFamily("notifier_broker_up", "1 while this process reaches the broker, else 0.")
        up.add_metric([], int(self._state.is_up))
        yield up
        if self._state.queues:
            yield from self._queues()
        if self._state.memory:
            yield from self._memory()

    def _queues(self) -> Iterator[Any]:
        entries = GaugeMetricFamily(
            "notifier_queue_entries", "What lies in a queue, by where it is.", labels=["queue", "state"]
        )
        oldest = GaugeMetricFamily(
            "notifier_queue_oldest_seconds",
            "How long the oldest entry has waited that waits or is in hand; 0: there is none.",
            labels=["queue"],
        )
        added = CounterMetricFamily(
            "notifier_queue_added", "Entries that were ever added to a queue.", labels=["queue"]
        )
        unowned = GaugeMetricFamily(
            "notifier_partitions_without_owner",
            "Partitions of a queue that no worker owns.",
            labels=["queue"],
        )
        for state in self._state.queues:
            for name in _WHERE:
                if (count := getattr(state, name)) is not None:
                    entries.add_metric([state.queue, name], count)
            oldest.add_metric([state.queue], (state.oldest_ms or 0) / 1000)
            added.add_metric([state.queue], state.added)
            owned = {state.queue: state.owners, dlq_of(state.queue): state.dlq_owners}
            for queue, owners in owned.items():
                unowned.add_metric([queue], self._state.partitions - sum(owners.values()))
        yield from (entries, oldest, added, unowned)

    def _memory(self) -> Iterator[Any]:
        used = GaugeMetricFamily(
            "notifier_broker_memory_bytes", "What a data server uses (used_memory).", labels=["node"]
        )
        limit = GaugeMetricFamily(
            "notifier_broker_memory_limit_bytes",
            "What it may use (maxmemory); there is none without a limit.",
            labels=["node"],
        )
        for node, (bytes_used, bytes_allowed) in self._state.memory.items():
            used.add_metric([node], bytes_used)
            if bytes_allowed:
                limit.add_metric([node], bytes_allowed)
        yield from (used, limit)
