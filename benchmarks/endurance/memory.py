"""Whether a worker grows: its resident set after many events and after very many.

The worker is a process of its own, and never more than a few thousand events wait for it, so what it holds is
what it keeps.
"""

from __future__ import annotations

import asyncio
import os
import resource
import sys
from pathlib import Path
from typing import Any

import redis
import uvloop

from benchmarks.bare import CHANNELS, PUBLISH_BATCH
from benchmarks.ours import NoOpChannel, serving
from benchmarks.results import quiet
from benchmarks.workload import chunks
from notifier import AsyncPublisher
from notifier.bootstrap import settle_memory
from notifier.local.broker import end_with_parent

EVENTS, EARLY = 1_000_000, 100_000
_WAITING = 5_000
_REPORT_EVERY = 1_000
_DEADLINE = 3_600.0


def _resident() -> int:
    """Bytes of this process in memory; where there is no /proc, the most there have been."""
    statm = Path("/proc/self/statm")
    if statm.exists():
        return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGESIZE")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


async def _serve(url: str, report_every: int) -> None:
    """The worker: prints its resident set each time that so many events have been delivered, until killed."""
    deliveries = 0

    def handled(_: str) -> None:
        nonlocal deliveries
        deliveries += 1
        if deliveries % (report_every * len(CHANNELS)) == 0:
            print(deliveries // len(CHANNELS), _resident(), flush=True)

    async with serving(url, {name: NoOpChannel(name, handled) for name in CHANNELS}):
        await asyncio.Event().wait()


async def _watch(url: str, count: int, report_every: int) -> list[tuple[int, int]]:
    """The worker's reports: events delivered, resident bytes."""
    parent = os.getpid()
    worker = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.endurance.memory", url, str(report_every),
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE,
        preexec_fn=lambda: end_with_parent(parent),
    )  # fmt: skip
    assert worker.stdout
    reports = [(0, 0)]
    try:
        async with asyncio.timeout(_DEADLINE), AsyncPublisher(url, backlog_limit=0) as publisher:
            published = 0
            for batch in chunks(count, min(PUBLISH_BATCH, report_every)):
                await publisher.publish_many(batch)
                published += len(batch)
                while reports[-1][0] < (count if published == count else published - _WAITING):
                    reports.append(_report(await worker.stdout.readline()))
    finally:
        worker.kill()
        await worker.wait()
    return reports[1:]


def _report(line: bytes) -> tuple[int, int]:
    if not line:
        raise RuntimeError("the worker ended before the last event")
    delivered, resident = line.split()
    return int(delivered), int(resident)


def measure(url: str, scale: float) -> dict[str, Any]:
    """The section `memory`; its ratio is that of the end to that of the early moment."""
    report_every = max(10, int(_REPORT_EVERY * min(1, scale * 100)))
    count = max(10, int(EVENTS * scale) // report_every) * report_every
    early = count * EARLY // EVENTS
    with redis.Redis.from_url(url) as client:
        client.flushall()
    reports = uvloop.run(_watch(url, count, report_every))
    early_rss = next(resident for delivered, resident in reports if delivered >= early)
    end_rss = reports[-1][1]
    return {
        "events": count,
        "early_events": early,
        "early_rss_mb": round(early_rss / 1e6, 1),
        "end_rss_mb": round(end_rss / 1e6, 1),
        "ratio": round(end_rss / early_rss, 3),
    }


if __name__ == "__main__":
    quiet()
    settle_memory()
    uvloop.run(_serve(sys.argv[1], int(sys.argv[2])))
