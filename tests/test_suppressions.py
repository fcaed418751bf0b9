"""Addresses that are passed over, on a real server."""

from __future__ import annotations

import time

import pytest
import redis.asyncio

from notifier.broker.connection import connect
from notifier.errors import BrokerUnavailable, InvalidInput, InvalidRecipient
from notifier.keys import Keys
from notifier.local.broker import free_port
from notifier.recipients import (
    Recipients,
    Suppression,
    Suppressions,
    encode_suppression,
    suppression_field,
)

KEYS = Keys()
# Ids that end in another, go on after one, or mean something to a pattern.
LOOKALIKES = ("a", "x:a", "a/b", "b/a", "a:b", "*", "?", "[a]", "\\", "^a", "ä")


async def suppress(client: redis.asyncio.Redis, keys: Keys, recipient: str, *where: str) -> None:
    """As a worker does it."""
    for channel_and_key in where:
        channel, _, key = channel_and_key.partition("/")
        field = suppression_field(channel, recipient, key)
        value = encode_suppression("550 no such user", 1_700_000_000_000)
        await client.hset(keys.suppressed(keys.partition_of(recipient)), field, value)  # type: ignore[arg-type,misc]


async def test_suppressed_addresses_are_told_by_channel_and_key(
    client: redis.asyncio.Redis, suppressions: Suppressions
) -> None:
    await suppress(client, KEYS, "bo", "push/d2", "email/bo@example.org", "push/d1")
    assert await suppressions.of("bo") == [
        Suppression("bo", "email", "bo@example.org", "550 no such user", 1_700_000_000_000),
        Suppression("bo", "push", "d1", "550 no such user", 1_700_000_000_000),
        Suppression("bo", "push", "d2", "550 no such user", 1_700_000_000_000),
    ]
    assert await suppressions.of("ada") == []


async def test_those_of_some_keys_are_told_without_looking_through_all(
    client: redis.asyncio.Redis, suppressions: Suppressions
) -> None:
    await suppress(client, KEYS, "bo", "push/d2", "email/bo@example.org", "push/d1")
    await client.config_resetstat()
    found = await suppressions.among("bo", ["email", "push"], ["d1", "d3"])
    assert [(one.channel, one.address_key) for one in found] == [("push", "d1")]
    assert "cmdstat_hscan" not in await client.info("commandstats")
    assert await suppressions.among("bo", ["email"], []) == []


async def test_an_address_can_be_used_again(client: redis.asyncio.Redis, suppressions: Suppressions) -> None:
    await suppress(client, KEYS, "bo", "push/d1", "push/d2")
    assert await suppressions.lift("bo", "push", "d1")
    assert not await suppressions.lift("bo", "push", "d1")
    assert [left.address_key for left in await suppressions.of("bo")] == ["d2"]


async def test_a_mailbox_may_be_written_as_its_owner_does(suppressions: Suppressions) -> None:
    await suppressions.add("bo", "email", "Bo@Example.ORG", "asked us to")
    await suppressions.add("bo", "push", "aB", "asked us to")
    assert [one.address_key for one in await suppressions.of("bo")] == ["bo@example.org", "aB"]
    assert await suppressions.lift("bo", "email", "BO@example.org")


async def test_an_address_can_be_suppressed_by_hand(suppressions: Suppressions) -> None:
    before = time.time_ns() // 1_000_000
    assert await suppressions.add("bo", "email", "bo@example.org", "asked us to")
    assert not await suppressions.add("bo", "email", "bo@example.org", "asked us twice")
    [found] = await suppressions.of("bo")
    assert (found.channel, found.address_key, found.reason) == ("email", "bo@example.org", "asked us twice")
    assert before <= found.at_ms <= time.time_ns() // 1_000_000


@pytest.mark.parametrize(
    ("channel", "key", "reason", "field"),
    [
        ("E", "k", "", "channel"),
        ("a:b", "k", "", "channel"),
        ("", "k", "", "channel"),
        ("email", "", "", "address_key"),
        ("email", "a/b", "", "address_key"),
        ("email", "a\nb", "", "address_key"),
        ("email", "k" * 501, "", "address_key"),
        ("email", "\udcff", "", "address_key"),
        ("email", "k", "r" * 501, "reason"),
        ("email", "k", "\udcff", "reason"),
    ],
)
async def test_what_can_not_be_an_address_is_not_suppressed(
    client: redis.asyncio.Redis, suppressions: Suppressions, channel: str, key: str, reason: str, field: str
) -> None:
    with pytest.raises(InvalidInput) as caught:
        await suppressions.add("bo", channel, key, reason)
    assert caught.value.field == field
    assert await client.dbsize() == 0


async def test_suppressed_addresses_are_found_among_thousands(
    client: redis.asyncio.Redis, suppressions: Suppressions
) -> None:
    hash_key = KEYS.suppressed(KEYS.partition_of("bo"))
    others = {suppression_field("push", f"u{i}", "d"): encode_suppression("gone", i) for i in range(3_000)}
    await client.hset(hash_key, mapping=others)  # type: ignore[arg-type,misc]
    await suppress(client, KEYS, "bo", "push/d1")
    assert [found.address_key for found in await suppressions.of("bo")] == ["d1"]


async def test_ids_that_resemble_each_other_keep_their_own_suppressions(client: redis.asyncio.Redis) -> None:
    keys = Keys(partitions=1)
    recipients, suppressions = Recipients(client, keys), Suppressions(client, keys)
    for name in LOOKALIKES:
        await suppress(client, keys, name, f"email/of {name.replace('/', '|')}")
    for name in LOOKALIKES:
        [found] = await suppressions.of(name)
        assert found.address_key == f"of {name.replace('/', '|')}"
    for deleted, name in enumerate(LOOKALIKES, start=1):
        assert await recipients.delete(name)
        assert await client.hlen(keys.suppressed(0)) == len(LOOKALIKES) - deleted  # type: ignore[misc]


async def pages(suppressions: Suppressions, page_size: int) -> list[list[Suppression]]:
    found, after = [], None
    while True:
        page = await suppressions.page(after, page_size)
        found.append(list(page.found))
        after = page.after
        if after is None:
            return found


async def test_all_are_listed_page_by_page(client: redis.asyncio.Redis, suppressions: Suppressions) -> None:
    expected = set()
    for partition in (0, 7, 15):
        fields = {}
        for i in range(1_500):
            name = f"p{partition}/u{i}"
            fields[suppression_field("push", name, f"d{i}")] = encode_suppression("gone", i)
            expected.add((name, "push", f"d{i}", "gone", i))
        await client.hset(KEYS.suppressed(partition), mapping=fields)  # type: ignore[arg-type,misc]
    listed = await pages(suppressions, 100)
    found = [
        (one.recipient, one.channel, one.address_key, one.reason, one.at_ms)
        for page in listed
        for one in page
    ]
    assert set(found) == expected
    assert len(found) == len(expected)
    assert max(map(len, listed)) < 200
    assert await pages(Suppressions(client, Keys(namespace="other")), 100) == [[]]


async def test_what_stays_is_listed_while_others_come_and_go(
    client: redis.asyncio.Redis, suppressions: Suppressions
) -> None:
    key = KEYS.suppressed(3)
    value = encode_suppression("gone", 1)
    await client.hset(key, mapping={suppression_field("push", f"stays{i}", "d"): value for i in range(400)})  # type: ignore[arg-type,misc]
    found: set[str] = set()
    after, turn = None, 0
    while True:
        page = await suppressions.page(after, 20)
        found |= {one.recipient for one in page.found}
        after = page.after
        if after is None:
            break
        coming = {suppression_field("push", f"comes{turn}-{i}", "d"): value for i in range(200)}
        await client.hset(key, mapping=coming)  # type: ignore[arg-type,misc]
        if turn % 2:
            await client.hdel(key, *coming)  # type: ignore[misc]
        turn += 1
        assert turn < 500
    assert found >= {f"stays{i}" for i in range(400)}


@pytest.mark.parametrize("cursor", ["", "!", "0", "0-", "-0", "0-99999999999999999999", "1-x", "é"])
async def test_a_cursor_that_is_none_is_refused(suppressions: Suppressions, cursor: str) -> None:
    with pytest.raises(InvalidInput, match="after: is not a cursor"):
        await suppressions.page(cursor)


async def test_a_cursor_beyond_the_end_is_the_end(suppressions: Suppressions) -> None:
    assert (await suppressions.page("9999-0")).after is None
    assert (await suppressions.page("15-9999999999999999999")).after is None


async def test_what_another_program_wrote_there_is_listed_too(
    client: redis.asyncio.Redis, suppressions: Suppressions
) -> None:
    await client.hset(KEYS.suppressed(0), mapping={"odd": "[]", "email:bo/k": "{"})  # type: ignore[misc]
    listed = [one for page in await pages(suppressions, 10) for one in page]
    assert {(one.recipient, one.channel, one.address_key) for one in listed} == {
        ("", "odd", ""),
        ("bo", "email", "k"),
    }


@pytest.mark.parametrize("bad", ["", "a\nb", "x" * 201, "\udcff"])
async def test_an_id_that_can_not_be_one_is_named(suppressions: Suppressions, bad: str) -> None:
    for call in (
        suppressions.of(bad),
        suppressions.lift(bad, "email", "k"),
        suppressions.add(bad, "email", "k", ""),
        suppressions.among(bad, ["email"], ["k"]),
        suppressions.delete(bad),
    ):
        with pytest.raises(InvalidRecipient) as caught:
            await call
        assert caught.value.field == "id"


async def test_a_broker_that_is_away_is_told() -> None:
    async with connect(f"redis://127.0.0.1:{free_port()}") as client:
        suppressions = Suppressions(client, KEYS)
        for call in (suppressions.of("bo"), suppressions.page(), suppressions.add("bo", "email", "k", "")):
            with pytest.raises(BrokerUnavailable):
                await call
