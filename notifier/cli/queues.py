"""`notifier queues`: what lies where, and who serves it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Group, RenderableType
from rich.text import Text

from notifier.cli import output
from notifier.cli.context import JsonOption, connected, duration_option, read_settings

if TYPE_CHECKING:
    from notifier.bootstrap import Runtime
    from notifier.operations.queues import QueueState

_NUMBERS = ("waiting", "in hand", "parked", "scheduled", "dlq", "dead", "oldest", "workers")


def queues(
    as_json: JsonOption = False,
    watch: Annotated[bool, typer.Option("--watch", help="Show it again and again, until Ctrl-C.")] = False,
    every: Annotated[str, typer.Option(metavar="DURATION", help="How often --watch looks.")] = "1s",
) -> None:
    """What lies in the queues, and who serves them.

    waiting: nobody has it yet. in hand: a worker has it. parked: waits for a retry. scheduled: waits for its
    time. dlq: waits for its second try. dead: gave up. oldest: age of the oldest that waits or is in hand.
    """
    pause = duration_option(every, "--every")
    settings = read_settings()
    from notifier.bootstrap import open_channels

    channels = tuple(open_channels(settings, os.environ))

    async def work(runtime: Runtime) -> None:
        from notifier.operations.queues import look

        if watch:
            assert pause is not None
            await _watch(runtime, channels, max(0.1, pause.total_seconds()), as_json=as_json)
        else:
            _show(
                await look(runtime.client, runtime.keys, channels), runtime.keys.partitions, as_json=as_json
            )

    connected(settings, work)


def _show(states: Sequence[QueueState], partitions: int, *, as_json: bool) -> None:
    if as_json:
        from notifier.operations.views import queue_view

        output.emit([queue_view(state, partitions) for state in states])
    else:
        output.show(_page(states, partitions))


async def _watch(runtime: Runtime, channels: Sequence[str], pause: float, *, as_json: bool) -> None:
    from rich.live import Live

    from notifier.errors import BrokerError
    from notifier.operations.queues import look

    console = output.stdout()
    if as_json or not console.is_terminal:
        while True:
            states = await look(runtime.client, runtime.keys, channels)
            _show(states, runtime.keys.partitions, as_json=as_json)
            console.file.flush()
            await asyncio.sleep(pause)
    with Live(console=console, auto_refresh=False) as live:
        page: RenderableType = ""
        while True:
            try:
                states = await look(runtime.client, runtime.keys, channels)
                page = _page(states, runtime.keys.partitions)
                live.update(page, refresh=True)
            except BrokerError as error:
                live.update(Group(page, Text(output.one_line(str(error)), style="red")), refresh=True)
            await asyncio.sleep(pause)


def _page(states: Sequence[QueueState], partitions: int) -> RenderableType:
    parts: list[RenderableType] = [_table(states)]
    if workers := _workers(states):
        parts += (Text(), workers)
    if missing := _missing(states, partitions):
        parts += (Text(), Text(missing, style="yellow"))
    return Group(*parts)


def _table(states: Sequence[QueueState]) -> RenderableType:
    table = output.table("queue", *_NUMBERS, right=_NUMBERS)
    for state in states:
        parked = output.number(state.parked) if state.parked_exact else f">={output.number(state.parked)}"
        table.add_row(
            state.queue,
            output.number(state.waiting),
            output.number(state.in_hand),
            parked,
            "-" if state.scheduled is None else output.number(state.scheduled),
            _alarming(state.dlq, "yellow"),
            _alarming(state.dead, "red"),
            "-" if state.oldest_ms is None else output.age(state.oldest_ms),
            output.number(len(state.owners)),
        )
    return table


def _alarming(count: int, style: str) -> Text:
    return Text(output.number(count), style=style if count else "")


def _workers(states: Sequence[QueueState]) -> RenderableType | None:
    """Which worker serves which queues, and how many partitions of each."""
    serves: dict[str, list[str]] = {}
    for state in states:
        for name, count in state.owners.items():
            serves.setdefault(name, []).append(f"{state.queue} {count}")
        for name, count in state.dlq_owners.items():
            serves.setdefault(name, []).append(f"{state.queue}:dlq {count}")
    if not serves:
        return None
    table = output.table("worker", "partitions")
    table.columns[1].no_wrap = False
    for name in sorted(serves):
        table.add_row(output.plain(name), ", ".join(serves[name]))
    return table


def _missing(states: Sequence[QueueState], partitions: int) -> str:
    """What nobody serves, with the command that would."""
    roles = ["router" if state.queue == "events" else state.queue for state in states if not state.owners]
    if not all(state.dlq_owners for state in states):
        roles.append("dead_letters")
    partly = [state.queue for state in states if state.owners and not state.served(partitions)]
    told = f"Nobody serves: {', '.join(roles)} (notifier worker {' '.join(roles)})" if roles else ""
    if partly:
        told += f"{'; ' if told else ''}partitions without an owner: {', '.join(partly)}"
    return told
