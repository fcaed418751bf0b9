"""What the trace of an event says, on a real server."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest

from notifier.broker.scripts import Call, run, script
from notifier.channel import Address, PermanentFailure, Sent, TransientFailure
from notifier.event import Recipient
from notifier.event_traces import HOUR_MS, Step, Traces, line
from tests.support.channels import ScriptedChannel
from tests.support.service import Service, address_of, ping
from tests.support.waiting import until

ADA = address_of("ada")
DAY = timedelta(hours=24)


@pytest.fixture
def traces(service: Service) -> Traces:
    return Traces(service.client, service.keys, DAY)


async def steps(traces: Traces, event_id: str) -> list[Step]:
    """Of everybody, each one's as they are told."""
    found = await traces.get(event_id)
    return [step for of_recipient in found.values() for step in of_recipient]


async def told(traces: Traces, event_id: str) -> list[str]:
    return [step.what for step in await steps(traces, event_id)]


async def test_an_event_that_waits_is_known_with_its_recipients_and_no_step(
    service: Service, traces: Traces
) -> None:
    await service.publish({**ping("e1", "ada"), "recipient": None, "recipients": ["ada", "ben"]})
    assert await traces.get("e1") == {"ada": [], "ben": []}
    assert await traces.get("e2") == {}


async def test_the_whole_way_is_told_with_times_attempts_and_answers(
    service: Service, post: ScriptedChannel, traces: Traces
) -> None:
    post.answers[ADA] = [TransientFailure("greylisted", answer=f"451 try later <{ADA}>\tnow")]
    async with service.worker([post]):
        await service.publish(ping("e1", "ada"))
        await until(lambda: len(post.sent) == 1)
    routed, parked, delivered = await steps(traces, "e1")
    assert (routed.what, routed.reason, routed.recipient) == ("routed", "ping", "ada")
    assert (parked.what, parked.attempt, parked.reason) == ("parked", 1, "greylisted")
    assert parked.answer == "451 try later <<address>> now"
    assert abs(parked.until_ms - parked.at_ms) < 10_000  # jitter may be 0, and two clocks differ
    assert (delivered.what, delivered.attempt, delivered.answer) == ("delivered", 2, "250 taken")
    assert routed.places == parked.places == delivered.places
    assert [channel for channel, _ in routed.places] == ["post"]
    assert parked.at_ms <= delivered.at_ms


