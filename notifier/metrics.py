"""What is counted. Few labels: a queue or channel, and a reason from a fixed list."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from typing import Final

from prometheus_client import REGISTRY, Counter, Gauge
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector

ROUTED = Counter("notifier_routed_total", "Events that the router has dealt with.")
SKIPPED = Counter("notifier_skipped_total", "Deliveries that were not made, by reason.", ["reason"])
FAILED = Counter("notifier_failed_total", "Failed attempts, by outcome.", ["channel", "outcome"])
PARKED = Counter("notifier_parked_total", "Times that a lane was parked for a retry.", ["channel"])
DEAD_LETTERS = Counter("notifier_dead_letters_total", "Deliveries that went to a DLQ.", ["queue"])
DEAD = Counter("notifier_dead_total", "Deliveries that failed their second try too.", ["queue"])
PROMOTED = Counter("notifier_promoted_total", "Scheduled entries whose time came.")
ALERTS = Counter("notifier_alerts_total", "Alerts about dead deliveries that were published.", ["channel"])
STREAMS = Gauge("notifier_streams", "Clients that listen to an inbox now.")
BREAKER_OPEN = Gauge("notifier_breaker_open", "1 while the channel's breaker is open.", ["channel"])

_BUCKETS_MS: Final = (10, 50, 100, 500, 1_000, 5_000, 30_000, 60_000, 300_000, 3_600_000)


class ChannelDeliveries:
    """How many deliveries of one channel took how long, in milliseconds."""

    __slots__ = ("counts", "sum_ms")

    def __init__(self) -> None:
        self.counts = [0] * (len(_BUCKETS_MS) + 1)
        self.sum_ms = 0

    def observe(self, milliseconds: int) -> None:
        """A negative time, by clocks that differ, counts as none."""
        self.counts[bisect_left(_BUCKETS_MS, milliseconds)] += 1
        if milliseconds > 0:
            self.sum_ms += milliseconds


class Deliveries(Collector):
    """The histogram notifier_delivery_seconds: from accepted by the broker to taken by the provider; its
    count is the number of deliveries. Counted in plain numbers, because a metric with a lock costs as much
    as the rest of a delivery that does nothing."""

    def __init__(self) -> None:
        self._channels: dict[str, ChannelDeliveries] = {}

    def channel(self, name: str) -> ChannelDeliveries:
        return self._channels.setdefault(name, ChannelDeliveries())

    def collect(self) -> Iterator[HistogramMetricFamily]:
        family = HistogramMetricFamily(
            "notifier_delivery_seconds",
            "From accepted by the broker to taken by the provider.",
            labels=["channel"],
        )
        for name, channel in self._channels.items():
            total, buckets = 0, []
            for limit, count in zip((*_BUCKETS_MS, None), channel.counts, strict=True):
                total += count
                buckets.append(("+Inf" if limit is None else str(limit / 1000), total))
            family.add_metric([name], buckets, channel.sum_ms / 1000)
        yield family


DELIVERIES = Deliveries()
REGISTRY.register(DELIVERIES)
