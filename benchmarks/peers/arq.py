"""arq: a worker for each of the four queues, in one loop, as an arq worker has one queue.

Settings (arq's reference of `arq.worker.Worker`): `max_jobs` 10; `keep_result` 0, so no result is written;
`poll_delay` 10 ms instead of half a second; hiredis and uvloop. There is no batched enqueue, so a batch goes
out side by side.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from arq import create_pool, func
from arq.connections import RedisSettings
from arq.worker import Worker

from benchmarks.peers.harness import CHANNELS, CONCURRENCY, Event, Publish, main, side_by_side


async def start(url: str, delivered: Callable[[], None], tasks: asyncio.TaskGroup) -> Publish:
    settings = RedisSettings.from_dsn(url)
    pool = await create_pool(settings)

    async def route(_: dict[str, Any], event: Event) -> None:
        await asyncio.gather(*(pool.enqueue_job("deliver", event, _queue_name=name) for name in CHANNELS))

    async def deliver(_: dict[str, Any], _event: Event) -> None:
        delivered()

    for queue, job in (("events", route), *((name, deliver) for name in CHANNELS)):
        worker = Worker(
            [func(job, name=job.__name__)],
            queue_name=queue, redis_settings=settings, handle_signals=False,
            max_jobs=CONCURRENCY, poll_delay=0.01, keep_result=0,
        )  # fmt: skip
        tasks.create_task(worker.async_run())

    async def publish(batch: list[Event]) -> None:
        await side_by_side(pool.enqueue_job("route", event, _queue_name="events") for event in batch)

    return publish


if __name__ == "__main__":
    main(start)
