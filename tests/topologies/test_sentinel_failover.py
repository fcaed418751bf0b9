"""A primary that dies while events flow: the sentinels name another, and everything goes on.

What the old primary had acknowledged and not yet handed to its replica is lost, because replication is
asynchronous. How much that is depends on what a publish waits for.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import redis.exceptions

from notifier.broker.connection import connect_sync
from notifier.broker.scripts import ask
from notifier.errors import BrokerUnavailable
from notifier.publisher import AsyncPublisher, Durability, Publisher
from tests.support.channels import ScriptedChannel
from tests.support.proxy import open_proxy
from tests.support.service import Service, ping
from tests.support.topologies import Server, Watched, wait, watched
from tests.support.waiting import until
from tests.topologies.conftest import open_on
from tests.topologies.traffic import PEOPLE, Pulse, Traffic

pytestmark = pytest.mark.slow

IN_HAND = 50


@pytest.fixture
def sentinels(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Watched]:
    """With one replica, unless the test asks for more."""
    replicas = getattr(request, "param", 1)
    with watched(tmp_path / "servers", replicas=replicas, down_after_ms=500) as topology:
        yield topology


@pytest.fixture
async def service(sentinels: Watched, tmp_path: Path) -> AsyncIterator[Service]:
    async with open_on(sentinels, tmp_path) as service:
        yield service


# One replica becomes the primary, the other confirms what is published from then on.
@pytest.mark.parametrize("sentinels", [2], indirect=True)
@pytest.mark.parametrize("durability", ["memory", "replicas"])
async def test_a_primary_that_is_killed_under_load_is_replaced(
    sentinels: Watched, service: Service, post: ScriptedChannel, durability: Durability
) -> None:
    timeout = timedelta(seconds=2)
    async with (
        AsyncPublisher(service.url, durability=durability, timeout=timeout) as publisher,
        service.worker([post], in_hand=IN_HAND),
    ):
        traffic = Traffic(publisher, post)
        async with traffic.flowing():
            await traffic.some_more()
            killed = time.monotonic()
            await asyncio.to_thread(sentinels.fail_over)
            await traffic.some_more()
        await until(lambda: service.nothing_left("events", "post"))
    traffic.report(f"durability={durability}", killed)
    verdict = traffic.verdict()
    assert not verdict.out_of_order
    assert not verdict.unexpected
    assert verdict.duplicates <= 2 * IN_HAND  # in hand, or settled and not yet replicated
    if durability == "replicas":
        assert not verdict.missing
    else:
        assert len(verdict.missing) <= 20  # of the two publishes before the end


@pytest.mark.parametrize("durability", ["memory", "replicas"])
async def test_what_the_replica_had_not_heard_of_is_lost_and_no_more(
    sentinels: Watched, service: Service, post: ScriptedChannel, durability: Durability
) -> None:
    primary = sentinels.primary()
    [replica] = [server for server in sentinels.servers if server is not primary]
    async with (
        open_proxy(primary.url) as link,
        AsyncPublisher(service.url, durability=durability, timeout=timedelta(seconds=1)) as publisher,
    ):
        await asyncio.to_thread(replica.ask, "REPLICAOF", "127.0.0.1", link.port)
        await until(lambda: asyncio.to_thread(_is_linked, replica))
        await asyncio.to_thread(sentinels.wait_until_replicated)
        # Again, if that took longer than it waits: the machine may stand still.
        await until(lambda: _publishes(publisher, *(ping(f"before-{u}", u) for u in PEOPLE)))
        if durability == "memory":
            await until(lambda: asyncio.to_thread(_has_caught_up, primary, replica))
        await link.stop()
        event = ping("after", "u0")
        if durability == "memory":
            await until(lambda: _publishes(publisher, event))  # and is lost
        else:
            for _ in range(2):  # nor is it accepted when it is repeated
                with pytest.raises(BrokerUnavailable, match="not confirmed"):
                    await publisher.publish(event)
        await asyncio.to_thread(sentinels.fail_over)
    async with service.worker([post]):
        await until(lambda: len(post.sent) >= len(PEOPLE))
        await until(lambda: service.nothing_left("events", "post"))
    assert {one.event_id for one in post.sent} == {f"before-{u}" for u in PEOPLE}


async def _publishes(publisher: AsyncPublisher, *events: dict[str, Any]) -> bool:
    try:
        await publisher.publish_many(events)
    except BrokerUnavailable:
        return False
    return True


def _has_caught_up(primary: Server, replica: Server) -> bool:
    return _replication(primary)["master_repl_offset"] == _replication(replica)["master_repl_offset"]


def _replication(server: Server) -> dict[str, Any]:
    with server.client() as client:
        found: dict[str, Any] = client.info("replication")
    return found


def _is_linked(replica: Server) -> bool:
    return _replication(replica)["master_link_status"] == "up"


async def test_a_sentinel_that_is_away_is_passed_over(sentinels: Watched, service: Service) -> None:
    sentinels.sentinels[0].kill()
    with Publisher(service.url) as publisher:
        assert publisher.publish(ping("e1", "ada")).id == "e1"
    await service.publish(ping("e2", "ada"))
    assert await service.waiting("events") == 2


async def test_a_primary_that_becomes_a_replica_is_left(sentinels: Watched, service: Service) -> None:
    client = connect_sync(service.url)
    await ask(service.client, ("SET", "k", "v"))
    client.set("k", "v")
    old = sentinels.primary()
    [new] = [server for server in sentinels.servers if server is not old]
    sentinels.sentinels[0].ask("SENTINEL", "FAILOVER", "people")
    await until(lambda: asyncio.to_thread(lambda: sentinels.primary() is new))
    old.ask("REPLICAOF", "127.0.0.1", new.port)  # the sentinels would do it ten seconds later
    await until(lambda: _sets(service, "w"))
    await until(lambda: asyncio.to_thread(_sets_sync, client, "x"))
    assert new.ask("GET", "k") == b"x"
    client.close()


async def _sets(service: Service, value: str) -> bool:
    try:
        await ask(service.client, ("SET", "k", value))
    except BrokerUnavailable:
        return False
    return True


def _sets_sync(client: redis.Redis, value: str) -> bool:
    try:
        client.set("k", value)
    except redis.exceptions.RedisError:
        return False
    return True


@pytest.mark.parametrize("sentinels", [2], indirect=True)
async def test_a_primary_that_hung_and_wakes_up_is_left_within_a_second_or_two(
    sentinels: Watched, service: Service, post: ScriptedChannel
) -> None:
    """It takes what it is sent until the sentinels make it a replica, and then forgets it."""
    machine = Pulse()
    async with (
        machine.beating(sentinels.sentinels[0]),
        AsyncPublisher(service.url, durability="replicas") as publisher,
        service.worker([post], in_hand=IN_HAND),
    ):
        traffic = Traffic(publisher, post)
        async with traffic.flowing():
            await traffic.some_more()
            hung = sentinels.primary()
            hung.freeze()
            frozen = time.monotonic()
            await until(lambda: asyncio.to_thread(lambda: sentinels.primary() is not hung))
            hung.thaw()
            await traffic.some_more()
            silence = traffic.longest_silence(frozen) - machine.longest_pause(frozen)
            await asyncio.to_thread(wait, lambda: hung.ask("ROLE")[0] == b"slave", "it follows")
            await traffic.some_more()
        await until(lambda: service.nothing_left("events", "post"))
    traffic.report("durability=replicas, a primary that hung", frozen)
    verdict = traffic.verdict()
    assert not verdict.missing
    assert not verdict.out_of_order
    assert verdict.duplicates <= 2 * IN_HAND
    assert silence < 6