async def test_a_delivery_is_told_after_it_was_routed_whatever_the_clocks_of_two_queues_say(
    service: Service, traces: Traces
) -> None:
    key = service.keys.traces(service.keys.partition_of("ada"), int((await service.client.time())[0]) // 3600)
    parked, delivered, routed, late = (
        line("e1", "ada", 1_002, "parked", "post/a", attempt=1),
        line("e1", "ada", 1_003, "delivered", "post/a", attempt=2),
        line("e1", "ada", 1_007, "routed", "post/a\x1fletter/a", reason="ping"),
        line("e1", "ada", 9_000, "routed", "post/a", reason="ping"),  # published again, after the window
    )
    await service.client.hset(key, mapping={"a": parked + delivered, "b": routed})
    assert await told(traces, "e1") == ["routed", "parked", "delivered"]
    await service.client.hset(key, mapping={"c": late})
    assert await told(traces, "e1") == ["routed", "parked", "delivered", "routed"]


async def test_attempts_of_one_millisecond_are_told_in_their_order(service: Service, traces: Traces) -> None:
    key = service.keys.traces(service.keys.partition_of("ada"), int((await service.client.time())[0]) // 3600)
    words = [
        line("e1", "ada", 1_000, "delivered", "post/a", attempt=2),
        line("e1", "ada", 1_000, "parked", "post/a", attempt=1),
        line("e1", "ada", 1_000, "routed", "post/a", reason="ping"),
    ]
    await service.client.hset(key, mapping={str(number): word for number, word in enumerate(words)})
    assert await told(traces, "e1") == ["routed", "parked", "delivered"]


async def test_what_can_not_be_delivered_is_dead_lettered_and_dead(
    service: Service, post: ScriptedChannel, traces: Traces
) -> None:
    post.always[ADA] = PermanentFailure("550 no such user")
    async with service.worker([post], ("router", "post", "dead_letters")):
        await service.publish(ping("e1", "ada"))
        await until(lambda: _contains(traces, "e1", "dead"))
    assert await told(traces, "e1") == ["routed", "dead_lettered", "dead"]
    assert (await steps(traces, "e1"))[1].reason == "PermanentFailure: 550 no such user"


async def test_an_event_that_nobody_can_route_says_why(
    service: Service, post: ScriptedChannel, traces: Traces
) -> None:
    async with service.worker([post]):
        await service.publish(ping("e1", "ada", type="unheard_of"))
        await until(lambda: _contains(traces, "e1", "dead_lettered"))
    [step] = await steps(traces, "e1")
    assert step.places == ()
    assert step.reason == "UnknownType: type: no templates for unheard_of"


async def test_each_skipped_channel_has_its_reason(
    service: Service, post: ScriptedChannel, traces: Traces
) -> None:
    letter = ScriptedChannel("letter")
    past = (datetime.now(UTC) - timedelta(hours=1)).isoformat()
    async with service.worker([post, letter], ("router", "post", "letter")):
        await service.publish(
            ping("e1", "ada", recipient={"id": "ada", "email": ADA, "preferences": {"*": {"post": False}}}),
            ping("e2", "ada", recipient="ada"),
            ping("e3", "ada", expires_at=past),
        )
        await until(lambda: _contains(traces, "e3", "skipped"))
        await until(lambda: len(letter.sent) == 1)
    skipped = {
        event: [
            (step.places[0][0], step.reason) for step in await steps(traces, event) if step.what == "skipped"
        ]
        for event in ("e1", "e2", "e3")
    }
    assert skipped == {
        "e1": [("post", "muted")],
        "e2": [("post", "no_address"), ("letter", "no_address")],
        "e3": [("post", "expired"), ("letter", "expired")],
    }


async def test_a_suppressed_address_is_told_as_skipped(
    service: Service, post: ScriptedChannel, traces: Traces
) -> None:
    partition = service.keys.partition_of("ada")
    async with service.worker([post]):
        await service.publish(ping("e1", "ada"))
        await until(lambda: len(post.sent) == 1)
        key = (await steps(traces, "e1"))[0].places[0][1]
        await service.client.hset(service.keys.suppressed(partition), f"post:ada/{key}", "{}")
        await service.publish(ping("e2", "ada"))
        await until(lambda: _contains(traces, "e2", "skipped"))
    step = (await steps(traces, "e2"))[-1]
    assert (step.recipient, step.places, step.reason) == ("ada", (("post", key),), "suppressed")


class _Mailboxes(ScriptedChannel):
    """Its address keys are the mailboxes themselves, as those of e-mail are."""

    def addresses(self, recipient: Recipient) -> Sequence[Address]:
        return [Address(recipient.email, recipient.email)] if recipient.email else []


async def test_no_line_of_a_trace_holds_a_mailbox(service: Service, traces: Traces) -> None:
    post = _Mailboxes()
    post.answers[ADA] = [TransientFailure("451"), Sent()]
    partition = service.keys.partition_of("ada")
    async with service.worker([post]):
        await service.publish(ping("e1", "ada"))
        await until(lambda: _contains(traces, "e1", "delivered"))
        await service.client.hset(service.keys.suppressed(partition), f"post:ada/{ADA}", "{}")
        await service.publish(ping("e2", "ada"))
        await until(lambda: _contains(traces, "e2", "skipped"))
    found = await steps(traces, "e1") + await steps(traces, "e2")
    assert [step.what for step in found] == ["routed", "parked", "delivered", "routed", "skipped"]
    assert {step.places for step in found} == {(("post", "…@example.com"),)}
    for key in {key async for key in service.client.scan_iter("*:trace:*")}:
        assert b"ada@" not in b"".join(await service.client.hvals(key))


async def test_traces_go_by_themselves_and_can_be_switched_off(
    service: Service, post: ScriptedChannel
) -> None:
    async with service.worker([post]):
        await service.publish(ping("e1", "ada"))
        await until(lambda: len(post.sent) == 1)
    keys = {key async for key in service.client.scan_iter("*:trace:*")}
    assert 1 <= len(keys) <= 2  # one for each hour in which something happened
    for key in keys:
        left = await service.client.pttl(key)
        assert DAY / timedelta(milliseconds=1) - 10_000 < left <= DAY / timedelta(milliseconds=1) + HOUR_MS
        await service.client.delete(key)

    async with service.worker([post], trace_retention=timedelta()):
        await service.publish(ping("e2", "ada"))
        await until(lambda: len(post.sent) == 2)
    assert [key async for key in service.client.scan_iter("*:trace:*")] == []
    off = Traces(service.client, service.keys, timedelta())
    assert await off.get("e2") == {"ada": []}  # the dedup window still knows it


async def test_a_commit_that_is_sent_twice_tells_a_step_once(service: Service) -> None:
    keys, hour = service.keys, 480_000
    lease = keys.lease("post", 0)
    await service.client.hset(lease, "token", "w1#1")
    text = line("e1", "ada", 1, "delivered", "post/email", attempt=1)
    words = ("trace", keys.traces(0, hour), "w1#1.7", text, 10**15)
    for _ in range(2):
        await run(
            service.client, Call(script("commit"), [lease, *["{ntf:00}:x"] * 5], ("w1#1", "workers", *words))
        )
    assert await service.client.hgetall(keys.traces(0, hour)) == {b"w1#1.7": text}


async def test_one_of_many_is_found_and_everything_is_looked_through_in_parts(
    service: Service, traces: Traces
) -> None:
    partition = service.keys.partition_of("ada")
    [seconds, _] = await service.client.time()
    for back in range(3):
        key = service.keys.traces(partition, int(seconds) // 3600 - back)
        for commit in range(500):
            text = b"".join(line(f"e{commit}.{n}.{back}", "ada", n, "delivered", "post/k") for n in range(60))
            await service.client.hset(key, f"w1#1.{commit}", text)
    assert await steps(traces, "e321.17.1") == [Step("ada", 17, "delivered", (("post", "k"),))]
    assert await steps(traces, "e321.17") == []
    assert await steps(traces, "321.17.1") == []


async def test_a_person_is_forgotten_and_the_others_are_not(
    service: Service, post: ScriptedChannel, traces: Traces
) -> None:
    ada = service.keys.partition_of("ada")
    neighbour = next(f"n{i}" for i in range(1_000) if service.keys.partition_of(f"n{i}") == ada)
    everyone = [{"id": name, "email": address_of(name)} for name in ("ada", neighbour, "ben")]
    async with service.worker([post]):
        await service.publish(
            {**ping("e1", "ada"), "recipient": None, "recipients": everyone}, ping("e2", "ada")
        )
        await until(lambda: len(post.sent) == 4)
    assert await traces.forget("ada")
    assert not await traces.forget("ada")
    found = await traces.get("e1")
    assert {name: len(of_name) for name, of_name in found.items()} == {"ada": 0, neighbour: 2, "ben": 2}
    assert await steps(traces, "e2") == []


async def test_what_a_later_version_wrote_is_passed_over(service: Service, traces: Traces) -> None:
    [seconds, _] = await service.client.time()
    key = service.keys.traces(0, int(seconds) // 3600)
    later = ["ada\t1\tteleported\tpost/email", "ada\t2", "ada\tx\tdead\t", "ada\t3\tdead\tpost/k\t2"]
    await service.client.hset(key, "w1#1.1", "".join(f"e1\t{words}\n" for words in later))
    assert await steps(traces, "e1") == [Step("ada", 3, "dead", (("post", "k"),), 2)]


async def _contains(traces: Traces, event_id: str, what: str) -> bool:
    return what in await told(traces, event_id)
