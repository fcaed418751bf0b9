"""What the broker and the network may do to a worker: nothing is lost, nothing comes twice, order is kept."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import redis.asyncio
import structlog.testing

from notifier.broker.scripts import script
from notifier.channel import TransientFailure
from notifier.errors import BrokerFull
from notifier.keys import GROUP
from notifier.local.broker import EmbeddedBroker
from tests.faults.test_worker_faults import is_serving
from tests.support.brokers import DurableBroker
from tests.support.channels import ScriptedChannel
from tests.support.proxy import Proxy, open_proxy
from tests.support.service import Service, address_of, open_service, ping
from tests.support.waiting import until

PEOPLE = [f"u{i}" for i in range(20)]
COUNT = 360


class Load:
    """Events in small portions for twenty people, and what must have come of them."""

    def __init__(self, service: Service, post: ScriptedChannel) -> None:
        self._service = service
        self._post = post
        self._published: dict[str, list[str]] = {u: [] for u in PEOPLE}
        self._number = 0

    async def publish(self, count: int) -> None:
        events = []
        for _ in range(count):
            recipient, event_id = PEOPLE[self._number % len(PEOPLE)], f"e{self._number}"
            self._published[recipient].append(event_id)
            events.append(ping(event_id, recipient))
            self._number += 1
        await self._service.publish(*events)

    async def all_sent(self, more: int = 0) -> None:
        await until(lambda: len({attempt.event_id for attempt in self._post.sent}) == self._number + more)
        await until(lambda: self._service.nothing_left("events", "post"))

    def assert_each_once_and_in_order(self) -> None:
        for recipient, ids in self._published.items():
            assert self._post.sent_to(address_of(recipient)) == ids

    def assert_in_order(self, *, duplicates: int) -> None:
        assert len(self._post.sent) - self._number <= duplicates
        for recipient, ids in self._published.items():
            assert list(dict.fromkeys(self._post.sent_to(address_of(recipient)))) == ids


@pytest.fixture
def load(service: Service, post: ScriptedChannel) -> Load:
    return Load(service, post)


async def clients(service: Service) -> list[str]:
    """The connections that wait in a blocking read."""
    rows = await service.client.client_list()
    return [row["id"] for row in rows if row["cmd"] == "xreadgroup" and "b" in row["flags"]]


async def all_are_renewed(service: Service) -> None:
    """Every lease is prolonged once more: the connections for that, and for releasing them, work again."""
    partitions = range(service.keys.partitions)
    leases = [service.keys.lease(queue, p) for queue in ("events", "post") for p in partitions]

    async def ends() -> list[int]:
        return [int(await service.client.hget(lease, "until") or 0) for lease in leases]

    before = await ends()

    async def are_later() -> bool:
        return all(end > earlier for end, earlier in zip(await ends(), before, strict=True))

    await until(are_later)


async def test_a_read_that_is_unblocked_with_an_error_goes_on(
    service: Service, post: ScriptedChannel, load: Load
) -> None:
    async with service.worker([post]):
        for _ in range(6):
            for client in await until(lambda: clients(service)):
                await service.client.client_unblock(int(client), error=True)
            await load.publish(COUNT // 6)
        await load.all_sent()
    load.assert_each_once_and_in_order()
    await service.assert_at_baseline()


async def test_connections_that_are_killed_are_made_anew(
    service: Service, post: ScriptedChannel, load: Load
) -> None:
    async with service.worker([post]):
        for _ in range(6):
            await until(lambda: clients(service))
            await load.publish(COUNT // 6)
            me = await service.client.client_id()
            killed = set()
            for row in await service.client.client_list():
                is_victim = int(row["id"]) != me and row["cmd"] not in {"hello", "client|list"}
                if is_victim and await service.client.client_kill_filter(_id=row["id"]):
                    killed.add(row["cmd"])
            assert "xreadgroup" in killed
        await load.all_sent()
        await all_are_renewed(service)
    load.assert_each_once_and_in_order()
    await service.assert_at_baseline()


async def test_scripts_that_are_forgotten_are_taught_again(
    service: Service, post: ScriptedChannel, load: Load
) -> None:
    post.answers[address_of("u3")] = [TransientFailure("451")] * 3
    async with service.worker([post]):
        for _ in range(12):
            await load.publish(COUNT // 12)
            await service.client.script_flush()
        await load.all_sent()
    load.assert_each_once_and_in_order()
    await service.assert_at_baseline()


async def test_a_group_that_is_deleted_by_hand_is_made_anew_and_nothing_is_lost(
    service: Service, post: ScriptedChannel, load: Load
) -> None:
    async with service.worker([post], in_hand=50):
        await is_serving(service)  # else there is no stream yet
        for _ in range(5):
            await load.publish(COUNT // 5)
            for queue in ("events", "post"):
                for p in range(service.keys.partitions):
                    await service.client.xgroup_destroy(service.keys.queue(queue, p), GROUP)
        await load.all_sent()
    load.assert_in_order(duplicates=5 * 50)
    await service.assert_at_baseline()


async def test_a_lease_that_is_deleted_by_hand_is_taken_again(
    service: Service, post: ScriptedChannel, load: Load
) -> None:
    async with service.worker([post], in_hand=50):
        for _ in range(5):
            await is_serving(service)
            await load.publish(COUNT // 5)
            for queue in ("events", "post"):
                for p in range(service.keys.partitions):
                    assert await service.client.delete(service.keys.lease(queue, p)) == 1
        await load.all_sent()
    load.assert_in_order(duplicates=5 * 50)
    await service.assert_at_baseline()


CALLS = (
    "commit", "route", "worker_alive", "lease_acquire", "lease_renew", "recover", "lanes_due", "promote",
    "XREADGROUP", "ZMSCORE",
)  # fmt: skip
"""What a worker that runs asks of the server, under a load with a parked lane and scheduled events."""


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("command", CALLS)
async def test_a_connection_cut_around_a_command_costs_nothing(
    service: Service, post: ScriptedChannel, load: Load, when: str, command: str
) -> None:
    mark = command.encode() if command.isupper() else script(command).sha.encode()
    post.answers[address_of("u3")] = [TransientFailure("451")] * 4
    async with open_proxy(service.url) as proxy:
        for _ in range(3):
            proxy.cut(mark, after=when == "after")
        through = replace(service, url=proxy.url)
        async with through.worker([post]):
            start = datetime.now(UTC)
            dues = [start + timedelta(milliseconds=200 * n) for n in range(3)]
            # In one call: what is published after its time overtakes what is scheduled.
            await service.publish(*(ping(f"later{n}", "late", deliver_at=due) for n, due in enumerate(dues)))
            for _ in range(6):
                await load.publish(COUNT // 6)
            await load.all_sent(more=3)
            later = 3
            while proxy.cuts < 3:  # some calls are made only where there is something to do
                post.answers[address_of("u3")].append(TransientFailure("451"))
                due = datetime.now(UTC) + timedelta(milliseconds=50)
                await service.publish(ping(f"later{later}", "late", deliver_at=due))
                await load.publish(len(PEOPLE))
                later += 1
                await load.all_sent(more=later)
    load.assert_each_once_and_in_order()
    assert post.sent_to(address_of("late")) == [f"later{n}" for n in range(later)]
    await service.assert_at_baseline()


async def test_a_broker_that_was_away_for_longer_than_the_leases_is_read_again(
    service: Service, post: ScriptedChannel, load: Load
) -> None:
    async with open_proxy(service.url) as proxy:
        through = replace(service, url=proxy.url)
        async with through.worker([post], lease_ttl=timedelta(seconds=1)):
            await load.publish(20)
            await load.all_sent()
            await _leases_run_out_while_away(proxy, service)
            await load.publish(20)
            await load.all_sent()
    load.assert_each_once_and_in_order()
    await service.assert_at_baseline()


async def test_a_parked_delivery_whose_commit_is_late_is_not_made_again(
    service: Service, post: ScriptedChannel, load: Load
) -> None:
    for u in PEOPLE:
        post.answers[address_of(u)] = [TransientFailure("451", retry_after=600)]
    async with open_proxy(service.url) as proxy:
        through = replace(service, url=proxy.url)
        options = {"lease_ttl": timedelta(seconds=1), "retry_max": timedelta(hours=1)}
        async with through.worker([post], **options):
            await load.publish(40)
            await until(lambda: _equals(service.parked, 40))
            gates = [post.hold(address_of(u)) for u in PEOPLE]
            await _all_parked_are_due(service)
            await until(lambda: post.at_once == 20)
            for _ in range(6):  # for longer than a lane is held back that was handed out
                proxy.cut(script("commit").sha.encode(), after=False)
            for gate in gates:
                gate.set()
            await load.all_sent()
            assert proxy.cuts == 6
    load.assert_each_once_and_in_order()
    await service.assert_at_baseline()


@pytest.mark.slow
async def test_a_lane_that_is_due_before_its_parking_is_known_takes_no_place_for_ever(
    service: Service, post: ScriptedChannel, load: Load
) -> None:
    async with open_proxy(service.url) as proxy:
        through = replace(service, url=proxy.url)
        async with through.worker([post], in_hand=26, lease_ttl=timedelta(seconds=1)):
            for round_ in range(1, 6):  # each would cost the room between 20 and 26
                for u in PEOPLE:
                    post.answers[address_of(u)] = [TransientFailure("451", retry_after=0.01)]
                gates = [post.hold(address_of(u)) for u in PEOPLE]
                await load.publish(len(PEOPLE))
                await until(lambda: post.at_once == len(PEOPLE))
                proxy.cut(script("commit").sha.encode(), after=True)  # all are parked, and nobody hears of it
                proxy.cut(script("commit").sha.encode(), after=False)
                for gate in gates:
                    gate.set()
                await load.all_sent()
                post.gates.clear()
                assert proxy.cuts == 2 * round_
    load.assert_each_once_and_in_order()
    await service.assert_at_baseline()


async def _all_parked_are_due(service: Service) -> None:
    for p in range(service.keys.partitions):
        parked = service.keys.parked("post", p)
        for lane in await service.client.zrange(parked, 0, -1):
            await service.client.zadd(parked, {lane: 0})


async def _equals(found: Callable[[], Awaitable[int]], wanted: int) -> bool:
    return await found() == wanted


async def _leases_run_out_while_away(proxy: Proxy, service: Service) -> None:
    await proxy.stop()
    await until(lambda: _has_run_out(service))
    await proxy.start(proxy.port)


async def _has_run_out(service: Service) -> bool:
    seconds, micros = await service.client.time()
    now = seconds * 1000 + micros // 1000
    for queue in ("events", "post"):
        for p in range(service.keys.partitions):
            until_ms = await service.client.hget(service.keys.lease(queue, p), "until")
            if until_ms is None or int(until_ms) >= now:
                return False
    return True


async def test_a_worker_whose_broker_is_away_stops_when_it_is_told_to(
    service: Service, post: ScriptedChannel, load: Load
) -> None:
    gate = post.hold(address_of("u0"))
    async with open_proxy(service.url) as proxy:
        through = replace(service, url=proxy.url)
        async with through.worker([post], lease_ttl=timedelta(seconds=1)) as worker:
            await load.publish(20)
            await until(lambda: len(post.sent) == 19)
            await proxy.stop()
            gate.set()
            await until(lambda: len(post.sent) == 20)
            async with asyncio.timeout(10):
                await worker.stop()


async def test_a_server_that_crashes_and_comes_back_has_lost_nothing_that_was_on_its_disk(
    tmp_path: Path, post: ScriptedChannel
) -> None:
    with DurableBroker(tmp_path / "broker", persistent=True) as broker:
        async with open_service(broker.url, tmp_path) as service:
            load = Load(service, post)
            async with service.worker([post], in_hand=50):
                for _ in range(3):
                    await load.publish(200)
                    broker.kill()
                    broker.start()
                    await until(lambda: _answers(service.client))
                await load.all_sent()
                await all_are_renewed(service)
            load.assert_in_order(duplicates=3 * 50)
            await service.assert_at_baseline()


async def test_that_the_broker_is_back_is_said_by_each_queue(tmp_path: Path, post: ScriptedChannel) -> None:
    with (
        EmbeddedBroker(tmp_path / "broker", persistent=True) as broker,
        structlog.testing.capture_logs() as logged,
    ):

        def queues(event: str) -> set[str]:
            return {line["queue"] for line in logged if line["event"] == event}

        async with open_service(broker.url, tmp_path) as service, service.worker([post]):
            await until(lambda: queues("leases_acquired") == {"events", "post"})
            broker.kill()
            logged.clear()  # one may have failed before, on a machine that stood still
            await until(lambda: queues("lease_beat_failed") == {"events", "post"})
            assert not queues("lease_beat_works_again")
            broker.start()
            await until(lambda: queues("lease_beat_works_again") == {"events", "post"})


async def _answers(client: redis.asyncio.Redis) -> bool:
    try:
        return bool(await client.ping())
    except redis.RedisError:
        return False


async def test_a_server_full_of_events_is_emptied_without_more_memory(tmp_path: Path) -> None:
    """Three deliveries take more than their event. They may, up to a tenth above the limit; while nothing can
    be delivered, that is where it ends."""
    post = ScriptedChannel()
    people = [f"u{i}" for i in range(40)]
    tokens = ("the-first-phone", "the-second-phone", "the-third-phone")
    gates = [post.hold(token) for token in tokens]
    with EmbeddedBroker(tmp_path / "broker", persistent=False) as broker:
        async with open_service(broker.url, tmp_path) as service:
            for first in range(0, 4_000, 400):
                await service.publish(
                    *(ping(f"e{n}", people[n % 40], *tokens, data={"t": "x" * 3_000})
                      for n in range(first, first + 400))
                )  # fmt: skip
            limit = (await service.client.info("memory"))["used_memory"]
            await service.client.config_set("maxmemory", limit)
            accepted = 4_000

            async def fill() -> None:  # one is not always enough: the server gives a buffer back now and then
                nonlocal accepted
                while accepted < 5_000:
                    person = people[accepted % 40]
                    await service.publish(ping(f"e{accepted}", person, *tokens, data={"t": "x" * 3_000}))
                    accepted += 1

            with pytest.raises(BrokerFull):
                await fill()
            async with service.worker([post], in_hand=200):
                routed = [-n for n in range(1, 9)]

                async def routing_stands_still() -> bool:
                    routed.append(await service.waiting("post"))
                    return routed[-1] == routed[-8]

                await until(routing_stands_still, every=0.3)
                memory = await service.client.info("memory")
                assert limit < memory["used_memory_peak"] < 1.2 * limit
                assert await service.waiting("events") > 2_000
                for gate in gates:
                    gate.set()
                await until(lambda: len(post.sent) == 3 * accepted, deadline=60)
                await until(lambda: service.nothing_left("events", "post"))
            await service.assert_at_baseline()
            assert (await service.client.info("memory"))["used_memory"] < limit
            await service.publish(ping("late", "u0", *tokens))
