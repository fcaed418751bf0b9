"""TLS, a user with few rights, and certificates on both sides, on each shape of broker.

Of the servers here only Debian's Redis speaks TLS.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest

from notifier.broker.slots import slot_of
from notifier.errors import BrokerUnavailable
from notifier.publisher import AsyncPublisher, Publisher
from tests.support.certificates import write_certificate
from tests.support.channels import ScriptedChannel
from tests.support.service import ping
from tests.support.topologies import (
    Clustered,
    Server,
    Tls,
    Topology,
    Watched,
    binary_of,
    clustered,
    standalone,
    watched,
)
from tests.support.waiting import until
from tests.topologies.conftest import open_on

pytestmark = pytest.mark.slow

PEOPLE = [f"u{n}" for n in range(30)]
SHORTLY = timedelta(seconds=2)

PAGE = Path(__file__).parent.parent.parent / "docs/how-to/run-in-production.md"

Start = Callable[..., AbstractContextManager[Topology]]

_SHAPES: dict[str, Start] = {
    "standalone": standalone,
    "sentinel": watched,
    "cluster": clustered,
}


@pytest.fixture
def tls(tmp_path: Path) -> Tls:
    return Tls(write_certificate(tmp_path / "server.pem"))


@pytest.fixture(params=_SHAPES)
def start(request: pytest.FixtureRequest, tmp_path: Path) -> Start:
    return partial(_SHAPES[request.param], tmp_path / "servers", binary_of("redis-7.0"))


@pytest.fixture
def topology(start: Start, tls: Tls) -> Iterator[Topology]:
    with start(tls=tls) as topology:
        yield topology


async def test_everything_works_over_tls_and_as_a_user_with_few_rights(
    topology: Topology, tmp_path: Path, post: ScriptedChannel
) -> None:
    for server in _data_servers(topology):
        server.ask(*_documented_user())
        server.lock("of-the-operator")
    url = topology.url.replace("://", "://notifier:secret@")
    events = [ping(f"e{n}-{u}", u) for n in range(3) for u in PEOPLE]
    async with open_on(topology, tmp_path, url) as service:
        await service.publish(*events)
        with Publisher(url) as publisher:
            accepted = await asyncio.to_thread(publisher.publish_many, events)
        assert all(one.duplicate for one in accepted)
        async with service.worker([post]):
            await until(lambda: len(post.sent) == len(events))
            await until(lambda: service.nothing_left("events", "post"))


def _data_servers(topology: Topology) -> list[Server]:
    return list(topology.servers) if isinstance(topology, Watched) else list(topology.primaries())


def _documented_user() -> list[str]:
    found = re.search(r"^ACL SETUSER .+$", PAGE.read_text(), re.MULTILINE)
    assert found
    return found[0].split(" ")


async def test_a_server_that_nobody_vouches_for_is_not_talked_to(topology: Topology) -> None:
    for url in (topology.url.partition("?")[0], topology.url.replace("rediss", "redis").partition("?")[0]):
        async with AsyncPublisher(url, timeout=SHORTLY) as publisher:
            with pytest.raises(BrokerUnavailable):
                await publisher.publish(ping("e", "ada"))
        with Publisher(url, timeout=SHORTLY) as blocking, pytest.raises(BrokerUnavailable):
            await asyncio.to_thread(blocking.publish, ping("e", "ada"))


async def test_a_server_that_asks_for_a_certificate_gets_ours(start: Start, tls: Tls) -> None:
    with start(tls=replace(tls, asks_clients=True)) as topology:
        async with AsyncPublisher(topology.url, timeout=SHORTLY) as publisher:
            with pytest.raises(BrokerUnavailable):
                await publisher.publish(ping("e", "ada"))
        url = f"{topology.url}&ssl_certfile={tls.file}&ssl_keyfile={tls.file}"
        async with AsyncPublisher(url) as publisher:
            await publisher.publish_many([ping(f"e-{u}", u) for u in PEOPLE])
        with Publisher(url) as blocking:
            accepted = await asyncio.to_thread(blocking.publish, ping("e-u1", "u1"))
        assert accepted.duplicate


async def test_a_failover_is_followed_over_tls(tls: Tls, tmp_path: Path) -> None:
    redis_7 = binary_of("redis-7.0")
    with watched(tmp_path / "servers", redis_7, down_after_ms=500, tls=tls) as sentinels:
        async with AsyncPublisher(sentinels.url) as publisher:
            await publisher.publish(ping("e1", "ada"))
            await asyncio.to_thread(sentinels.fail_over)
            await until(lambda: _published(publisher, "e2"))


async def test_a_slot_that_moves_is_followed_over_tls(tls: Tls, tmp_path: Path) -> None:
    with clustered(tmp_path / "servers", binary_of("redis-7.0"), tls=tls) as cluster:
        async with open_on(cluster, tmp_path) as service:
            await service.publish(ping("e1", "ada"))
            slot = slot_of(service.keys.recipient("ada"))
            await asyncio.to_thread(_move, cluster, slot)
            await service.publish(ping("e2", "ada"))
            assert await service.waiting("events") == 2


def _move(cluster: Clustered, slot: int) -> None:
    source = cluster.owner_of_slot(slot)
    for _ in cluster.move(slot, next(node for node in cluster.nodes if node is not source)):
        pass


async def _published(publisher: AsyncPublisher, event_id: str) -> bool:
    try:
        await publisher.publish(ping(event_id, "ada"))
    except BrokerUnavailable:
        return False
    return True
