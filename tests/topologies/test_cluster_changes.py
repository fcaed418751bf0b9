"""A cluster that changes while events flow: a node dies, and slots move."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from notifier.broker.slots import slot_of
from notifier.channel import TransientFailure
from notifier.publisher import AsyncPublisher, Durability
from tests.support.channels import ScriptedChannel
from tests.support.service import Service, address_of
from tests.support.topologies import Clustered, Server, binary_of, clustered, wait
from tests.support.waiting import until
from tests.topologies.conftest import open_on
from tests.topologies.traffic import PEOPLE, Pulse, Traffic

pytestmark = pytest.mark.slow

IN_HAND = 60


@pytest.fixture
def cluster(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Clustered]:
    server, options = request.param
    with clustered(tmp_path / "servers", binary_of(server), **options) as topology:
        yield topology


@pytest.fixture
async def service(cluster: Clustered, tmp_path: Path) -> AsyncIterator[Service]:
    async with open_on(cluster, tmp_path) as service:
        yield service


WITH_REPLICAS = {
    "replicas": True,
    "node_timeout_ms": 1_500,
    "options": {"cluster-require-full-coverage": "no"},
}


@pytest.mark.parametrize("cluster", [("valkey-9.1", WITH_REPLICAS)], indirect=True, ids=["valkey-9.1"])
@pytest.mark.parametrize("durability", ["memory", "replicas"])
async def test_a_node_that_is_killed_is_replaced_and_the_others_do_not_wait_for_it(
    cluster: Clustered, service: Service, post: ScriptedChannel, durability: Durability
) -> None:
    doomed = cluster.owner_of(service.keys.recipient("u0"))
    there = [u for u in PEOPLE if cluster.owner_of(service.keys.recipient(u)) is doomed]
    timeout, machine = timedelta(seconds=2), Pulse()
    async with (
        machine.beating(next(node for node in cluster.primaries() if node is not doomed)),
        AsyncPublisher(service.url, durability=durability, timeout=timeout) as publisher,
        AsyncPublisher(service.url, durability=durability, timeout=timeout) as other_publisher,
        service.worker([post], in_hand=IN_HAND),
    ):
        here = Traffic(publisher, post, there)
        elsewhere = Traffic(other_publisher, post, [u for u in PEOPLE if u not in there])
        async with here.flowing(), elsewhere.flowing():
            await here.some_more()
            await asyncio.to_thread(doomed.kill)
            killed = time.monotonic()
            await until(lambda: asyncio.to_thread(lambda: len(cluster.primaries()) == 3))
            silence = elsewhere.longest_silence(killed) - machine.longest_pause(killed)
            await asyncio.to_thread(_follow, doomed)  # what waits for a replica needs one
            await asyncio.gather(here.some_more(), elsewhere.some_more())
        await until(lambda: service.nothing_left("events", "post"))
    here.report(f"on the node that died, durability={durability}", killed)
    elsewhere.report("on the others", killed)
    for traffic in (here, elsewhere):
        verdict = traffic.verdict()
        assert not verdict.out_of_order
        assert not verdict.unexpected
        assert verdict.duplicates <= 2 * IN_HAND
    assert not elsewhere.verdict().missing
    assert len(here.verdict().missing) <= (0 if durability == "replicas" else 20)
    assert silence < 1.0


def _follow(killed: Server) -> None:
    """The killed node comes back, and follows whoever took its place."""
    killed.start()
    wait(lambda: killed.ask("ROLE")[0] == b"slave" and killed.ask("ROLE")[3] == b"connected", "it follows")


KEY_BY_KEY = [("valkey-9.1", {}), ("redis-7.0", {}), ("redis-8.2", {})]


@pytest.mark.parametrize("cluster", KEY_BY_KEY, indirect=True, ids=lambda case: case[0])
async def test_slots_that_move_key_by_key_cost_nothing(
    cluster: Clustered, service: Service, post: ScriptedChannel
) -> None:
    for u in PEOPLE[::6]:
        post.answers[address_of(u)] = [TransientFailure("451", retry_after=0.3)] * 3
    moved = 0
    async with service.worker([post], in_hand=IN_HAND):
        traffic = Traffic(service.publisher, post)
        async with traffic.flowing():
            await traffic.some_more(400)  # which makes enough keys, whatever comes meanwhile
            start = time.monotonic()
            for partition in range(0, service.keys.partitions, 3):
                steps = _steps(cluster, slot_of(service.keys.tag(partition)))
                while (keys := await asyncio.to_thread(next, steps, None)) is not None:
                    moved += keys
                    await asyncio.sleep(0)  # the service gets between two steps
            await traffic.some_more()
        await until(lambda: service.nothing_left("events", "post"))
    traffic.report(f"{moved} keys moved", start)
    verdict = traffic.verdict()
    assert moved > 100
    assert not verdict.missing
    assert not verdict.unexpected
    assert not verdict.out_of_order
    assert verdict.duplicates <= IN_HAND


def _steps(cluster: Clustered, slot: int) -> Iterator[int]:
    source = cluster.owner_of_slot(slot)
    to = next(node for node in cluster.nodes if node is not source)
    return cluster.move(slot, to, per_step=5)


@pytest.mark.parametrize("cluster", [("valkey-9.1", {})], indirect=True, ids=["valkey-9.1"])
async def test_slots_that_move_as_a_whole_cost_nothing(
    cluster: Clustered, service: Service, post: ScriptedChannel
) -> None:
    async with service.worker([post], in_hand=IN_HAND):
        traffic = Traffic(service.publisher, post)
        async with traffic.flowing():
            await traffic.some_more()
            start = time.monotonic()
            for partition in range(service.keys.partitions):
                await asyncio.to_thread(_migrate, cluster, slot_of(service.keys.tag(partition)))
            await traffic.some_more()
        await until(lambda: service.nothing_left("events", "post"))
    traffic.report(f"{service.keys.partitions} slots moved", start)
    verdict = traffic.verdict()
    assert not verdict.missing
    assert not verdict.unexpected
    assert not verdict.out_of_order
    assert verdict.duplicates <= IN_HAND


def _migrate(cluster: Clustered, slot: int) -> None:
    source = cluster.owner_of_slot(slot)
    to = next(node for node in cluster.nodes if node is not source)
    source.ask("CLUSTER", "MIGRATESLOTS", "SLOTSRANGE", slot, slot, "NODE", cluster.ids[to.port])
    wait(lambda: all(_owner_as_seen_by(node, slot) == to.port for node in cluster.nodes), "all know of it")


def _owner_as_seen_by(node: Server, slot: int) -> int:
    for first, last, primary, *_ in node.ask("CLUSTER", "SLOTS"):
        if first <= slot <= last:
            return int(primary[1])
    return 0
