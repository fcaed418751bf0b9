"""`notifier api`: serves the HTTP API until it is told to stop."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Annotated, Final

import typer

from notifier.cli.context import read_settings
from notifier.cli.worker import loop_factory, stop_signals

if TYPE_CHECKING:
    from notifier.api.server import Server
    from notifier.bootstrap import Runtime
    from notifier.settings import Settings


_LOOKS_EVERY: Final = 5.0  # seconds, as often as a worker renews its leases


def api(
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65_535, help="The port; 0 takes a free one.")] = 8080,
) -> None:
    """Serve the HTTP API.

    Needs NOTIFIER_API_KEYS, a comma list such as publish:<secret>,recipients:<secret>,operate:<secret>, and
    NOTIFIER_TOKEN_KEYS for users' inboxes. SIGTERM or Ctrl-C answers what has come, then exits 0; a second
    one aborts at once. Once the number of partitions was changed it exits 1, and started again it finds the
    new one. Logs go to stderr. TLS is for the proxy in front of it.
    """
    settings = read_settings(serving=True)
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        code = runner.run(_serve(settings, host, port))
    raise typer.Exit(code)


async def _serve(settings: Settings, host: str, port: int) -> int:
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
            for number in stop_signals():
                asyncio.get_running_loop().add_signal_handler(number, _stop, server, number)
            log.info("api_started", host=host, port=listening.getsockname()[1])
            async with _ended_when_moved(app.state.shared.runtime, server) as moved:
                await server.serve([listening])
    log.info("api_stopped")
    return 1 if moved.is_set() else 0


@asynccontextmanager
async def _ended_when_moved(runtime: Runtime, server: Server) -> AsyncIterator[asyncio.Event]:
    """Ends the server once everything has another number of partitions, and sets the event then.

    All that this process knows has the old names. While the number is being changed it stays, and answers
    503: nobody could start in its place, and the change may be called off.
    """
    import structlog

    from notifier.broker import meta
    from notifier.broker.scripts import ask
    from notifier.errors import BrokerError

    log, moved = structlog.get_logger("notifier.cli.api"), asyncio.Event()

    async def look() -> None:
        while not moved.is_set():
            await asyncio.sleep(_LOOKS_EVERY)
            with suppress(BrokerError):  # requests tell of that
                [reply] = await ask(runtime.client, meta.lookup(runtime.keys))
                if meta.has_moved(runtime.keys, reply):
                    moved.set()
        log.error("partitions_moved")
        server.should_exit = True

    task = asyncio.create_task(look())
    try:
        yield moved
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def _stop(server: Server, number: int) -> None:
    import structlog

    log = structlog.get_logger("notifier.cli.api")
    name = signal.Signals(number).name
    if not server.should_exit:
        log.info("api_stopping", signal=name)
        server.should_exit = True
        return
    if number == signal.SIGHUP:  # a terminal that closes may say so twice, and wants nothing aborted
        return
    # What was accepted is in the broker, whatever becomes of its answer.
    log.warning("api_aborted", signal=name)
    os._exit(128 + number)
