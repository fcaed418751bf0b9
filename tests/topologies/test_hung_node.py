"""A node of a cluster that hangs: it holds its connections and says nothing. The others go on."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from notifier.broker.cluster_sync import SyncCluster
from notifier.broker.connection import connect, connect_sync, open_line
from notifier.broker.line import Command
from notifier.broker.pulse import SLOW
from notifier.broker.scripts import execute
from notifier.errors import BrokerUnavailable
from notifier.publisher import AsyncPublisher
from tests.support.channels import ScriptedChannel
from tests.support.service import Service, address_of
from tests.support.topologies import Clustered, Server, clustered, empty
from tests.support.waiting import until
from tests.topologies.conftest import open_on
from tests.topologies.traffic import PEOPLE, Pulse, Traffic

pytestmark = pytest.mark.slow

HELD_UP = 3.5
"""Seconds that the first call to a hung node and others may take, on a machine with little time."""

NOT_HELD_UP = 1.0

IN_HAND = 60


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clustered]:
    with clustered(tmp_path_factory.mktemp("cluster"), node_timeout_ms=60_000) as topology:
        yield topology  # nobody takes the place of a node


@pytest.fixture
def cluster(nodes: Clustered) -> Iterator[Clustered]:
    empty(nodes)
    yield nodes
    for node in nodes.nodes:
        node.thaw()


@pytest.fixture
async def service(cluster: Clustered, tmp_path: Path) -> AsyncIterator[Service]:
    async with open_on(cluster, tmp_path) as service:
        yield service


async def test_deliveries_on_the_other_nodes_go_on(
    cluster: Clustered, service: Service, post: ScriptedChannel
) -> None:
    hung = cluster.owner_of(service.keys.recipient("u0"))
    there = [u for u in PEOPLE if cluster.owner_of(service.keys.recipient(u)) is hung]
    machine = Pulse()
    async with (
        machine.beating(next(node for node in cluster.nodes if node is not hung)),
        AsyncPublisher(service.url) as publisher,
        AsyncPublisher(service.url) as other_publisher,
        service.worker([post], in_hand=IN_HAND),
    ):
        here = Traffic(publisher, post, there)
        elsewhere = Traffic(other_publisher, post, [u for u in PEOPLE if u not in there])
        gates = [post.hold(address_of(u)) for u in there]
        await here.publish(there)
        await until(lambda: post.at_once == len(there))
        async with elsewhere.flowing():
            await elsewhere.some_more()
            hung.freeze()
            frozen = time.monotonic()
            for gate in gates:  # these deliveries can't be settled now
                gate.set()
            async with here.flowing():
                await until(lambda: time.monotonic() - frozen > 5)  # as long as a call may take
                await elsewhere.some_more()
                silence = elsewhere.longest_silence(frozen) - machine.longest_pause(frozen)
                hung.thaw()
                await here.some_more()
        await until(lambda: service.nothing_left("events", "post"))
    here.report("on the node that hung", frozen)
    elsewhere.report("on the others", frozen)
    for traffic in (here, elsewhere):
        verdict = traffic.verdict()
        assert not verdict.missing
        assert not verdict.out_of_order
        assert verdict.duplicates <= IN_HAND
    assert silence < HELD_UP


Execute = Callable[[Sequence[Command]], Awaitable[list[Any]]]


@pytest.fixture(params=["pool", "line", "threads"])
async def call(request: pytest.FixtureRequest, cluster: Clustered) -> AsyncIterator[Execute]:
    """Sends commands in one of the ways that there are."""
    if request.param == "threads":
        blocking = connect_sync(cluster.url)
        assert isinstance(blocking, SyncCluster)
        yield lambda commands: asyncio.to_thread(blocking.execute, commands)
        blocking.close()
        return
    async with connect(cluster.url) as client:
        line = open_line(client)
        yield line.execute if request.param == "line" else client.execute
        await line.close()


async def test_one_call_finds_out_and_the_next_do_not_wait(cluster: Clustered, call: Execute) -> None:
    hung = cluster.nodes[1]
    commands = [_set_on(cluster, node) for node in cluster.nodes]
    assert await call(commands) == [b"OK"] * 3
    hung.freeze()
    well = cluster.nodes[0]
    assert await _seconds(call(commands), well, answered=2) < HELD_UP
    for _ in range(3):
        assert await _seconds(call(commands), well, answered=2) < NOT_HELD_UP
        assert await _seconds(call([commands[0], commands[2]]), well, answered=2) < NOT_HELD_UP
    hung.thaw()
    await until(lambda: _all_answer(call, commands))


async def test_who_comes_to_a_node_that_hangs_asks_the_next(cluster: Clustered) -> None:
    first, hung, _ = cluster.nodes
    hung.freeze()
    url = f"redis+cluster://127.0.0.1:{hung.port},127.0.0.1:{first.port}"
    command = _set_on(cluster, first)
    async with connect(url) as client:
        assert await _seconds(execute(client, [command]), first, answered=1) < HELD_UP
    blocking = connect_sync(url)
    assert isinstance(blocking, SyncCluster)
    assert await _seconds(asyncio.to_thread(blocking.execute, [command]), first, answered=1) < HELD_UP
    blocking.close()


async def test_a_node_that_is_slow_is_waited_for(cluster: Clustered, call: Execute) -> None:
    key = _set_on(cluster, cluster.nodes[1])[1]
    replies = await call([("BLPOP", f"{key}list", 5 * SLOW), _set_on(cluster, cluster.nodes[0])])
    assert replies == [None, b"OK"]


def _set_on(cluster: Clustered, node: Server) -> tuple[str, str, str]:
    """A command for that node."""
    return "SET", next(key for n in range(1000) if cluster.owner_of(key := f"{{{n}}}") is node), "v"


async def _seconds(call: Awaitable[list[Any]], well: Server, answered: int) -> float:
    """How long it takes, without what a machine that stands still takes."""
    machine = Pulse()
    async with machine.beating(well):
        started = time.monotonic()
        replies = await call
        took = time.monotonic() - started - machine.longest_pause(started)
    assert sum(reply == b"OK" for reply in replies) == answered
    assert sum(isinstance(reply, BrokerUnavailable) for reply in replies) == len(replies) - answered
    return took


async def _all_answer(call: Execute, commands: Sequence[Command]) -> bool:
    return await call(commands) == [b"OK"] * len(commands)
