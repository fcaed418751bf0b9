"""`notifier partitions`: how many there are, and changing that."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from notifier.cli import output
from notifier.cli.context import (
    CommandFailed,
    JsonOption,
    command_group,
    execute,
    read_settings,
    register,
)

if TYPE_CHECKING:
    from notifier.broker.connection import Client
    from notifier.operations.partitions import Inventory, Layout, Moved
    from notifier.settings import Settings

app = command_group("Partitions: how many there are, and changing that while everything stands still.")

_EVERY = 10_000


def show(as_json: JsonOption = False) -> None:
    """How many partitions the installation has, and whether that is being changed."""
    settings = read_settings()

    async def run() -> Layout | None:
        from notifier.bootstrap import open_client
        from notifier.operations.partitions import look

        async with open_client(settings) as client:
            return await look(client, settings.namespace)

    found = execute(run())
    if as_json:
        output.emit(
            {
                "namespace": settings.namespace,
                "partitions": found.partitions if found else None,
                "layout": found.layout if found else None,
                "changing_to": found.changing if found else None,
            }
        )
        return
    if found is None:
        output.say(f"{settings.namespace} has no installation yet: the first process that connects makes it")
        return
    output.say(f"{settings.namespace} has {output.counted(found.partitions, 'partition')}")
    if found.changing is not None:
        output.say(
            f"They are being changed to {found.changing}. Until that is done no process starts; "
            f"should it have been interrupted: notifier partitions change {found.changing}"
        )


def change(
    partitions: Annotated[
        int, typer.Argument(metavar="NUMBER", help="The next number, 1 to 1024.", show_default=False)
    ],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be moved and what stands in the way.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Move everything to another number of partitions.

    Stop all workers and the HTTP API first; publishers may stay, and are refused until it is done. Nothing is
    lost and no order changes. Killed or cut off, it goes on when it is called again with the same number.
    """
    settings = read_settings()
    if dry_run:
        _dry_run(settings, partitions, as_json=as_json)
        return

    async def run() -> Moved:
        from notifier.bootstrap import open_client
        from notifier.operations import partitions as work

        async with open_client(settings) as client:
            return await work.change(client, settings.namespace, partitions, _Progress(as_json).tell)

    moved = execute(run())
    if as_json:
        output.emit(
            {"before": moved.before, "after": moved.after, "moved": dict(sorted(moved.counts.items()))}
        )
        return
    _table(moved.counts)
    output.say(f"{settings.namespace} has {moved.after} partitions now; it had {moved.before}")
    if settings.partitions not in {None, moved.after}:
        output.note(f"NOTIFIER_PARTITIONS is {settings.partitions}: set it to {moved.after}, or remove it")


def _dry_run(settings: Settings, partitions: int, *, as_json: bool) -> None:
    from notifier.bootstrap import open_client

    async def run() -> tuple[Inventory, list[str]]:
        async with open_client(settings) as client:
            return await _survey(client, settings.namespace, partitions)

    found, workers = execute(run())
    if as_json:
        output.emit({"keys": _counts(found), "workers": workers, "unknown": found.unknown})
    else:
        _table(_counts(found), "keys")
    if found.unknown:
        raise CommandFailed(f"notifier: {len(found.unknown)} keys are unknown, such as {found.unknown[0]}")
    if workers:
        raise CommandFailed(f"notifier: these workers live, and have to stop first: {', '.join(workers)}")


async def _survey(client: Client, namespace: str, partitions: int) -> tuple[Inventory, list[str]]:
    from notifier.keys import Keys
    from notifier.operations.partitions import Inventory, checked, living, survey

    before = await checked(client, namespace, partitions)
    keys = Keys(namespace, before.partitions, before.layout)
    found = Inventory() if before.is_done else await survey(client, keys)
    return found, await living(client, keys, found.leases)


def _counts(found: Inventory) -> dict[str, int]:
    told = dict(sorted(found.counts.items()))
    if found.closed:  # what has these names then only says that it was moved
        told = {what: count for what, count in told.items() if what not in {"events", "suppressed"}}
    return told


def _table(counts: object, column: str = "moved") -> None:
    assert isinstance(counts, dict)
    if not counts:
        return
    table = output.table("what", column, right=[column])
    for what, count in sorted(counts.items()):
        table.add_row(what, output.number(count))
    output.show(table)


class _Progress:
    """A line on stderr now and then."""

    def __init__(self, is_quiet: bool) -> None:
        self._is_quiet = is_quiet
        self._total = self._told = 0

    def tell(self, what: str, count: int) -> None:
        self._total += count
        if not self._is_quiet and self._total - self._told >= _EVERY:
            self._told = self._total
            output.note(f"{output.number(self._total)} moved; now: {what}")


register(app, show)
register(app, change)
