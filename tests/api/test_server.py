"""`notifier api` as a process: how it starts, says no, and ends."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis

from notifier.api.server import DRAIN
from notifier.broker.connection import connect
from notifier.keys import Keys
from notifier.local.broker import end_with_parent, free_port
from notifier.operations import partitions
from tests.api.conftest import ENVIRON, PUBLISH
from tests.api.events import pairs
from tests.api.raw import Wire, head, wire
from tests.support.brokers import DurableBroker
from tests.support.proxy import open_proxy
from tests.support.waiting import until

ROOT = Path(__file__).parent.parent.parent
EVENTS = [{"type": "like", "recipient": f"u{i}"} for i in range(100)]
BODY = json.dumps(EVENTS).encode()


@dataclass(slots=True)
class Server:
    """A running `notifier api`, and what it has logged."""

    process: subprocess.Popen[bytes]
    log: Path

    def lines(self, event: str) -> list[dict[str, Any]]:
        whole = self.log.read_text().rpartition("\n")[0]  # and not half of the one that is being written
        return [line for line in map(json.loads, whole.splitlines()) if line["event"] == event]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.lines('api_started')[0]['port']}"

    def client(self) -> httpx.AsyncClient:
        headers = {"Authorization": f"Bearer {PUBLISH}"}
        return httpx.AsyncClient(base_url=self.url, headers=headers, timeout=20, trust_env=False)

    async def ended(self) -> int:
        await until(lambda: self.process.poll() is not None)
        return self.process.returncode


@asynccontextmanager
async def process(
    url: str, folder: Path, *arguments: str, environ: Mapping[str, str] = ENVIRON
) -> AsyncIterator[Server]:
    """`notifier api` on a free port; killed at the end if it still runs."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("NOTIFIER_")}
    given = kept | {"NOTIFIER_REDIS_URL": url, "NOTIFIER_TEMPLATES": str(ROOT / "templates")} | dict(environ)
    parent, log = os.getpid(), folder / "api.log"
    with log.open("wb") as said:
        running = subprocess.Popen(
            [sys.executable, "-m", "notifier.cli", "api", "--port", "0", *arguments],
            cwd=ROOT,
            env=given,
            stdout=subprocess.DEVNULL,
            stderr=said,
            preexec_fn=lambda: end_with_parent(parent),  # noqa: PLW1509 - no thread is needed in the child
        )
    try:
        yield Server(running, log)
    finally:
        running.send_signal(signal.SIGCONT)
        running.kill()
        running.wait()


@asynccontextmanager
async def started(url: str, folder: Path) -> AsyncIterator[tuple[Server, httpx.AsyncClient]]:
    async with process(url, folder) as server:
        await until(lambda: server.lines("api_started") or server.process.poll() is not None)
        async with server.client() as client:
            yield server, client


async def failed(folder: Path, *arguments: str, url: str = "", **environ: str) -> tuple[int, str]:
    """How a start ended, and the one line that it said."""
    async with process(url, folder, *arguments, environ=environ) as server:
        code = await server.ended()
    said = server.log.read_text()
    assert said.count("\n") == 1, said
    return code, said


# Starting.


@pytest.mark.slow
async def test_without_a_key_it_does_not_start(tmp_path: Path) -> None:
    code, said = await failed(tmp_path)
    assert (code, "NOTIFIER_API_KEYS: is needed" in said) == (2, True)


@pytest.mark.slow
async def test_a_short_secret_is_refused_and_not_shown(tmp_path: Path) -> None:
    code, said = await failed(tmp_path, NOTIFIER_API_KEYS="publish:tooshort")
    assert (code, "NOTIFIER_API_KEYS" in said, "tooshort" in said) == (2, True, False)


