"""How dead letters look: in a list, and one by one."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from rich.text import Text

from notifier.cli import output

if TYPE_CHECKING:
    from notifier.operations.dead_letters import Letter

PAGE: Final = 500
"""Rows that are laid out together."""

_WIDE = 120  # columns of a terminal that has room for one line a letter


def show_rows(letters: Sequence[Letter], *, first: bool) -> None:
    """A page of a list; only the `first` has a header."""
    console = output.stdout()
    now_ms = time.time_ns() // 1_000_000
    if console.is_terminal and console.width < _WIDE:
        for letter in letters:
            for line in _two_lines(letter, now_ms):
                line.truncate(console.width, overflow="ellipsis")
                console.print(line, no_wrap=True)
        return
    table = output.table(
        "id", "age", "error", "type", "recipient", "attempts", "reason", right=("age", "attempts")
    )
    table.show_header = first
    table.columns[-1].overflow = "ellipsis"
    for letter in letters:
        table.add_row(
            str(letter.id),
            output.age(now_ms - letter.since_ms),
            output.plain(letter.failure.error),
            output.plain(letter.type) or "-",
            output.plain(letter.recipient) or "-",
            str(letter.failure.attempts),
            output.one_line(letter.failure.reason),
        )
    output.show(table)


def _two_lines(letter: Letter, now_ms: int) -> tuple[Text, Text]:
    failure = letter.failure
    first = Text.assemble(
        str(letter.id),
        (f"  {output.age(now_ms - letter.since_ms):>4}  ", "dim"),
        (output.plain(failure.error), "red"),
        f"  {output.plain(letter.type)}",
    )
    return first, Text(
        f"    {output.plain(letter.recipient)}: {output.one_line(failure.reason)}", style="dim"
    )


def show_letter(letter: Letter, dlq_delay: timedelta) -> None:
    """Everything about one letter."""
    from notifier.operations.views import advice, event_of, moment

    failure = letter.failure
    rows = {
        "id": str(letter.id),
        "state": _state(letter, dlq_delay),
        "error": failure.error,
        "reason": failure.reason,
        "answer": failure.answer,
        "attempts": str(failure.attempts),
        "first failed": moment(failure.first_ms or None) or "",
        "last failed": moment(failure.last_ms or None) or "",
        "event": f"{letter.type} {letter.event_id}".strip(),
        "recipient": letter.recipient,
        "address": letter.address_key,
        "accepted": moment(letter.accepted_ms) or "",
        "expires": moment(letter.expires_ms) or "",
        "what to do": advice(letter),
    }
    console = output.stdout()
    table = output.table("", "")
    table.show_header = False
    table.box = None
    table.columns[0].style = "bold"
    table.columns[1].no_wrap = False
    table.columns[1].overflow = "fold"
    for name, value in rows.items():
        if value:
            table.add_row(name, output.one_line(value))
    output.show(table)
    console.print()
    for line in json.dumps(event_of(letter), ensure_ascii=False, indent=2).split("\n"):
        console.print(output.plain(line), soft_wrap=True)


def _state(letter: Letter, dlq_delay: timedelta) -> str:
    if letter.id.state == "dead":
        return "dead: gave up after its second try"
    due_ms = letter.since_ms + int(dlq_delay / timedelta(milliseconds=1))
    left_ms = due_ms - time.time_ns() // 1_000_000
    when = f"due in {output.age(left_ms)}" if left_ms > 0 else "due now"
    return f"dlq: waits for its second try, {when}"
