"""The worker of a channel: what follows from each outcome, and the order of an address."""

from __future__ import annotations

import asyncio
import math
import time
from datetime import UTC, datetime, timedelta

import pytest
import structlog.testing

from channels.in_app import InAppChannel
from notifier.bootstrap import open_runtime
from notifier.broker.partition import HOUR_MS, Partition
from notifier.channel import (
    Block,
    ChannelUnavailable,
    DeliveryError,
    InboxEntry,
    InvalidAddress,
    PermanentFailure,
    Sent,
    TransientFailure,
)
from notifier.settings import Settings
from tests.support.channels import ScriptedChannel
from tests.support.service import Service, address_of, ping
from tests.support.waiting import until

ADA, BEN = address_of("ada"), address_of("ben")


def ids(count: int, first: int = 0) -> list[str]:
    return [f"e{i}" for i in range(first, first + count)]


# Order.


async def test_the_order_of_an_address_is_kept_across_retries(
    service: Service, post: ScriptedChannel
) -> None:
    post.answers[ADA] = [TransientFailure("451")] * 3
    async with service.worker([post]):
        await service.publish(*(ping(e, "ada") for e in ids(10)))
        await until(lambda: len(post.sent) == 10)
    assert post.sent_to(ADA) == ids(10)
    assert post.attempts_to(ADA) == ["e0"] * 3 + ids(10)


async def test_a_retry_holds_only_its_own_lane(service: Service, post: ScriptedChannel) -> None:
    post.always[ADA] = TransientFailure("451", retry_after=3_600)
    async with service.worker([post], retry_max=timedelta(hours=1)):
        await service.publish(ping("e0", "ada"), *(ping(f"b{i}", "ben") for i in range(5)))
        await until(lambda: len(post.sent) == 5 and post.attempts_to(ADA))
        await until(service.parked)
    assert post.sent_to(BEN) == [f"b{i}" for i in range(5)]
    assert post.attempts_to(ADA) == ["e0"]


async def test_one_dead_device_does_not_hold_up_the_others_of_the_same_person(
    service: Service, post: ScriptedChannel
) -> None:
    phone, tablet = "phone-token-1", "tablet-token-1"
    post.always[phone] = TransientFailure("503", retry_after=3_600)
    async with service.worker([post], retry_max=timedelta(hours=1)):
        await service.publish(*(ping(e, "ada", phone, tablet) for e in ids(5)))
        await until(lambda: post.sent_to(tablet) == ids(5))
        await until(lambda: _equals(service.parked, 5))
    assert post.attempts_to(phone) == ["e0"]


async def test_what_arrives_for_a_parked_lane_waits_behind_it(
    service: Service, post: ScriptedChannel
) -> None:
    post.answers[ADA] = [TransientFailure("421", retry_after=0.4)]
    async with service.worker([post], retry_max=timedelta(seconds=5)):
        await service.publish(ping("e0", "ada"))
        await until(lambda: post.attempts)  # which parked the lane in the same step
        for event_id in ids(20, first=1):
            await service.publish(ping(event_id, "ada"))
        await until(lambda: len(post.sent) == 21)
        await until(lambda: service.nothing_left("post"))
    assert post.sent_to(ADA) == ids(21)


async def test_different_addresses_go_side_by_side_up_to_the_limit(
    service: Service, post: ScriptedChannel
) -> None:
    gates = [post.hold(address_of(f"u{i}")) for i in range(12)]
    async with service.worker([post], concurrency=8):
        await service.publish(*(ping(f"e{i}", f"u{i}") for i in range(12)))
        await until(lambda: len(post.attempts) == 8)
        for gate in gates:
            gate.set()
        await until(lambda: len(post.sent) == 12)
    assert post.most_at_once == 8


async def test_one_address_is_never_sent_to_twice_at_once(service: Service, post: ScriptedChannel) -> None:
    gate = post.hold(ADA)
    async with service.worker([post]):
        await service.publish(*(ping(e, "ada") for e in ids(5)))
        await until(lambda: post.attempts)
        await service.publish(ping("b0", "ben"))
        await until(lambda: post.sent_to(BEN))
        assert post.attempts_to(ADA) == ["e0"]
        gate.set()
        await until(lambda: post.sent_to(ADA) == ids(5))


# Outcomes.


