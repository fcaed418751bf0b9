"""The commands put together, and what their errors look like from outside."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from typing import Annotated, TextIO

import typer
from typer.main import get_command

from notifier.cli import dlq, output, partitions, queues, recipients, templates
from notifier.cli.api import api
from notifier.cli.context import CommandFailed, prose, register
from notifier.cli.demo import demo
from notifier.cli.dev import dev
from notifier.cli.doctor import doctor
from notifier.cli.publish import publish
from notifier.cli.worker import worker
from notifier.errors import (
    BrokerUnavailable,
    ConfigurationError,
    EmbeddedServerFailed,
    InvalidInput,
    NotifierError,
    PartitionsMoved,
)

_HELP = "Event-driven notifications: publish an event, and people get an e-mail, a push and an inbox entry."
_EPILOG = """Settings are environment variables. [bold]NOTIFIER_REDIS_URL[/] says where the broker is
(redis://127.0.0.1:6379/0), [bold]NOTIFIER_TEMPLATES[/] is the folder of event types (templates),
[bold]NOTIFIER_CHANNELS[/] lists the channels, and [bold]NOTIFIER_LOG_LEVEL[/] is debug, info, warning or
error. E-mail needs [bold]NOTIFIER_SMTP_URL[/] and [bold]NOTIFIER_MAIL_FROM[/].

Exit codes: 0 done, 1 failed, 2 bad usage or bad input."""

_RUN, _LOOK, _WRITE = "Run", "Look and mend", "Write"
# UsageError's parent; it has no public name, and moved from click into typer.
_UsageProblem: type[Exception] = typer.BadParameter.__mro__[2]
_INTERRUPTED = 130

app = typer.Typer(
    name="notifier",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import PackageNotFoundError, version

        try:
            output.say(f"notifier {version('notifier-service')}")
        except PackageNotFoundError:
            output.say("notifier, from a checkout that is not installed")
        raise typer.Exit


@app.callback(help=_HELP, epilog=prose(_EPILOG), invoke_without_command=True)
def _root(
    context: typer.Context,
    version: Annotated[  # noqa: ARG001 - its callback prints it
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    if context.invoked_subcommand is None:
        sys.stdout.write(context.get_help() + "\n")


register(app, demo, panel=_RUN)
register(app, dev, panel=_RUN)
register(app, worker, panel=_RUN)
register(app, api, panel=_RUN)
register(app, publish, panel=_RUN)
register(app, doctor, panel=_LOOK)
register(app, queues.queues, panel=_LOOK)
app.add_typer(dlq.app, name="dlq", rich_help_panel=_LOOK)
app.add_typer(recipients.app, name="recipients", rich_help_panel=_LOOK)
app.add_typer(partitions.app, name="partitions", rich_help_panel=_LOOK)
app.add_typer(templates.app, name="templates", rich_help_panel=_WRITE)


def run(arguments: Sequence[str]) -> int:
    """Runs a command, and says on one line of stderr what went wrong. Returns the exit code."""
    _repair_streams()
    try:
        code = _guarded(arguments)
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # whoever read our output has seen enough
        pass
    except OSError as error:
        output.error_line(f"notifier: stdout: {error.strerror}")
    _forget_stdout()
    return 1


def _guarded(arguments: Sequence[str]) -> int:
    try:
        code = get_command(app).main(list(arguments), prog_name="notifier", standalone_mode=False)
        return code if isinstance(code, int) else 0
    except (KeyboardInterrupt, typer.Abort):
        return _INTERRUPTED
    except SystemExit as ended:  # rich and typer end like this when nobody reads stdout any more
        return ended.code if isinstance(ended.code, int) else 1
    except BrokenPipeError:
        raise
    except Exception as error:  # noqa: BLE001 - told as one line, and whoever asks for it gets the traceback
        code, message = _told(error)
        output.error_line(message)
        if os.environ.get("NOTIFIER_LOG_LEVEL") == "debug" and not isinstance(error, _UsageProblem):
            traceback.print_exc()
        return code


def _told(error: Exception) -> tuple[int, str]:
    if isinstance(error, CommandFailed):
        return error.code, error.message
    if isinstance(error, _UsageProblem):
        return _told_usage(error)
    if isinstance(error, InvalidInput | ConfigurationError):
        return 2, f"notifier: {error}"
    about_us = PartitionsMoved | EmbeddedServerFailed
    if isinstance(error, BrokerUnavailable) and not isinstance(error, about_us):
        return 1, f"notifier: NOTIFIER_REDIS_URL: {error}"
    if isinstance(error, NotifierError):
        return 1, f"notifier: {error}"
    if isinstance(error, OSError) and error.strerror:
        where = f"{error.filename}: " if error.filename else ""
        return 1, f"notifier: {where}{error.strerror}"
    return 1, f"notifier: {type(error).__name__}: {error} (NOTIFIER_LOG_LEVEL=debug shows where)"


def _told_usage(error: Exception) -> tuple[int, str]:
    context = getattr(error, "ctx", None)
    path = context.command_path if context else "notifier"
    told = error.format_message() if hasattr(error, "format_message") else str(error)
    return getattr(error, "exit_code", 2), f"notifier: {told.rstrip('.')}; see {path} --help"


def _repair_streams() -> None:
    """A stream that is closed, or can't encode what we print, is no reason to fail."""
    for name in ("stdout", "stderr"):
        stream: TextIO | None = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: PTH123, SIM115 - for the life of the process
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def _forget_stdout() -> None:
    # Python flushes it once more at exit, and would complain again.
    try:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
    except OSError:
        pass