@pytest.mark.slow
async def test_a_port_in_use_is_named(tmp_path: Path, redis_url: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        code, said = await failed(tmp_path, "--port", port, url=redis_url, **ENVIRON)
    assert code == 2
    assert said == f"notifier: --port: 127.0.0.1:{port}: Address already in use\n"


@pytest.mark.slow
async def test_a_broker_that_is_away_at_the_start_is_named(tmp_path: Path) -> None:
    code, said = await failed(tmp_path, url=f"redis://127.0.0.1:{free_port()}/0", **ENVIRON)
    assert (code, "NOTIFIER_REDIS_URL" in said) == (1, True)


# Ending.


@asynccontextmanager
async def half_a_request(server: Server) -> AsyncIterator[Wire]:
    """A request whose head has been read and whose body is being waited for."""
    async with wire(server.url) as client:
        await client.send(head("Expect: 100-continue", length=len(BODY)))
        assert (await client.answer()).status == 100
        yield client


@pytest.mark.slow
@pytest.mark.usefixtures("terminal")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
async def test_at_the_end_what_has_come_is_answered(number: int, tmp_path: Path, redis_url: str) -> None:
    async with started(redis_url, tmp_path) as (server, client), half_a_request(server) as pending:
        server.process.send_signal(number)
        await until(lambda: server.lines("api_stopping"))

        async def is_refused() -> bool:
            try:
                await client.get("/livez")
            except httpx.TransportError:
                return True
            return False

        await until(is_refused)
        await pending.send(BODY)
        answer = await pending.answer()
        assert (answer.status, answer.headers["connection"]) == (202, "close")
        assert await server.ended() == 0
        assert server.lines("api_stopped")
    assert len(pairs(redis_url)) == len(EVENTS)


@pytest.mark.slow
async def test_an_idle_connection_does_not_hold_up_the_end(tmp_path: Path, redis_url: str) -> None:
    async with started(redis_url, tmp_path) as (server, client):
        await client.get("/livez")  # the client keeps its connection
        async with asyncio.timeout(DRAIN / 2):
            server.process.send_signal(signal.SIGTERM)
            assert await server.ended() == 0


@pytest.mark.slow
async def test_a_second_signal_ends_it_at_once(tmp_path: Path, redis_url: str) -> None:
    async with started(redis_url, tmp_path) as (server, _), half_a_request(server) as pending:
        server.process.send_signal(signal.SIGTERM)
        await until(lambda: server.lines("api_stopping"))
        server.process.send_signal(signal.SIGTERM)
        assert await server.ended() == 128 + signal.SIGTERM
        assert server.lines("api_aborted")
        assert await pending.is_closed()
    assert pairs(redis_url) == []


@pytest.mark.slow
async def test_logs_hold_neither_keys_nor_people(tmp_path: Path, redis_url: str) -> None:
    async with started(redis_url, tmp_path) as (server, client):
        await client.post("/v1/events", json={"type": "like", "recipient": "somebody@example.com"})
        await client.post("/v1/events", content=b"somebody@example.com")
        await client.get("/v1/recipients/somebody@example.com")
        server.process.send_signal(signal.SIGTERM)
        assert await server.ended() == 0
        text = server.log.read_text()
    for secret in (PUBLISH, "somebody", *ENVIRON.values()):
        assert secret not in text


# Killed.


@pytest.mark.slow
async def test_killed_while_it_publishes_a_repetition_completes_the_request(
    tmp_path: Path, redis_url: str
) -> None:
    headers = {"Idempotency-Key": "once"}
    async with open_proxy(redis_url) as proxy:
        async with started(proxy.url, tmp_path) as (server, client):
            proxy.cut(b"\r\ndone", after=False)  # the events are accepted, and their answer is never kept
            request = asyncio.create_task(client.post("/v1/events", json=EVENTS, headers=headers))
            await until(lambda: len(pairs(redis_url)) == len(EVENTS), every=0.001)
            server.process.kill()
            await asyncio.gather(request, return_exceptions=True)
        with redis.Redis.from_url(redis_url) as broker:
            for name in broker.scan_iter("*:idempotency:*"):
                broker.delete(name)  # as when its time is over
        async with started(proxy.url, tmp_path) as (_, client):
            response = await client.post("/v1/events", json=EVENTS, headers=headers)
            assert response.status_code == 202
            assert all(one["recipients"][0]["duplicate"] for one in response.json()["events"])
    assert len(pairs(redis_url)) == len(EVENTS)


# The broker.


@pytest.mark.slow
async def test_a_broker_that_dies_and_comes_back(tmp_path: Path) -> None:
    with DurableBroker(tmp_path / "broker", persistent=True, port=free_port()) as broker:
        async with started(broker.url, tmp_path) as (_, client):
            assert (await client.post("/v1/events", json=EVENTS)).status_code == 202
            broker.kill()
            response = await client.post("/v1/events", json={"id": "e1", "type": "like", "recipient": "u1"})
            assert (response.status_code, "Retry-After" in response.headers) == (503, True)
            assert response.json()["events"] == [{"id": "e1"}]
            assert str(broker.port) not in response.text
            assert (await client.get("/readyz")).status_code == 503
            assert (await client.get("/livez")).status_code == 200
            broker.start()

            async def is_ready() -> bool:
                return (await client.get("/readyz")).status_code == 200

            await until(is_ready)
            response = await client.post("/v1/events", json={"id": "e1", "type": "like", "recipient": "u1"})
            assert response.status_code == 202
        assert len(pairs(broker.url)) == len(EVENTS) + 1


@pytest.mark.slow
async def test_it_waits_while_partitions_are_changed_and_ends_once_they_were(
    redis_url: str, tmp_path: Path
) -> None:
    async with started(redis_url, tmp_path) as (server, client), connect(redis_url) as broker:
        await broker.hset("ntf:meta", "changing", "4")  # type: ignore[misc, union-attr]
        answer = await client.get("/readyz")
        assert (answer.status_code, "number of partitions" in answer.json()["detail"]) == (503, True)
        await broker.hdel("ntf:meta", "changing")  # type: ignore[misc, union-attr]
        assert (await client.get("/readyz")).status_code == 200
        await partitions.change(broker, "ntf", 4)
        assert await server.ended() == 1
        assert server.lines("partitions_moved")
        assert server.lines("api_stopped")
    async with started(redis_url, tmp_path) as (server, client), connect(redis_url) as broker:
        assert (await client.get("/readyz")).status_code == 200
        assert (await client.post("/v1/events", json=EVENTS)).status_code == 202
        waiting = [await broker.xlen(Keys(partitions=4, layout=2).queue("events", n)) for n in range(4)]
        assert sum(waiting) == len(EVENTS)