async def test_attempts_are_counted_and_the_last_one_leads_to_the_dlq(
    service: Service, post: ScriptedChannel
) -> None:
    post.always[ADA] = TransientFailure("451 4.7.1 later", answer="451 later")
    async with service.worker([post], retry_attempts=3):
        await service.publish(ping("e0", "ada"))
        [letter] = await until(lambda: service.entries("post", "dlq"))
    assert [attempt.number for attempt in post.attempts] == [1, 2, 3]
    assert letter[b"error"] == b"TransientFailure"
    assert letter[b"reason"] == b"451 4.7.1 later"
    assert letter[b"answer"] == b"451 later"
    assert letter[b"attempts"] == b"3"
    assert 0 < int(letter[b"first"]) <= int(letter[b"last"])
    assert letter[b"head"].split(b"\n")[1] == b"e0"


async def test_the_way_to_the_dlq_frees_the_lane(service: Service, post: ScriptedChannel) -> None:
    post.answers[ADA] = [TransientFailure("451"), TransientFailure("451")]
    async with service.worker([post], retry_attempts=2):
        await service.publish(*(ping(e, "ada") for e in ids(3)))
        await until(lambda: post.sent_to(ADA) == ["e1", "e2"])
        await until(lambda: service.nothing_left("post"))
    assert len(await service.entries("post", "dlq")) == 1


async def test_a_permanent_failure_goes_to_the_dlq_at_once(service: Service, post: ScriptedChannel) -> None:
    post.answers[ADA] = [PermanentFailure("550 no")]
    async with service.worker([post]):
        await service.publish(ping("e0", "ada"), ping("e1", "ada"))
        [letter] = await until(lambda: service.entries("post", "dlq"))
        await until(lambda: post.sent_to(ADA) == ["e1"])
    assert post.attempts_to(ADA) == ["e0", "e1"]
    assert (letter[b"error"], letter[b"attempts"]) == (b"PermanentFailure", b"1")


async def test_an_invalid_address_is_suppressed_and_later_passed_over_by_the_router(
    service: Service, post: ScriptedChannel
) -> None:
    dead, alive = "dead-token-123", "live-token-123"
    post.answers[dead] = [InvalidAddress("unregistered", answer="410 Gone")]
    async with service.worker([post]):
        await service.publish(ping("e0", "ada", dead, alive))
        [letter] = await until(lambda: service.entries("post", "dlq"))
        await until(lambda: post.sent_to(alive) == ["e0"])
        await service.publish(ping("e1", "ada", dead, alive), ping("e2", "ben", dead))
        await until(lambda: post.sent_to(alive) == ["e0", "e1"] and post.sent_to(dead))
    assert letter[b"error"] == b"InvalidAddress"
    assert post.attempts_to(dead) == ["e0", "e2"], "only this recipient's own address is suppressed"


async def test_an_unavailable_channel_costs_no_attempt_parks_nothing_and_keeps_the_order(
    service: Service, post: ScriptedChannel
) -> None:
    post.always = {ADA: ChannelUnavailable("refused"), BEN: ChannelUnavailable("refused")}
    async with service.worker([post]):
        await service.publish(*(ping(e, "ada") for e in ids(5)), *(ping(f"b{i}", "ben") for i in range(5)))
        await until(lambda: len(post.attempts) >= 2)  # the first one or two, and perhaps a probe
        assert await service.parked() == 0
        post.always = {}
        await until(lambda: len(post.sent) == 10)
        await until(lambda: service.nothing_left("post"))
    assert post.sent_to(ADA) == ids(5)
    assert post.sent_to(BEN) == [f"b{i}" for i in range(5)]
    assert {attempt.number for attempt in post.attempts} == {1}
    assert await service.entries("post", "dlq") == []


async def test_while_the_breaker_is_open_one_probe_goes_out_at_a_time(
    service: Service, post: ScriptedChannel
) -> None:
    people = [f"u{i}" for i in range(20)]
    post.always = {address_of(u): ChannelUnavailable("refused") for u in people}
    gates = [post.hold(address_of(u)) for u in people]
    async with service.worker([post], concurrency=4):
        await service.publish(*(ping(f"e-{u}", u) for u in people))
        await until(lambda: post.at_once == 4)
        for gate in gates:
            gate.set()
        await until(lambda: len(post.attempts) == 5)  # the four that were under way, and a probe
        post.always = {}
        await until(lambda: len(post.sent) == 20)
    assert len(post.attempts) == 25


