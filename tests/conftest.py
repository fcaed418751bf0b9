"""A real broker for every test that needs one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from notifier.local.broker import EmbeddedBroker


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedBroker]:
    """One Valkey server for the whole run, on a port of its own."""
    with EmbeddedBroker(tmp_path_factory.mktemp("broker"), persistent=False) as server:
        yield server


@pytest.fixture
def redis_url(broker: EmbeddedBroker) -> str:
    """The URL of an empty database."""
    with redis.Redis.from_url(broker.url) as client:
        client.flushall()
        client.config_set("maxmemory", 0)
    return broker.url


@pytest.fixture
def templates_folder() -> Path:
    """The templates that come with the project."""
    return Path(__file__).parent.parent / "templates"
