"""Stored profiles and suppressed addresses, on a real server."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import redis.asyncio

from notifier import AsyncPublisher
from notifier.broker.connection import connect
from notifier.channel import InboxEntry
from notifier.errors import BrokerFull, BrokerUnavailable, InvalidRecipient
from notifier.event import Recipient, parse_recipient
from notifier.inbox import Inbox
from notifier.keys import Keys
from notifier.local.broker import free_port
from notifier.recipients import (
    MAX_PROFILE_BYTES,
    Edit,
    Profile,
    Recipients,
    Suppressions,
    encode_suppression,
    suppression_field,
)

KEYS = Keys()


def bo(**fields: Any) -> Recipient:
    return parse_recipient({"id": "bo", **fields})


async def suppress(client: redis.asyncio.Redis, keys: Keys, recipient: str, *where: str) -> None:
    for channel_and_key in where:
        channel, _, key = channel_and_key.partition("/")
        field = suppression_field(channel, recipient, key)
        value = encode_suppression("550 no such user", 1_700_000_000_000)
        await client.hset(keys.suppressed(keys.partition_of(recipient)), field, value)  # type: ignore[arg-type,misc]


async def test_a_profile_comes_back_as_it_was_put(recipients: Recipients) -> None:
    full = bo(
        email="bo@example.org",
        name="Bø",
        locale="pt_BR",
        time_zone="Europe/Berlin",
        devices=[
            {"kind": "fcm", "token": "t" * 20},
            {"endpoint": "https://push.example/1", "keys": {"p256dh": "A" * 87, "auth": "B" * 22}},
        ],
        preferences={"*": {"email": False}},
    )
    assert await recipients.put(full)
    assert await recipients.get("bo") == full


async def test_only_what_was_said_is_stored(recipients: Recipients) -> None:
    await recipients.put(bo(name=None))
    stored = await recipients.get("bo")
    assert stored is not None
    assert stored.model_fields_set == {"id", "name"}
    assert await recipients.profiles({KEYS.partition_of("bo"): ["bo"]}) == {
        KEYS.partition_of("bo"): [b'{"id":"bo","name":null}']
    }


async def test_a_second_put_replaces_the_profile_and_says_so(recipients: Recipients) -> None:
    assert await recipients.put(bo(email="old@example.org", name="Bo"))
    assert not await recipients.put(bo(email="new@example.org"))
    assert await recipients.get("bo") == bo(email="new@example.org")


async def test_a_profile_above_the_size_limit_is_refused(
    client: redis.asyncio.Redis, recipients: Recipients
) -> None:
    devices = [{"kind": "fcm", "token": f"{i:04d}" + "t" * 4_000} for i in range(17)]
    with pytest.raises(InvalidRecipient, match=f"the limit is {MAX_PROFILE_BYTES}"):
        await recipients.put(bo(devices=devices))
    assert await client.dbsize() == 0
    assert await recipients.put(bo(devices=devices[:15]))


async def test_many_profiles_come_in_the_order_asked_for(recipients: Recipients) -> None:
    for i in range(40):
        await recipients.put(parse_recipient({"id": f"u{i}", "name": f"U{i}"}))
    asked = [*(f"u{i}" for i in range(39, -1, -1)), "nobody", "u3", "u3"]
    found = await recipients.get_many(asked)
    assert [None if one is None else one.id for one in found] == [
        None if name == "nobody" else name for name in asked
    ]
    assert await recipients.get_many([]) == []


async def test_raw_profiles_of_all_partitions_take_one_command_for_each(
    client: redis.asyncio.Redis, recipients: Recipients
) -> None:
    names = [f"u{i}" for i in range(100)]
    for name in names[::2]:
        await recipients.put(parse_recipient({"id": name}))
    wanted: dict[int, list[str]] = {partition: [] for partition in range(KEYS.partitions)}
    for name in names:
        wanted[KEYS.partition_of(name)].append(name)
    await client.config_resetstat()
    found = await recipients.profiles(wanted)
    stats = await client.info("commandstats")
    assert stats["cmdstat_mget"]["calls"] == KEYS.partitions
    for partition, ids in wanted.items():
        expected = [f'{{"id":"{name}"}}'.encode() if name in names[::2] else None for name in ids]
        assert found[partition] == expected
    assert await recipients.profiles({3: []}) == {3: []}


@pytest.mark.parametrize("bad", ["", "a\nb", "x" * 201, "\udcff"])
async def test_an_id_that_can_not_be_one_is_named(recipients: Recipients, bad: str) -> None:
    for call in (
        recipients.get(bad),
        recipients.delete(bad),
    ):
        with pytest.raises(InvalidRecipient) as caught:
            await call
        assert caught.value.field == "id"


async def test_changes_made_at_once_are_all_kept(recipients: Recipients) -> None:
    await recipients.put(bo(preferences={}))

    def mute(category: str) -> Edit:
        def edit(profile: Profile | None) -> Recipient:
            assert profile is not None
            stored = profile.parsed()
            muted = stored.preferences | {category: {"email": False}}
            return stored.model_copy(update={"preferences": muted})

        return edit

    await asyncio.gather(*(recipients.change("bo", mute(f"c{i}")) for i in range(30)))
    stored = await recipients.get("bo")
    assert stored is not None
    assert set(stored.preferences) == {f"c{i}" for i in range(30)}


async def test_a_change_sees_what_another_program_wrote_meanwhile(
    client: redis.asyncio.Redis, recipients: Recipients, redis_url: str
) -> None:
    await recipients.put(bo(name="Bo"))
    seen: list[bytes | None] = []

    def edit(profile: Profile | None) -> Recipient:
        assert profile is not None
        seen.append(profile.source)
        if len(seen) == 1:
            with redis.Redis.from_url(redis_url) as other:
                other.set(KEYS.recipient("bo"), b'{"id":"bo","name":"Bertha"}')
        return profile.parsed().model_copy(update={"locale": "de"})

    change = await recipients.change("bo", edit)
    assert seen == [b'{"id":"bo","name":"Bo"}', b'{"id":"bo","name":"Bertha"}']
    assert change.after == Profile(b'{"id":"bo","name":"Bertha","locale":"de"}')
    assert await client.get(KEYS.recipient("bo")) == change.after.source


async def test_whose_profile_changes_all_the_time_is_told(recipients: Recipients, redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as other:

        def edit(_: Profile | None) -> Recipient:
            other.incr(KEYS.recipient("bo"))
            return bo(name="Bo")

        with pytest.raises(BrokerUnavailable, match="all the time"):
            await recipients.change("bo", edit)


async def test_what_an_edit_raises_leaves_the_profile_alone(recipients: Recipients) -> None:
    await recipients.put(bo(name="Bo"))

    def refuse(_: Profile | None) -> Recipient:
        raise LookupError

    with pytest.raises(LookupError):
        await recipients.change("bo", refuse)
    with pytest.raises(InvalidRecipient):
        await recipients.change_many({"bo": lambda _: bo(name="B"), "a\nb": lambda _: None})
    assert await recipients.get("bo") == bo(name="Bo")


async def test_a_change_that_changes_nothing_writes_nothing(
    client: redis.asyncio.Redis, recipients: Recipients
) -> None:
    await recipients.put(bo(name="Bo"))
    await client.config_resetstat()
    change = await recipients.change("bo", lambda _: bo(name="Bo"))
    assert change.before == change.after
    assert (await recipients.change("nobody", lambda _: None)).after is None
    assert not {"cmdstat_evalsha", "cmdstat_set"} & set(await client.info("commandstats"))


async def test_what_can_not_be_read_can_be_replaced_and_removed(
    client: redis.asyncio.Redis, recipients: Recipients
) -> None:
    await client.set(KEYS.recipient("bo"), b'{"devices": nonsense')
    with pytest.raises(InvalidRecipient):
        await recipients.get("bo")
    assert not await recipients.put(bo(name="Bo"))
    await client.set(KEYS.recipient("bo"), b'{"devices": nonsense')
    assert await recipients.delete("bo")


async def test_a_server_that_is_full_refuses_profiles_and_deletes_them(
    client: redis.asyncio.Redis, recipients: Recipients
) -> None:
    await recipients.put(bo(name="Bo"))
    await client.config_set("maxmemory", 1)
    with pytest.raises(BrokerFull):
        await recipients.put(bo(name="Bertha"))
    assert await recipients.get("bo") == bo(name="Bo")
    assert await recipients.delete("bo")
    await client.config_set("maxmemory", 0)
    assert await client.keys("*") == []


async def test_deleting_a_recipient_leaves_nothing_of_theirs_and_all_of_the_others(
    client: redis.asyncio.Redis,
) -> None:
    keys = Keys(partitions=1)
    recipients, inbox = Recipients(client, keys), Inbox(client, keys)

    async def store(name: str) -> None:
        await recipients.put(parse_recipient({"id": name, "email": f"{name}@example.org"}))
        await inbox.add(name, InboxEntry("e1", "like", "title", "body", created_ms=1))
        await inbox.add(name, InboxEntry("e2", "like", "title", "body", created_ms=2))
        await inbox.mark(name, "e1", "read")
        await suppress(client, keys, name, "email/old@example.org")

    await store("bo2")
    before = sorted(await client.keys("*"))
    await store("bo")
    assert await recipients.delete("bo")
    left = [key for key in await client.keys("*") if key != f"{keys.inbox('bo')}:changes".encode()]
    assert sorted(left) == before  # beside the record that the inbox is gone
    assert await recipients.get("bo2") is not None
    assert (await inbox.counts("bo2")).total == 2
    assert len(await Suppressions(client, keys).of("bo2")) == 1
    assert not await recipients.delete("bo")


async def test_deleting_a_recipient_drops_what_was_scheduled_for_them(
    redis_url: str, client: redis.asyncio.Redis
) -> None:
    keys = Keys(partitions=1)
    recipients = Recipients(client, keys)
    later = (datetime.now(UTC) + timedelta(days=2)).isoformat()
    async with AsyncPublisher(redis_url, partitions=1) as publisher:
        await publisher.publish_many(
            {"type": "like", "recipient": to, "deliver_at": later}
            for i in range(700)
            for to in (f"u{i}", {"id": f"w{i}", "name": "bo"})
        )
        await publisher.publish_many(
            {"type": "like", "recipient": to, "deliver_at": later}
            for to in ("bo", {"id": "bo", "email": "bo@example.org"}, {"id": "bo", "name": 'B "ö"'}, "bo2")
        )
    assert await recipients.delete("bo")
    assert await client.zcard(keys.scheduled(0)) == 1_401
    assert await client.hlen(keys.scheduled_items(0)) == 1_401 + 1  # type: ignore[misc] # and the last number
    items = await client.hvals(keys.scheduled_items(0))  # type: ignore[misc]
    assert not [item for item in items if b"2:to2:bo5:event" in item or b"bo@example.org" in item]
    assert not await recipients.delete("bo")


async def test_deliveries_that_wait_for_a_time_are_dropped_too(
    client: redis.asyncio.Redis, recipients: Recipients
) -> None:
    partition = KEYS.partition_of("bo")
    for number, owner in enumerate(("bo", "bo2"), start=1):
        head = f"1\ne1\nlike\n{owner}\nbo\nkey\naddress\n1\n"
        item = "".join(f"{len(word)}:{word}" for word in ("email", "head", head, "event", "{}"))
        await client.hset(KEYS.scheduled_items(partition), f"{number:016d}", item)  # type: ignore[misc]
        await client.zadd(KEYS.scheduled(partition), {f"{number:016d}": 9e12})
    assert await recipients.delete("bo")
    assert await client.zrange(KEYS.scheduled(partition), 0, -1) == [b"0000000000000002"]


async def test_a_broker_that_is_away_is_told_apart_from_an_unknown_recipient() -> None:
    async with connect(f"redis://127.0.0.1:{free_port()}") as client:
        recipients = Recipients(client, KEYS)
        for call in (
            recipients.get("bo"),
            recipients.put(bo()),
            recipients.delete("bo"),
        ):
            with pytest.raises(BrokerUnavailable):
                await call
