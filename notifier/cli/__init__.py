"""The command line: `notifier`. It comes with the extra `service`."""

from __future__ import annotations

import os
import signal
import sys

_EXTRA = {"typer", "rich", "structlog"}
_INTERRUPTED = 130


def main() -> None:
    """The console script; ends the process with 0 (done), 1 (failed), 2 (bad usage or bad input) or 130
    (Ctrl-C)."""
    # Loading takes a second, and nothing is in hand before it is over. Until then Ctrl-C printed a traceback,
    # and SIGTERM killed a worker.
    can_be_interrupted = signal.getsignal(signal.SIGINT) is signal.default_int_handler  # not behind nohup
    if can_be_interrupted:
        signal.signal(signal.SIGINT, lambda *_: os._exit(_INTERRUPTED))
    if sys.argv[1:2] == ["worker"]:
        signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    try:
        from notifier.cli.app import run
    except ModuleNotFoundError as error:
        if error.name not in _EXTRA:
            raise
        sys.exit("notifier: the command line needs more packages: pip install 'notifier-service[service]'")
    try:
        if can_be_interrupted:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        sys.exit(run(sys.argv[1:]))
    except KeyboardInterrupt:  # before or after the command itself
        sys.exit(_INTERRUPTED)
