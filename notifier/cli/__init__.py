"""The command line: `notifier`. It comes with the extra `service`."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_EXTRA = {"typer", "rich", "structlog"}
_INTERRUPTED = 130


def end_at_once(*_: object) -> None:
    """What Ctrl-C does until a command has something in hand."""
    os._exit(_INTERRUPTED)


def interruptible() -> None:
    """From now on Ctrl-C raises KeyboardInterrupt, or cancels what asyncio runs, as Python has it."""
    if signal.getsignal(signal.SIGINT) is end_at_once:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@contextmanager
def uninterruptible() -> Iterator[None]:
    """Meanwhile Ctrl-C does nothing: the command is about to end, and has only to say what it has done."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def main() -> None:
    """The console script; ends the process with 0 (done), 1 (failed), 2 (bad usage or bad input) or 130
    (Ctrl-C)."""
    # Loading takes a second, and nothing is in hand before it is over. A KeyboardInterrupt would print a
    # traceback then, or get lost in a lock of the import system; and SIGTERM would kill a service.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # and not ignored, as behind nohup
        signal.signal(signal.SIGINT, end_at_once)
    if sys.argv[1:2] in (["worker"], ["api"]):
        signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    try:
        from notifier.cli.app import run
    except ModuleNotFoundError as error:
        if error.name not in _EXTRA:
            raise
        sys.exit("notifier: the command line needs more packages: pip install 'notifier-service[service]'")
    sys.exit(run(sys.argv[1:]))
