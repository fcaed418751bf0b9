"""What an operator configures: passwords, and how safe a publish must be."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from notifier.broker import cluster, cluster_sync
from notifier.errors import BrokerError, BrokerUnavailable
from notifier.publisher import AsyncPublisher, Publisher
from tests.support.service import ping
from tests.support.topologies import binary_of, clustered, standalone, watched

pytestmark = pytest.mark.slow


async def _publishes(url: str) -> None:
    with Publisher(url) as publisher:
        publisher.publish_many([ping(f"e{n}", f"u{n}") for n in range(20)])
    async with AsyncPublisher(url) as publisher:
        accepted = await publisher.publish_many([ping(f"e{n}", f"u{n}") for n in range(20)])
    assert all(one.duplicate for one in accepted)


async def test_the_nodes_of_a_cluster_ask_for_a_password(tmp_path: Path) -> None:
    with clustered(tmp_path) as topology:
        for node in topology.nodes:
            node.lock("geheim")
        await _publishes(topology.url.replace("://", "://default:geheim@"))
        why = rf"no node of the cluster answered: .*:{topology.nodes[0].port}: Authentication required"
        with Publisher(topology.url) as publisher, pytest.raises(BrokerUnavailable, match=why):
            publisher.publish(ping("e", "u"))
        async with AsyncPublisher(topology.url) as publisher:
            with pytest.raises(BrokerUnavailable, match=why):
                await publisher.publish(ping("e", "u"))


async def test_nodes_that_answer_late_are_asked_once_more_by_those_who_know_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for client in (cluster, cluster_sync):
        monkeypatch.setattr(client, "PATIENCE", timedelta(microseconds=1))
    with clustered(tmp_path) as topology:
        await _publishes(topology.url)


async def test_servers_and_sentinels_ask_for_different_passwords(tmp_path: Path) -> None:
    with watched(tmp_path, sentinel_password="wachsam") as topology:
        topology.primary().lock("geheim")
        url = topology.url.replace("://", "://:geheim@") + "/0?sentinel_password=wachsam"
        await _publishes(url)
        with (
            Publisher(url.replace("wachsam", "falsch")) as publisher,
            pytest.raises(BrokerUnavailable, match="no sentinel names a primary"),
        ):
            publisher.publish(ping("e", "u"))


async def test_fsync_waits_for_the_disk_of_each_node(tmp_path: Path) -> None:
    options = {"appendonly": "yes", "appendfsync": "always"}
    with clustered(tmp_path, options=options) as topology:
        async with AsyncPublisher(topology.url, durability="fsync") as publisher:
            await publisher.publish_many([ping(f"e{n}", f"u{n}") for n in range(20)])
            topology.nodes[2].ask("CONFIG", "SET", "appendonly", "no")
            with pytest.raises(BrokerError, match="WAITAOF"):
                await publisher.publish_many([ping(f"f{n}", f"u{n}") for n in range(20)])


async def test_a_cluster_without_replicas_confirms_none(tmp_path: Path) -> None:
    with clustered(tmp_path) as topology:
        options: dict[str, Any] = {"durability": "replicas", "timeout": timedelta(seconds=1)}
        with (
            Publisher(topology.url, **options) as publisher,
            pytest.raises(BrokerUnavailable, match="not confirmed as replicas"),
        ):
            publisher.publish(ping("e", "u"))


@pytest.mark.parametrize("server", ["valkey-9.1", "redis-7.0", "redis-8.2"])
def test_a_primary_whose_replicas_are_gone_takes_nothing_when_it_is_told_so(
    server: str, tmp_path: Path
) -> None:
    with standalone(tmp_path, binary_of(server)) as topology, Publisher(topology.url) as publisher:
        publisher.publish(ping("e1", "u1"))
        topology.server.ask("CONFIG", "SET", "min-replicas-to-write", "1")
        with pytest.raises(BrokerUnavailable, match="replicas to write"):
            publisher.publish(ping("e2", "u1"))
        topology.server.ask("CONFIG", "SET", "min-replicas-to-write", "0")
        assert not publisher.publish(ping("e2", "u1")).duplicate
