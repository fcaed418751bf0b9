"""What people and programs are shown: tables, plain text when stdout is no terminal, and JSON.

Everything that came from outside goes through `plain` before a terminal sees it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Final

from rich import box
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

_ENDLESS: Final = 10_000  # columns: what is piped is neither wrapped nor cut
_STEPS: Final = ((86_400, "d"), (3_600, "h"), (60, "m"))


def stdout() -> Console:
    """The console for results."""
    console = Console(highlight=False, markup=False, emoji=False)
    return console if console.is_terminal else _without_end(sys.stdout)


def stderr() -> Console:
    """The console for progress, notes and errors."""
    console = Console(stderr=True, highlight=False, markup=False, emoji=False)
    return console if console.is_terminal else _without_end(sys.stderr)


def _without_end(file: Any) -> Console:
    return Console(file=file, width=_ENDLESS, highlight=False, markup=False, emoji=False, color_system=None)


def say(text: str | Text) -> None:
    """A line on stdout."""
    stdout().print(text, soft_wrap=True)


def show(*parts: RenderableType, console: Console | None = None) -> None:
    """Tables and texts on stdout, or on another console; without a terminal no line ends in blanks."""
    console = console or stdout()
    if console.is_terminal:
        console.print(*parts, sep="\n")
        return
    with console.capture() as captured:
        console.print(*parts, sep="\n")
    lines = (line.rstrip() for line in captured.get().splitlines())
    console.file.write("".join(f"{line}\n" for line in lines))


def note(text: str) -> None:
    """A line on stderr that is no error."""
    stderr().print(f"notifier: {one_line(text)}", soft_wrap=True)


def error_line(text: str) -> None:
    """One line on stderr, whatever the text holds."""
    print(one_line(text), file=sys.stderr)  # noqa: T201 - the one place


def emit(value: Any) -> None:
    """One JSON value on one line of stdout."""
    is_unicode = (getattr(sys.stdout, "encoding", None) or "").lower().replace("-", "") == "utf8"
    print(json.dumps(value, ensure_ascii=not is_unicode, separators=(",", ":")))  # noqa: T201 - the one place


def write(text: str) -> None:
    """A document on stdout, as it is."""
    sys.stdout.write(text if text.endswith("\n") else text + "\n")


def plain(text: str) -> str:
    """The text without characters that would steer the terminal; they are written as escapes."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def one_line(text: str) -> str:
    return plain(" ".join(text.split()))


def table(*columns: str, right: Sequence[str] = ()) -> Table:
    """An empty table. `right` names the columns of numbers. Without a terminal it has no lines."""
    lines = box.SIMPLE_HEAD if stdout().is_terminal else None
    made = Table(box=lines, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0), show_edge=False)
    for name in columns:
        made.add_column(name, justify="right" if name in right else "left", no_wrap=True)
    return made


def number(count: int) -> str:
    """With thousands separators for people, without for programs."""
    return f"{count:,}" if stdout().is_terminal else str(count)


def counted(count: int, noun: str, plural: str = "") -> str:
    """1 event, 2 events."""
    return f"{number(count)} {noun if count == 1 else plural or noun + 's'}"


def age(milliseconds: int) -> str:
    """About how long: 350ms, 12s, 4m, 3h, 2d."""
    if milliseconds < 1000:
        return f"{max(0, milliseconds)}ms"
    seconds = milliseconds // 1000
    for size, unit in _STEPS:
        if seconds >= size:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


def duration(value: timedelta) -> str:
    """As it is written in settings: 24h, 90s."""
    seconds = value.total_seconds()
    for size, unit in _STEPS[1:]:
        if seconds and seconds % size == 0:
            return f"{int(seconds // size)}{unit}"
    return f"{seconds:g}s"
