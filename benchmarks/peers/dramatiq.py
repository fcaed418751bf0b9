"""dramatiq: one worker with its threads on all four queues.

Settings (dramatiq's user guide and `dramatiq --help`): 8 threads, the default of a process, as more of them
only fight for the interpreter's lock; the default middleware; hiredis. There is no batched enqueue, so events
are sent one after the other from a thread beside the workers'.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import dramatiq
from dramatiq.brokers.redis import RedisBroker

from benchmarks.peers.harness import CHANNELS, Event, Publish, main


async def start(url: str, delivered: Callable[[], None], _: asyncio.TaskGroup) -> Publish:
    broker = RedisBroker(url=url)

    def deliver(_: Event) -> None:
        delivered()

    delivering = [
        dramatiq.actor(deliver, actor_name=f"deliver_{name}", queue_name=name, broker=broker)
        for name in CHANNELS
    ]

    def route(event: Event) -> None:
        for actor in delivering:
            actor.send(event)

    routing = dramatiq.actor(route, queue_name="events", broker=broker)
    dramatiq.Worker(broker, worker_threads=8).start()

    def send(batch: list[Event]) -> None:
        for event in batch:
            routing.send(event)

    async def publish(batch: list[Event]) -> None:
        await asyncio.to_thread(send, batch)

    return publish


if __name__ == "__main__":
    main(start)
