"""What a worker answers on a port of its own: whether it lives and works, and its metrics.

    GET /livez     200 while the event loop runs: it answers from the loop that does the work
    GET /readyz    200 while it serves and the broker answers; 503 before, without, and once it is stopping
    GET /metrics   what this process has counted, for Prometheus; takes a key of the scope `operate`, unless
                   `NOTIFIER_METRICS_OPEN` says otherwise

The port is for supervisors and Prometheus, never for the world.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Final

import structlog
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from notifier.api.access import Access
from notifier.api.connection import Limits
from notifier.api.problems import Problem
from notifier.api.server import BoundedServer, configured
from notifier.errors import BrokerError
from notifier.operations.exposition import CONTENT_TYPE

log = structlog.get_logger(__name__)

_LIMITS: Final = Limits(connections=64, head=5.0, head_bytes=8 * 1024)
_HEADERS: Final = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}


_PATIENCE: Final = timedelta(seconds=2)
"""For the broker: less than a supervisor waits for an answer."""


def create_probes(
    access: Access,
    is_serving: Callable[[], bool],
    ask_broker: Callable[[], Awaitable[object]],
    expose: Callable[[], Awaitable[bytes]],
) -> Starlette:
    """The application. `ask_broker` raises BrokerError when there is no answer; `expose` makes the text for
    Prometheus."""

    async def livez(_: Request) -> Response:
        return JSONResponse({"status": "ok"}, headers=_HEADERS)

    async def readyz(_: Request) -> Response:
        if not is_serving():
            return _unready("not serving")
        try:
            async with asyncio.timeout(_PATIENCE.total_seconds()):
                await ask_broker()
        except (BrokerError, TimeoutError):
            return _unready("no answer from the broker")
        return JSONResponse({"status": "ok"}, headers=_HEADERS)

    async def metrics(request: Request) -> Response:
        try:
            access.check_metrics(request.headers.get("authorization", ""))
        except Problem as problem:
            headers = {**_HEADERS, **(problem.headers or {})}
            return JSONResponse({"status": problem.detail}, problem.status_code, headers=headers)
        return Response(await expose(), media_type=CONTENT_TYPE, headers=_HEADERS)

    if not access.metrics_open and not access.keys.has("operate"):
        log.warning("metrics_need_a_key", setting="NOTIFIER_API_KEYS")
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
