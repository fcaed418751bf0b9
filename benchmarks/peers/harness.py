"""What the peers written in Python share. It imports nothing that their environments do not have."""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import os
import sys
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, NoReturn

import uvloop

from benchmarks.workload import chunks

CHANNELS = ("one", "two", "three")
CONCURRENCY = 10  # the default of arq and saq; with 50 they and taskiq were 3 to 20 % slower here
BATCH = 500

Event = dict[str, Any]
Publish = Callable[[list[Event]], Awaitable[object]]
Start = Callable[[str, Callable[[], None], asyncio.TaskGroup], Awaitable[Publish]]
"""Starts the peer's workers on a server, as tasks of the group. They call what they are given once for each
delivery. What it returns publishes a batch of events."""


class _Deliveries:
    """Counts them, from any thread."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.expect(0)

    def expect(self, target: int) -> None:
        self._numbers = itertools.count(1)
        self._target = target
        self._done = asyncio.Event()

    def __call__(self) -> None:
        if next(self._numbers) == self._target:
            self._loop.call_soon_threadsafe(self._done.set)

    async def all_made(self) -> None:
        await self._done.wait()


async def side_by_side(calls: Iterable[Awaitable[object]]) -> None:
    """Awaits as many at a time as workers have jobs in hand, for peers that can't add many in one call."""
    waiting = iter(calls)
    while part := list(itertools.islice(waiting, CONCURRENCY)):
        await asyncio.gather(*part)


async def _fan_out(publish: Publish, deliveries: _Deliveries, count: int) -> float:
    deliveries.expect(count * len(CHANNELS))
    began = time.perf_counter()
    for batch in chunks(count, BATCH):
        await publish(batch)
    await deliveries.all_made()
    return count / (time.perf_counter() - began)


async def _measure(start: Start, url: str, count: int, warm_up: int) -> NoReturn:
    deliveries = _Deliveries()
    async with asyncio.TaskGroup() as tasks:  # a worker that dies ends the run with its error
        publish = await start(url, deliveries, tasks)
        await _fan_out(publish, deliveries, warm_up)
        rate = await _fan_out(publish, deliveries, count)
        print(json.dumps({"fanout_events_per_s": rate}), flush=True)
        # Nothing is left in the queues, and the server is emptied next. A clean stop hung now and then:
        # redis-py below Python 3.12 may swallow a cancellation (bpo-37658).
        os._exit(0)


def main(start: Start) -> None:
    """Called with the server's URL, the number of events and that of the warm-up. Prints one line of JSON."""
    url, count, warm_up = sys.argv[1:]
    logging.disable(logging.INFO)
    uvloop.run(_measure(start, url, int(count), int(warm_up)))
