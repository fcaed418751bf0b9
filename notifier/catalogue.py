"""What the templates folder says: which event types exist, on which channels, with which options.

Pure: it reads a mapping of paths below the folder to their text, as `notifier.rendering.files`
makes it.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from notifier.errors import TemplateError, UnusedTemplate

OPTIONS_FILE: Final = "event.toml"
SAMPLE_FILE: Final = "sample.json"
LAYOUTS: Final = "layouts"

_TYPE = re.compile(r"[a-z][a-z0-9_.]{0,99}")
_CATEGORY = re.compile(r"[a-z][a-z0-9_.-]{0,99}")
_TEMPLATE = re.compile(r"(?P<channel>[^.]+)(?:\.(?P<locale>[^.]+))?\.jinja")


@dataclass(frozen=True, slots=True)
class EventKind:
    """An event type and its options.

    `category` is what recipients mute. A `mandatory` one ignores mutes. `channels` are those that
    it has a template for, in the order in which the channels are configured.
    """

    type: str
    category: str
    mandatory: bool
    channels: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Catalogue:
    """All event types. `broken` holds those whose options can't be read, with the reason."""

    kinds: Mapping[str, EventKind] = field(default_factory=dict)
    broken: Mapping[str, TemplateError] = field(default_factory=dict)

    def get(self, event_type: str) -> EventKind | None:
        return self.kinds.get(event_type)


@dataclass(frozen=True, slots=True)
class TemplateName:
    """What the path of a template says: `like/email.pt-BR.jinja`."""

    path: str
    event_type: str
    channel: str
    locale: str | None


def template_names(paths: Collection[str]) -> Iterator[TemplateName]:
    """The templates of event types among `paths`; names that start with `_` are left out."""
    for path in sorted(paths):
        folder, _, name = path.partition("/")
        match = _TEMPLATE.fullmatch(name)
        if match and _TYPE.fullmatch(folder) and folder != LAYOUTS and not name.startswith("_"):
            locale = match["locale"]
            yield TemplateName(path, folder, match["channel"], locale and locale.replace("_", "-"))


def read_catalogue(
    sources: Mapping[str, str], channels: Mapping[str, bool], previous: Catalogue | None = None
) -> tuple[Catalogue, list[TemplateError]]:
    """The catalogue of a folder, and what is wrong with the folder.

    `channels` are the configured ones, and whether they need a template; one that needs none is
    used for every type. An event type whose options can't be read keeps those of `previous`, or
    is left out when there are none, since a guess could break a mute.
    """
    names = list(template_names(sources))
    problems = list(_folder_problems(sources, names, channels))
    defaults = {(name.event_type, name.channel) for name in names if name.locale is None}
    kinds: dict[str, EventKind] = {}
    broken: dict[str, TemplateError] = {}
    for event_type in _event_types(sources, names):
        used = tuple(c for c, templated in channels.items() if not templated or (event_type, c) in defaults)
        path = f"{event_type}/{OPTIONS_FILE}"
        try:
            category, mandatory = _read_options(path, sources.get(path, ""), event_type)
        except TemplateError as error:
            problems.append(error)
            last = previous.get(event_type) if previous else None
            if last is None:
                broken[event_type] = error
                continue
            category, mandatory = last.category, last.mandatory
        kinds[event_type] = EventKind(event_type, category, mandatory, used)
    return Catalogue(kinds, broken), problems


def _event_types(sources: Mapping[str, str], names: list[TemplateName]) -> list[str]:
    with_options = {
        folder
        for folder, _, name in (path.partition("/") for path in sources)
        if name == OPTIONS_FILE and _TYPE.fullmatch(folder) and folder != LAYOUTS
    }
    return sorted(with_options | {name.event_type for name in names})


def _folder_problems(
    sources: Mapping[str, str], names: list[TemplateName], channels: Mapping[str, bool]
) -> Iterator[TemplateError]:
    folders = {path.partition("/")[0] for path in sources if "/" in path}
    types = set(_event_types(sources, names))
    for folder in sorted(folders - types - {LAYOUTS}):
        if folder.startswith("_"):
            continue
        if not _TYPE.fullmatch(folder):
            yield TemplateError(folder, "is not an event type: it must match [a-z][a-z0-9_.]*")
        else:
            yield TemplateError(folder, "has no template, such as email.jinja")
    defaults = {(name.event_type, name.channel) for name in names if name.locale is None}
    for name in names:
        if name.channel not in channels:
            yield UnusedTemplate(name.path, f"channel {name.channel} is not configured")
        elif (name.event_type, name.channel) not in defaults:
            yield TemplateError(name.path, f"{name.channel}.jinja, the version for other locales, is missing")


def _read_options(path: str, source: str, event_type: str) -> tuple[str, bool]:
    try:
        options = tomllib.loads(source)
    except tomllib.TOMLDecodeError as error:
        line = re.search(r"at line (\d+)", str(error))
        raise TemplateError(path, f"is not TOML: {error}", int(line[1]) if line else None) from None
    unknown = next((name for name in options if name not in {"category", "mandatory"}), None)
    if unknown is not None:
        raise TemplateError(path, f"option {unknown} is not known to this version")
    return _category(path, options.get("category", event_type)), _mandatory(path, options)


def _category(path: str, value: object) -> str:
    if not isinstance(value, str):
        raise TemplateError(path, f"option category must be text, not {type(value).__name__}")
    if not _CATEGORY.fullmatch(value):
        raise TemplateError(path, "option category must match [a-z][a-z0-9_.-]*")
    return value


def _mandatory(path: str, options: Mapping[str, Any]) -> bool:
    value = options.get("mandatory", False)
    if not isinstance(value, bool):
        raise TemplateError(path, f"option mandatory must be true or false, not {type(value).__name__}")
    return value
