"""The bare loop: what this client and this server can do when nothing is promised.

XADD in a pipeline; XREADGROUP, one script for each batch that adds every entry to three streams, XACK and
XDEL; and three times XREADGROUP, XACK and XDEL. One stream for each queue, one consumer, no lease, no lane,
no deduplication, no retry.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Self

import redis.asyncio

from benchmarks.workload import chunks
from notifier.broker.connection import connect

CHANNELS = ("one", "two", "three")
BATCH = 100
PUBLISH_BATCH = 500

_FAN_OUT = """
for i = 1, #ARGV do
  for k = 1, #KEYS do
    redis.call('XADD', KEYS[k], '*', 'event', ARGV[i])
  end
end
"""


class BareLoop:
    """Four loops on four connections; `handled` is called with the events of each batch."""

    def __init__(self, url: str, handled: Callable[[str, list[bytes]], None]) -> None:
        self._url = url
        self._handled = handled
        self._tasks: list[asyncio.Task[None]] = []
        self.client = connect(url)

    async def __aenter__(self) -> Self:
        for stream in ("bare:events", *(f"bare:{name}" for name in CHANNELS)):
            await self.client.xgroup_create(stream, "g", "0", mkstream=True)
        self._fan_out = await self.client.script_load(_FAN_OUT)
        self._tasks = [
            asyncio.create_task(self._route()),
            *(asyncio.create_task(self._serve(n)) for n in CHANNELS),
        ]
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        for task in self._tasks:
            with suppress(asyncio.CancelledError):
                await task
        await self.client.aclose()

    async def publish(self, batch: list[dict[str, object]]) -> None:
        pipeline = self.client.pipeline(transaction=False)
        for event in batch:
            pipeline.execute_command("XADD", "bare:events", "*", "event", json.dumps(event).encode())
        await pipeline.execute()

    async def _read(self, client: redis.asyncio.Redis, stream: str) -> tuple[list[bytes], list[bytes]]:
        reply = await client.execute_command(
            "XREADGROUP", "GROUP", "g", "c", "COUNT", BATCH, "BLOCK", 1000, "STREAMS", stream, ">"
        )
        entries = reply[0][1] if reply else []
        return [entry[0] for entry in entries], [entry[1][1] for entry in entries]

    def _reader(self) -> redis.asyncio.Redis:
        client = connect(self._url, connections=1)
        client.response_callbacks.pop("XREADGROUP", None)
        return client

    async def _route(self) -> None:
        async with self._reader() as client:
            while True:
                ids, events = await self._read(client, "bare:events")
                if ids:
                    pipeline = client.pipeline(transaction=False)
                    streams = [f"bare:{name}" for name in CHANNELS]
                    pipeline.execute_command("EVALSHA", self._fan_out, len(streams), *streams, *events)
                    pipeline.execute_command("XACK", "bare:events", "g", *ids)
                    pipeline.execute_command("XDEL", "bare:events", *ids)
                    await pipeline.execute()

    async def _serve(self, name: str) -> None:
        stream = f"bare:{name}"
        async with self._reader() as client:
            while True:
                ids, events = await self._read(client, stream)
                if ids:
                    self._handled(name, events)
                    pipeline = client.pipeline(transaction=False)
                    pipeline.execute_command("XACK", stream, "g", *ids)
                    pipeline.execute_command("XDEL", stream, *ids)
                    await pipeline.execute()


async def fan_out(url: str, count: int) -> float:
    """Events a second from publish to three acknowledged deliveries each."""
    left = count * len(CHANNELS)
    done = asyncio.Event()

    def handled(_: str, events: list[bytes]) -> None:
        nonlocal left
        left -= len(events)
        if left <= 0:
            done.set()

    async with BareLoop(url, handled) as loop:
        start = time.perf_counter()
        for batch in chunks(count, PUBLISH_BATCH):
            await loop.publish(batch)
        await done.wait()
        return count / (time.perf_counter() - start)


async def publish(url: str, count: int) -> float:
    """Events a second into one stream, in pipelines."""
    async with connect(url) as client:
        start = time.perf_counter()
        for batch in chunks(count, PUBLISH_BATCH):
            pipeline = client.pipeline(transaction=False)
            for event in batch:
                pipeline.execute_command("XADD", "bare:publish", "*", "event", json.dumps(event).encode())
            await pipeline.execute()
        return count / (time.perf_counter() - start)


async def latency(url: str, count: int) -> list[float]:
    """Milliseconds from publish to handler, one event at a time through both hops."""
    arrived: asyncio.Queue[None] = asyncio.Queue()

    def handled(name: str, _: list[bytes]) -> None:
        if name == CHANNELS[0]:
            arrived.put_nowait(None)

    times = []
    async with BareLoop(url, handled) as loop:
        for [event] in chunks(count, 1):
            start = time.perf_counter()
            await loop.client.execute_command("XADD", "bare:events", "*", "event", json.dumps(event).encode())
            await arrived.get()
            times.append((time.perf_counter() - start) * 1000)
    return times
