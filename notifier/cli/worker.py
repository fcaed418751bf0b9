"""`notifier worker`: serves queues until it is told to stop."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from notifier.cli.context import read_settings

if TYPE_CHECKING:
    from notifier.settings import Settings

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
) -> None:
    """Route events, deliver notifications, give dead letters their second try.

    Start as many as you like, anywhere: they share the work. SIGTERM or Ctrl-C finishes what is in hand,
    hands the rest over and exits 0; a second one aborts at once. Logs go to stderr.
    """
    settings = read_settings(serving=True)
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        code = runner.run(_serve(settings, roles))
    raise typer.Exit(code)


async def _serve(settings: Settings, roles: Sequence[str]) -> int:
    import structlog

    from notifier.bootstrap import open_channels, open_runtime, open_templates, open_worker, settle_memory
    from notifier.errors import NotifierError
    from notifier.watchdog import stuck_after, watched_loop

    log = structlog.get_logger("notifier.cli.worker")
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, _stop, stop, number)
    channels = open_channels(settings, os.environ)
    templates = open_templates(settings, channels)
    if problems := templates.problems:
        told = [str(problem) for problem in problems[:_TOLD]]
        log.warning(
            "templates_have_problems", count=len(problems), problems=told, see="notifier templates check"
        )
    settle_memory()
    async with open_runtime(settings) as runtime, open_worker(runtime, channels, templates, roles) as served:
        try:
            with watched_loop(stuck_after(settings.lease_ttl.total_seconds())):
                await served.run(stop)
        except NotifierError:
            raise
        except (Exception, BaseExceptionGroup):  # the supervisor reads the log, and starts us again
            log.exception("worker_crashed", worker=served.name)
            return 1
    return 0


def _stop(stop: asyncio.Event, number: int) -> None:
    import structlog

    log = structlog.get_logger("notifier.cli.worker")
    name = signal.Signals(number).name
    if not stop.is_set():
        log.info("worker_stopping", signal=name)
        stop.set()
        return
    # Whatever is in hand stays pending, and the next owner takes it over within the lease's TTL.
    log.warning("worker_aborted", signal=name)
    os._exit(128 + number)


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop
