"""Looking at queues and dead letters, redriving and discarding, against a real server."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import time
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
import redis.asyncio

from notifier.broker.connection import connect
from notifier.broker.scripts import Call, run, script
from notifier.dead_letters import Failure
from notifier.errors import Fenced, InvalidInput
from notifier.keys import GROUP, Keys, dlq_of
from notifier.operations.dead_letters import Letter, LetterId, Selection, count, find, get, parse_id
from notifier.operations.mending import Result, mend, mend_all
from notifier.operations.queues import LANES_COUNTED, look
from notifier.recipients import suppression_field

KEYS = Keys()
CHANNELS = ("email", "push")
QUEUES = ("events", *CHANNELS)
FAILURE = Failure("TransientFailure", "451 try later", "451 4.7.1 greylisted", 8, 1_000, 2_000)


def _delivery(recipient: str, number: int = 0, kind: str = "like") -> list[Any]:
    event = json.dumps({"id": f"e{number}", "type": kind, "data": {"n": number}}).encode()
    rid, key = recipient.encode(), b"a@example.com"
    lines = (b"1", b"e%d" % number, kind.encode(), rid, rid, key, key, b"500", b"")
    return [b"head", b"\n".join(lines), b"event", event]


async def _bury(
    client: redis.asyncio.Redis,
    queue: str = "email",
    state: str = "dlq",
    recipient: str = "u1",
    *,
    failure: Failure = FAILURE,
    own: list[Any] | None = None,
    at: str = "*",
) -> LetterId:
    partition = KEYS.partition_of(recipient)
    stream = (KEYS.dlq if state == "dlq" else KEYS.dead)(queue, partition)
    entry = await client.execute_command(
        "XADD", stream, at, *failure.fields(), *(_delivery(recipient) if own is None else own)
    )
    return LetterId(queue, partition, "dlq" if state == "dlq" else "dead", entry.decode())


async def _found(client: redis.asyncio.Redis, selection: Selection) -> list[Letter]:
    return [letter async for letter in find(client, KEYS, selection)]


async def _own(
    client: redis.asyncio.Redis, queue: str, partition: int, worker: str, ttl_ms: int = 60_000
) -> str:
    lease = (KEYS.lease(queue, partition), KEYS.queue(queue, partition))
    token: bytes = await run(client, Call(script("lease_acquire"), lease, (worker, ttl_ms, GROUP)))
    return token.decode()


async def _take(client: redis.asyncio.Redis, stream: str, worker: str, number: int) -> None:
    await client.execute_command(
        "XREADGROUP", "GROUP", GROUP, worker, "COUNT", number, "STREAMS", stream, ">"
    )


# Queues.


async def test_counts_what_lies_where_over_all_partitions(client: redis.asyncio.Redis) -> None:
    for partition in (3, 4):
        await _own(client, "email", partition, "w1")
        for number in range(3):
            await client.xadd(KEYS.queue("email", partition), {"n": number})
        await _take(client, KEYS.queue("email", partition), "w1", 1)
    await client.zadd(KEYS.scheduled(5), {"1": 1, "2": 2})
    await client.zadd(KEYS.parked("email", 6), {"u1/a": 1, "u2/b": 2})
    await client.rpush(KEYS.lane("email", 6, "u1/a"), "1", "2")
    await client.rpush(KEYS.lane("email", 6, "u2/b"), "1")
    await _bury(client, "email", "dlq")
    await _bury(client, "events", "dead", own=[b"v", b"1"])

    events, email, push = await look(client, KEYS, CHANNELS)

    assert (events.queue, events.scheduled, events.dead, events.waiting) == ("events", 2, 1, 0)
    assert (email.waiting, email.in_hand, email.parked, email.parked_lanes, email.dlq) == (4, 2, 3, 2, 1)
    assert email.parked_exact
    assert email.scheduled is None
    assert (push.waiting, push.in_hand, push.parked, push.dlq, push.dead) == (0, 0, 0, 0, 0)


async def test_the_oldest_entry_counts_while_it_is_in_hand_too(client: redis.asyncio.Redis) -> None:
    hour_ago = int(time.time() * 1000) - 3_600_000
    await _own(client, "push", 0, "w1")
    await client.xadd(KEYS.queue("push", 0), {"n": 1}, id=f"{hour_ago}-0")
    await client.xadd(KEYS.queue("push", 9), {"n": 1})
    await _take(client, KEYS.queue("push", 0), "w1", 1)
    events, _, push = await look(client, KEYS, CHANNELS)
    assert push.oldest_ms is not None
    assert 3_600_000 <= push.oldest_ms < 3_660_000
    assert events.oldest_ms is None


async def test_owners_are_those_with_a_live_lease(client: redis.asyncio.Redis) -> None:
    for partition in range(3):
        await _own(client, "email", partition, "w#1")
    await _own(client, "email", 3, "w2")
    await _own(client, dlq_of("email"), 0, "w2")
    await _own(client, "email", 4, "gone", ttl_ms=0)
    _, email, _ = await look(client, KEYS, CHANNELS)
    assert email.owners == {"w#1": 3, "w2": 1}
    assert email.dlq_owners == {"w2": 1}
    assert not email.served(KEYS.partitions)


async def test_beyond_so_many_parked_lanes_each_counts_as_one_message(client: redis.asyncio.Redis) -> None:
    lanes = {f"u{n}/a": n for n in range(LANES_COUNTED + 5)}
    await client.zadd(KEYS.parked("email", 0), lanes)
    pipeline = client.pipeline(transaction=False)
    for lane in lanes:
        pipeline.rpush(KEYS.lane("email", 0, lane), "1", "2")
    await pipeline.execute()
    _, email, _ = await look(client, KEYS, CHANNELS)
    assert (email.parked, email.parked_lanes) == (2 * LANES_COUNTED + 5, LANES_COUNTED + 5)
    assert not email.parked_exact


async def test_looking_makes_no_key(client: redis.asyncio.Redis) -> None:
    await look(client, KEYS, CHANNELS)
    assert await client.keys("*") == []


# Reading dead letters.


async def test_finds_them_in_the_order_of_time_over_queues_and_partitions(
    client: redis.asyncio.Redis,
) -> None:
    expected = []
    for number in range(60):
        queue, state = CHANNELS[number % 2], ("dlq", "dead")[number % 3 == 0]
        expected.append(await _bury(client, queue, state, f"u{number % 7}", at=f"{1_000 + number}-0"))
    assert [letter.id for letter in await _found(client, Selection(QUEUES))] == expected


async def test_pages_through_a_long_stream(client: redis.asyncio.Redis) -> None:
    ids = [await _bury(client, at=f"1000-{number}") for number in range(500)]
    assert [letter.id for letter in await _found(client, Selection(QUEUES))] == ids


async def test_selects_by_queue_state_error_type_recipient_and_age(client: redis.asyncio.Redis) -> None:
    other = Failure("TemplateError", "x is missing", "", 1, 1_000, 2_000)
    old = await _bury(client, "email", "dead", "u1", at="1000-0")
    new = await _bury(client, "push", "dlq", "u2", failure=other, own=_delivery("u2", kind="order"))
    event = b'{"id":"e9","type":"video"}'
    router = await _bury(
        client, "events", "dlq", "u3", own=[b"v", b"1", b"to", b'{"id":"u3"}', b"event", event]
    )

    async def selected(**by: Any) -> set[LetterId]:
        return {letter.id for letter in await _found(client, Selection(**{"queues": QUEUES, **by}))}

    assert await selected() == {old, new, router}
    assert await selected(queues=("push",)) == {new}
    assert await selected(states=("dead",)) == {old}
    assert await selected(errors=frozenset({"TemplateError", "Poison"})) == {new}
    assert await selected(types=frozenset({"order", "video"})) == {new, router}
    assert await selected(recipient="u3") == {router}
    assert await selected(recipient="u4") == set()
    assert await selected(older_than=timedelta(hours=1)) == {old}
    assert await selected(errors=frozenset({"TemplateError"}), recipient="u1") == set()
    assert await count(client, KEYS, Selection(QUEUES)) == 3


async def test_a_letter_says_what_failed_and_whose_it_is(client: redis.asyncio.Redis) -> None:
    letter_id = await _bury(client, recipient="u1")
    letter = await get(client, KEYS, letter_id)
    assert letter is not None
    assert letter.failure == FAILURE
    assert (letter.type, letter.event_id, letter.recipient, letter.address_key) == (
        "like",
        "e0",
        "u1",
        "a@example.com",
    )
    assert (letter.accepted_ms, letter.expires_ms) == (500, None)
    assert json.loads(letter.event)["data"] == {"n": 0}
    assert await get(client, KEYS, LetterId("email", 3, "dlq", "1-1")) is None


@pytest.mark.parametrize(
    "fields", [["nonsense", "1"], [b"error", b"\xff", b"to", b"\xff\xfe", b"event", b"["]]
)
async def test_malformed_letters_can_be_read_and_discarded(
    client: redis.asyncio.Redis, fields: list[Any]
) -> None:
    entry = await client.execute_command("XADD", KEYS.dlq("events", 0), "*", *fields)
    [letter] = await _found(client, Selection(QUEUES))
    assert (letter.failure.error, letter.type) == ("Unknown", "")
    assert letter.id == LetterId("events", 0, "dlq", entry.decode())
    assert await mend(client, KEYS, "discard", [letter.id]) == [Result.DONE]


def test_ids_survive_being_printed() -> None:
    letter_id = LetterId("in_app", 7, "dead", "1764000000000-0")
    assert str(letter_id) == "in_app:07:dead:1764000000000-0"
    assert parse_id(f" {letter_id} ", KEYS, ("in_app",)) == letter_id


@pytest.mark.parametrize(
    "text",
    ["", "email", "email:1:dlq", "email:1:gone:1-1", "email:16:dlq:1-1", "sms:1:dlq:1-1", "email:x:dlq:1-1"],
)
def test_what_is_no_id_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="id: "):
        parse_id(text, KEYS, QUEUES)


# Mending.


@pytest.mark.parametrize("state", ["dlq", "dead"])
async def test_redriven_it_is_what_it_was_before_it_failed(client: redis.asyncio.Redis, state: str) -> None:
    letter_id = await _bury(client, "email", state, "u1", own=_delivery("u1", 5))
    assert await mend(client, KEYS, "redrive", [letter_id]) == [Result.DONE]
    [(_, fields)] = await client.xrange(KEYS.queue("email", letter_id.partition))
    assert [part for pair in fields.items() for part in pair] == _delivery("u1", 5)
    assert await client.xlen(letter_id.stream(KEYS)) == 0
    assert await mend(client, KEYS, "redrive", [letter_id]) == [Result.GONE]


@pytest.mark.parametrize(("error", "lifted"), [("InvalidAddress", True), ("PermanentFailure", False)])
async def test_who_redrives_to_an_invalid_address_says_that_it_is_good(
    client: redis.asyncio.Redis, error: str, lifted: bool
) -> None:
    failure = dataclasses.replace(FAILURE, error=error)
    letter_id = await _bury(client, state="dead", failure=failure)
    suppressed = KEYS.suppressed(letter_id.partition)
    fields = [suppression_field("email", "u1", "a@example.com"), suppression_field("email", "u2", "b")]
    await client.hset(suppressed, mapping=dict.fromkeys(fields, "{}"))  # type: ignore[misc]
    assert await mend(client, KEYS, "redrive", [letter_id]) == [Result.DONE]
    left = {field.decode() for field in await client.hkeys(suppressed)}  # type: ignore[misc]
    assert left == set(fields[1:] if lifted else fields)


async def test_two_redrives_at_once_redrive_each_once(client: redis.asyncio.Redis, redis_url: str) -> None:
    ids = [await _bury(client, recipient=f"u{number % 5}") for number in range(300)]
    other = connect(redis_url)
    both = await asyncio.gather(mend(client, KEYS, "redrive", ids), mend(other, KEYS, "redrive", ids))
    await other.aclose()
    assert (
        sorted(r.value for pair in zip(*both, strict=True) for r in pair) == ["done"] * 300 + ["gone"] * 300
    )
    lengths = [await client.xlen(KEYS.queue("email", partition)) for partition in range(KEYS.partitions)]
    assert sum(lengths) == 300


@pytest.mark.parametrize("action", ["redrive", "discard"])
async def test_what_the_dlq_worker_is_trying_is_left_alone(client: redis.asyncio.Redis, action: Any) -> None:
    first, second = await _bury(client), await _bury(client)
    await _own(client, dlq_of("email"), first.partition, "w1")
    await _take(client, first.stream(KEYS), "w1", 1)
    assert await mend(client, KEYS, action, [first, second]) == [Result.BUSY, Result.DONE]
    assert [entry for entry, _ in await client.xrange(first.stream(KEYS))] == [first.entry.encode()]


async def test_what_a_dead_worker_held_is_redriven_and_its_late_commit_comes_to_nothing(
    client: redis.asyncio.Redis,
) -> None:
    letter_id = await _bury(client)
    partition = letter_id.partition
    token = await _own(client, dlq_of("email"), partition, "w1", ttl_ms=0)
    await _take(client, letter_id.stream(KEYS), "w1", 1)
    assert await mend(client, KEYS, "redrive", [letter_id]) == [Result.DONE]

    lease, stream = KEYS.lease(dlq_of("email"), partition), letter_id.stream(KEYS)
    dead = KEYS.dead("email", partition)
    keys = (
        lease,
        stream,
        KEYS.parked(dlq_of("email"), partition),
        KEYS.retries(dlq_of("email"), partition),
        KEYS.scheduled(partition),
        KEYS.scheduled_items(partition),
    )
    late = (token, GROUP, "move", letter_id.entry, 1, 5, "XADD", dead, "*", "n", "1")
    with pytest.raises(Fenced):
        await run(client, Call(script("commit"), keys, late))
    assert await client.xlen(dead) == 0
    assert (await client.xpending(stream, GROUP))["pending"] == 0


async def test_what_holds_no_entry_can_only_be_discarded(client: redis.asyncio.Redis) -> None:
    empty, whole = await _bury(client, own=[]), await _bury(client)
    assert await mend(client, KEYS, "redrive", [empty, whole]) == [Result.UNUSABLE, Result.DONE]
    assert await mend(client, KEYS, "discard", [empty]) == [Result.DONE]


async def test_all_are_mended_even_while_new_ones_come_back(client: redis.asyncio.Redis) -> None:
    for number in range(250):
        await _bury(client, recipient=f"u{number % 5}", at=f"{1_000 + number}-0")
    told = []

    async def letters() -> AsyncIterator[Letter]:
        async for letter in find(client, KEYS, Selection(QUEUES)):
            await _bury(client, recipient="u9", at="9999999999999-*")  # fails again, and comes back
            yield letter

    results = await mend_all(
        client, KEYS, "redrive", letters(), progress=lambda results: told.append(results.total())
    )
    assert results == {Result.DONE: 250}
    assert told == [100, 200, 250]
    assert await count(client, KEYS, Selection(QUEUES)) == 250


async def test_a_limit_takes_the_oldest(client: redis.asyncio.Redis) -> None:
    ids = [await _bury(client, recipient=f"u{number}", at=f"{1_000 + number}-0") for number in range(10)]
    letters = find(client, KEYS, Selection(QUEUES))
    assert await mend_all(client, KEYS, "discard", letters, limit=4) == {Result.DONE: 4}
    assert [letter.id for letter in await _found(client, Selection(QUEUES))] == ids[4:]


async def test_a_rate_is_kept(client: redis.asyncio.Redis) -> None:
    for number in range(12):
        await _bury(client, recipient=f"u{number}")
    started = time.monotonic()
    await mend_all(client, KEYS, "redrive", find(client, KEYS, Selection(QUEUES)), rate=40)
    assert 0.2 <= time.monotonic() - started < 8  # one a second would take longer


async def test_what_is_read_at_a_time_is_bounded_in_bytes(client: redis.asyncio.Redis) -> None:
    head = b"\n".join([b"1", b"e", b"like", b"u1", b"u1", b"k", b"k", b"5", b""])
    large = [b"head", head, b"event", b"x" * 250_000]
    for _ in range(40):
        await _bury(client, own=large)
    await client.config_resetstat()
    assert len(await _found(client, Selection(("email",)))) == 40
    calls = (await client.info("commandstats"))["cmdstat_xrange"]["calls"]
    streams = 2 * KEYS.partitions
    assert streams + 7 <= calls <= streams + 20
