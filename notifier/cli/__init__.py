"""The command line: `notifier`. It comes with the extra `service`."""

from __future__ import annotations

import os
import signal
import sys

_EXTRA = {"typer", "rich", "structlog"}


def main() -> None:
    """The console script; ends the process with 0 (done), 1 (failed) or 2 (bad usage or bad input)."""
    if sys.argv[1:2] == ["worker"]:
        # Nothing is in hand before the worker serves; loading takes a second, and so long SIGTERM would kill.
        signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    try:
        from notifier.cli.app import run
    except ModuleNotFoundError as error:
        if error.name not in _EXTRA:
            raise
        sys.exit("notifier: the command line needs more packages: pip install 'notifier-service[service]'")
    sys.exit(run(sys.argv[1:]))
