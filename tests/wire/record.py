"""Writes down what this version leaves in a server, for later versions to read.

    python -m tests.wire.record tests/wire/golden/NAME.json

Run it before the wire format changes in any way, and never again for that name: the file says what was
written then. `tests/wire/test_old_entries.py` reads all of them.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import redis

from notifier.channel import InboxEntry, PermanentFailure, TransientFailure
from notifier.event import parse_recipient
from notifier.inbox import Inbox
from notifier.keys import Keys
from notifier.local.broker import EmbeddedBroker
from notifier.recipients import Recipients, Suppressions
from tests.support.channels import BoxChannel, ScriptedChannel
from tests.support.ledger import Ledger
from tests.support.service import Service, open_service
from tests.support.waiting import until

PEOPLE = ("ada", "bob", "cyd", "dan", "müller", "用户-7")
ROLES = ("router", "post", "box")


def event(event_id: str, recipient: str, **fields: Any) -> dict[str, Any]:
    to = {"id": recipient, "email": f"{PEOPLE.index(recipient)}@example.com", "locale": "de", "name": "Ü b"}
    data = {"text": 'quotes " and ümlauts', "n": 1.5, "deep": {"list": [1, None, True]}}
    return {"id": event_id, "type": "ping", "recipient": to, "data": data} | fields


async def furnish(service: Service, folder: Path) -> None:
    """Something in every place that a running installation has: what waits in `events` and in a channel,
    parked lanes, scheduled entries, dead letters and dead ones, profiles, inboxes, suppressed addresses."""
    client, keys = service.client, service.keys
    await _people(client, keys)
    post, box = ScriptedChannel(), BoxChannel(Ledger(folder / "boxed"))
    post.always["1@example.com"] = TransientFailure("later", answer="451 later", retry_after=600)
    post.always["2@example.com"] = post.always["3@example.com"] = PermanentFailure("never", answer="550 no")
    await service.publish(*(event(f"first-{n}-{name}", name) for n in range(2) for name in ("bob", "dan")))
    async with service.worker([post, box], (*ROLES, "dead_letters"), retry_max=timedelta(hours=1)):
        await until(lambda: _dead(service, 2))
        await until(lambda: _parked(service, 2))
    await service.publish(*(event(f"second-{n}-cyd", "cyd") for n in range(2)))
    async with service.worker([post, box], ROLES, retry_max=timedelta(hours=1)):
        await until(lambda: _letters(service, 2))
    # Routed, and not delivered.
    await service.publish(*(event(f"third-{n}-{name}", name) for n in range(2) for name in PEOPLE))
    async with service.worker([post, box], ("router",)):
        await until(lambda: _empty(service, "events"))
    # Accepted, and not routed.
    soon = (datetime.now(UTC) + timedelta(seconds=30)).isoformat()
    await service.publish(*(event(f"fourth-{n}-{name}", name) for n in range(2) for name in PEOPLE))
    await service.publish(
        event("fifth-ada", "ada", deliver_at=soon), event("fifth-bob", "bob", deliver_at=soon)
    )
    body = json.dumps({"id": "foreign", "type": "ping", "occurred_at": "2026-01-31T12:00:00Z"})
    to = json.dumps({"id": "ada", "email": "0@example.com"})
    await client.xadd(keys.queue("events", keys.partition_of("ada")), {"v": "1", "to": to, "event": body})


async def _people(client: Any, keys: Keys) -> None:
    for name in PEOPLE:
        await Recipients(client, keys).put(
            parse_recipient({"id": name, "preferences": {"x": {"post": False}}})
        )
    inbox = Inbox(client, keys)
    for n in range(3):
        await inbox.add(
            "ada", InboxEntry(f"old-{n}", "like", "t", "b", data={"event": f"old-{n}"}, created_ms=n)
        )
    await inbox.mark("ada", "old-1", "read")
    await inbox.mark("ada", "old-2", "archived")
    await Suppressions(client, keys).add("ada", "post", "gone", "by hand")


async def _dead(service: Service, count: int) -> bool:
    return len(await service.entries("post", "dead")) == count


async def _letters(service: Service, count: int) -> bool:
    return len(await service.entries("post", "dlq")) == count


async def _parked(service: Service, count: int) -> bool:
    return await service.parked() == count


async def _empty(service: Service, queue: str) -> bool:
    return not await service.entries(queue)


def snapshot(client: redis.Redis) -> dict[str, Any]:
    """Every key that stays, as text: its type, and its content in the server's order."""
    read: dict[bytes, Any] = {
        b"string": lambda key: client.get(key).decode(),  # type: ignore[union-attr]
        b"hash": lambda key: [[f.decode(), v.decode()] for f, v in sorted(client.hgetall(key).items())],
        b"zset": lambda key: [[m.decode(), s] for m, s in client.zrange(key, 0, -1, withscores=True)],
        b"list": lambda key: [item.decode() for item in client.lrange(key, 0, -1)],
        b"set": lambda key: sorted(m.decode() for m in client.smembers(key)),
        b"stream": lambda key: [
            [entry.decode(), [word.decode() for pair in fields.items() for word in pair]]
            for entry, fields in client.xrange(key)
        ],
    }
    found = {}
    for key in sorted(client.scan_iter(count=1_000)):
        if b":alert:" in key:
            continue
        kind = client.type(key)
        if content := read[kind](key):
            found[key.decode()] = [kind.decode(), content]
    return found


def restore(client: redis.Redis, keys: dict[str, Any]) -> None:
    """The same keys in another server, as if they had come there an hour ago: whatever had a time is due."""
    newest = max(_ms(entry) for kind, rows in keys.values() if kind == "stream" for entry, _ in rows)
    later = newest - int(client.time()[0]) * 1_000 + 3_600_000
    for name, (kind, content) in keys.items():
        if kind == "string":
            client.set(name, content)
        elif kind == "hash":
            client.hset(name, mapping=dict(content))
        elif kind == "zset":
            is_due = name.endswith((":parked", ":scheduled"))
            client.zadd(name, {member: score - later if is_due else score for member, score in content})
        elif kind == "list":
            client.rpush(name, *content)
        elif kind == "set":
            client.sadd(name, *content)
        else:
            for entry, words in content:
                shifted = f"{_ms(entry) - later}-{entry.partition('-')[2]}"
                client.execute_command("XADD", name, shifted, *words)


def _ms(entry: str) -> int:
    return int(entry.partition("-")[0])


async def _record(path: Path) -> None:
    with tempfile.TemporaryDirectory() as folder, EmbeddedBroker(Path(folder), persistent=False) as broker:
        async with open_service(broker.url, Path(folder)) as service:
            await furnish(service, Path(folder))
        with redis.Redis.from_url(broker.url) as client:
            rows = snapshot(client)
    lines = [
        f" {json.dumps(name, ensure_ascii=False)}: {json.dumps(row, ensure_ascii=False)}"
        for name, row in rows.items()
    ]
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    asyncio.run(_record(Path(sys.argv[1])))
