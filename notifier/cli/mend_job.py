"""What `notifier dlq redrive` and `notifier dlq discard` do: check, ask, act, tell."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import typer

from notifier.cli import output, uninterruptible
from notifier.cli.context import CommandFailed, connected

if TYPE_CHECKING:
    from notifier.bootstrap import Runtime
    from notifier.operations.dead_letters import LetterId, Selection
    from notifier.operations.mending import Action, Result
    from notifier.settings import Settings

_DONE: Final = {"redrive": "redriven", "discard": "discarded"}
_TOLD: Final = {
    "gone": "not there any more: redriven, discarded or delivered",
    "busy": "left alone: the DLQ's worker is trying it now",
    "unusable": "left alone: holds nothing that could be queued, and can only be discarded",
}

_Group = tuple[str, str, str, str]


def known_queues(settings: Settings) -> tuple[str, ...]:
    """`events` and the configured channels. Raises ConfigurationError."""
    from notifier.bootstrap import open_channels
    from notifier.keys import EVENTS

    return (EVENTS, *open_channels(settings, os.environ))


@dataclass(frozen=True, slots=True)
class MendJob:
    """`is_filtered` says whether anything narrows the selection; `rate` is in letters a second, or 0."""

    action: Action
    settings: Settings
    selection: Selection
    is_filtered: bool
    limit: int
    rate: float
    dry_run: bool
    yes: bool
    as_json: bool

    def run(self, ids: Sequence[str], *, every_one: bool) -> None:
        """Raises CommandFailed, or typer.Exit when some of `ids` were left alone."""
        if ids and (self.is_filtered or every_one):
            raise typer.BadParameter("give ids, or filters, not both", param_hint="ID")
        if not ids and not self.is_filtered and not every_one:
            raise typer.BadParameter("say which: by their ids, by a filter, or --all", param_hint="ID")
        if ids:
            self._by_id(ids)
        else:
            self._by_filter()

    # By their ids.

    def _by_id(self, texts: Sequence[str]) -> None:
        results = connected(self.settings, lambda runtime: self._mend_ids(runtime, texts))
        if results is None:
            return
        self._tell(Counter(result for _, result in results))
        left = [(letter_id, result) for letter_id, result in results if result.value != "done"]
        for letter_id, result in left:
            output.error_line(f"notifier: {letter_id} {_TOLD[result.value]}")
        if left:
            raise typer.Exit(1)

    async def _mend_ids(self, runtime: Runtime, texts: Sequence[str]) -> list[tuple[LetterId, Result]] | None:
        from notifier.operations.dead_letters import get, parse_id
        from notifier.operations.mending import mend

        queues = known_queues(self.settings)
        ids = [parse_id(text, runtime.keys, queues) for text in dict.fromkeys(texts)]
        if not self.dry_run:
            results = await mend(runtime.client, runtime.keys, self.action, ids)
            return list(zip(ids, results, strict=True))
        groups: Counter[_Group] = Counter()
        for letter_id in ids:
            if letter := await get(runtime.client, runtime.keys, letter_id):
                groups[letter_id.queue, letter_id.state, letter.failure.error, letter.type] += 1
        self._show_plan(groups)
        return None

    # By a filter.

    def _by_filter(self) -> None:
        ask = not self.yes and not self.dry_run and sys.stdin is not None and sys.stdin.isatty()
        ask = ask and output.stderr().is_terminal
        total: int | None = None
        if ask or self.dry_run:
            groups = connected(self.settings, self._groups)
            total = groups.total()
            self._show_plan(groups)
            if self.dry_run or not total:
                return
        noun = output.counted(total or 0, "dead letter")
        if ask and not typer.confirm(f"{self.action.capitalize()} {noun}?", err=True):
            raise CommandFailed("notifier: nothing was done")
        so_far: Counter[Result] = Counter()
        try:
            with _progress(self.action, total) as show:
                connected(self.settings, lambda runtime: self._mend_all(runtime, so_far, show))
        except KeyboardInterrupt:
            with uninterruptible():
                done = f"{self._done(so_far)}, and perhaps those that were under way"
                output.note(f"interrupted; {done}: run it again for the rest")
                if self.as_json:
                    self._tell(so_far)
            raise
        self._tell(so_far)

    async def _groups(self, runtime: Runtime) -> Counter[_Group]:
        """How many there are of each queue, state, error and type."""
        from notifier.operations.dead_letters import find

        groups: Counter[_Group] = Counter()
        number = 0
        async for letter in find(runtime.client, runtime.keys, self.selection):
            groups[letter.id.queue, letter.id.state, letter.failure.error, letter.type] += 1
            number += 1
            if number == self.limit:
                break
        return groups

    async def _mend_all(
        self, runtime: Runtime, so_far: Counter[Result], show: Callable[[Counter[Result]], None]
    ) -> None:
        """Counts in `so_far` what became of each."""
        from notifier.errors import BrokerError
        from notifier.operations.dead_letters import find
        from notifier.operations.mending import mend_all

        def progress(results: Counter[Result]) -> None:
            so_far.update(results - so_far)
            show(results)

        letters = find(runtime.client, runtime.keys, self.selection)
        try:
            await mend_all(
                runtime.client, runtime.keys, self.action, letters,
                limit=self.limit, rate=self.rate, progress=progress,
            )  # fmt: skip
        except BrokerError as error:
            raise CommandFailed(
                f"notifier: {error}; {self._done(so_far)}: run it again for the rest"
            ) from error

    def _done(self, results: Counter[Result]) -> str:
        from notifier.operations.mending import Result

        return f"{output.counted(results[Result.DONE], 'letter')} {_DONE[self.action]}"

    # What it came to.

    def _show_plan(self, groups: Counter[_Group]) -> None:
        names = ("queue", "state", "error", "type")
        if self.as_json and self.dry_run:
            listed = [
                {**dict(zip(names, group, strict=True)), "count": n} for group, n in sorted(groups.items())
            ]
            output.emit({"dry_run": True, "matched": groups.total(), "groups": listed})
            return
        console = output.stdout() if self.dry_run else output.stderr()
        if not groups:
            console.print("No dead letters like these" if self.is_filtered else "No dead letters")
            return
        table = output.table("count", *names, right=("count",))
        for group, number in sorted(groups.items(), key=lambda item: -item[1]):
            table.add_row(output.number(number), *(output.plain(text) or "-" for text in group))
        output.show(table, console=console)
        if self.dry_run:
            console.print(f"Would {self.action} {output.counted(groups.total(), 'dead letter')}")

    def _tell(self, results: Counter[Result]) -> None:
        counts = {result.value: number for result, number in results.items()}
        if self.as_json:
            rest = {name: counts.get(name, 0) for name in _TOLD}
            output.emit({_DONE[self.action]: counts.get("done", 0), **rest})
            return
        text = f"{_DONE[self.action].capitalize()} {output.counted(counts.get('done', 0), 'dead letter')}"
        left = [
            f"{output.number(counts[name])} {told.partition(':')[0]}"
            for name, told in _TOLD.items()
            if counts.get(name)
        ]
        output.say("; ".join([text, *left]))


@contextmanager
def _progress(action: str, total: int | None) -> Iterator[Callable[[Counter[Result]], None]]:
    """A bar on a terminal; gone when it is done."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    console = output.stderr()
    if not console.is_terminal:
        yield lambda _: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(action.capitalize(), total=total)
        yield lambda results: bar.update(task, completed=results.total())
