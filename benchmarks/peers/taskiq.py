"""taskiq with taskiq-redis: a stream and a receiver for each of the four queues, in one loop.

Settings (taskiq's page "Workers", taskiq-redis's README): RedisStreamBroker, the one that acknowledges; no
result backend; `max_async_tasks` 10, `max_prefetch` 10, `validate_params` off; hiredis and uvloop. There is
no batched kick, so a batch goes out side by side.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from taskiq.api import run_receiver_task
from taskiq_redis import RedisStreamBroker

from benchmarks.peers.harness import CHANNELS, CONCURRENCY, Event, Publish, main, side_by_side


async def start(url: str, delivered: Callable[[], None], tasks: asyncio.TaskGroup) -> Publish:
    events, *channels = (RedisStreamBroker(url, queue_name=name) for name in ("events", *CHANNELS))

    async def deliver(_: Event) -> None:
        delivered()

    delivering = [broker.register_task(deliver, task_name="deliver") for broker in channels]

    async def route(event: Event) -> None:
        await asyncio.gather(*(task.kiq(event) for task in delivering))

    routing = events.register_task(route, task_name="route")
    for broker in (events, *channels):
        await broker.startup()
        receiver = run_receiver_task(
            broker, max_async_tasks=CONCURRENCY, max_prefetch=CONCURRENCY, validate_params=False
        )
        tasks.create_task(receiver)

    async def publish(batch: list[Event]) -> None:
        await side_by_side(routing.kiq(event) for event in batch)

    return publish


if __name__ == "__main__":
    main(start)
