"""The service itself, with lanes, fencing and deduplication on, and channels that do nothing."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from benchmarks.bare import CHANNELS, PUBLISH_BATCH
from benchmarks.workload import chunks
from notifier import AsyncPublisher
from notifier.bootstrap import open_runtime, open_templates, open_worker
from notifier.channel import Address, Block, Channel, Delivery, Sent
from notifier.event import Recipient
from notifier.settings import Settings

_SENT = Sent()
_ADDRESS = (Address("inbox", ""),)


class NoOpChannel:
    """Takes every delivery and does nothing but tell `handled`."""

    blocks: Sequence[Block] = ()

    def __init__(self, name: str, handled: Callable[[str], None]) -> None:
        self.name = name
        self._handled = handled

    def addresses(self, recipient: Recipient) -> Sequence[Address]:
        return _ADDRESS

    async def open(self) -> None:
        """Nothing to open."""

    async def send(self, delivery: Delivery, content: Mapping[str, str]) -> Sent:
        self._handled(self.name)
        return _SENT

    async def close(self) -> None:
        """Nothing to close."""


@asynccontextmanager
async def serving(
    url: str, channels: Mapping[str, Channel], templates: Path | None = None
) -> AsyncIterator[None]:
    """A worker with every role that moves events on, in this process."""
    with tempfile.TemporaryDirectory() as empty:
        (Path(empty) / "like").mkdir()
        for name in channels:
            (Path(empty) / "like" / f"{name}.jinja").touch()
        settings = Settings(redis_url=url, templates=templates or Path(empty))
        async with open_runtime(settings) as runtime:
            folder = open_templates(settings, channels)
            stop = asyncio.Event()
            async with (
                open_worker(runtime, channels, folder, ("router", *channels)) as worker,
                asyncio.TaskGroup() as tasks,  # a worker that dies ends the benchmark with its error
            ):
                tasks.create_task(worker.run(stop))
                try:
                    yield
                finally:
                    stop.set()


@asynccontextmanager
async def running(
    url: str, channels: Mapping[str, Channel], templates: Path | None = None
) -> AsyncIterator[AsyncPublisher]:
    """A worker as of `serving`, and a publisher for it."""
    async with AsyncPublisher(url, backlog_limit=0) as publisher, serving(url, channels, templates):
        yield publisher


class Counter:
    """Counts deliveries; `reached` waits for so many."""

    def __init__(self) -> None:
        self.handled = 0
        self._target = 0
        self._done = asyncio.Event()

    def __call__(self, _: str) -> None:
        self.handled += 1
        if self.handled == self._target:
            self._done.set()

    def expect(self, target: int) -> None:
        self.handled, self._target = 0, target
        self._done.clear()

    async def reached(self) -> None:
        await self._done.wait()


async def fan_out(url: str, count: int, warm_up: int = 1) -> float:
    """Events a second from publish to three acknowledged deliveries each. `warm_up` events go before: until
    the first has come through, the worker may be taking its leases."""
    counter = Counter()
    channels = {name: NoOpChannel(name, counter) for name in CHANNELS}
    async with running(url, channels) as publisher:
        for events in (warm_up, count):
            counter.expect(events * len(CHANNELS))
            start = time.perf_counter()
            for batch in chunks(events, PUBLISH_BATCH):
                await publisher.publish_many(batch)
            await counter.reached()
        return count / (time.perf_counter() - start)


async def publish(url: str, count: int) -> float:
    """Events a second into the events queues, checked, deduplicated and partitioned."""
    async with AsyncPublisher(url, backlog_limit=0) as publisher:
        start = time.perf_counter()
        for batch in chunks(count, PUBLISH_BATCH):
            await publisher.publish_many(batch)
        return count / (time.perf_counter() - start)


async def latency(url: str, count: int) -> list[float]:
    """Milliseconds from publish to handler, one event at a time, nothing else under way."""
    arrived: asyncio.Queue[None] = asyncio.Queue()

    def handled(name: str) -> None:
        if name == CHANNELS[0]:
            arrived.put_nowait(None)

    times = []
    async with running(url, {name: NoOpChannel(name, handled) for name in CHANNELS}) as publisher:
        for number, [event] in enumerate(chunks(count + 1, 1)):
            start = time.perf_counter()
            await publisher.publish(event)
            await arrived.get()
            if number:  # the first one waits for the leases
                times.append((time.perf_counter() - start) * 1000)
    return times
