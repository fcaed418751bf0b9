"""`notifier recipients`: stored profiles, and the addresses that are passed over."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from notifier.cli import output
from notifier.cli.context import CommandFailed, JsonOption, command_group, connected, read_settings, register
from notifier.cli.lines import Line, Source, before, hint, opened

if TYPE_CHECKING:
    from notifier.bootstrap import Runtime
    from notifier.event import Recipient
    from notifier.recipients import Recipients, Suppression

_MAX_OBJECT = 256 * 1024
_BATCH = 500
_PAGE = 500

IdArgument = Annotated[str, typer.Argument(metavar="ID", help="The recipient's id.", show_default=False)]


def put(
    file: Annotated[
        str,
        typer.Argument(
            metavar="FILE", help="One JSON object, or JSON lines; - is stdin.", show_default=False
        ),
    ],
    as_json: JsonOption = False,
) -> None:
    """Store profiles, each in place of an earlier one with the same id."""
    settings = read_settings()

    async def work(runtime: Runtime) -> None:
        with opened(file) as source:
            await _put_all(runtime.recipients, source, as_json=as_json)

    connected(settings, work)


async def _put_all(recipients: Recipients, source: Source, *, as_json: bool) -> None:
    from notifier.errors import InvalidRecipient
    from notifier.recipients.profile import parse_profile

    store = _Storing(recipients)
    for line in _objects(source):
        try:
            if line.content is None:
                raise InvalidRecipient("recipient", f"has more than {_MAX_OBJECT} bytes")
            await store.add(line.number, parse_profile(line.content))
        except InvalidRecipient as error:
            await store.finish()
            wrong = f"{source.name}:{line.number}: {error}{hint(line.content or b'')}"
            rest = before(line.number, "is stored", "are stored") or "nothing is stored"
            raise CommandFailed(f"{wrong}; {rest}", 2) from None
    await store.finish()
    if as_json:
        output.emit({"stored": store.stored, "new": store.new})
    elif store.stored:
        output.say(
            f"Stored {output.counted(store.stored, 'recipient')}, {output.number(store.new)} of them new"
        )
    else:
        output.note(f"{source.name} is empty: nothing to store")


class _Storing:
    """Stores profiles many at a time."""

    def __init__(self, recipients: Recipients) -> None:
        self.stored = 0
        self.new = 0
        self._recipients = recipients
        self._first = 0  # the number of the first line that is not stored yet
        self._waiting: list[Recipient] = []

    async def add(self, number: int, recipient: Recipient) -> None:
        """Raises InvalidRecipient when it is too large, and CommandFailed as `finish` does."""
        from notifier.recipients import encode_profile

        encode_profile(recipient)
        self._first = self._first or number
        self._waiting.append(recipient)
        if len(self._waiting) == _BATCH:
            await self.finish()

    async def finish(self) -> None:
        """Raises CommandFailed when the broker fails."""
        from notifier.errors import BrokerError

        try:
            new = await self._recipients.put_many(self._waiting)
        except BrokerError as error:
            rest = before(self._first, "is stored", "are stored") or "perhaps some are stored"
            raise CommandFailed(f"notifier: {error}; {rest}: run it again, which does no harm") from error
        self.stored += len(self._waiting)
        self.new += new
        self._first = 0
        self._waiting.clear()


def _objects(source: Source) -> Iterator[Line]:
    """The lines, or the one object when it is spread over many: then its first line is no whole object."""
    lines = source.lines()
    first = next(lines, None)
    if first is None:
        return
    if first.content is None or first.content.endswith(b"}"):
        yield first
        yield from lines
        return
    content = first.content
    for line in lines:
        content += b"\n" + (line.content or b"")
        if line.content is None or len(content) > _MAX_OBJECT:
            yield Line(first.number, None)
            return
    yield Line(first.number, content)


def show(recipient_id: IdArgument, as_json: JsonOption = False) -> None:
    """Show what is stored of a recipient: the profile, and the addresses that are passed over."""
    settings = read_settings()
    from notifier.operations.views import moment

    async def work(runtime: Runtime) -> tuple[dict[str, Any] | None, list[Suppression]]:
        profile = await runtime.recipients.get(recipient_id)
        stored = None if profile is None else profile.model_dump(mode="json", exclude_unset=True)
        return stored, await runtime.suppressions.of(recipient_id)

    profile, suppressed = connected(settings, work)
    rows = [
        {
            "channel": one.channel,
            "address_key": one.address_key,
            "reason": one.reason,
            "at": moment(one.at_ms),
        }
        for one in suppressed
    ]
    if as_json:
        output.emit({"id": recipient_id, "profile": profile, "suppressed": rows})
    else:
        _show_profile(recipient_id, profile, rows)
    if profile is None and not rows:
        raise typer.Exit(1)


def _show_profile(recipient_id: str, profile: dict[str, Any] | None, rows: list[dict[str, Any]]) -> None:
    console = output.stdout()
    if profile is None:
        output.note(f"no profile is stored for {recipient_id}")
    else:
        for line in json.dumps(profile, ensure_ascii=False, indent=2).split("\n"):
            console.print(output.plain(line), soft_wrap=True)
    if not rows:
        return
    console.print("\nAddresses that are passed over:")
    table = output.table("channel", "address", "since", "reason")
    table.columns[-1].no_wrap = False
    for row in rows:
        table.add_row(
            *(output.one_line(str(row[name])) for name in ("channel", "address_key", "at", "reason"))
        )
    output.show(table)


def delete(recipient_id: IdArgument, as_json: JsonOption = False) -> None:
    """Delete all that is kept about a recipient.

    That is profile, devices, inbox, suppressed addresses, traces, dead letters and what is scheduled. What is
    in a queue already is still delivered; do it again when that has happened.
    """
    settings = read_settings()
    from notifier.bootstrap import open_channels
    from notifier.operations.forgetting import forget

    channels, retention = tuple(open_channels(settings, os.environ)), settings.trace_retention

    async def work(runtime: Runtime) -> bool:
        return await forget(runtime.client, runtime.keys, channels, retention, recipient_id)

    deleted = connected(settings, work)
    if as_json:
        output.emit({"id": recipient_id, "deleted": deleted})
    else:
        output.say(
            output.plain(f"Deleted {recipient_id}" if deleted else f"Nothing was stored of {recipient_id}")
        )


def suppressed(
    channel: Annotated[str | None, typer.Option(metavar="CHANNEL", help="Only of this channel.")] = None,
    limit: Annotated[int, typer.Option(min=0, metavar="COUNT", help="At most so many; 0 means all.")] = 0,
    as_json: JsonOption = False,
) -> None:
    """List the addresses that are passed over, of all recipients. With --json one object a line."""
    settings = read_settings()
    number = connected(settings, lambda runtime: _print_suppressed(runtime, channel, limit, as_json=as_json))
    if not number and not as_json:
        output.say("No address is passed over")


async def _print_suppressed(runtime: Runtime, channel: str | None, limit: int, *, as_json: bool) -> int:
    """Prints up to `limit`, or all when that is 0; each once, and the same order within a page. How many."""
    after: str | None = None
    number = 0
    while True:
        page = await runtime.suppressions.page(after, _PAGE)
        found = sorted(
            (one for one in page.found if channel in {None, one.channel}),
            key=lambda one: (one.recipient, one.channel, one.address_key),
        )
        if limit:
            found = found[: limit - number]
        _print_rows(found, first=not number, as_json=as_json)
        number += len(found)
        after = page.after
        if after is None or (limit and number >= limit):
            return number


def _print_rows(found: list[Suppression], *, first: bool, as_json: bool) -> None:
    from notifier.operations.views import moment

    if as_json:
        for one in found:
            output.emit(
                {
                    "recipient": one.recipient,
                    "channel": one.channel,
                    "address_key": one.address_key,
                    "reason": one.reason,
                    "at": moment(one.at_ms),
                }
            )
        return
    if not found:
        return
    table = output.table("recipient", "channel", "address", "since", "reason")
    table.show_header = first
    table.columns[-1].overflow = "ellipsis"
    for one in found:
        cells = (one.recipient, one.channel, one.address_key, moment(one.at_ms) or "", one.reason)
        table.add_row(*(output.one_line(cell) for cell in cells))
    output.show(table)


ChannelArgument = Annotated[str, typer.Argument(metavar="CHANNEL", show_default=False)]
KeyArgument = Annotated[
    str, typer.Argument(metavar="ADDRESS_KEY", help="As `suppressed` and `show` name it.", show_default=False)
]


def suppress(
    recipient_id: IdArgument,
    channel: ChannelArgument,
    address_key: KeyArgument,
    reason: Annotated[str, typer.Option(metavar="TEXT", help="Why, for those who look later.")] = "by hand",
    as_json: JsonOption = False,
) -> None:
    """Pass over an address from the next event on: of a mailbox itself in lower case, of a device its key."""
    settings = read_settings()
    from notifier.bootstrap import open_channels

    if channel not in (known := open_channels(settings, os.environ)):
        raise typer.BadParameter(f"{channel!r} is not one of {', '.join(known)}", param_hint="CHANNEL")

    async def work(runtime: Runtime) -> bool:
        return await runtime.suppressions.add(recipient_id, channel, address_key, reason)

    is_new = connected(settings, work)
    if as_json:
        output.emit({"id": recipient_id, "suppressed": True, "new": is_new})
    else:
        output.say(output.plain(f"{address_key} is passed over for {recipient_id}, from the next event on"))


def unsuppress(
    recipient_id: IdArgument, channel: ChannelArgument, address_key: KeyArgument, as_json: JsonOption = False
) -> None:
    """Use an address again that was passed over."""
    settings = read_settings()

    async def work(runtime: Runtime) -> bool:
        return await runtime.suppressions.lift(recipient_id, channel, address_key)

    was_suppressed = connected(settings, work)
    if as_json:
        output.emit({"id": recipient_id, "unsuppressed": was_suppressed})
    elif was_suppressed:
        output.say(output.plain(f"{address_key} is used again for {recipient_id}, from the next event on"))
    if not was_suppressed:
        raise CommandFailed(f"notifier: {channel} does not pass over {address_key} of {recipient_id}")


app = command_group(
    """Store, show and delete recipients.

    A profile has an id, and may have email, name, locale, time_zone, devices and preferences.
    """
)
register(app, put)
register(app, show)
register(app, delete)
register(app, suppressed)
register(app, suppress)
register(app, unsuppress)
