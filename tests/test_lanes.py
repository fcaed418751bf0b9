"""The lanes of one worker: pure bookkeeping, and what a long parked lane does with it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest

from notifier import delivering
from notifier.broker import committer
from notifier.broker.entries import Message
from notifier.broker.leases import Lease
from notifier.broker.partition import Partition
from notifier.broker.scripts import Call, Caller, run_all
from notifier.channel import TransientFailure
from notifier.keys import Keys
from notifier.lanes import Lanes
from tests.support.channels import ScriptedChannel
from tests.support.service import Service, address_of, ping
from tests.support.waiting import until


def message(number: int, lane: bytes = b"ada/email") -> Message:
    made = Message(b"%d-0" % number, ())
    made.lane = lane
    return made


@pytest.fixture
def partition() -> Partition:
    return Partition(Keys(), "post", Lease(0, "w1#1", time.monotonic() + 60))


def test_a_lane_is_given_to_one_runner_at_a_time(partition: Partition) -> None:
    lanes = Lanes()
    lanes.append(partition, message(1))
    lanes.append(partition, message(2))
    lane = lanes.take()
    assert lane is not None
    assert [m.id for m in lane.waiting] == [b"1-0", b"2-0"]
    assert lanes.take() is None
    lanes.next(lane)
    assert lanes.take() is lane
    lanes.next(lane)
    assert lanes.take() is None
    assert lanes.find(partition, b"ada/email") is None


def test_lanes_are_given_out_in_the_order_in_which_they_became_ready(partition: Partition) -> None:
    lanes = Lanes()
    for number, key in enumerate((b"a", b"b", b"a", b"c")):
        lanes.append(partition, message(number, key))
    taken = [lanes.take() for _ in range(3)]
    assert [lane.key for lane in taken if lane] == [b"a", b"b", b"c"]


def test_the_lanes_of_a_partition_that_goes_are_passed_over(partition: Partition) -> None:
    other = Partition(Keys(), "post", Lease(1, "w1#1", time.monotonic() + 60))
    lanes = Lanes()
    lanes.append(partition, message(1))
    lanes.append(other, message(2))
    assert [lane.key for lane in lanes.drop(partition)] == [b"ada/email"]
    lane = lanes.take()
    assert lane is not None
    assert lane.partition is other
    assert lanes.drop(partition) == []


async def test_each_runner_that_is_called_calls_the_next_while_lanes_are_ready(partition: Partition) -> None:
    lanes, got = Lanes(), []

    async def runner() -> None:
        while (lane := lanes.take()) is None:
            await lanes.wait()
        got.append(lane.key)

    runners = [asyncio.create_task(runner()) for _ in range(5)]
    await asyncio.sleep(0)
    runners[0].cancel()  # one that was waiting and goes must not take the call with it
    for number in range(4):
        lanes.append(partition, message(number, b"%d" % number))
    lanes.wake()
    await asyncio.wait(runners[1:], timeout=5)
    assert sorted(got) == [b"0", b"1", b"2", b"3"]


async def test_a_long_parked_lane_comes_out_in_order_and_without_pauses(service: Service) -> None:
    """Longer than what comes into hand at once, while more arrives; renewals are too rare to help."""
    post = ScriptedChannel()
    post.answers[address_of("ada")] = [TransientFailure("451", retry_after=0.3)]
    async with service.worker([post], lease_ttl=timedelta(minutes=1), retry_max=timedelta(seconds=1)):
        await service.publish(*(ping(f"e{i}", "ada") for i in range(200)))
        await until(lambda: post.attempts)  # which parked the lane in the same step
        for i in range(200, 300):
            await service.publish(ping(f"e{i}", "ada"))
        await until(lambda: len(post.sent) == 300)
        await until(lambda: service.nothing_left("post"))
    assert post.sent_to(address_of("ada")) == [f"e{i}" for i in range(300)]


async def test_a_lane_that_is_due_before_its_parking_is_known_here_is_not_left_until_it_is_handed_out_anew(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    post = ScriptedChannel()
    post.answers[address_of("ada")] = [TransientFailure("451", retry_after=0.1)]
    handed_out = asyncio.Event()

    async def answered_late(caller: Caller, calls: Sequence[Call]) -> list[Any]:
        replies = await run_all(caller, calls)
        if post.attempts:
            await handed_out.wait()
        return replies

    async def handing_out(caller: Caller, calls: Sequence[Call]) -> list[Any]:
        replies = await run_all(caller, calls)
        if any(rows for _, _, rows in replies):
            handed_out.set()
        return replies

    monkeypatch.setattr(committer, "run_all", answered_late)
    monkeypatch.setattr(delivering, "run_all", handing_out)
    async with service.worker([post], lease_ttl=timedelta(minutes=5), retry_max=timedelta(seconds=1)):
        await service.publish(ping("e0", "ada"))
        await until(lambda: post.sent_to(address_of("ada")) == ["e0"])
        await until(lambda: service.nothing_left("post"))
    assert len(post.attempts) == 2


async def test_many_parked_lanes_cost_no_pending_entry_and_no_place_in_hand(service: Service) -> None:
    post = ScriptedChannel()
    people = [f"u{i}" for i in range(100)]
    # At least an hour; the backoff alone may be of no time at all.
    post.always = {address_of(u): TransientFailure("greylisted", retry_after=3_600) for u in people}
    async with service.worker([post], in_hand=50, retry_max=timedelta(hours=1)):
        await service.publish(*(ping(f"e{n}-{u}", u) for n in range(3) for u in people))
        await until(lambda: _equals(service, 300))
        await service.publish(ping("free", "ada"))  # with every place taken it would not come through
        await until(lambda: post.sent_to(address_of("ada")) == ["free"])
        await until(lambda: _no_entry(service))
    assert len(post.attempts) == 101


async def _equals(service: Service, count: int) -> bool:
    return await service.parked() == count


async def _no_entry(service: Service) -> bool:
    return await service.waiting("post") == 0
