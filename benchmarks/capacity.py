"""`make bench-capacity`: what the server pays for each thing, in processor's time and in memory.

Writes the section "capacity" of the results:

{"events": 20000, "deliveries": 3, "server_us", "worker_us",    of an event, from the publish on
 "trace_bytes", "dedup_bytes",                                 what is remembered of a delivered event
 "inbox_entry_bytes", "profile_bytes", "scheduled_bytes",      memory of each
 "moved_per_s",                                                notifier partitions change
 "load", "server"}                                             of the machine while it was measured
"""

from __future__ import annotations

import argparse
import asyncio
import os
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import redis
import uvloop
from rich.console import Console
from rich.table import Table

from benchmarks.bare import CHANNELS, PUBLISH_BATCH
from benchmarks.ours import Counter, NoOpChannel, serving
from benchmarks.results import add_results, quiet, record
from benchmarks.workload import chunks
from notifier import AsyncPublisher
from notifier.bootstrap import open_client, open_runtime, settle_memory
from notifier.channel import InboxEntry
from notifier.event import parse_recipient
from notifier.local.broker import EmbeddedBroker
from notifier.operations import partitions
from notifier.settings import Settings

EVENTS, PEOPLE, ENTRIES = 20_000, 500, 40
_WINDOW = timedelta(hours=24)
_LOOKS, _BETWEEN_LOOKS, _AT_REST = 50, 0.15, 1_024  # times, seconds, bytes


class Server:
    """What the server says of itself."""

    def __init__(self, url: str) -> None:
        self._client = redis.Redis.from_url(url)

    def empty(self) -> None:
        self._client.execute_command("FLUSHALL", "SYNC")  # else memory would be freed while we measure

    @property
    def bytes(self) -> int:
        """What the keys take, at rest: the server changes the size of tables beside its work. Without what
        it keeps for clients and for its log on the way to the disk."""
        before, now = -1, self._bytes()
        for _ in range(_LOOKS):
            if abs(now - before) < _AT_REST:
                break
            time.sleep(_BETWEEN_LOOKS)
            before, now = now, self._bytes()
        return now

    def _bytes(self) -> int:
        memory = self._client.info("memory")
        return int(memory["used_memory"] - memory["mem_clients_normal"] - memory["mem_aof_buffer"])

    @property
    def seconds(self) -> float:
        cpu = self._client.info("cpu")
        return float(cpu["used_cpu_user"]) + float(cpu["used_cpu_sys"])

    @property
    def name(self) -> str:
        info = self._client.info("server")
        kind = "valkey" if "valkey_version" in info else "redis"
        return f"{kind} {info[f'{kind}_version']}"

    def close(self) -> None:
        self._client.close()


async def _deliver(url: str, server: Server, count: int, window: timedelta) -> dict[str, float]:
    """Microseconds of an event with its deliveries, and the bytes that stay of it."""
    counter = Counter()
    channels = {name: NoOpChannel(name, counter) for name in CHANNELS}
    async with AsyncPublisher(url, backlog_limit=0, dedup_window=window) as publisher, serving(url, channels):
        counter.expect(len(CHANNELS))
        for batch in chunks(1, 1):
            await publisher.publish_many(batch)
        await counter.reached()
        counter.expect(count * len(CHANNELS))
        kept, server_seconds, own_seconds = server.bytes, server.seconds, time.process_time()
        for batch in chunks(count, PUBLISH_BATCH):
            await publisher.publish_many(batch)
        await counter.reached()
        server_us = (server.seconds - server_seconds) / count * 1e6
        worker_us = (time.process_time() - own_seconds) / count * 1e6
    return {"server_us": server_us, "worker_us": worker_us, "bytes": (server.bytes - kept) / count}


async def _people(url: str, server: Server, count: int) -> dict[str, float]:
    async with open_runtime(Settings(redis_url=url)) as runtime:
        ids = [f"recipient-{n}" for n in range(count)]
        profiles = [
            parse_recipient(
                {"id": one, "email": f"{one}@example.com", "locale": "de", "name": "Ada Lovelace"}
            )
            for one in ids
        ]
        await runtime.recipients.put_many([profiles[0].model_copy(update={"id": "the first"})])  # scripts
        before = server.bytes
        await runtime.recipients.put_many(profiles)
        profile = (server.bytes - before) / count
        await runtime.inbox.add("the first", InboxEntry("0", "like", "", ""))
        before = server.bytes
        for n in range(ENTRIES):
            entry = InboxEntry(
                f"{n:032x}", "like", "Ada liked your photo", "Morning at the harbour",
                url="https://app.example.com/photos/1", data={"photo_title": "Morning at the harbour"},
                created_ms=1_764_000_000_000 + n,
            )  # fmt: skip
            await asyncio.gather(*(runtime.inbox.add(one, entry) for one in ids))
        return {"profile": profile, "entry": (server.bytes - before) / count / ENTRIES}


async def _scheduled(url: str, server: Server, count: int) -> float:
    async with AsyncPublisher(url, backlog_limit=0, dedup_window=timedelta(0)) as publisher:
        due = datetime.now(UTC) + timedelta(days=1)
        for batch in chunks(1, 1):
            await publisher.publish_many([{**event, "deliver_at": due.isoformat()} for event in batch])
        before = server.bytes
        for batch in chunks(count, PUBLISH_BATCH):
            await publisher.publish_many([{**event, "deliver_at": due.isoformat()} for event in batch])
        return (server.bytes - before) / count


async def _move(url: str) -> float:
    async with open_client(Settings(redis_url=url)) as client:
        began = time.perf_counter()
        moved = await partitions.change(client, "ntf", 32)
        return sum(moved.counts.values()) / (time.perf_counter() - began)


def measure(scale: float) -> dict[str, Any]:
    count, people = max(1_000, int(EVENTS * scale)), max(400, int(PEOPLE * scale))
    with tempfile.TemporaryDirectory() as folder, EmbeddedBroker(Path(folder), persistent=True) as broker:
        server = Server(broker.url)
        runs = {}
        for window in (timedelta(0), _WINDOW):
            server.empty()
            runs[window] = uvloop.run(_deliver(broker.url, server, count, window))
        server.empty()
        of_people = uvloop.run(_people(broker.url, server, people))
        server.empty()
        scheduled = uvloop.run(_scheduled(broker.url, server, count))
        moved = uvloop.run(_move(broker.url))
        plain, usual = runs[timedelta(0)], runs[_WINDOW]
        name = server.name
        server.close()
    return {
        "events": count,
        "deliveries": len(CHANNELS),
        "server_us": round(usual["server_us"], 1),
        "worker_us": round(usual["worker_us"], 1),
        "trace_bytes": round(plain["bytes"]),
        "dedup_bytes": round(usual["bytes"] - plain["bytes"]),
        "inbox_entry_bytes": round(of_people["entry"]),
        "profile_bytes": round(of_people["profile"]),
        "scheduled_bytes": round(scheduled),
        "moved_per_s": round(moved),
        "load": round(os.getloadavg()[0], 1),
        "server": name,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="make bench-capacity", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--scale", type=float, default=1.0, help="share of the usual number of events")
    add_results(parser)
    options = parser.parse_args()
    quiet()
    settle_memory()
    figures = measure(options.scale)
    record(options.results, {"capacity": figures})
    table = Table(title="What each thing costs the server")
    table.add_column("")
    table.add_column("figure", justify="right")
    for name, value in figures.items():
        table.add_row(name.replace("_", " "), str(value))
    Console().print(table)


if __name__ == "__main__":
    main()
