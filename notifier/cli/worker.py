"""`notifier worker`: serves queues until it is told to stop."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import ExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from notifier.cli.context import read_settings

if TYPE_CHECKING:
    from notifier.bootstrap import Runtime
    from notifier.settings import Settings
    from notifier.worker import Worker

_TOLD = 5  # problems of templates that are told at the start


def worker(
    roles: Annotated[
        list[str],
        typer.Argument(
            metavar="ROLE...",
            help="router, email, push, in_app, dead_letters, or all; any mix.",
            show_default=False,
        ),
    ],
    host: Annotated[str, typer.Option(help="The address of --port.")] = "127.0.0.1",
    port: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=65_535,
            help="Answer /livez, /readyz and /metrics on this port; 0 takes a free one.",
            show_default="none",
        ),
    ] = None,
) -> None:
    """Route events, deliver notifications, give dead letters their second try.

    Start as many as you like, anywhere: they share the work. SIGTERM or Ctrl-C finishes what is in hand,
    hands the rest over and exits 0; a second one aborts at once. Logs go to stderr.
    """
    settings = read_settings(serving=True)
    with ExitStack() as stack, asyncio.Runner(loop_factory=loop_factory()) as runner:
        listening = None
        if port is not None:
            from notifier.api.server import listen

            listening = stack.enter_context(listen(host, port))
        code = runner.run(_serve(settings, roles, listening))
    raise typer.Exit(code)


async def _serve(settings: Settings, roles: Sequence[str], listening: socket.socket | None) -> int:
    import structlog

    from notifier.bootstrap import open_channels, open_runtime, open_templates, open_worker, settle_memory
    from notifier.errors import NotifierError, PartitionsMoved
    from notifier.watchdog import stuck_after, watched_loop

    log = structlog.get_logger("notifier.cli.worker")
    stop = asyncio.Event()
    for number in stop_signals():
        asyncio.get_running_loop().add_signal_handler(number, _stop, stop, number)
    channels = open_channels(settings, os.environ)
    templates = open_templates(settings, channels)
    if problems := templates.problems:
        told = [str(problem) for problem in problems[:_TOLD]]
        log.warning(
            "templates_have_problems", count=len(problems), problems=told, see="notifier templates check"
        )
    settle_memory()
    async with (
        open_runtime(settings) as runtime,
        open_worker(runtime, channels, templates, roles) as served,
        _probed(listening, runtime, served, tuple(channels), stop),
    ):
        try:
            with watched_loop(stuck_after(settings.lease_ttl.total_seconds())):
                await served.run(stop)
        except NotifierError:
            raise
        except (Exception, BaseExceptionGroup) as error:  # the supervisor reads the log, and starts us again
            if isinstance(error, BaseExceptionGroup) and error.subgroup(PartitionsMoved):
                log.error("partitions_moved", worker=served.name)  # noqa: TRY400 - it is no bug
            else:
                log.exception("worker_crashed", worker=served.name)
            return 1
    return 0


@asynccontextmanager
async def _probed(
    listening: socket.socket | None,
    runtime: Runtime,
    served: Worker,
    channels: Sequence[str],
    stop: asyncio.Event,
) -> AsyncIterator[None]:
    """Until the worker has handed over: a supervisor that gets no answer would kill what still drains."""
    if listening is None:
        yield
        return
    from notifier.api.access import read_access
    from notifier.api.probes import answering, create_probes
    from notifier.broker import meta
    from notifier.broker.scripts import ask
    from notifier.operations.exposition import exposition
    from notifier.worker import DEAD_LETTERS

    async def ask_broker() -> None:
        [reply] = await ask(runtime.client, meta.lookup(runtime.keys))
        meta.check(runtime.keys, reply)

    async def expose() -> bytes:
        # One role in an installation tells of the queues, not each of a hundred workers.
        return await exposition(runtime.client, runtime.keys, channels, queues=DEAD_LETTERS in served.roles)

    probes = create_probes(
        read_access(runtime.settings), lambda: served.serving and not stop.is_set(), ask_broker, expose
    )
    async with answering(listening, probes):
        yield


def _stop(stop: asyncio.Event, number: int) -> None:
    import structlog

    log = structlog.get_logger("notifier.cli.worker")
    name = signal.Signals(number).name
    if not stop.is_set():
        log.info("worker_stopping", signal=name)
        stop.set()
        return
    if number == signal.SIGHUP:  # a terminal that closes may say so twice, and wants nothing aborted
        return
    # Whatever is in hand stays pending, and the next owner takes it over within the lease's TTL.
    log.warning("worker_aborted", signal=name)
    os._exit(128 + number)


def stop_signals() -> tuple[signal.Signals, ...]:
    """SIGTERM, Ctrl-C, and a terminal that is closed, unless it is ignored as behind nohup."""
    behind_nohup = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    return (signal.SIGTERM, signal.SIGINT, *(() if behind_nohup else (signal.SIGHUP,)))


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop
