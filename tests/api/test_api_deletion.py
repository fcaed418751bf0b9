"""Deleting somebody by HTTP while events for them are on their way."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import redis.asyncio

from channels.in_app import open_channel
from notifier.bootstrap import open_runtime, open_templates, open_worker
from notifier.broker.connection import connect
from notifier.inbox import Inbox
from notifier.keys import Keys
from notifier.operations.queues import look
from notifier.settings import Settings
from tests.api.conftest import Api
from tests.api.told import problem
from tests.support.waiting import until

KEYS = Keys()
EVENTS_EACH = 150


async def idle(client: redis.asyncio.Redis) -> bool:
    queues = await look(client, KEYS, ("in_app",))
    return not any(queue.waiting or queue.in_hand or queue.scheduled for queue in queues)


async def traces_of(client: redis.asyncio.Redis, recipient_id: str) -> list[bytes]:
    """The lines about this recipient."""
    found = []
    async for key in client.scan_iter("*:trace:*"):
        for value in await client.hvals(key):  # type: ignore[misc]
            found += [line for line in value.split(b"\n") if recipient_id.encode() in line.split(b"\t")]
    return found


@pytest.mark.slow
async def test_who_is_deleted_while_events_come_is_gone_in_the_end_and_nobody_else_loses_one(
    api: Api, redis_url: str, templates_folder: Path
) -> None:
    settings = Settings(redis_url=redis_url, templates=templates_folder)
    channels = {"in_app": open_channel({})}
    data = {"photo_title": "Harbour", "url": "https://app.example.com/p/1"}
    async with (
        connect(redis_url) as client,
        open_runtime(settings) as runtime,
        open_worker(runtime, channels, open_templates(settings, channels), ["router", "in_app"]) as worker,
        api.backend as backend,
        api.publisher as publisher,
    ):
        stop = asyncio.Event()
        working = asyncio.create_task(worker.run(stop))
        for name in ("bo", "ada"):
            await backend.put(f"/v1/recipients/{name}", json={"email": f"{name}@example.org"})
        statuses = set()
        for number in range(0, EVENTS_EACH, 10):
            events = [
                {"id": f"e{n}-{name}", "type": "like", "recipient": name, "data": data}
                for n in range(number, number + 10)
                for name in ("bo", "ada")
            ]
            answers = await asyncio.gather(
                publisher.post("/v1/events", json=events), backend.delete("/v1/recipients/bo")
            )
            statuses |= {answer.status_code for answer in answers}
        assert statuses == {202, 204}
        await until(lambda: idle(client))
        assert (await backend.delete("/v1/recipients/bo")).status_code == 204
        stop.set()
        await working

        inbox = Inbox(client, KEYS)
        assert (await inbox.counts("ada")).total == EVENTS_EACH
        assert (await inbox.counts("bo")).total == 0
        problem(await backend.get("/v1/recipients/bo"), 404)
        left = [key async for key in client.scan_iter("*:bo*")]
        assert [key for key in left if not key.endswith(b":changes")] == []
        assert await traces_of(client, "ada") != []
        assert await traces_of(client, "bo") == []
