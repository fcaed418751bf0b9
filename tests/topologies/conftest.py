"""The service on every shape of broker, and on every server that is installed.

TOPOLOGIES=all     every shape on every server; otherwise each shape and each server once
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, asynccontextmanager
from pathlib import Path

import pytest
import redis.asyncio

from notifier.broker.connection import connect
from notifier.broker.url import locate
from notifier.keys import Keys
from notifier.publisher import AsyncPublisher
from tests.support.channels import ScriptedChannel
from tests.support.service import Service, write_types
from tests.support.topologies import Topology, binaries, binary_of, clustered, empty, standalone, watched

Start = Callable[[Path, Path], AbstractContextManager[Topology]]

_SHAPES: dict[str, Start] = {"standalone": standalone, "sentinel": watched, "cluster": clustered}
_USUAL = [
    ("standalone", "valkey-9.1"),
    ("standalone", "redis-7.0"),
    ("standalone", "redis-8.2"),
    ("sentinel", "valkey-9.1"),
    ("cluster", "valkey-9.1"),
    ("cluster", "redis-7.0"),
    ("cluster", "redis-8.2"),
]
_ALL = [(shape, server) for shape in _SHAPES for server in binaries()]
CASES = _ALL if os.environ.get("TOPOLOGIES") == "all" else _USUAL


@asynccontextmanager
async def open_on(topology: Topology, folder: Path, url: str | None = None) -> AsyncIterator[Service]:
    """A service on a topology, with a URL of its own if one is given; `client` has the usual methods of
    redis-py on each of them."""
    url = url or topology.url
    client = _client(topology, url)
    try:
        async with AsyncPublisher(url, namespace="ntf") as publisher:
            yield Service(url, client, publisher, write_types(folder / "types"), Keys())
    finally:
        await client.aclose()


def _client(topology: Topology, url: str) -> redis.asyncio.Redis:
    if locate(url).kind == "cluster":
        node = topology.primaries()[0]
        return redis.asyncio.RedisCluster("127.0.0.1", node.port, password=node.password)  # type: ignore[return-value]
    client = connect(url)
    assert isinstance(client, redis.asyncio.Redis)
    return client


@pytest.fixture(scope="session", params=CASES, ids="-".join)
def running(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Topology]:
    """Started once for all tests of the contract."""
    shape, server = request.param
    with _SHAPES[shape](tmp_path_factory.mktemp(shape), binary_of(server)) as topology:
        yield topology


@pytest.fixture
def topology(running: Topology) -> Topology:
    """An empty one."""
    empty(running)
    return running


@pytest.fixture
async def service(topology: Topology, tmp_path: Path) -> AsyncIterator[Service]:
    async with open_on(topology, tmp_path) as service:
        yield service


@pytest.fixture
def post() -> ScriptedChannel:
    return ScriptedChannel()
