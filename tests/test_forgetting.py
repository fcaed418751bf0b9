"""Deleting all that is kept about a person, on a real server."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest
import redis.asyncio

from notifier import AsyncPublisher
from notifier.channel import InboxEntry
from notifier.dead_letters import Failure
from notifier.event import FcmDevice, parse_recipient
from notifier.inbox import Inbox
from notifier.keys import Keys
from notifier.operations.forgetting import forget
from notifier.recipients import Devices, Profile, Recipients, Suppressions

KEYS = Keys(partitions=1)
CHANNELS = ("email", "push")
DAY = timedelta(days=1)
FAILURE = Failure("PermanentFailure", "550 no", "550 no such user", 1, 1_000, 2_000)


async def _bury(client: redis.asyncio.Redis, stream: str, recipient: str, number: int) -> None:
    event = json.dumps({"id": f"e{number}", "type": "like"}).encode()
    rid, key = recipient.encode(), f"{recipient}@example.org".encode()
    head = b"\n".join((b"1", b"e%d" % number, b"like", rid, rid, key, key, b"500", b""))
    await client.execute_command("XADD", stream, "*", *FAILURE.fields(), "head", head, "event", event)


async def _store(client: redis.asyncio.Redis, redis_url: str, name: str) -> None:
    """Something of every kind that is kept about a person."""
    recipients, suppressions = Recipients(client, KEYS), Suppressions(client, KEYS)
    await recipients.put(parse_recipient({"id": name, "email": f"{name}@example.org"}))
    telephone = FcmDevice(kind="fcm", token=f"token-of-{name}")
    await Devices(recipients, suppressions, CHANNELS).add(name, telephone)
    await Inbox(client, KEYS).add(name, InboxEntry("e1", "like", "title", f"for {name}", created_ms=1))
    await suppressions.add(name, "email", f"old-{name}@example.org", "gone")
    later = (datetime.now(UTC) + timedelta(days=2)).isoformat()
    async with AsyncPublisher(redis_url, partitions=1) as publisher:
        event = {"id": f"later-{name}", "type": "like", "recipient": name, "deliver_at": later}
        await publisher.publish(event)
    for number in range(250):
        await _bury(client, KEYS.dlq("email", 0), name, number)
        await _bury(client, KEYS.dead("push", 0), name, number)
    malformed = ("v", "1", "to", name, "event", "{")
    await client.execute_command("XADD", KEYS.dead("events", 0), "*", *FAILURE.fields(), *malformed)


async def _everything(client: redis.asyncio.Redis) -> bytes:
    """All keys and what they hold."""
    parts = []
    async for key in client.scan_iter("*"):
        parts.append(key)
        parts.append(repr(await _content(client, key)).encode())
    return b"\n".join(parts)


async def _content(client: redis.asyncio.Redis, key: bytes) -> object:
    kind = (await client.type(key)).decode()
    read = {
        "string": lambda: client.get(key),
        "hash": lambda: client.hgetall(key),
        "set": lambda: client.smembers(key),
        "zset": lambda: client.zrange(key, 0, -1),
        "stream": lambda: client.xrange(key),
        "list": lambda: client.lrange(key, 0, -1),
    }[kind]
    return await read()  # type: ignore[misc]


async def test_nothing_of_a_person_is_left_and_all_of_the_others(
    client: redis.asyncio.Redis, redis_url: str
) -> None:
    await _store(client, redis_url, "zoe")
    before = await _everything(client)
    await _store(client, redis_url, "bo")
    assert await forget(client, KEYS, CHANNELS, DAY, "bo")
    await client.delete(f"{KEYS.inbox('bo')}:changes")  # says for a day that the inbox is gone
    await client.delete(KEYS.seen(0, "later-bo"))  # the dedup window: ids, for a day
    left = await _everything(client)
    assert b"zoe" in before
    for line in left.split(b"\n"):
        assert b"bo@" not in line
        assert b"'bo'" not in line
        assert not line.endswith(b":bo")
    assert await client.xlen(KEYS.dlq("email", 0)) == 250
    assert await client.xlen(KEYS.dead("push", 0)) == 250
    assert await client.xlen(KEYS.dead("events", 0)) == 1
    assert not await forget(client, KEYS, CHANNELS, DAY, "bo")


async def test_what_check_raises_leaves_everything(client: redis.asyncio.Redis, redis_url: str) -> None:
    await _store(client, redis_url, "bo")
    before = await _everything(client)

    def refuse(profile: Profile | None) -> None:
        assert profile is not None
        raise LookupError(profile.parsed().email)

    with pytest.raises(LookupError, match=r"bo@example\.org"):
        await forget(client, KEYS, CHANNELS, DAY, "bo", refuse)
    assert sorted((await _everything(client)).split(b"\n")) == sorted(before.split(b"\n"))


async def test_dead_letters_alone_are_something(client: redis.asyncio.Redis) -> None:
    await _bury(client, KEYS.dead("email", 0), "bo", 1)
    assert await forget(client, KEYS, CHANNELS, DAY, "bo")
    assert not await forget(client, KEYS, CHANNELS, DAY, "bo")
