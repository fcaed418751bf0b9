"""Whether waiting events slow the worker down.

A backlog is published whole before a worker starts, so only the worker's own speed counts: three deliveries
of each event, from the first of all to the last.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from typing import Any

import redis
import uvloop

from benchmarks.bare import CHANNELS, PUBLISH_BATCH
from benchmarks.ours import NoOpChannel, serving
from benchmarks.workload import chunks
from notifier import AsyncPublisher

SMALL, LARGE = 5_000, 500_000
_SMALL_RUNS = 4  # before the large one and again after it, so that both see the same hours of the machine


class _Clock:
    """Runs from the first delivery to the last of so many."""

    def __init__(self, deliveries: int) -> None:
        self._left = self._deliveries = deliveries
        self._began = self.seconds = 0.0
        self.done = asyncio.Event()

    def __call__(self, _: str) -> None:
        if self._left == self._deliveries:
            self._began = time.perf_counter()
        self._left -= 1
        if not self._left:
            self.seconds = time.perf_counter() - self._began
            self.done.set()


async def _work_off(url: str, count: int) -> float:
    """Events a second, with `count` of them waiting at the start."""
    async with AsyncPublisher(url, backlog_limit=0) as publisher:
        for batch in chunks(count, PUBLISH_BATCH):
            await publisher.publish_many(batch)
    clock = _Clock(count * len(CHANNELS))
    async with serving(url, {name: NoOpChannel(name, clock) for name in CHANNELS}):
        await clock.done.wait()
    return count / clock.seconds


def measure(url: str, scale: float) -> dict[str, Any]:
    """The section `backlog`; its ratio is large to small, so 1 means that waiting work costs nothing."""

    def rate(count: int) -> float:
        with redis.Redis.from_url(url) as client:
            client.flushall()
        return uvloop.run(_work_off(url, count))

    small, large = max(50, int(SMALL * scale)), max(50, int(LARGE * scale))
    before = [rate(small) for _ in range(_SMALL_RUNS)]
    with_large = rate(large)
    with_small = statistics.median([*before, *(rate(small) for _ in range(_SMALL_RUNS))])
    return {
        "small": small,
        "small_events_per_s": round(with_small),
        "large": large,
        "large_events_per_s": round(with_large),
        "ratio": round(with_large / with_small, 3),
    }
