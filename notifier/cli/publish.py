"""`notifier publish`: events from a file of JSON lines."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from notifier.cli import interruptible, output, uninterruptible
from notifier.cli.context import CommandFailed, JsonOption, read_settings
from notifier.cli.line_ids import PREFIX, LineIds
from notifier.cli.lines import Line, Source, before, hint, opened

if TYPE_CHECKING:
    from notifier.event import Event
    from notifier.publisher import Accepted, Publisher
    from notifier.settings import Settings

CHUNK = 500


def publish(
    file: Annotated[
        str,
        typer.Argument(metavar="FILE", help="JSON lines, one event each; - is stdin.", show_default=False),
    ],
    new_ids: Annotated[
        bool,
        typer.Option(
            "--new-ids", help="Publish again what has been published: lines without id get a new one."
        ),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Publish events from a file of JSON lines.

    A line without an id gets one that is made of its content and of how many identical lines came before it.
    So a file that was cut off can be published again as a whole: lines that have been published count as
    duplicates. With --new-ids such lines are new events in every run.
    """
    settings = read_settings()
    from notifier.bootstrap import open_publisher, open_tracing

    with (
        opened(file) as source,
        open_tracing(settings) as tracing,
        open_publisher(settings, tracing) as publisher,
    ):
        interruptible()
        run = _Run(source, publisher, settings, new_ids=new_ids)
        try:
            with _progress(run) as show:
                for chunk in source.chunks(CHUNK):
                    run.publish(chunk)
                    show()
        except (CommandFailed, KeyboardInterrupt) as error:
            if isinstance(error, KeyboardInterrupt):
                with uninterruptible():
                    output.note(f"interrupted; {run.interrupted()}")
            if as_json:
                output.emit(run.counts())
            raise
    if run.next_line == 1:
        output.note(f"{source.name} is empty: nothing to publish")
    if as_json:
        output.emit(run.counts())
    elif run.next_line > 1:
        output.say(run.summary())


@dataclass(frozen=True, slots=True)
class _Problem:
    line: int
    text: str


class _Run:
    """One run over one file, and what it has come to."""

    def __init__(self, source: Source, publisher: Publisher, settings: Settings, *, new_ids: bool) -> None:
        self._source = source
        self._publisher = publisher
        self._window = settings.dedup_window
        self._ids = None if new_ids else LineIds()
        self._repeatable = not new_ids and bool(settings.dedup_window)
        self.accepted = self.duplicates = self.notifications = 0
        self._derived_duplicates = 0
        self.next_line = 1
        self.repeat_from: int | None = None
        self._on_the_way: Sequence[Line] = ()

    def publish(self, chunk: Sequence[Line]) -> None:
        """Raises CommandFailed when a line is no event or the broker takes no more."""
        events, problem = self._read(chunk)
        if events:
            self._send(chunk[: len(events)], events)
        if problem:
            self.repeat_from = problem.line
            rest = self._published_before(problem.line)
            raise CommandFailed(f"{self._source.name}:{problem.line}: {problem.text}; {rest}", 2)

    def _read(self, chunk: Sequence[Line]) -> tuple[list[Event], _Problem | None]:
        """The events up to the first line that is none."""
        from notifier.errors import InvalidEvent
        from notifier.event import MAX_EVENT_BYTES, parse_event

        events: list[Event] = []
        for line in chunk:
            if line.content is None:
                return events, _Problem(line.number, f"event: has more than {MAX_EVENT_BYTES} bytes")
            try:
                event = parse_event(line.content)
                if self._ids and "id" not in event.model_fields_set:
                    event = event.model_copy(update={"id": self._ids.next(line.content)})
                event.encode()
            except InvalidEvent as error:
                return events, _Problem(line.number, f"{error}{hint(line.content)}")
            events.append(event)
        return events, None

    def _send(self, lines: Sequence[Line], events: Sequence[Event]) -> None:
        from notifier.errors import BrokerError, BrokerUnavailable

        self._on_the_way = lines
        try:
            accepted = self._publisher.publish_many(events)
        except BrokerError as error:
            self.repeat_from = lines[0].number
            setting = "NOTIFIER_REDIS_URL: " if isinstance(error, BrokerUnavailable) else ""
            raise CommandFailed(
                f"notifier: {setting}{str(error).rstrip('.')}; {self._how_to_go_on(lines)}"
            ) from error
        for one in accepted:
            self._count(one)
        self.next_line = lines[-1].number + 1
        self._on_the_way = ()

    def interrupted(self) -> str:
        """What is published, and where to go on."""
        if self._on_the_way:
            self.repeat_from = self._on_the_way[0].number
            return self._how_to_go_on(self._on_the_way)
        self.repeat_from = self.next_line
        return self._published_before(self.next_line)

    def _published_before(self, line: int) -> str:
        done = self.accepted or self.duplicates  # else the lines before it are blank
        return (before(line, *self._published()) if done else "") or "nothing is published"

    def _count(self, one: Accepted) -> None:
        self.notifications += len(one.recipients) - len(one.duplicates)
        if not one.duplicate:
            self.accepted += 1
            return
        self.duplicates += 1
        self._derived_duplicates += one.id.startswith(PREFIX)

    def _published(self) -> tuple[str, str]:
        if self._repeatable:
            again = "when you run it again"
            return f"is published, and counts as a duplicate {again}", (
                f"are published, and count as duplicates {again}"
            )
        return "is published: go on behind it", "are published: go on behind them"

    def _how_to_go_on(self, lines: Sequence[Line]) -> str:
        first, last = lines[0].number, lines[-1].number
        done = before(first, "is published", "are published")
        done = f"{done}; " if done else ""
        name = self._source.name
        if self._repeatable:
            return (
                f"{done}repeat {name} from line {first} on, or all of it: what is published is not repeated"
            )
        perhaps = f"of lines {first}-{last} perhaps some" if last > first else f"line {first} perhaps"
        return f"{done}{perhaps}; repeat {name} from line {first} on: what is published of it comes twice"

    def counts(self) -> dict[str, Any]:
        """For programs. `repeat_from` is the line that a next run has to begin with, after a failure."""
        return {
            "accepted": self.accepted,
            "duplicates": self.duplicates,
            "notifications": self.notifications,
            "repeat_from": self.repeat_from,
        }

    def summary(self) -> str:
        text = f"Published {output.counted(self.accepted, 'event')}"
        if self.notifications != self.accepted:
            text += f" for {output.counted(self.notifications, 'recipient')}"
        if not self.duplicates:
            return text
        again = "; --new-ids sends them again" if self._derived_duplicates else ""
        when = f"already published within {output.duration(self._window)}"
        duplicates = f"{output.counted(self.duplicates, 'duplicate')}: {when}{again}"
        return f"{text}; {duplicates}" if self.notifications else f"Nothing new; {duplicates}"

    @property
    def position(self) -> int:
        return self._source.read

    @property
    def size(self) -> int | None:
        return self._source.size


@contextmanager
def _progress(run: _Run) -> Iterator[Any]:
    """A bar on a terminal; gone when it is done. Yields what shows the present state."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    console = output.stderr()
    if not console.is_terminal:
        yield lambda: None
        return
    text = TextColumn("Publishing  {task.fields[events]:,} events")
    with Progress(text, BarColumn(), TimeElapsedColumn(), console=console, transient=True) as bar:
        task = bar.add_task("", total=run.size, events=0)
        yield lambda: bar.update(task, completed=run.position, events=run.accepted + run.duplicates)
