"""`notifier templates`: checking, previewing and starting event types."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from notifier.cli import output
from notifier.cli.context import CommandFailed, JsonOption, command_group, read_settings, register
from notifier.cli.lines import STDIN, reason

if TYPE_CHECKING:
    from notifier.channel import Channel
    from notifier.rendering import TemplateFolder
    from notifier.settings import Settings

TypeArgument = Annotated[
    str, typer.Argument(metavar="TYPE", help="The event type: the name of its folder.", show_default=False)
]


def check(as_json: JsonOption = False) -> None:
    """Compile every template and render it with its sample; exit 1 when something is wrong."""
    from notifier import rendering

    settings, channels = _configured()
    folder = _open(settings, channels)
    problems = rendering.check(folder)
    types = len(folder.catalogue.kinds) + len(folder.catalogue.broken)
    templates = sum(path.endswith(".jinja") for path in folder.sources)
    if as_json:
        rows = [{"template": p.template, "line": p.line, "message": p.message} for p in problems]
        output.emit({"types": types, "templates": templates, "problems": rows})
    elif problems:
        table = output.table("template", "problem")
        table.columns[1].no_wrap = not output.stdout().is_terminal
        for problem in problems:
            where = problem.template if problem.line is None else f"{problem.template}:{problem.line}"
            table.add_row(output.plain(where), output.one_line(problem.message))
        output.show(table)
    counts = f"{output.counted(types, 'event type')}, {output.counted(templates, 'template')}"
    if problems:
        told = output.counted(len(problems), "problem")
        raise CommandFailed(f"notifier: {settings.templates}: {told} in {counts}")
    if not as_json:
        output.say(f"{settings.templates}: {counts}, no problem")


def preview(
    event_type: TypeArgument,
    channel: Annotated[
        str | None, typer.Option(metavar="CHANNEL", help="Only this one.", show_default=False)
    ] = None,
    locale: Annotated[
        str | None, typer.Option(metavar="LOCALE", help="Such as de or pt-BR, instead of the sample's.")
    ] = None,
    html: Annotated[
        str | None, typer.Option(metavar="FILE", help="Write the HTML there, for a browser; - is stdout.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Render an event type with its sample.json, as its recipient would get it."""
    settings, channels = _configured()
    folder = _open(settings, channels)
    kind = folder.catalogue.get(event_type)
    if kind is None:
        if broken := folder.catalogue.broken.get(event_type):
            raise broken
        known = ", ".join(sorted(folder.catalogue.kinds))
        raise typer.BadParameter(f"{event_type!r} is not one of {known}", param_hint="TYPE")
    if channel is not None and channel not in kind.channels:
        told = f"{event_type} has no template for {channel!r}, but for {', '.join(kind.channels)}"
        raise typer.BadParameter(told, param_hint="--channel")
    names = (channel,) if channel else tuple(name for name in kind.channels if channels[name].blocks)
    rendered = _rendered(folder, event_type, names, locale)
    if html is not None:
        _write_html(html, channels, rendered)
    elif as_json:
        output.emit(rendered)
    else:
        _show_blocks(rendered, channels)


def _rendered(
    folder: TemplateFolder, event_type: str, names: tuple[str, ...], locale: str | None
) -> dict[str, Mapping[str, str]]:
    from notifier.event import parse_recipient
    from notifier.rendering import sample_of

    event = sample_of(folder, event_type)
    recipient = event.everyone()[0]
    if locale is not None:
        checked = parse_recipient({"id": recipient.id, "locale": locale})
        recipient = recipient.model_copy(update={"locale": checked.locale})
    return {name: folder.render(name, event, recipient) for name in names}


def _write_html(
    path: str, channels: Mapping[str, Channel], rendered: Mapping[str, Mapping[str, str]]
) -> None:
    for name, content in rendered.items():
        for block in channels[name].blocks:
            if block.kind == "html" and block.name in content:
                if path == STDIN:
                    output.write(content[block.name])
                    return
                try:
                    Path(path).write_text(content[block.name], encoding="utf-8")
                except OSError as error:
                    raise CommandFailed(f"notifier: {path}: {reason(error)}") from None
                output.say(f"Wrote the HTML of {name} to {path}")
                return
    raise typer.BadParameter(f"{', '.join(rendered)} has no HTML", param_hint="--html")


def _show_blocks(rendered: Mapping[str, Mapping[str, str]], channels: Mapping[str, Channel]) -> None:
    console = output.stdout()
    for number, (name, content) in enumerate(rendered.items()):
        if number:
            console.print()
        console.print(Text(name, style="bold"))
        kinds = {block.name: block.kind for block in channels[name].blocks}
        for block, text in content.items():
            if kinds.get(block) == "line":
                console.print(f"  {block}: {output.plain(text)}", soft_wrap=True)
            elif kinds.get(block) == "html":
                console.print(f"  {block}: {len(text.encode()):,} bytes of HTML (--html FILE writes it)")
            else:
                console.print(f"  {block}:")
                for line in text.splitlines():
                    console.print(f"    {output.plain(line)}".rstrip(), soft_wrap=True)


def new(event_type: TypeArgument) -> None:
    """Start an event type: a folder with a template for each channel, and a sample.

    What it writes passes the check, so it can be changed from there.
    """
    from notifier.cli.scaffold import create

    settings, channels = _configured()
    folder = create(settings.templates, event_type, list(channels.values()))
    for path in sorted(folder.iterdir()):
        output.say(str(path))
    output.note(f"change them as you like; then: notifier templates preview {event_type}")


def _configured() -> tuple[Settings, dict[str, Channel]]:
    from notifier.bootstrap import open_channels

    settings = read_settings()
    return settings, open_channels(settings, os.environ)


def _open(settings: Settings, channels: Mapping[str, Channel]) -> TemplateFolder:
    from notifier.bootstrap import open_templates

    return open_templates(settings, channels)


app = command_group(
    """Check, preview and start event types.

    Each is a folder below NOTIFIER_TEMPLATES, with a template for each channel.
    """
)
register(app, check)
register(app, preview)
register(app, new)
