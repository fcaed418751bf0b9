"""Workers inside the test's own process, on a real broker, with a catalogue of one or two types."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import redis.asyncio

from notifier.bootstrap import open_runtime, open_worker
from notifier.broker.connection import connect
from notifier.channel import Channel
from notifier.keys import Keys
from notifier.publisher import AsyncPublisher
from notifier.rendering import TemplateFolder
from notifier.settings import Settings
from notifier.worker import Worker
from tests.support.ledger import leftovers

QUICK: Mapping[str, Any] = {
    "lease_ttl": timedelta(seconds=2),
    "retry_base": timedelta(milliseconds=20),
    "retry_max": timedelta(milliseconds=200),
    "dlq_delay": timedelta(milliseconds=100),
    "alert_interval": timedelta(seconds=1),
}
"""Settings under which nothing takes long; tests about time choose their own."""


def write_types(folder: Path, **options: str) -> Path:
    """A templates folder with these event types; each value is the text of its event.toml."""
    for event_type, text in ({"ping": ""} | options).items():
        (folder / event_type).mkdir(parents=True, exist_ok=True)
        (folder / event_type / "event.toml").write_text(text)
    return folder


def ping(event_id: str, recipient: str, /, *tokens: str, **fields: Any) -> dict[str, Any]:
    """An event for one recipient, whose mail address is the id at example.com unless tokens are given."""
    to: dict[str, Any] = {"id": recipient}
    if tokens:
        to["devices"] = [{"kind": "fcm", "token": token} for token in tokens]
    else:
        to["email"] = address_of(recipient)
    return {"id": event_id, "type": "ping", "recipient": to} | fields


def address_of(recipient: str) -> str:
    return f"{recipient}@example.com"


@dataclass(frozen=True, slots=True)
class Service:
    """What a test holds in its hands: the server, the names in it, and who publishes."""

    url: str
    client: redis.asyncio.Redis
    publisher: AsyncPublisher
    templates: Path
    keys: Keys = field(default_factory=Keys)

    @asynccontextmanager
    async def worker(
        self, channels: Sequence[Channel], roles: Sequence[str] = ("router", "post"), **settings: Any
    ) -> AsyncIterator[Running]:
        """A worker that runs in the background; stopped at the end, unless the test did that."""
        options = Settings(redis_url=self.url, templates=self.templates, **(QUICK | settings))
        by_name = {channel.name: channel for channel in channels}
        templates = TemplateFolder(self.templates, {name: c.blocks for name, c in by_name.items()})
        templates.load()
        async with (
            open_runtime(options) as runtime,
            open_worker(runtime, by_name, templates, roles) as worker,
        ):
            stop = asyncio.Event()
            running = Running(worker, stop, asyncio.create_task(worker.run(stop)))
            try:
                yield running
                await running.stop()
            finally:
                running.task.cancel()
                await asyncio.gather(running.task, return_exceptions=True)

    async def publish(self, *events: Mapping[str, Any]) -> None:
        await self.publisher.publish_many(events)

    async def entries(self, *names: str) -> list[dict[bytes, bytes]]:
        """The entries of a queue over all partitions: `entries("post", "dlq")`."""
        rows = [
            await self.client.xrange(":".join((self.keys.tag(p), *names)))
            for p in range(self.keys.partitions)
        ]
        return [fields for row in rows for _, fields in row]

    async def waiting(self, queue: str) -> int:
        return len(await self.entries(queue))

    async def parked(self, queue: str = "post") -> int:
        """How many items lie in the lists of parked lanes."""
        total = 0
        for p in range(self.keys.partitions):
            for lane in await self.client.zrange(self.keys.parked(queue, p), 0, -1):
                total += await self.client.llen(self.keys.lane_prefix(queue, p).encode() + lane)
        return total

    async def owners(self, queue: str) -> dict[int, str]:
        """Which worker holds the lease of which partition."""
        found = {}
        for p in range(self.keys.partitions):
            token = await self.client.hget(self.keys.lease(queue, p), "token")
            if token:
                found[p] = token.decode().rpartition("#")[0]
        return found

    async def assert_at_baseline(self, *queues: str) -> None:
        """Once every worker has stopped: nothing is left that `leftovers` knows of."""
        left = await leftovers(self.client, self.keys, queues or ("events", "post"))
        assert not left, left

    async def nothing_left(self, *queues: str) -> bool:
        """No entry, no pending entry, no parked lane."""
        for queue in queues:
            if await self.waiting(queue) or await self.parked(queue):
                return False
            for p in range(self.keys.partitions):
                stream = self.keys.queue(queue, p)
                if not await self.client.exists(stream):
                    return False  # the worker has not come so far
                for group in await self.client.xinfo_groups(stream):
                    if group["pending"]:
                        return False
        return True


@dataclass(slots=True)
class Running:
    worker: Worker
    _stop: asyncio.Event
    task: asyncio.Task[None]

    @property
    def name(self) -> str:
        return self.worker.name

    async def stop(self) -> None:
        """As SIGTERM does. Raises what the worker raised."""
        self._stop.set()
        await self.task


@asynccontextmanager
async def open_service(url: str, folder: Path, **types: str) -> AsyncIterator[Service]:
    async with connect(url) as client, AsyncPublisher(url) as publisher:
        yield Service(url, client, publisher, write_types(folder / "types", **types))
