"""`notifier api`: serves the HTTP API until it is told to stop."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import TYPE_CHECKING, Annotated

import typer

from notifier.cli.context import read_settings
from notifier.cli.worker import loop_factory

if TYPE_CHECKING:
    from notifier.api.server import Server
    from notifier.settings import Settings


def api(
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65_535, help="The port; 0 takes a free one.")] = 8080,
) -> None:
    """Serve the HTTP API.

    Needs NOTIFIER_API_KEYS, a comma list such as publish:<secret>,recipients:<secret>,operate:<secret>, and
    NOTIFIER_TOKEN_KEYS for users' inboxes. SIGTERM or Ctrl-C answers what has come, then exits 0; a second
    one aborts at once. Logs go to stderr. TLS is for the proxy in front of it.
    """
    settings = read_settings(serving=True)
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(_serve(settings, host, port))


async def _serve(settings: Settings, host: str, port: int) -> None:
    import structlog

    from notifier.api.app import create_app
    from notifier.api.connection import Limits
    from notifier.api.server import allow_connections, listen, prepared
    from notifier.bootstrap import settle_memory

    log = structlog.get_logger("notifier.cli.api")
    app = create_app(settings, os.environ)
    settle_memory()
    limits = Limits(connections=allow_connections(settings.api_connections))
    with listen(host, port) as listening:
        async with prepared(app, limits) as server:
            for number in (signal.SIGTERM, signal.SIGINT):
                asyncio.get_running_loop().add_signal_handler(number, _stop, server, number)
            log.info("api_started", host=host, port=listening.getsockname()[1])
            await server.serve([listening])
    log.info("api_stopped")


def _stop(server: Server, number: int) -> None:
    import structlog

    log = structlog.get_logger("notifier.cli.api")
    name = signal.Signals(number).name
    if not server.should_exit:
        log.info("api_stopping", signal=name)
        server.should_exit = True
        return
    # What was accepted is in the broker, whatever becomes of its answer.
    log.warning("api_aborted", signal=name)
    os._exit(128 + number)
