"""The HTTP server around the application: uvicorn, with our signals, limits and end.

At the end nobody new is let in; responses without end are told to end (`Live.stop`); what is being
answered is answered; then the application disconnects.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import resource
import socket
from collections.abc import AsyncIterator, Iterator
from functools import partial
from typing import Any, Final

import structlog
import uvicorn
from fastapi import FastAPI
from starlette.types import ASGIApp

from notifier.api.connection import Connection, Limits
from notifier.errors import ConfigurationError

log = structlog.get_logger(__name__)

KEEP_ALIVE: Final = 75  # seconds: longer than load balancers keep theirs, so that they close first
DRAIN: Final = 25  # seconds: less than the 30 that Kubernetes and others wait before SIGKILL
_FILES_BESIDE: Final = 256  # what else has a file descriptor: the broker's connections, logs, libraries
_TICKS: Final = 10  # of a tenth of a second


class BoundedServer(uvicorn.Server):
    """Serves until `should_exit`, and cuts clients that take too long; signals are the caller's."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def on_tick(self, counter: int) -> bool:
        if counter % _TICKS == 0:
            now = asyncio.get_running_loop().time()
            for connection in list(self.server_state.connections):
                if isinstance(connection, Connection) and connection.is_overdue(now):
                    connection.transport.abort()
        return await super().on_tick(counter)


class Server(BoundedServer):
    """That of the API."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        app: Any = self.config.app
        app.state.shared.stopping.set()
        app.state.shared.live.stop()
        await super().shutdown(sockets)


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens; 0 takes a free port. Raises ConfigurationError."""
    try:
        # With its protocol: asyncio sets TCP_NODELAY on no other, and an answer would wait for 40 ms.
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
        family, kind, protocol, _, address = found[0]
        listening = socket.socket(family, kind, protocol)
    except OSError as error:
        raise ConfigurationError("--host", f"{host}: {error.strerror}") from None
    except UnicodeError:
        raise ConfigurationError("--host", f"{host!r} can't be the name of a host") from None
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(2_048)
    except OSError as error:
        listening.close()
        raise ConfigurationError("--port", f"{host}:{port}: {error.strerror}") from None
    return listening


def allow_connections(wanted: int) -> int:
    """Raises this process's limit of open files as far as it may; how many connections that allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = wanted + _FILES_BESIDE
    if hard != resource.RLIM_INFINITY:
        needed = min(needed, hard)
    if soft != resource.RLIM_INFINITY and soft < needed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
    allowed = max(1, needed - _FILES_BESIDE)
    if allowed < wanted:
        log.warning("api_connections_limited", connections=allowed, open_files=hard)
    return allowed


@contextlib.asynccontextmanager
async def prepared(app: FastAPI, limits: Limits) -> AsyncIterator[Server]:
    """A server whose application is connected. Raises what the lifespan raises."""
    async with app.router.lifespan_context(app):
        yield Server(configured(app, limits))


def configured(app: ASGIApp, limits: Limits) -> uvicorn.Config:
    """How we run uvicorn. The application's lifespan is the caller's."""
    # It warns of every request that can't be read, which anybody can send.
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
    return uvicorn.Config(
        app,
        http=partial(Connection, limits=limits),  # type: ignore[arg-type]
        ws="none",
        lifespan="off",  # opened here, so that its errors reach the caller as they are
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=DRAIN,
    )
