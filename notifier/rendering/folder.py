"""The templates folder of a running service: loaded, looked after, rendered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from notifier.catalogue import Catalogue, read_catalogue, template_names
from notifier.channel import Block
from notifier.errors import ConfigurationError, TemplateError
from notifier.event import EventBody, Recipient
from notifier.rendering.compiler import Compiler, fallbacks
from notifier.rendering.files import SETTING, Fingerprint, Snapshot, fingerprint, snapshot
from notifier.rendering.message import Message

DEFAULT_LOCALE: Final = "en"


@dataclass(frozen=True, slots=True)
class _Loaded:
    """One state of the folder. It is replaced as a whole, so a render sees one or the other."""

    sources: Mapping[str, str] = field(default_factory=dict)
    fingerprint: Fingerprint = frozenset()
    catalogue: Catalogue = field(default_factory=Catalogue)
    # (event type, channel, locale in lower case or None for the default)
    messages: Mapping[tuple[str, str, str | None], Message | TemplateError] = field(default_factory=dict)
    # What each message was made of: its own text and a mark of everything that may be shared.
    made_of: Mapping[str, tuple[str, int]] = field(default_factory=dict)
    problems: tuple[TemplateError, ...] = ()


class TemplateFolder:
    """Event types and templates from a folder, kept up to date while the service runs.

    `channels` maps each configured channel, in order, to its blocks. `default_locale` is the
    language of the templates without a locale in their name. Call `load` first; then poll
    `changed` and call `reload` when it says so.
    """

    def __init__(
        self, path: Path, channels: Mapping[str, Sequence[Block]], *, default_locale: str = DEFAULT_LOCALE
    ) -> None:
        self.path = path
        self.channels: Mapping[str, tuple[Block, ...]] = {
            name: tuple(blocks) for name, blocks in channels.items()
        }
        self.default_locale = default_locale
        self._loaded = _Loaded()

    @property
    def catalogue(self) -> Catalogue:
        return self._loaded.catalogue

    @property
    def problems(self) -> Sequence[TemplateError]:
        """What is wrong with the folder as it was last read."""
        return self._loaded.problems

    @property
    def sources(self) -> Mapping[str, str]:
        """The text of each file by its path below the folder, as it was last read."""
        return self._loaded.sources

    def load(self) -> None:
        """Read and compile everything. A broken template is a problem, and the others work.

        Raises ConfigurationError when the folder is missing or has no event type.
        """
        found = snapshot(self.path)
        loaded = self._compile(found)
        if not loaded.catalogue.kinds and not loaded.catalogue.broken:
            raise ConfigurationError(SETTING, f"{self.path} has no event type, such as like/email.jinja")
        self._loaded = loaded

    def changed(self) -> bool:
        """Whether a file was added, changed or removed since it was read. Takes microseconds a file."""
        try:
            return fingerprint(self.path) != self._loaded.fingerprint
        except ConfigurationError:
            return bool(self._loaded.fingerprint)

    def reload(self) -> list[TemplateError]:
        """Read what changed, and return what is wrong now.

        What does not compile keeps its last good version. A folder that is gone, or empty, as
        while it is being replaced, changes nothing.
        """
        try:
            loaded = self._compile(snapshot(self.path))
        except ConfigurationError as error:
            return [TemplateError(str(self.path), error.reason)]
        if not loaded.catalogue.kinds and not loaded.catalogue.broken:
            return [TemplateError(str(self.path), "has no event type any more; the last ones stay")]
        self._loaded = loaded
        return list(loaded.problems)

    def render(self, channel: str, event: EventBody, recipient: Recipient) -> Mapping[str, str]:
        """The blocks of the channel by name, in the recipient's language. Raises TemplateError."""
        if not self.channels.get(channel, True):
            return {}
        return self.message(event.type, channel, recipient.locale).render(event, recipient)

    def message(self, event_type: str, channel: str, locale: str | None) -> Message:
        """The version for `locale`: pt-BR, else pt, else the default. Raises TemplateError."""
        messages = self._loaded.messages
        for candidate in fallbacks(locale):
            found = messages.get((event_type, channel, candidate.lower() if candidate else None))
            if isinstance(found, Message):
                return found
            if found is not None:
                raise TemplateError(found.template, found.reason, found.line)
        raise TemplateError(f"{event_type}/{channel}.jinja", "does not exist")

    def _compile(self, found: Snapshot) -> _Loaded:
        last = self._loaded
        templated = {name: bool(blocks) for name, blocks in self.channels.items()}
        catalogue, problems = read_catalogue(found.sources, templated, last.catalogue)
        compiler = Compiler(found.sources, self.channels)
        problems = [*found.problems, *problems, *compiler.shared_problems()]
        names = [n for n in template_names(found.sources) if self.channels.get(n.channel)]
        own = {name.path for name in names}
        shared = hash(
            frozenset((p, s) for p, s in found.sources.items() if p.endswith(".jinja") and p not in own)
        )
        messages: dict[tuple[str, str, str | None], Message | TemplateError] = {}
        made_of: dict[str, tuple[str, int]] = {}
        for name in names:
            key = name.event_type, name.channel, name.locale.lower() if name.locale else None
            made_of[name.path] = found.sources[name.path], shared
            kept = last.messages.get(key)
            if isinstance(kept, Message) and last.made_of.get(name.path) == made_of[name.path]:
                messages[key] = kept
                continue
            try:
                messages[key] = compiler.message(name, self.default_locale)
            except TemplateError as error:
                problems.append(error)
                messages[key] = kept if isinstance(kept, Message) else error
                del made_of[name.path]
        return _Loaded(found.sources, found.fingerprint, catalogue, messages, made_of, _once(problems))


def _once(problems: Sequence[TemplateError]) -> tuple[TemplateError, ...]:
    return tuple({str(problem): problem for problem in problems}.values())
