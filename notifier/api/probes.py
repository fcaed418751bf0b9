"""What a worker answers on a port of its own, without a key: whether it lives and works, and its metrics.

    GET /livez     200 while the event loop runs
    GET /readyz    200 while it serves and the broker answers; 503 before, without, and once it is stopping
    GET /metrics   what this process has counted, for Prometheus

The port is for supervisors and Prometheus, never for the world.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final

import structlog
from prometheus_client import generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from notifier.api.connection import Limits
from notifier.api.server import BoundedServer, configured
from notifier.errors import BrokerError

log = structlog.get_logger(__name__)

_LIMITS: Final = Limits(connections=64, head=5.0, head_bytes=8 * 1024)
_HEADERS: Final = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}


def create_probes(is_serving: Callable[[], bool], ask_broker: Callable[[], Awaitable[object]]) -> Starlette:
    """The application. `ask_broker` raises BrokerError when there is no answer."""

    async def livez(_: Request) -> Response:
        return JSONResponse({"status": "ok"}, headers=_HEADERS)

    async def readyz(_: Request) -> Response:
        if not is_serving():
            return _unready("not serving")
        try:
            await ask_broker()
        except BrokerError:
            return _unready("no answer from the broker")
        return JSONResponse({"status": "ok"}, headers=_HEADERS)

    async def metrics(_: Request) -> Response:
        return Response(generate_latest(), media_type=CONTENT_TYPE_PLAIN_0_0_4, headers=_HEADERS)

    return Starlette(routes=[Route("/livez", livez), Route("/readyz", readyz), Route("/metrics", metrics)])


def _unready(why: str) -> Response:
    return JSONResponse({"status": why}, 503, headers=_HEADERS)


@asynccontextmanager
async def answering(listening: socket.socket, probes: Starlette) -> AsyncIterator[None]:
    """Answers on this socket while inside."""
    server = BoundedServer(configured(probes, _LIMITS))
    task = asyncio.create_task(server.serve([listening]))
    try:
        log.info("worker_port_opened", port=listening.getsockname()[1])
        yield
    finally:
        server.should_exit = True
        server.force_exit = True  # nobody waits for an answer that matters
        await task
