"""Who listens to an inbox: how soon they are told, and what one who waits costs.

The API runs in a process of its own; its clients are plain sockets in this one. The time is that from the
call that adds an entry to the moment at which the client has it. Beside it stands the bare way: a message
published and heard, by the same client and server.
"""

from __future__ import annotations

import asyncio
import base64
import os
import resource
import secrets
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import jwt
import redis.asyncio

from notifier.bootstrap import open_runtime
from notifier.channel import InboxEntry
from notifier.local.broker import end_with_parent, free_port
from notifier.settings import Settings

WARM_UP = 100
_AT_ONCE = 50
_PATIENCE = 60.0  # seconds for anything here
_EVERY = 0.005  # seconds between two entries: 200 a second
_FILES_BESIDE = 256


class Client(asyncio.Protocol):
    """Listens to one inbox. `told` is done when the next entry is there."""

    def __init__(self, request: bytes) -> None:
        loop = asyncio.get_running_loop()
        self.listening: asyncio.Future[None] = loop.create_future()
        self.told: asyncio.Future[float] = loop.create_future()
        self._request = request
        self._tail = b""
        self.transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        data = self._tail + data
        self._tail = data[-16:]
        if not self.listening.done() and b"event: counts" in data:
            self.listening.set_result(None)
        if b"event: entry" in data and not self.told.done():
            self._tail = b""
            self.told.set_result(time.perf_counter())

    def connection_lost(self, error: Exception | None) -> None:
        for future in (self.listening, self.told):
            if not future.done():
                future.cancel()

    def expect(self) -> asyncio.Future[float]:
        self.told = asyncio.get_running_loop().create_future()
        return self.told


@dataclass(frozen=True, slots=True)
class Api:
    """`notifier api` in a process of its own."""

    port: int
    process: subprocess.Popen[bytes]
    key: bytes

    def request(self, recipient_id: str) -> bytes:
        claims = {"sub": recipient_id, "aud": "notifier", "exp": int(time.time()) + 3_600}
        token = jwt.encode(claims, self.key, algorithm="HS256")
        head = f"GET /v1/inbox/stream HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {token}\r\n\r\n"
        return head.encode()

    def memory(self) -> int:
        """Bytes that the process holds in memory."""
        command = ["ps", "-o", "rss=", "-p", str(self.process.pid)]
        return int(subprocess.run(command, capture_output=True, check=True).stdout) * 1024

    async def listen(self, recipient_ids: list[str]) -> list[Client]:
        """Returns when all of them hear."""
        clients: list[Client] = []
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(_PATIENCE):
            for start in range(0, len(recipient_ids), _AT_ONCE):
                some = [Client(self.request(one)) for one in recipient_ids[start : start + _AT_ONCE]]
                for client in some:
                    await loop.create_connection(lambda c=client: c, "127.0.0.1", self.port)
                await asyncio.gather(*(client.listening for client in some))
                clients += some
        return clients


def _start_api(url: str) -> Api:
    key, port, parent = secrets.token_bytes(32), free_port(), os.getpid()
    settings = {
        "NOTIFIER_REDIS_URL": url,
        "NOTIFIER_TOKEN_KEYS": f"hs256:{base64.b64encode(key).decode()}",
        "NOTIFIER_LOG_LEVEL": "error",
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "notifier.cli", "api", "--port", str(port)],
        env=os.environ | settings,
        preexec_fn=lambda: end_with_parent(parent),  # noqa: PLW1509 - no thread is needed in the child
    )
    return Api(port, process, key)


@asynccontextmanager
async def running_api(url: str) -> AsyncIterator[Api]:
    api = _start_api(url)
    try:
        async with asyncio.timeout(_PATIENCE):
            while not await _answers(api.port):
                if api.process.poll() is not None:
                    raise RuntimeError(f"notifier api exited with {api.process.returncode}")
                await asyncio.sleep(0.05)
        yield api
    finally:
        api.process.kill()
        api.process.wait()


async def _answers(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True


def allow_files(wanted: int) -> None:
    """Lets this process, and those it starts, have so many connections."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = wanted + _FILES_BESIDE
    if soft != resource.RLIM_INFINITY and soft < needed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed if hard < 0 else min(needed, hard), hard))


async def streams(url: str, count: int) -> dict[str, float | list[float]]:
    """KiB for each of so many clients that wait; milliseconds until each of some entries was there."""
    allow_files(count + WARM_UP)
    people = [f"u{number}" for number in range(count)]
    async with running_api(url) as api:
        warm = await api.listen([f"warm{number}" for number in range(WARM_UP)])
        before = api.memory()
        clients = await api.listen(people)
        memory = (api.memory() - before) / 1024 / count
        times = await _times(url, people, clients, min(1_000, 10 * count))
        for client in (*warm, *clients):
            client.transport.abort()
    return {"kib": memory, "times": times}


async def _times(url: str, people: list[str], clients: list[Client], entries: int) -> list[float]:
    waiting: list[asyncio.Task[float]] = []
    async with open_runtime(Settings(redis_url=url)) as runtime, asyncio.timeout(_PATIENCE):

        async def add(number: int) -> float:
            person = number * 7_919 % len(people)
            told = clients[person].expect()
            entry = InboxEntry(
                f"e{number}", "like", "Grace liked your photo", "“Morning at the harbour”", created_ms=number
            )
            began = time.perf_counter()
            await runtime.inbox.add(people[person], entry)
            return (await told - began) * 1000

        for number in range(entries):
            waiting.append(asyncio.create_task(add(number)))
            await asyncio.sleep(_EVERY)
        return await asyncio.gather(*waiting)


async def bare(url: str, count: int) -> list[float]:
    """Milliseconds from a PUBLISH to its message, on two connections of redis-py."""
    times = []
    async with redis.asyncio.Redis.from_url(url) as client, client.pubsub() as listener:
        await listener.subscribe("bench")
        await listener.get_message(timeout=5)
        for _ in range(count):
            began = time.perf_counter()
            await client.publish("bench", b"1782898200123-0")
            while not await listener.get_message(ignore_subscribe_messages=True, timeout=5):
                pass
            times.append((time.perf_counter() - began) * 1000)
    return times
