"""What every command does first: read the settings, set up the logs, run something, connect."""

from __future__ import annotations

import asyncio
import inspect
import os
import sys
from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from notifier.cli import interruptible

if TYPE_CHECKING:
    from datetime import timedelta

    from notifier.bootstrap import Runtime
    from notifier.settings import Settings

_T = TypeVar("_T")

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]


class CommandFailed(Exception):
    """A command can't go on. `code` is its exit code: 1 failed, 2 bad input."""

    def __init__(self, message: str, code: int = 1) -> None:
        self.message = message
        self.code = code
        super().__init__(message)


def prose(text: str) -> str:
    """Paragraphs on one line each: the terminal's width decides where they break."""
    paragraphs = inspect.cleandoc(text).split("\n\n")
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)


def register(
    app: typer.Typer, command: Callable[..., None], name: str | None = None, *, panel: str | None = None
) -> None:
    """Adds a command whose help is its docstring."""
    app.command(name, help=prose(command.__doc__ or ""), rich_help_panel=panel)(command)


def command_group(help_text: str) -> typer.Typer:
    """A group of commands that shows its help when it is called without one."""
    group = typer.Typer(pretty_exceptions_enable=False, rich_markup_mode="rich")

    @group.callback(help=prose(help_text), invoke_without_command=True)
    def _show_help(context: typer.Context) -> None:
        if context.invoked_subcommand is None:
            sys.stdout.write(context.get_help() + "\n")

    return group


def read_settings(*, serving: bool = False) -> Settings:
    """The settings of the environment, and the logs set up by them. Raises ConfigurationError.

    A command that is not `serving` logs warnings and errors only.
    """
    from notifier import settings as module
    from notifier.observability import LogFormat, configure

    settings = module.load(os.environ)
    form: LogFormat = "console" if settings.log_format == "console" else "json"
    if "log_format" not in settings.model_fields_set and sys.stderr.isatty():
        form = "console"
    level = settings.log_level if serving or settings.log_level != "info" else "warning"
    configure(level, form, cache_loggers=serving)
    return settings


def execute(running: Coroutine[Any, Any, _T]) -> _T:
    """Runs it on a loop. Ctrl-C raises KeyboardInterrupt, whatever became of the work that it ended."""
    interruptible()
    return asyncio.run(_ended_by_cancelling(running))


async def _ended_by_cancelling(running: Coroutine[Any, Any, _T]) -> _T:
    from notifier.broker.cancelling import cancel_until_done

    task = asyncio.ensure_future(running)
    try:
        await asyncio.wait({task})
    except asyncio.CancelledError:
        await cancel_until_done(task)
        if not task.cancelled():
            task.exception()  # nobody asks for it any more
        raise
    return task.result()


def connected(settings: Settings, work: Callable[[Runtime], Awaitable[_T]]) -> _T:
    """Runs `work` with a connection. Raises BrokerError and ConfigurationError."""
    from notifier.bootstrap import open_runtime

    async def run() -> _T:
        async with open_runtime(settings) as runtime:
            return await work(runtime)

    return execute(run())


def duration_option(text: str | None, option: str) -> timedelta | None:
    """What was given for an option that takes a duration."""
    from notifier.settings import parse_duration

    if text is None:
        return None
    try:
        return parse_duration(text)
    except ValueError as error:
        raise typer.BadParameter(f"{text!r} {error}", param_hint=option) from None
