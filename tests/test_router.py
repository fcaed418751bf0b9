"""The router: from an event to deliveries, with a reason for everything that is not delivered."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import redis.asyncio
import structlog.testing

from notifier.broker.scripts import Call, run, script
from notifier.channel import Address
from notifier.dead_letters import ALERT_TYPE
from notifier.errors import Fenced
from notifier.event import Recipient, encode_recipient, parse_recipient
from notifier.keys import GROUP, Keys
from notifier.recipients import Recipients, suppression_field
from tests.support.channels import ScriptedChannel
from tests.support.service import Service, address_of, open_service, ping
from tests.support.waiting import until

ADA = address_of("ada")
LOUD = 'category = "security"\nmandatory = true\n'


@pytest.fixture
async def service(redis_url: str, tmp_path: Path) -> AsyncIterator[Service]:
    async with open_service(redis_url, tmp_path, loud=LOUD) as service:
        yield service


async def put(service: Service, **profile: Any) -> None:
    await Recipients(service.client, service.keys).put(parse_recipient(profile))


async def raw(service: Service, fields: dict[Any, Any], recipient: str = "ada") -> None:
    """What another program, or an accident, may add."""
    stream = service.keys.queue("events", service.keys.partition_of(recipient))
    await service.client.xadd(stream, fields)


async def skips(service: Service, post: ScriptedChannel, *events: dict[str, Any]) -> list[str]:
    """The reasons that are logged for channels without a delivery."""
    with structlog.testing.capture_logs() as lines:
        async with service.worker([post]):
            await service.publish(*events)
            await until(lambda: service.nothing_left("events", "post"))
    found = [line for line in lines if line["event"] == "delivery_skipped"]
    assert {line["log_level"] for line in found} <= {"debug"}
    return [line["reason"] for line in found]


# Fanning out.


async def test_an_event_becomes_one_delivery_for_each_address_of_each_channel(service: Service) -> None:
    post, pigeon = ScriptedChannel("post"), ScriptedChannel("pigeon")
    recipient = {
        "id": "ada",
        "email": ADA,
        "devices": [{"kind": "fcm", "token": "phone-token"}, {"kind": "fcm", "token": "phone-token"}],
    }
    async with service.worker([post, pigeon], ["router", "post", "pigeon"]):
        await service.publish({"id": "e0", "type": "ping", "recipient": recipient})
        await until(lambda: len(post.sent) == len(pigeon.sent) == 2)
        await until(lambda: service.nothing_left("events", "post", "pigeon"))
    for channel in (post, pigeon):
        assert sorted(attempt.address for attempt in channel.sent) == [ADA, "phone-token"]


async def test_an_alert_without_an_address_is_told_as_a_warning(
    service: Service, post: ScriptedChannel
) -> None:
    (service.templates / ALERT_TYPE).mkdir()
    (service.templates / ALERT_TYPE / "post.jinja").touch()
    (service.templates / ALERT_TYPE / "event.toml").write_text("")
    with structlog.testing.capture_logs() as lines:
        async with service.worker([post]):
            await service.publish({"type": ALERT_TYPE, "recipient": "com"})
            await until(lambda: any(line["event"] == "alerts_reach_nobody" for line in lines))
    [line] = [line for line in lines if line["event"] == "alerts_reach_nobody" and "recipient" in line]
    assert (line["log_level"], line["setting"]) == ("warning", "NOTIFIER_ADMINS")
    assert "com" not in line["recipient"]


async def test_the_stored_profile_is_used_with_inline_values_on_top(
    service: Service, post: ScriptedChannel
) -> None:
    await put(
        service, id="ada", email="stored@example.com", devices=[{"kind": "fcm", "token": "stored-token"}]
    )
    async with service.worker([post]):
        await service.publish({"id": "e0", "type": "ping", "recipient": "ada"})
        await until(lambda: len(post.sent) == 2)
        await service.publish(ping("e1", "ada"))
        await until(lambda: len(post.sent) == 4)
    assert post.sent_to("stored@example.com") == ["e0"]
    assert post.sent_to(ADA) == ["e1"]
    assert post.sent_to("stored-token") == ["e0", "e1"]


async def test_a_recipient_whose_id_looks_like_json_is_one(service: Service, post: ScriptedChannel) -> None:
    recipient = Recipient(id='{"id":"x"}', email=ADA)
    async with service.worker([post]):
        await service.publish(
            {"id": "e0", "type": "ping", "recipient": json.loads(encode_recipient(recipient))}
        )
        await until(lambda: post.sent)
    assert post.sent[0].recipient == '{"id":"x"}'


async def test_deliveries_keep_the_order_of_a_thousand_events(
    service: Service, post: ScriptedChannel
) -> None:
    async with service.worker([post]):
        await service.publish(*(ping(f"e{i}", f"u{i % 7}") for i in range(1_000)))
        await until(lambda: len(post.sent) == 1_000)
    for u in range(7):
        assert post.sent_to(address_of(f"u{u}")) == [f"e{i}" for i in range(u, 1_000, 7)]


# Skips, each with its reason.


async def test_a_muted_category_is_skipped(service: Service, post: ScriptedChannel) -> None:
    await put(service, id="ada", email=ADA, preferences={"ping": {"post": False}})
    assert await skips(service, post, {"type": "ping", "recipient": "ada"}) == ["muted"]
    assert post.attempts == []


async def test_a_mandatory_event_ignores_mutes(service: Service, post: ScriptedChannel) -> None:
    await put(service, id="ada", email=ADA, preferences={"*": {"*": False}})
    assert await skips(service, post, {"id": "e0", "type": "loud", "recipient": "ada"}) == []
    assert post.sent_to(ADA) == ["e0"]


async def test_a_recipient_without_an_address_is_skipped(service: Service, post: ScriptedChannel) -> None:
    assert await skips(service, post, {"type": "ping", "recipient": "ada"}) == ["no_address"]


async def test_an_expired_event_is_skipped(service: Service, post: ScriptedChannel) -> None:
    past = datetime.now(UTC) - timedelta(seconds=1)
    assert await skips(service, post, ping("e0", "ada", expires_at=past)) == ["expired"]
    assert post.attempts == []


async def test_a_suppressed_address_is_skipped(service: Service, post: ScriptedChannel) -> None:
    suppressed = service.keys.suppressed(service.keys.partition_of("ada"))
    await service.client.hset(suppressed, suppression_field("post", "ada", "email"), "{}")
    assert await skips(service, post, ping("e0", "ada"), ping("e1", "ben")) == ["suppressed"]
    assert [attempt.event_id for attempt in post.sent] == ["e1"]


# What can't be routed.

GOOD = b'{"id":"x","type":"ping","occurred_at":"2026-01-01T00:00:00Z"}'
BROKEN: dict[str, tuple[dict[Any, Any], bytes, bytes]] = {
    "garbage": ({"hello": "world"}, b"MalformedEntry", b"v: is missing"),
    "no event": ({"v": "1", "to": "ada"}, b"MalformedEntry", b"event: is missing"),
    "another version": ({"v": "9", "to": "ada", "event": GOOD}, b"MalformedEntry", b"wire format 9"),
    "not JSON": ({"v": "1", "to": "ada", "event": "{"}, b"InvalidEvent", b"event: is not JSON"),
    "an unknown field": (
        {"v": "1", "to": "ada", "event": GOOD[:-1] + b',"colour":1}'},
        b"InvalidEvent",
        b"colour: is not a known field",
    ),
    "no id": (
        {"v": "1", "to": "ada", "event": GOOD.replace(b'"id":"x",', b"")},
        b"InvalidEvent",
        b"id: is missing",
    ),
    "no time": (
        {"v": "1", "to": "ada", "event": b'{"id":"x","type":"ping"}'},
        b"InvalidEvent",
        b"occurred_at: is missing",
    ),
    "too large": (
        {"v": "1", "to": "ada", "event": GOOD[:-1] + b" " * 262_144 + b"}"},
        b"InvalidEvent",
        b"event: has 262205 bytes as JSON; the limit is 262144",
    ),
    "checked, it says": (
        {"v": "1\nx\nping", "to": "ada", "event": GOOD},
        b"MalformedEntry",
        b"v: does not have the lines of a checked event",
    ),
    "a recipient that is none": (
        {"v": "1", "to": b"\xff", "event": GOOD},
        b"InvalidRecipient",
        b"to: is not UTF-8",
    ),
    "unknown type": (
        {"v": "1", "to": "ada", "event": GOOD.replace(b"ping", b"pong")},
        b"UnknownType",
        b"type: no templates for pong",
    ),
    "like a dead letter, with no numbers": (
        dict.fromkeys(("error", "reason", "answer", "attempts", "first", "last"), ""),
        b"",
        b"",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
async def test_an_entry_that_can_not_be_routed_goes_to_the_dlq_with_the_reason_and_no_further(
    service: Service, post: ScriptedChannel, case: str
) -> None:
    fields, error, reason = BROKEN[case]
    await raw(service, fields)
    async with service.worker([post], ["router", "post"]):
        await service.publish(ping("e0", "ada"))
        await until(lambda: post.sent_to(ADA) == ["e0"])  # its neighbours go their way
        [letter] = await until(lambda: service.entries("events", "dlq"))
    if error:
        assert letter[b"error"] == error
        assert reason in letter[b"reason"]
        assert {name.encode() for name in fields} <= letter.keys()
    async with service.worker([post], ["dead_letters"]):
        [dead] = await until(lambda: service.entries("events", "dead"))
        await until(lambda: service.nothing_left("events:dlq"))
    if error:
        assert dead[b"error"] == error
        assert int(dead[b"attempts"]) == 2
        assert dead[b"first"] == letter[b"first"]


async def test_a_type_that_gets_its_template_before_the_second_try_is_delivered(
    service: Service, post: ScriptedChannel
) -> None:
    async with service.worker([post], ["router", "post"]):
        await service.publish(ping("e0", "ada", type="later"))
        await until(lambda: service.entries("events", "dlq"))
    (service.templates / "later").mkdir()
    (service.templates / "later" / "event.toml").write_text("")
    async with service.worker([post], ["router", "post", "dead_letters"]):
        await until(lambda: post.sent_to(ADA) == ["e0"])
        await until(lambda: service.nothing_left("events:dlq", "post"))
    assert await service.entries("events", "dead") == []


async def test_a_stored_profile_that_is_broken_stops_only_its_own_events(
    service: Service, post: ScriptedChannel
) -> None:
    await service.client.set(service.keys.recipient("ada"), b'{"id":"ada","email":"nobody"}')
    async with service.worker([post]):
        await service.publish(ping("e0", "ada"), ping("e1", "ben"))
        [letter] = await until(lambda: service.entries("events", "dlq"))
        await until(lambda: post.sent_to(address_of("ben")) == ["e1"])
    assert letter[b"error"] == b"InvalidRecipient"
    assert letter[b"reason"].startswith(b"stored profile: email:")


class ForgetfulChannel(ScriptedChannel):
    def addresses(self, recipient: Recipient) -> Sequence[Address]:
        if recipient.id == "ada":
            raise KeyError("\ud800")
        if recipient.id == "bo":
            return (Address("k\ud800", ""),)
        return super().addresses(recipient)


async def test_a_bug_in_a_channels_addresses_stops_only_the_events_that_meet_it(service: Service) -> None:
    post = ForgetfulChannel()
    async with service.worker([post]):
        await service.publish(ping("e0", "ada"), ping("e1", "bo"), ping("e2", "ben"))
        await until(lambda: post.sent_to(address_of("ben")) == ["e2"])
        await until(lambda: service.nothing_left("events"))
        letters = await service.entries("events", "dlq")
    assert {letter[b"error"] for letter in letters} == {b"KeyError", b"MalformedEntry"}


# Later.


async def test_scheduled_events_come_out_when_due_and_in_due_order(
    service: Service, post: ScriptedChannel
) -> None:
    delays = [300, 100, 200, 0, 100, 300, 0]
    async with service.worker([post]):
        # Just before they are published: what is due by then is not scheduled, and keeps its place.
        start = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=2)
        await service.publish(
            *(
                ping(f"e{i}", "ada", deliver_at=start + timedelta(milliseconds=ms))
                for i, ms in enumerate(delays)
            )
        )
        await until(lambda: len(post.sent) == len(delays))
        assert datetime.now(UTC) >= start + timedelta(milliseconds=300)
    order = sorted(range(len(delays)), key=lambda i: delays[i])
    assert post.sent_to(ADA) == [f"e{i}" for i in order]


async def test_more_scheduled_events_than_one_call_promotes_come_out_in_order(
    service: Service, post: ScriptedChannel
) -> None:
    async with service.worker([post]):
        due = datetime.now(UTC) + timedelta(seconds=2)  # when all of them are there
        await service.publish(*(ping(f"e{i}", "ada", deliver_at=due) for i in range(1_100)))
        await until(lambda: len(post.sent) == 1_100)
    assert post.sent_to(ADA) == [f"e{i}" for i in range(1_100)]


async def test_an_event_for_later_that_came_straight_into_the_queue_waits_too(
    service: Service, post: ScriptedChannel
) -> None:
    due = datetime.now(UTC) + timedelta(seconds=0.4)
    body = {"id": "e0", "type": "ping", "occurred_at": due.isoformat(), "deliver_at": due.isoformat()}
    await raw(service, {"v": "1", "to": json.dumps({"id": "ada", "email": ADA}), "event": json.dumps(body)})
    async with service.worker([post]):
        await until(lambda: post.sent_to(ADA) == ["e0"])
    assert datetime.now(UTC) >= due


# The script.


HEAD = "1\ne0\nping\nada\nada\nemail\nada@example.com\n1\n"


def route_call(keys: Keys, token: str, entries: Sequence[bytes], step: int = 1) -> Call:
    names = (keys.lease("events", 0), keys.queue("events", 0), keys.suppressed(0), keys.queue("post", 0))
    deliveries = (word for _ in entries for word in (GOOD, 1, HEAD))
    words = (token, GROUP, step, 1, "post", len(entries), *entries, *[""] * 4, *deliveries)
    return Call(script("route"), names, words)


async def lease(client: redis.asyncio.Redis, keys: Keys, worker: str) -> str:
    call = Call(
        script("lease_acquire"), (keys.lease("events", 0), keys.queue("events", 0)), (worker, 60_000, GROUP)
    )
    return str((await run(client, call)).decode())


async def test_a_route_call_that_is_sent_twice_fans_out_once(service: Service) -> None:
    client, keys = service.client, service.keys
    token = await lease(client, keys, "w1")
    entry = await client.xadd(keys.queue("events", 0), {"v": "1"})
    await client.xreadgroup(GROUP, "w1", {keys.queue("events", 0): ">"})
    for _ in range(2):
        assert await run(client, route_call(keys, token, [entry])) == []
    assert await client.xlen(keys.queue("post", 0)) == 1
    assert await client.xlen(keys.queue("events", 0)) == 0


async def test_an_entry_whose_group_is_gone_is_routed_and_not_lost(service: Service) -> None:
    client, keys = service.client, service.keys
    token = await lease(client, keys, "w1")
    entry = await client.xadd(keys.queue("events", 0), {"v": "1"})
    await run(client, route_call(keys, token, [entry]))  # read before the group was made anew
    assert await client.xlen(keys.queue("post", 0)) == 1
    assert await client.xlen(keys.queue("events", 0)) == 0


async def test_the_steps_of_a_new_owner_begin_anew(service: Service) -> None:
    client, keys = service.client, service.keys
    for worker in ("w1", "w2"):
        token = await lease(client, keys, worker)
        entry = await client.xadd(keys.queue("events", 0), {"v": "1"})
        await run(client, route_call(keys, token, [entry]))
        await client.hset(keys.lease("events", 0), "until", 0)  # type: ignore[misc]
    assert await client.xlen(keys.queue("post", 0)) == 2


async def test_a_batch_of_ten_thousand_events_is_one_call(service: Service) -> None:
    client, keys = service.client, service.keys
    token = await lease(client, keys, "w1")
    pipeline = client.pipeline(transaction=False)
    for _ in range(10_000):
        pipeline.xadd(keys.queue("events", 0), {"v": "1"})
    entries = await pipeline.execute()
    await client.xreadgroup(GROUP, "w1", {keys.queue("events", 0): ">"})
    await run(client, route_call(keys, token, entries))
    assert await client.xlen(keys.queue("events", 0)) == 0
    assert await client.xlen(keys.queue("post", 0)) == 10_000


async def test_a_router_without_the_lease_changes_nothing(service: Service) -> None:
    client, keys = service.client, service.keys
    token = await lease(client, keys, "w1")
    entry = await client.xadd(keys.queue("events", 0), {"v": "1"})
    await client.xreadgroup(GROUP, "w1", {keys.queue("events", 0): ">"})
    await client.hset(keys.lease("events", 0), "token", "w2#2")
    with pytest.raises(Fenced):
        await run(client, route_call(keys, token, [entry]))
    assert await client.xlen(keys.queue("post", 0)) == 0
    assert (await client.xpending(keys.queue("events", 0), GROUP))["pending"] == 1


async def test_at_the_memory_limit_events_wait_and_are_routed_afterwards(
    service: Service, post: ScriptedChannel
) -> None:
    await service.publish(*(ping(f"e{i}", "ada") for i in range(5)))
    await service.client.config_set("maxmemory", 1)
    with structlog.testing.capture_logs() as lines:
        async with service.worker([post]):
            await until(lambda: any(line["event"] == "routing_waits" for line in lines))
            assert post.attempts == []
            await service.client.config_set("maxmemory", 0)
            await until(lambda: len(post.sent) == 5)
    assert post.sent_to(ADA) == [f"e{i}" for i in range(5)]
