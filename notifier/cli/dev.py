"""`notifier dev`: everything on this machine, until Ctrl-C."""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from notifier.cli import output

if TYPE_CHECKING:
    from notifier.local.dev import Ready, Started
    from notifier.local.happenings import Happening

_CONTINUED: Final = " \\\n    "
_WORD: Final = 64  # columns, so that a line of 80 has room for what is around it
_INTERRUPTED: Final = 128 + signal.SIGINT
_STYLES: Final = {
    "mail": "cyan", "push": "magenta", "inbox": "blue", "note": "dim",
    "retry": "yellow", "dlq": "yellow", "dead": "red", "alert": "red", "trouble": "bold red",
}  # fmt: skip


def dev(
    port: Annotated[
        int,
        typer.Option(
            min=1, max=65_532, help="The broker's; the next three are for mail server, push service and API."
        ),
    ] = 6380,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Show what is written in mails, pushes and entries.")
    ] = False,
) -> None:
    """Run all of it on this machine, until Ctrl-C.

    Broker, mail server, push service, a worker of all roles, and the HTTP API with a page that publishes and
    shows an inbox. Mails, pushes and inbox entries are shown as they come; nothing leaves the machine. Data
    is kept in .notifier/ of this folder. Templates come from NOTIFIER_TEMPLATES, or templates/ here, and are
    read again when they change. Two recipients, ada and
    bob, are there from the beginning.
    """
    screen = _Screen(output.stdout(), verbose=verbose)
    try:
        asyncio.run(_run(port, screen))
    except asyncio.CancelledError:
        raise typer.Exit(_INTERRUPTED) from None
    screen.say(Text("Stopped. Data is kept in .notifier/"))


async def _run(port: int, screen: _Screen) -> None:
    from notifier.local.dev import Dev

    stop = asyncio.Event()
    this = asyncio.current_task()

    def end() -> None:
        if stop.is_set() and this is not None:
            this.cancel()  # asked twice: without waiting for what is being sent
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, end)
    await Dev(Path.cwd(), os.environ, port, screen.tell).run(stop)


def _words(text: str) -> Iterator[str]:
    """The text in quoted words for a shell, which `printf %s` joins again; none is wrapped by a terminal."""
    while text:
        size = len(text)
        while cell_len(shlex.quote(text[:size])) > _WORD:
            size -= 1
        if size < len(text):
            size = max(text.rfind(mark, 0, size) for mark in ", ") + 1 or size
        yield shlex.quote(text[:size])
        text = text[size:]


class _Screen:
    """What people see; without a terminal, plain text."""

    def __init__(self, console: Console, *, verbose: bool) -> None:
        self._console = console
        self._verbose = verbose
        self._mark = "✓" if "utf" in (getattr(sys.stdout, "encoding", None) or "").lower() else "ok"

    def tell(self, told: Started | Ready | Happening) -> None:
        from notifier.local.dev import Ready, Started

        if isinstance(told, Started):
            self._started(told)
        elif isinstance(told, Ready):
            self._ready(told)
        else:
            self._happened(told)

    def say(self, text: Text) -> None:
        self._console.print(text, soft_wrap=True)
        self._console.file.flush()  # also a pipe should show each line as it comes

    def _started(self, part: Started) -> None:
        head = Text(" ").append(self._mark, style="green").append(f" {part.name:<13} ")
        self._hang(head, Text(f"{output.plain(part.detail)} ").append(f"({part.ms} ms)", style="dim"))

    def _ready(self, ready: Ready) -> None:
        self.say(Text("\nOpen in a browser, to publish and see the inbox:\n", style="bold"))
        self.say(Text(f"  {ready.page_url}"))
        self.say(Text("\nKeys of the API there, until Ctrl-C:\n", style="bold"))
        for scope, secret in ready.keys.items():
            self.say(Text(f"  {scope:<10} {secret}"))
        self.say(Text("\nPublish from another terminal:\n", style="bold"))
        self.say(Text(f"  export NOTIFIER_REDIS_URL={ready.redis_url}"))
        words = [*_words(ready.example), "| notifier publish --new-ids -"]
        self.say(Text(f"  printf %s {_CONTINUED.join(words)}"))
        self.say(Text("\nCtrl-C stops everything. What arrives:\n", style="bold"))

    def _happened(self, happening: Happening) -> None:
        at = happening.at.astimezone().strftime("%H:%M:%S")
        head = Text(f"{at}  ", style="dim")
        head.append(f"{happening.kind:<7} ", style=_STYLES[happening.kind])
        self._hang(head.append(f"{output.plain(happening.who):<16} "), Text(output.one_line(happening.text)))
        if self._verbose:
            for row in happening.body.strip().splitlines():
                # Spaces that don't break, as in times, are no control characters to be shown.
                self._hang(Text(" " * 18), Text(output.plain(re.sub(r"\s", " ", row)), style="dim"))

    def _hang(self, head: Text, text: Text) -> None:
        """A line whose further rows begin where its text begins. Without a terminal it is one row."""
        if not self._console.is_terminal:
            self.say(head + text)
            return
        grid = Table.grid(padding=0)
        grid.add_column(width=head.cell_len, no_wrap=True)
        grid.add_column(overflow="fold")
        grid.add_row(head, text)
        self._console.print(grid)
