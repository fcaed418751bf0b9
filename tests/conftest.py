"""A real broker for every test that needs one, and what stands on it."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import redis
import redis.asyncio
from hypothesis import HealthCheck, settings

from notifier.broker.connection import connect
from notifier.keys import Keys
from notifier.local.broker import EmbeddedBroker
from notifier.recipients import Recipients, Suppressions
from tests.support.channels import ScriptedChannel
from tests.support.service import Service, open_service

# A machine that stands still for a moment is no fault of an example.
settings.register_profile(
    "patient",
    settings.get_profile(settings.get_current_profile_name()),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("patient")


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
async def client(redis_url: str) -> AsyncIterator[redis.asyncio.Redis]:
    async with connect(redis_url) as client:
        yield client


@pytest.fixture
def recipients(client: redis.asyncio.Redis) -> Recipients:
    return Recipients(client, Keys())


@pytest.fixture
def suppressions(client: redis.asyncio.Redis) -> Suppressions:
    return Suppressions(client, Keys())


@pytest.fixture
async def service(redis_url: str, tmp_path: Path) -> AsyncIterator[Service]:
    async with open_service(redis_url, tmp_path) as service:
        yield service


@pytest.fixture
def post() -> ScriptedChannel:
    """A channel for `service.worker`."""
    return ScriptedChannel()


@pytest.fixture(scope="session", autouse=True)
def interruptible() -> Iterator[None]:
    """What a test starts hears of Ctrl-C, although we may run in the background of a shell without job
    control, which has it ignored; and who inherits that keeps to it."""
    before = signal.getsignal(signal.SIGINT)
    if before is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    if before is signal.SIG_IGN:
        signal.signal(signal.SIGINT, before)


@pytest.fixture
def terminal() -> Iterator[None]:
    """What the test starts hears that its terminal closes (SIGHUP), although we may run behind nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.fixture
def templates_folder() -> Path:
    """The templates that come with the project."""
    return Path(__file__).parent.parent / "templates"
