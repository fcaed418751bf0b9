"""The dead letter queue gets one more try, and what fails again is kept."""

from __future__ import annotations

from datetime import timedelta

import pytest

from notifier.broker.entries import FAILURE_FIELDS, MalformedEntry
from notifier.channel import ChannelUnavailable, InvalidAddress, PermanentFailure
from notifier.dead_letters import ALERT_TYPE, Failure, Graveyard, split
from notifier.keys import Keys
from tests.support.channels import ScriptedChannel
from tests.support.service import Service, address_of, ping
from tests.support.waiting import until

ADA = address_of("ada")
ALL = ["router", "post", "dead_letters"]
LONG = timedelta(seconds=10)
"""A lease that outlives a machine that stands still: a take-over would repeat what is counted."""


async def test_the_second_try_comes_after_the_delay_and_may_work(
    service: Service, post: ScriptedChannel
) -> None:
    post.answers[ADA] = [PermanentFailure("550")]
    async with service.worker([post], ALL, dlq_delay=timedelta(seconds=0.7)):
        await service.publish(ping("e0", "ada"))
        await until(lambda: post.sent_to(ADA) == ["e0"])
        await until(lambda: service.nothing_left("post", "post:dlq"))
    first, second = post.attempts
    assert second.at - first.at >= 0.69  # the server counts in whole milliseconds of a clock of its own
    assert (first.number, second.number) == (1, 2)
    assert await service.entries("post", "dead") == []


async def test_what_fails_its_second_try_is_dead_and_told_whole(
    service: Service, post: ScriptedChannel
) -> None:
    post.answers[ADA] = [PermanentFailure("first", answer="550 a"), InvalidAddress("second", answer="550 b")]
    async with service.worker([post], ALL):
        await service.publish(ping("e0", "ada", data={"n": 1}))
        [dead] = await until(lambda: service.entries("post", "dead"))
        await until(lambda: service.nothing_left("post", "post:dlq"))
    assert len(post.attempts) == 2
    assert (dead[b"error"], dead[b"reason"], dead[b"answer"]) == (b"InvalidAddress", b"second", b"550 b")
    assert dead[b"attempts"] == b"2"
    assert int(dead[b"first"]) < int(dead[b"last"])
    assert b'"n":1' in dead[b"event"]
    assert await service.client.hlen(service.keys.suppressed(service.keys.partition_of("ada"))) == 1


async def test_an_unavailable_channel_costs_a_dead_letter_nothing(
    service: Service, post: ScriptedChannel
) -> None:
    post.answers[ADA] = [PermanentFailure("550"), ChannelUnavailable("away"), ChannelUnavailable("away")]
    async with service.worker([post], ALL):
        await service.publish(ping("e0", "ada"))
        await until(lambda: post.sent_to(ADA) == ["e0"])
    assert await service.entries("post", "dead") == []


async def test_a_dead_letter_that_waits_for_its_second_try_survives_its_workers(
    service: Service, post: ScriptedChannel
) -> None:
    post.answers[ADA] = [PermanentFailure("550")]
    async with service.worker([post], ALL, dlq_delay=timedelta(hours=1)):
        await service.publish(ping("e0", "ada"))
        await until(lambda: service.entries("post", "dlq"))
    async with service.worker([post], ALL):
        await until(lambda: post.sent_to(ADA) == ["e0"])
        await until(lambda: service.nothing_left("post:dlq"))


async def test_second_tries_are_shared_between_workers(service: Service, post: ScriptedChannel) -> None:
    people = [f"u{i}" for i in range(40)]
    for u in people:
        post.answers[address_of(u)] = [PermanentFailure("550")]
    async with (
        service.worker([post], ALL, lease_ttl=LONG),
        service.worker([post], ALL, lease_ttl=LONG),
    ):
        await until(lambda: _owners(service, 2))
        await service.publish(*(ping(f"e-{u}", u) for u in people))
        await until(lambda: len(post.sent) == 40)
        await until(lambda: service.nothing_left("post", "post:dlq"))
    assert len(post.attempts) == 80


def test_a_failure_is_read_back_as_it_was_written() -> None:
    failure = Failure("TransientFailure", "why", "451 später", 3, 1_000, 2_000)
    assert split([*failure.fields(), b"v", b"1"]) == (failure, [b"v", b"1"])


@pytest.mark.parametrize(
    "fields", [[], [b"v", b"1"], [part for name in FAILURE_FIELDS for part in (name, b"x")]]
)
def test_what_is_no_dead_letter_is_told_so(fields: list[bytes]) -> None:
    with pytest.raises(MalformedEntry):
        split(fields)


def test_the_dead_are_counted_unless_they_are_alerts() -> None:
    failure = Failure("x", "x", "", 1, 1, 1)
    final = Graveyard(Keys(), "post", final=True)
    assert [command[0] for command in final.commands(0, b"ping", failure, [])] == ["XADD", "HINCRBY"]
    assert [command[0] for command in final.commands(0, ALERT_TYPE.encode(), failure, [])] == ["XADD"]
    dlq = Graveyard(Keys(), "post", final=False)
    assert [command[0] for command in dlq.commands(0, b"ping", failure, [])] == ["XADD"]


async def test_a_stop_in_the_middle_of_second_tries_repeats_none(
    service: Service, post: ScriptedChannel
) -> None:
    people = [f"u{i}" for i in range(30)]
    for u in people:
        post.answers[address_of(u)] = [PermanentFailure("550"), PermanentFailure("550")]
    async with service.worker([post], ALL, lease_ttl=LONG) as worker:
        await service.publish(*(ping(f"e-{u}", u) for u in people))
        await until(lambda: len(post.attempts) > 40)
        await worker.stop()
    async with service.worker([post], ALL):
        await until(lambda: _has(service, 30))
    assert len(post.attempts) == 60


async def _owners(service: Service, count: int) -> bool:
    return len({*(await service.owners("post:dlq")).values()}) == count


async def _has(service: Service, dead: int) -> bool:
    return len(await service.entries("post", "dead")) == dead
