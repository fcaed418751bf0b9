"""What a waiting event takes in the server: the growth of `used_memory` while nobody takes any."""

from __future__ import annotations

import statistics
from datetime import timedelta
from typing import Any

import redis
import uvloop

from benchmarks.bare import PUBLISH_BATCH
from benchmarks.workload import chunks, events
from notifier import AsyncPublisher
from notifier.event import parse_event
from notifier.publisher import DEDUP_WINDOW

EVENTS = 100_000
_SAMPLE = 1_000


async def _publish(url: str, count: int, dedup_window: timedelta) -> None:
    async with AsyncPublisher(url, backlog_limit=0, dedup_window=dedup_window) as publisher:
        for batch in chunks(count, PUBLISH_BATCH):
            await publisher.publish_many(batch)


def _growth(url: str, count: int, dedup_window: timedelta) -> float:
    """Bytes for each event."""
    with redis.Redis.from_url(url) as client:
        client.flushall()
        uvloop.run(_publish(url, PUBLISH_BATCH, dedup_window))  # scripts and buffers are there once
        client.flushall()
        before = client.info("memory")["used_memory"]
        uvloop.run(_publish(url, count, dedup_window))
        grown: int = client.info("memory")["used_memory"] - before
        return grown / count


def _json_bytes(count: int) -> float:
    """Of an event as it is accepted: with the id and the time that it is given, and its recipient."""
    sample = [parse_event(event) for event in events(min(count, _SAMPLE))]
    bodies = (event.encode()[0] for event in sample)
    recipients = (f',"recipient":"{event.everyone()[0].id}"' for event in sample)
    return statistics.mean(len(body) + len(to) for body, to in zip(bodies, recipients, strict=True))


def measure(url: str, scale: float) -> dict[str, Any]:
    """The section `bytes_per_event`; its ratios are of the bytes in the server to those of the JSON."""
    count = max(100, int(EVENTS * scale))
    size = _json_bytes(count)
    with_dedup, without = _growth(url, count, DEDUP_WINDOW), _growth(url, count, timedelta(0))
    return {
        "events": count,
        "json": round(size),
        "with_dedup": round(with_dedup),
        "without_dedup": round(without),
        "ratio": round(with_dedup / size, 2),
        "ratio_without_dedup": round(without / size, 2),
    }