async def test_what_is_handed_over_while_the_channel_is_away_keeps_no_runner(service: Service) -> None:
    """A runner that waited for such a partition would never come back, and as the probe would keep all others
    from sending."""
    away, post = ScriptedChannel(), ScriptedChannel()
    people = [f"u{i}" for i in range(40)]
    away.always = {address_of(u): ChannelUnavailable("down", retry_after=3.0) for u in people}
    gates = [away.hold(address_of(u)) for u in people]
    short = {"lease_ttl": timedelta(seconds=1), "concurrency": 16}
    async with service.worker([away], **short):
        await service.publish(*(ping(f"e-{u}", u) for u in people))
        await until(lambda: away.at_once == 16)
        for gate in gates:
            gate.set()
        await until(lambda: away.at_once == 0)  # all runners wait for the breaker
        async with service.worker([post], **short) as second:
            await until(lambda: post.sent)
            handed_over = time.monotonic()
            await until(lambda: time.monotonic() - handed_over > 1.5)  # what it had of these leases is over
            away.always = {}
            await until(lambda: len({one.event_id for one in away.sent + post.sent}) == 40)
            await second.stop()
        for gate in gates:
            gate.clear()
        await service.publish(*(ping(f"f-{u}", u) for u in people))
        await until(lambda: away.at_once == 16)
        for gate in gates:
            gate.set()
        await until(lambda: service.nothing_left("post"))


async def test_a_delivery_that_can_not_be_rendered_does_not_close_the_breaker(
    service: Service, post: ScriptedChannel
) -> None:
    post.blocks = [Block("body", "text")]
    (service.templates / "ping" / "post.jinja").write_text("{% block body %}{{ data.word }}{% endblock %}")
    post.always = {ADA: ChannelUnavailable("refused"), BEN: ChannelUnavailable("refused")}
    async with service.worker([post], concurrency=1):
        await service.publish(ping("e0", "ada", data={"word": "x"}))
        await until(lambda: post.attempts)
        post.always.pop(ADA)
        await service.publish(ping("b0", "ben"), ping("b1", "ben", data={"word": "x"}))
        await until(lambda: post.sent_to(ADA) and service.entries("post", "dlq"))
        await until(lambda: post.attempts_to(BEN))
        post.always = {}
        await until(lambda: post.sent_to(BEN) == ["b1"])
    assert len(await service.entries("post", "dlq")) == 1


async def test_a_bug_in_a_channel_is_an_outcome(service: Service, post: ScriptedChannel) -> None:
    post.always[ADA] = ValueError("not my day")
    async with service.worker([post], retry_attempts=2):
        await service.publish(ping("e0", "ada"), ping("b0", "ben"))
        [letter] = await until(lambda: service.entries("post", "dlq"))
        await until(lambda: post.sent_to(BEN) == ["b0"])
    assert letter[b"reason"] == b"ValueError: not my day"
    assert letter[b"attempts"] == b"2"


async def test_a_channel_that_forgets_to_return_sent_is_a_bug_too(
    service: Service, post: ScriptedChannel
) -> None:
    post.answers[ADA] = ["yes", "yes"]
    async with service.worker([post], retry_attempts=2):
        await service.publish(ping("e0", "ada"), ping("e1", "ada"))
        [letter] = await until(lambda: service.entries("post", "dlq"))
        await until(lambda: post.sent_to(ADA)[-1:] == ["e1"])
    assert b"str" in letter[b"reason"]


