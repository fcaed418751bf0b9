"""Everything that can be known about a templates folder before a recipient finds out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from notifier.catalogue import SAMPLE_FILE, EventKind, template_names
from notifier.errors import InvalidEvent, TemplateError
from notifier.event import Event, parse_event

if TYPE_CHECKING:
    from notifier.rendering.folder import TemplateFolder


@dataclass(frozen=True, slots=True)
class Problem:
    """`template` is a path below the folder; `line` counts from 1."""

    template: str
    line: int | None
    message: str

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


def check_loaded(folder: TemplateFolder) -> list[Problem]:
    """The problems of a folder that was just loaded, and of rendering each template with its sample."""
    found = list(folder.problems)
    for kind in folder.catalogue.kinds.values():
        found.extend(_sample_problems(folder, kind))
    # A template that does not compile says so when it is loaded, and again when it is rendered.
    unique = {str(error): error for error in found}.values()
    return sorted(
        (Problem(error.template, error.line, error.reason) for error in unique),
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
