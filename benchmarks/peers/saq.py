"""saq: a queue and a worker for each of the four, in one loop.

Settings (saq's reference of `saq.Worker`, `saq.Job` and `RedisQueue`): `concurrency` 10; `ttl` -1, so a
finished job is deleted and no result kept; `max_concurrent_ops` 10; hiredis and uvloop. There is no batched
enqueue, so a batch goes out side by side.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from saq import Queue, Worker

from benchmarks.peers.harness import CHANNELS, CONCURRENCY, Event, Publish, main, side_by_side

_FORGET = -1


async def start(url: str, delivered: Callable[[], None], tasks: asyncio.TaskGroup) -> Publish:
    events, *channels = (
        Queue.from_url(url, name=name, max_concurrent_ops=CONCURRENCY) for name in ("events", *CHANNELS)
    )

    async def route(_: Any, *, event: Event) -> None:
        await asyncio.gather(*(queue.enqueue("deliver", event=event, ttl=_FORGET) for queue in channels))

    async def deliver(_: Any, **_event: Event) -> None:
        delivered()

    for queue, job in ((events, route), *((queue, deliver) for queue in channels)):
        tasks.create_task(Worker(queue, [(job.__name__, job)], concurrency=CONCURRENCY).start())
        # A sweep aborts a job that was taken a moment ago as stuck; the next one is a minute away.
        while not await queue.redis.exists(queue.namespace("sweep")):  # noqa: ASYNC110 - it is in the server
            await asyncio.sleep(0.01)

    async def publish(batch: list[Event]) -> None:
        await side_by_side(events.enqueue("route", event=event, ttl=_FORGET) for event in batch)

    return publish


if __name__ == "__main__":
    main(start)