class Wordless(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


_CIRCLE: dict[str, object] = {}
_CIRCLE["again"] = _CIRCLE


@pytest.mark.parametrize(
    "rubbish",
    [
        Wordless(),
        SystemExit(3),
        DeliveryError("\ud800"),
        TransientFailure(b"451 later", answer=7),  # type: ignore[arg-type]
        TransientFailure("451", retry_after=math.nan),
        TransientFailure("451", retry_after=-5),
        TransientFailure("451", retry_after="5"),  # type: ignore[arg-type]
        PermanentFailure(None, answer="\udcff"),  # type: ignore[arg-type]
        Sent(inbox="entry"),  # type: ignore[arg-type]
        Sent(inbox=InboxEntry(None, "ping", "Hello", "")),  # type: ignore[arg-type]
        Sent(inbox=InboxEntry("e", "ping", "Hello", "", created_ms=1.5e300)),  # type: ignore[arg-type]
        Sent(inbox=InboxEntry("e", "ping", "\ud800", "")),
        Sent(inbox=InboxEntry("e", "ping", "Hello", "", data={"x": object()})),
        Sent(inbox=InboxEntry("e", "ping", "Hello", "", data={"x": math.nan})),
        Sent(inbox=InboxEntry("e", "ping", "Hello", "", data=_CIRCLE)),
    ],
    ids=lambda outcome: repr(outcome)[:60] if not isinstance(outcome, Wordless) else "wordless",
)
async def test_rubbish_from_a_channel_is_an_outcome_and_not_the_end_of_the_worker(
    service: Service, post: ScriptedChannel, rubbish: object
) -> None:
    post.answers[ADA] = [rubbish] if isinstance(rubbish, PermanentFailure) else [rubbish, rubbish]
    async with service.worker([post], retry_attempts=2):
        await service.publish(*(ping(e, "ada") for e in ids(2)))
        await until(lambda: post.sent_to(ADA)[-1:] == ["e1"])
        await until(lambda: service.nothing_left("post"))
        [letter] = await service.entries("post", "dlq")
    assert letter[b"head"].split(b"\n")[1] == b"e0"


@pytest.mark.parametrize("answer", [None, b"250 \xff", 250, "250 \ud800", "é" * 2_000_000])
async def test_a_delivery_with_an_odd_answer_is_made_once(
    service: Service, post: ScriptedChannel, answer: object
) -> None:
    post.answers[ADA] = [Sent(answer)]  # type: ignore[arg-type]
    async with service.worker([post]):
        await service.publish(*(ping(e, "ada") for e in ids(2)))
        await until(lambda: post.sent_to(ADA) == ids(2))
        await until(lambda: service.nothing_left("post"))
    assert await service.entries("post", "dlq") == []


@pytest.mark.parametrize("asked", [math.nan, -1, "3"])
async def test_a_channel_that_is_away_for_no_time_in_particular_is_asked_again(
    service: Service, post: ScriptedChannel, asked: object
) -> None:
    post.answers[ADA] = [ChannelUnavailable(None, retry_after=asked)]  # type: ignore[arg-type]
    async with service.worker([post]):
        await service.publish(ping("e0", "ada"))
        await until(lambda: post.sent_to(ADA) == ["e0"])


async def test_a_cancelled_future_inside_a_channel_does_not_cost_a_runner(
    service: Service, post: ScriptedChannel
) -> None:
    post.answers[ADA] = [asyncio.CancelledError()]
    async with service.worker([post], concurrency=1):
        await service.publish(ping("e0", "ada"))
        await until(lambda: post.sent_to(ADA) == ["e0"])


async def test_a_send_without_an_end_is_cut_off_and_tried_again(
    service: Service, post: ScriptedChannel
) -> None:
    gate = post.hold(ADA)
    async with service.worker([post], send_timeout=timedelta(seconds=1)):
        await service.publish(ping("e0", "ada"))
        await until(lambda: len(post.attempts) == 2)
        gate.set()
        await until(lambda: post.sent_to(ADA) == ["e0"])


async def test_a_delivery_that_expires_in_the_queue_is_not_sent(
    service: Service, post: ScriptedChannel
) -> None:
    gate = post.hold(ADA)
    soon = datetime.now(UTC) + timedelta(seconds=0.5)
    async with service.worker([post]):
        await service.publish(ping("e0", "ada"), ping("e1", "ada", expires_at=soon), ping("e2", "ada"))
        await until(lambda: post.attempts)
        await until(lambda: datetime.now(UTC) > soon + timedelta(seconds=0.1))
        gate.set()
        await until(lambda: post.sent_to(ADA) == ["e0", "e2"])
        await until(lambda: service.nothing_left("post"))
    assert post.attempts_to(ADA) == ["e0", "e2"]
    assert await service.entries("post", "dlq") == []


async def test_a_delivery_that_expires_while_the_channel_is_away_is_not_sent(
    service: Service, post: ScriptedChannel, monkeypatch: pytest.MonkeyPatch
) -> None:
    post.always[ADA] = ChannelUnavailable("refused")
    later, now_ms = datetime.now(UTC) + timedelta(hours=1), Partition.server_ms
    async with service.worker([post]):
        await service.publish(ping("e0", "ada", expires_at=later), ping("e1", "ada"))
        await until(lambda: post.attempts)
        monkeypatch.setattr(Partition, "server_ms", lambda *args: now_ms(*args) + 2 * HOUR_MS)
        post.always = {}
        await until(lambda: post.sent_to(ADA))
        await until(lambda: service.nothing_left("post"))
    assert post.sent_to(ADA) == ["e1"]


async def test_the_id_of_a_delivery_is_the_same_at_every_try(service: Service, post: ScriptedChannel) -> None:
    post.answers[ADA] = [TransientFailure("451"), PermanentFailure("550")]
    async with service.worker([post], ["router", "post", "dead_letters"]):
        await service.publish(ping("e0", "ada"), ping("e1", "ada"))
        await until(lambda: sorted(post.sent_to(ADA)) == ["e0", "e1"])
    by_event = {attempt.event_id: attempt.delivery_id for attempt in post.attempts}
    assert len([a for a in post.attempts if a.event_id == "e0"]) == 3
    assert {(a.event_id, a.delivery_id) for a in post.attempts} == set(by_event.items())
    assert len(set(by_event.values())) == 2


async def test_a_template_that_does_not_render_is_told_as_such(
    service: Service, post: ScriptedChannel
) -> None:
    post.blocks = [Block("body", "text")]
    (service.templates / "ping" / "post.jinja").write_text("{% block body %}{{ data.missing }}{% endblock %}")
    async with service.worker([post]):
        await service.publish(ping("e0", "ada"))
        [letter] = await until(lambda: service.entries("post", "dlq"))
    assert letter[b"error"] == b"TemplateError"
    assert b"ping/post.jinja" in letter[b"reason"]
    assert post.attempts == []


@pytest.mark.parametrize("outcome", [TransientFailure("x" * 2_000, answer="é" * 2_000)])
async def test_a_long_answer_is_cut(service: Service, post: ScriptedChannel, outcome: DeliveryError) -> None:
    post.always[ADA] = outcome
    async with service.worker([post], retry_attempts=1):
        await service.publish(ping("e0", "ada"))
        [letter] = await until(lambda: service.entries("post", "dlq"))
    assert letter[b"reason"] == b"x" * 500
    assert letter[b"answer"].decode() == "é" * 500


async def test_logs_name_no_person_and_no_address(service: Service, post: ScriptedChannel) -> None:
    person = "somebody"  # "ada" are hex digits, as a worker's name has them
    address = address_of(person)
    post.answers[address] = [TransientFailure("451"), PermanentFailure("550")]
    with structlog.testing.capture_logs() as lines:
        async with service.worker([post]):
            await service.publish(ping("e0", person), ping("e1", person))
            await until(lambda: post.sent_to(address) == ["e1"])
    assert [line["event"] for line in lines if line["event"].startswith("delivery_")] == [
        "delivery_parked",
        "delivery_dead_lettered",
    ]
    assert not [line for line in lines if person in str(line)]


# Entries that nobody of us wrote.


@pytest.mark.parametrize(
    "fields",
    [
        {"garbage": "1"},
        {"v": "1", "id": "e0"},
        {"error": "", "reason": "x", "answer": "x", "attempts": "many", "first": "1", "last": "1"},
    ],
)
async def test_an_entry_that_is_no_delivery_goes_to_the_dlq_and_its_neighbours_are_delivered(
    service: Service, post: ScriptedChannel, fields: dict[str, str]
) -> None:
    partition = service.keys.partition_of("ada")
    await service.client.xadd(service.keys.queue("post", partition), fields)  # type: ignore[arg-type]
    async with service.worker([post]):
        await service.publish(ping("e0", "ada"))
        await until(lambda: post.sent_to(ADA) == ["e0"])
        await until(lambda: service.entries("post", "dlq"))
        await until(lambda: service.nothing_left("post"))


async def test_an_entry_that_was_deleted_by_hand_is_passed_over(
    service: Service, post: ScriptedChannel
) -> None:
    post.answers[ADA] = [TransientFailure("451")]
    gate = post.hold(ADA)
    async with service.worker([post]):
        await service.publish(*(ping(e, "ada") for e in ids(3)))
        await until(lambda: post.attempts)
        await service.client.delete(service.keys.queue("post", service.keys.partition_of("ada")))
        gate.set()
        await service.publish(ping("e9", "ada"))
        await until(lambda: "e9" in post.sent_to(ADA))


# The inbox.


async def test_an_inbox_entry_is_stored_exactly_once_whatever_is_repeated(
    service: Service, post: ScriptedChannel
) -> None:
    (service.templates / "ping" / "in_app.jinja").write_text(
        "{% block title %}Hello{% endblock %}{% block body %}World{% endblock %}"
    )
    async with service.worker([InAppChannel(), post], ["router", "in_app"]):
        await service.publish(ping("e0", "ada"))
        await until(lambda: service.nothing_left("events", "in_app"))
        partition = service.keys.partition_of("ada")
        [copy] = await service.entries("post")
        version, event_id, kind, rid, to, _, _, *times = copy[b"head"].split(b"\n")
        head = b"\n".join((version, event_id, kind, rid, to, b"inbox", b"", *times))
        fields = copy | {b"head": head}
        for _ in range(3):  # as if the same delivery came again
            await service.client.xadd(service.keys.queue("in_app", partition), fields)  # type: ignore[arg-type]
        await until(lambda: service.nothing_left("in_app"))
    async with open_runtime(Settings(redis_url=service.url)) as runtime:
        page = await runtime.inbox.list("ada")
    assert [stored.entry.title for stored in page.entries] == ["Hello"]


async def _equals(found: object, wanted: int) -> bool:
    return await found() == wanted  # type: ignore[operator, no-any-return]
