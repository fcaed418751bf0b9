"""The embedded server finds ports that nobody has, whoever looks for one at the same time."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from notifier.local import broker
from notifier.local.broker import EmbeddedBroker, free_port
from tests.support.topologies import Server


@pytest.fixture
def taken() -> Iterator[int]:
    """A port on which somebody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening.getsockname()[1]


def test_a_port_that_was_just_given_is_not_given_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broker, "_EPHEMERAL_PORTS", 15_040)  # it looks from 15,000 on
    ports = [free_port() for _ in range(20)]
    assert len(set(ports)) == 20


def test_a_port_that_was_taken_meanwhile_is_replaced(tmp_path: Path, taken: int) -> None:
    server = EmbeddedBroker(tmp_path, persistent=False)
    server.port = taken
    with server:
        assert server.port != taken


def test_so_is_the_one_of_the_cluster_bus(tmp_path: Path, taken: int) -> None:
    server = Server(tmp_path, None, {"cluster-enabled": "yes"})
    server.bus_port = taken
    with server:
        assert server.bus_port != taken
        assert server.ask("INFO", "cluster")["cluster_enabled"] == 1
