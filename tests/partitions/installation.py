"""An installation at rest that holds something of everything."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import redis.asyncio

from notifier.channel import InboxEntry, PermanentFailure, TransientFailure
from notifier.event import parse_recipient
from notifier.inbox import Inbox
from notifier.keys import Keys
from notifier.recipients import Recipients, Suppressions
from tests.support.channels import ScriptedChannel
from tests.support.service import Service, open_service
from tests.support.waiting import until

STRANGE = ["müller", "a:b/c", "{x}:y", "用户-7", "u 1"]


async def furnish(url: str, folder: Path, names: Sequence[str], keys: Keys) -> None:
    """Profiles and devices, inboxes with marks, suppressed addresses; events that wait, are scheduled, parked
    or dead; and what is remembered of all of them."""
    async with open_service(url, folder) as opened:
        service = replace(opened, keys=keys)
        client = service.client
        await client.hset(keys.meta(), mapping={"partitions": keys.partitions, "wire": "1"})
        await _people(client, service.keys, names)
        await _failures(service, names)
        await service.publish(
            *(
                _event(f"late-{n}-{at}", name, deliver_at=_in(hours=1))
                for n in range(2)
                for at, name in enumerate(names)
            )
        )
        await service.publish(
            *(_event(f"wait-{n}-{at}", name) for n in range(3) for at, name in enumerate(names))
        )
        await service.publish({"id": "to-all", "type": "ping", "recipients": names})
        for name in names:
            await client.set(service.keys.idempotency(f"digest-{name}"), b"done", px=3_600_000)
        await client.hset(keys.unalerted(1), "post", 2)
        await client.xadd(keys.queue("events", 1), {"v": "1", "nonsense": "1"})
        for number in range(service.keys.partitions):  # as if an owner had died over the heads of all lanes
            for lane in await client.zrange(service.keys.parked("post", number), 0, -1):
                await client.hset(service.keys.retries("post", number), lane, "1 gone#7")


async def _people(client: redis.asyncio.Redis, keys: Keys, names: Sequence[str]) -> None:
    recipients, inbox, suppressions = (
        Recipients(client, keys),
        Inbox(client, keys),
        Suppressions(client, keys),
    )
    for number, name in enumerate(names):
        device = {"kind": "fcm", "token": f"token-{number}-{'x' * 20}"}
        await recipients.put(
            parse_recipient({"id": name, "email": f"p{number}@example.com", "devices": [device]})
        )
        for n in range(3):
            await inbox.add(name, InboxEntry(f"i{n}", "like", "t", f"b{n}", created_ms=1_700_000_000_000 + n))
        await inbox.mark(name, "i1", "read")
        await inbox.mark(name, "i2", "archived")
        await suppressions.add(name, "post", f"old{number}@example.com", "by hand")


async def _failures(service: Service, names: Sequence[str]) -> None:
    """What a worker leaves: parked lanes, dead letters and dead ones, and traces."""
    post = ScriptedChannel()
    for number in range(len(names)):
        outcome = (TransientFailure("later", retry_after=3_000), PermanentFailure("never"))[number % 2]
        post.always[f"{number}@fails.example"] = outcome
    events = [
        {"id": f"fail-{n}-{at}", "type": "ping", "recipient": {"id": name, "email": f"{at}@fails.example"}}
        for n in range(3)
        for at, name in enumerate(names)
    ]
    await service.publish(*events)
    # The second half of what fails for good stays in the DLQ: nobody tries it again.
    async with service.worker([post], ("router", "post", "dead_letters"), retry_max=timedelta(hours=1)):
        await until(lambda: service.waiting("post:dead"))
        await until(lambda: _settled(service))
    await service.publish(*(event | {"id": f"{event['id']}-again"} for event in events))
    async with service.worker([post], ("router", "post"), retry_max=timedelta(hours=1)):
        await until(lambda: _settled(service))


async def _settled(service: Service) -> bool:
    return not await service.waiting("events") and not await service.waiting("post")


def _in(**time: int) -> str:
    return (datetime.now(UTC) + timedelta(**time)).isoformat()


def _event(event_id: str, recipient: str, **fields: Any) -> dict[str, Any]:
    return {"id": event_id, "type": "ping", "recipient": recipient} | fields
