"""`notifier dlq`: looking at dead letters, redriving and discarding them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from notifier.cli import letters as shown
from notifier.cli import output
from notifier.cli.context import (
    CommandFailed,
    JsonOption,
    command_group,
    connected,
    duration_option,
    read_settings,
    register,
)
from notifier.cli.mend_job import MendJob, known_queues

if TYPE_CHECKING:
    from notifier.bootstrap import Runtime
    from notifier.operations.dead_letters import Letter, Selection
    from notifier.settings import Settings

_SHOWN = 50

ChannelOption = Annotated[
    list[str] | None,
    typer.Option("--channel", metavar="CHANNEL", help="Of this channel, or events; may be repeated."),
]
ErrorOption = Annotated[
    list[str] | None,
    typer.Option(
        "--error", metavar="CLASS", help="Such as TransientFailure or TemplateError; may be repeated."
    ),
]
TypeOption = Annotated[
    list[str] | None, typer.Option("--type", metavar="TYPE", help="Of this event type; may be repeated.")
]
RecipientOption = Annotated[str | None, typer.Option(metavar="ID", help="For this recipient.")]
OlderOption = Annotated[
    str | None, typer.Option(metavar="DURATION", help="That have been there longer than 10m, 2h, 3d.")
]
StateOption = Annotated[
    str,
    typer.Option(metavar="dlq|dead|all", help="Those that wait for their second try, or those that gave up."),
]
IdsArgument = Annotated[
    list[str] | None, typer.Argument(metavar="ID", help="Ids as `list` shows them.", show_default=False)
]
AllOption = Annotated[bool, typer.Option("--all", help="Every one; needed when nothing else selects.")]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Only count what it would be.")]
LimitOption = Annotated[int, typer.Option(min=0, metavar="COUNT", help="At most so many, oldest first.")]
RateOption = Annotated[
    str | None, typer.Option(metavar="N/s", help="At most so many, such as 50/s or 600/m.")
]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Don't ask.")]


def list_letters(
    channel: ChannelOption = None,
    error: ErrorOption = None,
    type_: TypeOption = None,
    recipient: RecipientOption = None,
    older_than: OlderOption = None,
    state: StateOption = "all",
    limit: Annotated[
        int | None,
        typer.Option(min=0, metavar="COUNT", help="At most so many; 0 means all. 50 without --json."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """List dead letters, oldest first. With --json one object a line."""
    settings = read_settings()
    narrowed = _Filters(channel, error, type_, recipient, older_than, state)
    selection = narrowed.selection(settings)
    most = (0 if as_json else _SHOWN) if limit is None else limit

    async def work(runtime: Runtime) -> None:
        from notifier.operations.dead_letters import count

        number, more = await _print_page(runtime, selection, most, as_json=as_json)
        if as_json:
            return
        if not number:
            output.say("No dead letters like these" if narrowed.given else "No dead letters")
        elif more:
            total = await count(runtime.client, runtime.keys, selection)
            of = "" if narrowed.given else f" of {output.number(total)}"
            output.note(f"these are the oldest {output.number(number)}{of}; --limit 0 lists all")

    connected(settings, work)


async def _print_page(
    runtime: Runtime, selection: Selection, most: int, *, as_json: bool
) -> tuple[int, bool]:
    """Prints up to `most`, or all when that is 0. Returns how many, and whether there are more."""
    from notifier.operations.dead_letters import find
    from notifier.operations.views import letter_view

    page: list[Letter] = []
    number, more = 0, False
    async for letter in find(runtime.client, runtime.keys, selection):
        if most and number == most:
            more = True
            break
        number += 1
        if as_json:
            output.emit(letter_view(letter))
            continue
        page.append(letter)
        if len(page) == shown.PAGE:
            shown.show_rows(page, first=number == shown.PAGE)
            page.clear()
    if page:
        shown.show_rows(page, first=number == len(page))
    return number, more


def show(
    letter_id: Annotated[
        str, typer.Argument(metavar="ID", help="An id as `list` shows it.", show_default=False)
    ],
    as_json: JsonOption = False,
) -> None:
    """Show one dead letter: what failed, the event, and what to do about it."""
    settings = read_settings()
    queues = known_queues(settings)

    async def work(runtime: Runtime) -> None:
        from notifier.operations.dead_letters import get, parse_id
        from notifier.operations.views import letter_view

        wanted = parse_id(letter_id, runtime.keys, queues)
        letter = await get(runtime.client, runtime.keys, wanted)
        if letter is None:
            raise CommandFailed(f"notifier: {wanted} is not there any more: redriven, discarded or delivered")
        if as_json:
            output.emit(letter_view(letter, whole=True))
        else:
            shown.show_letter(letter, settings.dlq_delay)

    connected(settings, work)


def redrive(  # noqa: PLR0913 - the options of a command
    ids: IdsArgument = None,
    channel: ChannelOption = None,
    error: ErrorOption = None,
    type_: TypeOption = None,
    recipient: RecipientOption = None,
    older_than: OlderOption = None,
    state: StateOption = "all",
    every_one: AllOption = False,
    dry_run: DryRunOption = False,
    rate: RateOption = None,
    limit: LimitOption = 0,
    yes: YesOption = False,
    as_json: JsonOption = False,
) -> None:
    """Put dead letters back into the queue that they came from, with fresh attempts.

    By their ids, or all that the filters select. They are delivered with the templates of now. What the
    DLQ's worker is trying at this moment is left alone.
    """
    settings = read_settings()
    narrowed = _Filters(channel, error, type_, recipient, older_than, state)
    MendJob(
        "redrive",
        settings,
        narrowed.selection(settings),
        narrowed.given,
        limit,
        per_second(rate),
        dry_run,
        yes,
        as_json,
    ).run(ids or (), every_one=every_one)


def discard(  # noqa: PLR0913 - the options of a command
    ids: IdsArgument = None,
    channel: ChannelOption = None,
    error: ErrorOption = None,
    type_: TypeOption = None,
    recipient: RecipientOption = None,
    older_than: OlderOption = None,
    state: StateOption = "all",
    every_one: AllOption = False,
    dry_run: DryRunOption = False,
    rate: RateOption = None,
    limit: LimitOption = 0,
    yes: YesOption = False,
    as_json: JsonOption = False,
) -> None:
    """Delete dead letters for good, by their ids, or all that the filters select."""
    settings = read_settings()
    narrowed = _Filters(channel, error, type_, recipient, older_than, state)
    MendJob(
        "discard",
        settings,
        narrowed.selection(settings),
        narrowed.given,
        limit,
        per_second(rate),
        dry_run,
        yes,
        as_json,
    ).run(ids or (), every_one=every_one)


class _Filters:
    """The options that select dead letters."""

    def __init__(
        self,
        channels: Sequence[str] | None,
        errors: Sequence[str] | None,
        types: Sequence[str] | None,
        recipient: str | None,
        older_than: str | None,
        state: str,
    ) -> None:
        if state not in {"dlq", "dead", "all"}:
            raise typer.BadParameter(f"{state!r} is not one of dlq, dead, all", param_hint="--state")
        if recipient is not None and not _can_be_an_id(recipient):
            raise typer.BadParameter(f"{recipient!r} can't be a recipient's id", param_hint="--recipient")
        self.given = bool(channels or errors or types or recipient or older_than or state != "all")
        self._channels, self._errors, self._types = channels or (), errors or (), types or ()
        self._recipient = recipient
        self._older_than = duration_option(older_than, "--older-than")
        self._state = state

    def selection(self, settings: Settings) -> Selection:
        """Raises ConfigurationError when the channels can't be loaded."""
        from datetime import timedelta

        from notifier.operations.dead_letters import STATES, Selection

        known = known_queues(settings)
        for channel in self._channels:
            if channel not in known:
                hint = f"{channel!r} is not one of {', '.join(known)}"
                raise typer.BadParameter(hint, param_hint="--channel")
        return Selection(
            queues=tuple(queue for queue in known if not self._channels or queue in self._channels),
            states=tuple(state for state in STATES if self._state in {state, "all"}),
            errors=frozenset(self._errors),
            types=frozenset(self._types),
            recipient=self._recipient,
            older_than=self._older_than or timedelta(0),
        )


def _can_be_an_id(text: str) -> bool:
    """An entry may have one that no event can have; but not one that is empty or no UTF-8."""
    return text.encode(errors="ignore").decode() == text != ""


def per_second(text: str | None) -> float:
    """`50/s`, `600/m`, `50`: how many in a second; 0 without any."""
    if text is None:
        return 0.0
    found = re.fullmatch(r"(\d{1,9}(?:\.\d+)?)(?:/([smh]))?", text.strip())
    rate = float(found[1]) / {"s": 1, "m": 60, "h": 3_600}[found[2] or "s"] if found else 0.0
    if not rate:
        raise typer.BadParameter(f"{text!r} is not a rate such as 50/s or 600/m", param_hint="--rate")
    return rate


app = command_group(
    """Look at dead letters, redrive or discard them.

    A delivery that can't be made goes to its channel's dead letter queue (dlq). It is tried once more after
    NOTIFIER_DLQ_DELAY, and if that fails too, it is dead. The filters of these commands select by both.
    """
)
register(app, list_letters, "list")
register(app, show)
register(app, redrive)
register(app, discard)
