"""What is counted. Few labels: a queue or channel, and a reason from a fixed list.

Each process counts what it did itself, so these are to be summed over processes. What lies in the queues is
the same whoever looks; that is in `notifier.operations.exposition`. All of them stand, with their labels, in
`docs/reference/metrics.md`.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from typing import Final

from prometheus_client import REGISTRY, Counter, Gauge
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector

from notifier.broker.handler import LeaseChange
from notifier.channel import (
    ChannelUnavailable,
    InvalidAddress,
    PermanentFailure,
    TransientFailure,
)

OUTCOMES: Final = (
    "TemplateError",
    *(kind.__name__ for kind in (PermanentFailure, InvalidAddress, TransientFailure, ChannelUnavailable)),
)
SKIPS: Final = ("muted", "no_address", "suppressed", "expired")

INFO: Final = Gauge("notifier_info", "1: a process of this service, with its version.", ["version"])
ROUTED = Counter("notifier_routed_total", "Events that the router has dealt with.")
SKIPPED = Counter("notifier_skipped_total", "Deliveries that were not made, by reason.", ["reason"])
FAILED = Counter("notifier_failed_total", "Failed attempts, by outcome.", ["channel", "outcome"])
RETRIES = Counter("notifier_retries_total", "Attempts after the first one of a delivery.", ["channel"])
PARKED = Counter("notifier_parked_total", "Times that a lane was parked for a retry.", ["channel"])
DEAD_LETTERS = Counter("notifier_dead_letters_total", "Deliveries that went to a DLQ.", ["queue"])
DEAD = Counter("notifier_dead_total", "Deliveries that failed their second try too.", ["queue"])
PROMOTED = Counter("notifier_promoted_total", "Scheduled entries whose time came.")
ALERTS = Counter("notifier_alerts_total", "Alerts about dead deliveries that were published.", ["channel"])
STREAMS = Gauge("notifier_streams", "Clients that listen to an inbox now.")
BREAKER_OPEN = Gauge(
    "notifier_breaker_open", "1 while the breaker of this queue's channel is open.", ["queue"]
)
TEMPLATE_PROBLEMS = Gauge(
    "notifier_template_problems", "Templates that could not be loaded when last looked at."
)
LEASES = Gauge("notifier_leases", "Partitions of a queue that this process owns now.", ["queue"])
LEASE_CHANGES = Counter(
    "notifier_lease_changes_total", "Leases that were acquired, released or lost.", ["queue", "change"]
)


class Durations:
    """How many took how long, in seconds. Plain numbers: a metric with a lock costs as much as all else that
    is done for a delivery that does nothing."""

    __slots__ = ("buckets", "counts", "first", "sum")

    def __init__(self, buckets: Sequence[float]) -> None:
        self.buckets = buckets
        self.first = buckets[0]
        self.counts = [0] * (len(buckets) + 1)
        self.sum = 0.0

    def observe(self, seconds: float) -> None:
        """A negative time, by clocks that differ, counts as none."""
        if seconds > 0:
            self.sum += seconds
        # Most are in the first bucket when there is much to do.
        self.counts[bisect_left(self.buckets, seconds) if seconds > self.first else 0] += 1


class Histogram(Collector):
    """A histogram with one label, of which each value is observed by one thread."""

    def __init__(self, name: str, text: str, label: str, buckets: Sequence[float]) -> None:
        self.name = name
        self.label = label
        self._text = text
        self._buckets = tuple(buckets)
        self._durations: dict[str, Durations] = {}
        REGISTRY.register(self)

    def of(self, value: str) -> Durations:
        """Those of a value of the label; to be kept by whoever observes."""
        return self._durations.setdefault(value, Durations(self._buckets))

    def describe(self) -> Iterator[HistogramMetricFamily]:
        yield HistogramMetricFamily(self.name, self._text, labels=[self.label])

    def collect(self) -> Iterator[HistogramMetricFamily]:
        [family] = self.describe()
        for value, durations in list(self._durations.items()):
            total, buckets = 0, []
            for limit, count in zip((*self._buckets, None), list(durations.counts), strict=True):
                total += count
                buckets.append(("+Inf" if limit is None else str(float(limit)), total))
            family.add_metric([value], buckets, durations.sum)
        yield family


DELIVERED: Final = Histogram(
    "notifier_delivery_seconds",
    "From accepted by the broker to taken by the provider; the count is that of deliveries.",
    "channel",
    (0.01, 0.05, 0.1, 0.5, 1, 5, 30, 60, 300, 900, 3_600),
)
SENT: Final = Histogram(
    "notifier_send_seconds",
    "One attempt: rendering, and what the provider took, whatever came of it.",
    "channel",
    (0.001, 0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
)
RENDERED: Final = Histogram(
    "notifier_render_seconds",
    "Rendering the templates of one delivery.",
    "channel",
    (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1),
)
BROKER: Final = Histogram(
    "notifier_broker_seconds",
    "A round trip to the broker: a commit, or the renewal of the leases.",
    "call",
    (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5),
)


class QueueWatch:
    """Counts what a `Consumer` tells."""

    def __init__(self, queue: str) -> None:
        self._held = LEASES.labels(queue)
        self._held.set(0)
        self._changes = {change: LEASE_CHANGES.labels(queue, change) for change in _CHANGES}
        self.committed = BROKER.of("commit").observe
        self.renewed = BROKER.of("renew").observe

    def leases(self, change: LeaseChange, count: int, held: int) -> None:
        self._changes[change].inc(count)
        self._held.set(held)


_CHANGES: Final[tuple[LeaseChange, ...]] = ("acquired", "released", "lost")


class ChannelCounts:
    """What one queue of a channel counts. All of it is there from the start, as 0: for Prometheus an increase
    from nothing is none."""

    def __init__(self, queue: str, channel: str) -> None:
        self.delivered = DELIVERED.of(channel)
        self.sent = SENT.of(channel)
        self.rendered = RENDERED.of(channel)
        self.failed = {outcome: FAILED.labels(channel, outcome) for outcome in OUTCOMES}
        self.retries = RETRIES.labels(channel)
        self.parked = PARKED.labels(channel)
        self.breaker_open = BREAKER_OPEN.labels(queue)


for _reason in SKIPS:
    SKIPPED.labels(_reason)
