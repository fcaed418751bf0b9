"""`notifier demo`: shows the whole way of an event on this machine."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Coroutine, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from rich.console import Console
from rich.text import Text

from notifier.cli import output
from notifier.cli.context import JsonOption

if TYPE_CHECKING:
    from rich.table import Table

    from notifier.local.demo import Result
    from notifier.local.outcomes import Row
    from notifier.local.steps import Step

_WIDEST: Final = 120
_TEXT: Final = 28  # columns of a step's text; its detail takes what is left
_MS: Final = 8
_STYLES: Final = {"delivered": "green", "dead": "red"}
_TERMINATED: Final = 128 + signal.SIGTERM
_ENDS: Final = {signal.SIGINT: 130, signal.SIGTERM: _TERMINATED, signal.SIGHUP: _TERMINATED}


def demo(
    as_json: JsonOption = False,
    templates: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Play with a copy of these templates, not with our own."),
    ] = None,
    log: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write what the worker logs there, as JSON lines.")
    ] = None,
) -> None:
    """Show the whole way of an event, on this machine only.

    Starts a broker, a mail server that receives, a push service that decrypts, and a worker. One event of
    each type becomes e-mails, pushes and inbox entries. Then come a busy mailbox, one that does not exist,
    and a broken template, which is mended and redriven.

    No setting is read, nothing is left behind. Exits 0 only if every outcome is the expected one, and 1
    naming what differed.
    """
    from notifier.local.demo import run_demo
    from notifier.local.peers import shipped_templates

    _check_writable(log)
    screen = _Screen(output.stdout(), silent=as_json)
    result = _play(run_demo(templates or shipped_templates(), screen.step, log))
    if as_json:
        output.emit(_document(result))
    else:
        screen.end(result)
    if not result.ok:
        raise typer.Exit(1)


def _check_writable(log: Path | None) -> None:
    try:
        if log is not None:
            log.open("a").close()
    except OSError as error:
        raise typer.BadParameter(f"{log}: {error.strerror}", param_hint="--log") from None


def _play(running: Coroutine[Any, Any, Result]) -> Result:
    """Ctrl-C, SIGTERM and a closed terminal end it only after everything has been stopped."""
    from notifier.broker.cancelling import cancel_until_done

    codes: list[int] = []

    async def play() -> Result:
        playing = asyncio.create_task(running)
        ending = []

        def end(code: int) -> None:
            codes.append(code)
            # Again and again: asyncio.wait_for of Python 3.11 may swallow a cancellation.
            ending.append(asyncio.create_task(cancel_until_done(playing)))

        for number, code in _ENDS.items():
            asyncio.get_running_loop().add_signal_handler(number, end, code)
        return await playing

    try:
        result = asyncio.run(play())
    except asyncio.CancelledError:
        result = None
    if result is None or codes:
        raise typer.Exit(codes[0])
    return result


def _document(result: Result) -> dict[str, Any]:
    return {
        "ok": result.ok,
        "seconds": result.seconds,
        "arrived": dict(result.arrived),
        "steps": [asdict(step) for step in result.steps],
        "deliveries": [asdict(row) for row in result.rows],
        "differences": list(result.differences),
    }


class _Screen:
    """What people see. Without a terminal it is plain text, and nothing is cut."""

    def __init__(self, console: Console, *, silent: bool) -> None:
        self._console = console
        self._silent = silent
        self._width = min(console.width, _WIDEST) if console.is_terminal else None
        self._chapter = ""
        unicode = "utf" in (getattr(sys.stdout, "encoding", None) or "").lower()
        self._marks = ("✓", "✗") if unicode else ("ok", "FAILED")

    def step(self, step: Step) -> None:
        if self._silent:
            return
        if step.chapter != self._chapter:
            self._say(Text(f"\n{step.chapter}" if self._chapter else step.chapter, style="bold"))
            self._chapter = step.chapter
        line = Text(" ").append(self._marks[not step.ok], style="green" if step.ok else "bold red")
        line.append(f" {step.text.ljust(_TEXT)} ")
        detail, ms = Text(output.plain(step.detail), style="" if step.ok else "red"), f"{step.ms} ms"
        if self._width is None:
            self._say(line + detail + Text(f" ({ms})" if step.detail else f"({ms})"))
            return
        room = self._width - line.cell_len - _MS
        if step.ok or detail.cell_len <= room:
            detail.truncate(room, overflow="ellipsis", pad=True)
        self._say(line + detail + Text(ms.rjust(_MS), style="dim"))

    def _say(self, text: Text) -> None:
        self._console.print(text, soft_wrap=True)
        self._console.file.flush()  # also a pipe should show each step as it happens

    def end(self, result: Result) -> None:
        self._say(Text("\nWhat became of each notification", style="bold"))
        output.show(_table(result.rows, for_people=self._console.is_terminal))
        mails, pushes, entries = (result.arrived[channel] for channel in ("email", "push", "in_app"))
        arrived = f"{mails} e-mails, {pushes} pushes and {entries} inbox entries in {result.seconds} s"
        if result.ok:
            said = Text(f"\n{self._marks[0]} {arrived}; all as expected.", style="bold green")
            self._say(said)
            self._say(Text("  `notifier dev` keeps all of this running, for events of your own."))
            return
        self._say(Text(f"\n{self._marks[1]} {arrived}; not everything went as expected:", style="bold red"))
        steps = [f"{step.text}: {step.detail}" for step in result.steps if not step.ok]
        for line in result.differences or steps:
            self._say(Text(f"  {output.plain(line)}"))
        self._say(Text("  `notifier demo --log FILE` writes down what the worker said."))


def _table(rows: Sequence[Row], *, for_people: bool) -> Table:
    table = output.table(
        "event", "recipient", "channel", "outcome", "attempts", "ms", right=("attempts", "ms")
    )
    table.padding = (0, 1, 0, 0)  # fits into 80 columns
    before = ("", "")
    for row in rows:
        group = (row.event, row.recipient)
        # For eyes a name once is enough; what filters lines needs it on each.
        shown = ("", "") if for_people and group == before else group
        before = group
        table.add_row(
            *(output.plain(text) for text in shown),
            row.channel if row.deliveries == 1 else f"{row.channel} x{row.deliveries}",
            _outcome(row),
            str(row.attempts),
            "-" if row.ms is None else str(row.ms),
        )
    return table


def _outcome(row: Row) -> Text:
    if not row.ok:
        return Text(f"{row.outcome} (not expected)", style="bold red")
    return Text(row.outcome, style=_STYLES.get(row.outcome, "yellow"))
