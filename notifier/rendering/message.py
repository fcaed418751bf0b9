"""A compiled template of one event type, channel and locale, and how it is rendered."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final

from jinja2 import Template, TemplateNotFound
from markupsafe import Markup

from notifier.channel import Block
from notifier.errors import TemplateError
from notifier.event import Actor, EventBody, Recipient
from notifier.rendering.budget import one_budget
from notifier.rendering.plain_text import text_of
from notifier.rendering.tags import refuse_links

MAX_OUTPUT: Final = 512 * 1024

# Control characters, separators of lines, overrides of the writing direction and lone surrogates.
# The joiners of emoji and of Persian stay.
_CONTROLS = r"\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufeff"
_NOT_IN_TEXT = re.compile(f"[{_CONTROLS}]")
_EMPTY_LINES = re.compile(r"\n[ \t]*(?:\n[ \t]*){2,}")
_HARMLESS_URL = re.compile(r"(?:https?://|/(?![/\\]))", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class CompiledBlock:
    block: Block
    template: Template


@dataclass(frozen=True, slots=True)
class Message:
    """`locale` is the language of the text; `blocks` are those that the template has."""

    path: str
    channel: str
    locale: str
    declared: tuple[Block, ...]
    blocks: tuple[CompiledBlock, ...]
    layout: Template | None

    def render(self, event: EventBody, recipient: Recipient) -> dict[str, str]:
        """The blocks by name. Raises TemplateError, whatever the template does."""
        with one_budget():
            return self._render(event, recipient)

    def _render(self, event: EventBody, recipient: Recipient) -> dict[str, str]:
        variables = self._variables(event, recipient)
        content: dict[str, str] = {}
        fragments: dict[str, str] = {}
        exported: Mapping[str, Any] = {}
        for compiled in self.blocks:
            block = compiled.block
            raw, names = self._run(compiled.template, variables)
            if block.kind == "html":
                refuse_links(self.path, raw)
                fragments[block.name] = content[block.name] = raw.strip()
                if block.name == "body":
                    exported = names
            else:
                content[block.name] = _line(raw) if block.kind == "line" else _text(raw)
        if self.layout is not None and fragments.get("body"):
            body = Markup(fragments["body"])  # noqa: S704 - what was rendered is escaped
            outer = {**variables, **exported, **content, "body": body}
            content["body"] = self._run(self.layout, outer)[0].strip()
        for block in self.declared:
            if block.derived_from in fragments and block.name not in content:
                content[block.name] = text_of(fragments[block.derived_from])
            self._check(block, content.get(block.name))
        return content

    def _variables(self, event: EventBody, recipient: Recipient) -> dict[str, Any]:
        actor = _actor(event.actor)
        return {
            "event": {
                "id": event.id,
                "type": event.type,
                "occurred_at": event.occurred_at,
                "data": event.data,
                "actor": actor,
            },
            "data": event.data,
            "actor": actor,
            "actors": [actor] if actor else [],
            "items": [event.data],
            "count": 1,
            "recipient": {
                "id": recipient.id,
                "name": recipient.name,
                "locale": recipient.locale,
                "time_zone": recipient.time_zone,
            },
            "channel": self.channel,
            "locale": _writing_locale(self.locale, recipient.locale),
        }

    def _run(self, template: Template, variables: dict[str, Any]) -> tuple[str, Mapping[str, Any]]:
        context = template.new_context(variables)
        parts: list[str] = []
        room = MAX_OUTPUT
        try:
            for part in template.root_render_func(context):
                parts.append(part)
                room -= len(part)
                if room < 0:
                    raise TemplateError(self.path, f"makes more than {MAX_OUTPUT} characters")
            return "".join(parts), context.get_exported()
        except TemplateError:
            raise
        except TemplateNotFound as error:
            _, line = _place(error.__traceback__, self.path)
            raise TemplateError(self.path, f"there is no template {error.name} in the folder", line) from None
        except Exception as error:
            # Whatever a template does is a fault of the template, never one of the worker.
            path, line = _place(error.__traceback__, self.path)
            raise TemplateError(path, _reason(error), line) from error

    def _check(self, block: Block, text: str | None) -> None:
        if block.required and not text:
            raise TemplateError(self.path, f"block {block.name} is empty")
        if text is None:
            return
        if len(text) > block.max_length:
            reason = f"block {block.name} has {len(text)} characters; the limit is {block.max_length}"
            raise TemplateError(self.path, reason)
        if block.kind == "line" and block.name == "url" and text and not _HARMLESS_URL.match(text):
            raise TemplateError(self.path, f"block url is {text[:40]!r}: neither http, https nor a path")


def _actor(actor: Actor | None) -> dict[str, Any] | None:
    if actor is None:
        return None
    return {"id": actor.id, "name": actor.name, "image": actor.image, "url": actor.url}


def _writing_locale(template: str, recipient: str | None) -> str:
    # German dates for Austrians in a German mail; English ones, not French, in an English mail.
    if recipient and recipient.partition("-")[0].lower() == template.partition("-")[0].lower():
        return recipient
    return template


def _line(raw: str) -> str:
    return " ".join(_NOT_IN_TEXT.sub(" ", raw).split())


def _text(raw: str) -> str:
    text = _NOT_IN_TEXT.sub("", raw.replace("\r\n", "\n").replace("\r", "\n"))
    return _EMPTY_LINES.sub("\n\n", text).strip()


def _place(traceback: TracebackType | None, path: str) -> tuple[str, int | None]:
    """The innermost template and its line in a traceback."""
    place: tuple[str, int | None] = path, None
    for frame, line in _frames(traceback):
        template = frame.f_globals.get("__jinja_template__")
        if template is not None:
            place = template.name or path, template.get_corresponding_lineno(line)
    return place


def _frames(traceback: TracebackType | None) -> Iterator[tuple[Any, int]]:
    while traceback is not None:
        yield traceback.tb_frame, traceback.tb_lineno
        traceback = traceback.tb_next


def _reason(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "calls itself without end"
    return str(error) or type(error).__name__
