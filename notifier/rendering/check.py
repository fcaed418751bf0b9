"""Everything that can be known about a templates folder before a recipient finds out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from notifier.catalogue import SAMPLE_FILE, EventKind, template_names
from notifier.errors import ConfigurationError, InvalidEvent, TemplateError, UnusedTemplate
from notifier.event import Event, parse_event
from notifier.rendering.folder import TemplateFolder


@dataclass(frozen=True, slots=True)
class Problem:
    """`template` is a path below the folder; `line` counts from 1."""

    template: str
    line: int | None
    message: str
    is_unused: bool = False
    """Of a channel that is not configured."""

    def __str__(self) -> str:
        where = self.template if self.line is None else f"{self.template}:{self.line}"
        return f"{where}: {self.message}"


def sample_of(folder: TemplateFolder, event_type: str) -> Event:
    """The sample event of a type. Raises TemplateError, which names the field that is wrong."""
    path = f"{event_type}/{SAMPLE_FILE}"
    source = folder.sources.get(path)
    if source is None:
        raise TemplateError(path, "is missing: an event of this type as a producer would publish it")
    try:
        event = parse_event(source)
        event.encode()
    except InvalidEvent as error:
        raise TemplateError(path, str(error)) from None
    if event.type != event_type:
        raise TemplateError(path, f"type: is {event.type}, and the folder is {event_type}")
    return event


def check(folder: TemplateFolder) -> list[Problem]:
    """Compile everything anew, and render each template of each event type with its sample.

    What is loaded stays as it is.
    """
    fresh = TemplateFolder(folder.path, folder.channels, default_locale=folder.default_locale)
    try:
        fresh.load()
    except ConfigurationError as error:
        return [Problem(str(folder.path), None, error.reason)]
    found = list(fresh.problems)
    for kind in fresh.catalogue.kinds.values():
        found.extend(_sample_problems(fresh, kind))
    # A template that does not compile says so when it is loaded, and again when it is rendered.
    unique = {str(error): error for error in found}.values()
    return sorted(
        (
            Problem(error.template, error.line, error.reason, isinstance(error, UnusedTemplate))
            for error in unique
        ),
        key=lambda problem: (problem.template, problem.line or 0),
    )


def _sample_problems(folder: TemplateFolder, kind: EventKind) -> Iterator[TemplateError]:
    used = [name for name in template_names(folder.sources) if name.event_type == kind.type]
    used = [name for name in used if folder.channels.get(name.channel)]
    if not used:
        return
    try:
        event = sample_of(folder, kind.type)
    except TemplateError as error:
        yield error
        return
    recipient = event.everyone()[0]
    for name in used:
        locale = name.locale or folder.default_locale
        reader = recipient.model_copy(update={"locale": locale})
        try:
            folder.message(kind.type, name.channel, name.locale).render(event, reader)
        except TemplateError as error:
            yield error
