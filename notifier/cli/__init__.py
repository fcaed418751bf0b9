"""The command line: `notifier`. It comes with the extra `service`."""

from __future__ import annotations

import sys

_EXTRA = {"typer", "rich", "structlog"}


def main() -> None:
    """The console script; ends the process with 0 (done), 1 (failed) or 2 (bad usage or bad input)."""
    try:
        from notifier.cli.app import run
    except ModuleNotFoundError as error:
        if error.name not in _EXTRA:
            raise
        sys.exit("notifier: the command line needs more packages: pip install 'notifier-service[service]'")
    sys.exit(run(sys.argv[1:]))
