"""Whether waiting events slow the worker down.

A large backlog lies in one server, and a worker takes a part of it, again and again, until half is done; in
between another worker works off a small backlog in a server beside it. So both see the same hours of the
machine, and each pair has a ratio. Only the worker's own speed counts: from the moment that its router looks
at the first event to the last delivery of the part. Beside the rate stands the processor's time, of the
worker and the server together, for each event: other work on the machine changes it less.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import redis
import uvloop

from benchmarks.bare import CHANNELS, PUBLISH_BATCH
from benchmarks.ours import NoOpChannel, serving
from benchmarks.workload import chunks
from notifier import AsyncPublisher
from notifier.channel import Address
from notifier.event import Recipient

SMALL, LARGE = 5_000, 500_000
_PAIRS = 6
_LEAST = 20_000  # a worker that is stopped has routed up to a thousand more than its part


class _Clock:
    """Runs from the moment that the first event is looked at until so many deliveries have been made."""

    def __init__(self, deliveries: int, spent: Callable[[], float]) -> None:
        self._left = deliveries
        self._spent = spent
        self._began = self._spent_before = self.seconds = self.cpu_seconds = 0.0
        self.done = asyncio.Event()

    def start(self) -> None:
        if not self._began:
            self._spent_before, self._began = self._spent(), time.perf_counter()

    def delivered(self, _: str) -> None:
        self._left -= 1
        if not self._left:
            self.seconds = time.perf_counter() - self._began
            self.cpu_seconds = self._spent() - self._spent_before
            self.done.set()


class _Channel(NoOpChannel):
    """Its addresses are asked for by the router, so it learns of the first event there."""

    def __init__(self, name: str, clock: _Clock) -> None:
        super().__init__(name, clock.delivered)
        self._clock = clock

    def addresses(self, recipient: Recipient) -> Sequence[Address]:
        self._clock.start()
        return super().addresses(recipient)


async def _publish(url: str, count: int) -> None:
    async with AsyncPublisher(url, backlog_limit=0) as publisher:
        for batch in chunks(count, PUBLISH_BATCH):
            await publisher.publish_many(batch)


async def _work_off(url: str, count: int) -> _Clock:
    """So many of those that wait."""
    with redis.Redis.from_url(url) as server:

        def spent() -> float:
            used = server.info("cpu")
            return time.process_time() + float(used["used_cpu_user"]) + float(used["used_cpu_sys"])

        clock = _Clock(count * len(CHANNELS), spent)
        async with serving(url, {name: _Channel(name, clock) for name in CHANNELS}):
            await clock.done.wait()
    return clock


def _figures(url: str, count: int) -> tuple[float, float]:
    """Events a second, and microseconds of the processor for each."""
    clock = uvloop.run(_work_off(url, count))
    return count / clock.seconds, clock.cpu_seconds / count * 1e6


def measure(url: str, beside: str, scale: float) -> dict[str, Any]:
    """The section `backlog`, on two servers. Its ratios are the medians of the pairs', large to small, so 1
    means that waiting work costs nothing; the rates are those of the pair in the middle."""
    small, large = max(50, int(SMALL * scale)), max(_LEAST, int(LARGE * scale))
    for each in (url, beside):
        with redis.Redis.from_url(each) as client:
            client.flushall()
    uvloop.run(_publish(url, large))
    pairs = []
    for _ in range(_PAIRS):
        uvloop.run(_publish(beside, small))
        pairs.append((_figures(beside, small), _figures(url, large // 2 // _PAIRS)))
    pairs.sort(key=lambda pair: pair[1][0] / pair[0][0])
    (small_rate, small_cpu), (large_rate, large_cpu) = pairs[len(pairs) // 2]
    return {
        "small": small,
        "small_events_per_s": round(small_rate),
        "small_cpu_us": round(small_cpu, 1),
        "large": large,
        "large_events_per_s": round(large_rate),
        "large_cpu_us": round(large_cpu, 1),
        "ratio": round(large_rate / small_rate, 3),
        "cpu_ratio": round(statistics.median(many[1] / few[1] for few, many in pairs), 3),
    }
