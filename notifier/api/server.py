"""The HTTP server around the application: uvicorn, with our signals and our end.

At the end nobody new is let in; responses without end are told to end (`Shared.stopping`); what is being
answered is answered; then the application disconnects.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import AsyncIterator, Iterator
from typing import Final

import uvicorn
from fastapi import FastAPI

from notifier.errors import ConfigurationError

KEEP_ALIVE: Final = 75  # seconds: longer than load balancers keep theirs, so that they close first
DRAIN: Final = 25  # seconds: less than the 30 that Kubernetes and others wait before SIGKILL


class Server(uvicorn.Server):
    """Serves until `should_exit`; signals are the caller's."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self.config.app.state.shared.stopping.set()  # type: ignore[union-attr]
        await super().shutdown(sockets)


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens; 0 takes a free port. Raises ConfigurationError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=2_048)
    except OSError as error:
        raise ConfigurationError(f"{host}:{port}", error.strerror or str(error)) from None


@contextlib.asynccontextmanager
async def prepared(app: FastAPI) -> AsyncIterator[Server]:
    """A server whose application is connected. Raises what the lifespan raises."""
    config = uvicorn.Config(
        app,
        http="httptools",
        ws="none",
        lifespan="off",  # opened here, so that its errors reach the caller as they are
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=DRAIN,
    )
    async with app.router.lifespan_context(app):
        yield Server(config)
