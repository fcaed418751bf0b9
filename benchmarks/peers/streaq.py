"""streaq: one worker, as it wants to be alone in its process, with the four queues as its priorities.

Settings (streaq's reference of `Worker` and `task`): the default `concurrency` of 16, as 50 and 200 were
slower here; `ttl` 0, so no result is kept; `silent`, so nothing is logged for each task; `enqueue_many` for
batches and for the three of a fan-out; uvloop.

Release 7.2.0 often ends with anyio.WouldBlock on servers without XREADGROUP MAX_COUNT: it reads its streams
with the COUNT that it has room for, which holds for each of the four.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from streaq import Worker

from benchmarks.peers.harness import CHANNELS, Event, Publish, main


async def start(url: str, delivered: Callable[[], None], tasks: asyncio.TaskGroup) -> Publish:
    worker = Worker(redis_url=url, priorities=["events", *CHANNELS], handle_signals=False)

    async def deliver(_: Event) -> None:
        delivered()

    delivering = worker.task(deliver, name="deliver", ttl=0, silent=True)

    async def route(event: Event) -> None:
        await worker.enqueue_many([delivering.enqueue(event).start(priority=name) for name in CHANNELS])

    routing = worker.task(route, name="route", ttl=0, silent=True)
    ready = _Ready()
    tasks.create_task(worker.run_async(task_status=ready))
    await ready.wait()

    async def publish(batch: list[Event]) -> None:
        await worker.enqueue_many([routing.enqueue(event).start(priority="events") for event in batch])

    return publish


class _Ready(asyncio.Event):
    """What a task group of anyio hands to a task, to learn that it runs."""

    def started(self, value: object = None) -> None:
        self.set()


if __name__ == "__main__":
    main(start)
