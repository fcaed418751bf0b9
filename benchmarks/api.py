"""Events through the HTTP API, in batches, beside the same server that reads the bodies and answers 202.

The server is one process of its own, `python -m benchmarks.api URL`; the requests are made beforehand.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import uvloop
from fastapi import Request, Response

from benchmarks.workload import chunks
from notifier.api.app import create_app
from notifier.api.connection import Limits
from notifier.api.server import listen, prepared
from notifier.bootstrap import settle_memory
from notifier.local.broker import end_with_parent
from notifier.settings import load

BATCH = 100
CONNECTIONS = 8
_KEY = "benchmark-key-0123456789"
_WARM_UP = 50  # requests


async def _empty(request: Request) -> Response:
    """Reads the body and answers."""
    await request.body()
    return Response(status_code=202)


async def _serve(url: str) -> None:
    environ = {
        "NOTIFIER_REDIS_URL": url,
        "NOTIFIER_API_KEYS": f"publish:{_KEY}",
        "NOTIFIER_BACKLOG_LIMIT": "0",
    }
    app = create_app(load(environ), environ)
    app.add_api_route("/empty", _empty, methods=["POST"])
    settle_memory()
    with listen("127.0.0.1", 0) as listening:
        async with prepared(app, Limits()) as server:
            print(listening.getsockname()[1], flush=True)
            await server.serve([listening])


@asynccontextmanager
async def _serving(url: str) -> AsyncIterator[int]:
    """A server in a process of its own; its port."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.api", url,
        stdout=asyncio.subprocess.PIPE, preexec_fn=partial(end_with_parent, os.getpid()),
    )  # fmt: skip
    assert process.stdout is not None
    try:
        yield int(await process.stdout.readline())
    finally:
        process.kill()
        await process.wait()


async def _send(port: int, requests: list[bytes]) -> None:
    """Each request after the answer to the one before. Raises RuntimeError for any but 202."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for request in requests:
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        if b" 202 " not in head[:20]:
            raise RuntimeError(head.decode())
        length = next(line for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:"))
        await reader.readexactly(int(length[15:]))
    writer.close()
    await writer.wait_closed()


async def _rate(path: str, url: str, count: int) -> float:
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {_KEY}\r\n"
    bodies = [json.dumps(batch, separators=(",", ":")).encode() for batch in chunks(count, BATCH)]
    requests = [
        f"{head}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
        for body in bodies
    ]
    async with _serving(url) as port:
        await _send(port, requests[:_WARM_UP])
        start = time.perf_counter()
        async with asyncio.TaskGroup() as tasks:
            for number in range(CONNECTIONS):
                tasks.create_task(_send(port, requests[number::CONNECTIONS]))
        return count / (time.perf_counter() - start)


async def empty(url: str, count: int) -> float:
    """Events a second that are read and forgotten."""
    return await _rate("/empty", url, count)


async def published(url: str, count: int) -> float:
    """Events a second that are checked, deduplicated and in the broker before the answer."""
    return await _rate("/v1/events", url, count)


if __name__ == "__main__":
    uvloop.run(_serve(sys.argv[1]))
