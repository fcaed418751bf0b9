"""`notifier doctor`: what is wrong, and how to mend it."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Final

import typer
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from notifier.cli import output
from notifier.cli.context import JsonOption, execute

if TYPE_CHECKING:
    from notifier.channel import Finding
    from notifier.operations.doctor import Section

_STYLES: Final = {"ok": "green", "warning": "yellow", "error": "bold red"}
_WIDEST: Final = 100


def doctor(
    as_json: JsonOption = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Only what is not ok.", show_default=False)
    ] = False,
) -> None:
    """Look at settings, broker, queues, templates, channels and keys; say what is wrong and how to mend it.

    It changes nothing and sends nothing: a mail server is logged in to, and left again. Exits 1 when
    something is an error; warnings do not count. What can't be looked at does not hide the rest.
    """
    from notifier.api.keys_check import check_keys
    from notifier.observability import configure
    from notifier.operations.doctor import examine

    configure("error", "console")
    sections = execute(examine(os.environ, check_keys))
    counts: Counter[str] = Counter(finding.level for section in sections for finding in section.findings)
    if as_json:
        output.emit(
            {
                "ok": not counts["error"],
                "errors": counts["error"],
                "warnings": counts["warning"],
                "findings": [_view(section, finding) for section in sections for finding in section.findings],
            }
        )
    else:
        output.show(_page(sections, counts, quiet=quiet))
    raise typer.Exit(1 if counts["error"] else 0)


def _view(section: Section, finding: Finding) -> dict[str, str]:
    return {
        "section": section.title,
        "level": finding.level,
        "what": finding.what,
        "found": finding.found,
        "means": finding.means,
        "mend": finding.mend,
    }


def _page(sections: Sequence[Section], counts: Counter[str], *, quiet: bool) -> RenderableType:
    parts: list[RenderableType] = []
    for section in sections:
        shown = [one for one in section.findings if not quiet or one.level != "ok"]
        if shown:
            parts += [Text(section.title, style="bold"), *(_finding(one) for one in shown), Text()]
    return Group(*parts, _summary(counts))


def _finding(finding: Finding) -> RenderableType:
    table = Table(box=None, show_header=False, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column(width=8, no_wrap=True)
    table.add_column(overflow="fold", max_width=_WIDEST if output.stdout().is_terminal else None)
    said = Text(f"{output.one_line(finding.what)}: {output.one_line(finding.found)}")
    table.add_row(Text(finding.level, style=_STYLES[finding.level]), said)
    if finding.means:
        table.add_row("", Text(output.one_line(finding.means)))
    if finding.mend:
        table.add_row("", Text(f"Mend: {output.one_line(finding.mend)}", style="cyan"))
    return Padding(table, (0, 0, 0, 2))


def _summary(counts: Counter[str]) -> Text:
    told = [
        output.counted(counts["error"], "error"),
        output.counted(counts["warning"], "warning"),
        f"{counts['ok']} ok",
    ]
    worst = "error" if counts["error"] else "warning" if counts["warning"] else "ok"
    return Text(", ".join(told), style=_STYLES[worst])
