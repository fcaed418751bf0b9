"""Cutting a template file into its blocks without moving a line.

Each block is compiled by itself, because its kind decides whether it is escaped. What stands
around the blocks (`set`, `import`, `macro`) is part of every one of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from notifier.errors import TemplateError

_JINJA = re.compile(
    r"\{%-?\s*raw\s*-?%\}.*?\{%-?\s*endraw\s*-?%\}"
    r"|\{#.*?#\}"
    r"|\{\{(?:[^\"'}]|\"[^\"]*\"|'[^']*'|\}(?!\}))*\}\}"
    r"|\{%(?:[^\"'%]|\"[^\"]*\"|'[^']*'|%(?!\}))*%\}",
    re.DOTALL,
)
_STATEMENT = re.compile(r"\{%[-+]?\s*(\w+)\s*(\w*)")
_NOT_NEWLINE = re.compile(r"[^\n]")


@dataclass(frozen=True, slots=True)
class Span:
    """A block: where it stands in its file, tags included, and where its content does."""

    name: str
    start: int
    content_start: int
    content_end: int
    end: int


def jinja_tokens(source: str) -> Iterator[re.Match[str]]:
    """Each expression, statement, comment and raw section, in order."""
    return _JINJA.finditer(source)


def blank(text: str) -> str:
    """As many characters and lines of nothing."""
    return _NOT_NEWLINE.sub(" ", text)


def line_of(source: str, offset: int) -> int:
    return source.count("\n", 0, offset) + 1


def mask(source: str) -> str:
    """The same text, of the same length, without Jinja: what an HTML parser may look at.

    An expression becomes a word, so that an attribute has a value; the rest becomes blanks.
    """

    def neutral(token: re.Match[str]) -> str:
        text = token[0]
        return "j" * len(text) if text.startswith("{{") else blank(text)

    return _JINJA.sub(neutral, source)


def find_blocks(path: str, source: str) -> list[Span]:
    """The blocks in their order. Raises TemplateError for nested, repeated or inherited ones.

    `source` must be well-formed: parse it first.
    """
    spans: list[Span] = []
    opened: tuple[str, re.Match[str]] | None = None
    for token in jinja_tokens(source):
        statement = _STATEMENT.match(token[0])
        if statement is None:
            continue
        keyword, name = statement.groups()
        line = line_of(source, token.start())
        if keyword == "extends":
            raise TemplateError(path, "extends is not for event templates: put a layout in layouts/", line)
        if keyword == "block":
            if opened:
                raise TemplateError(path, f"block {name} stands inside of block {opened[0]}", line)
            if any(span.name == name for span in spans):
                raise TemplateError(path, f"block {name} is there twice", line)
            opened = name, token
        elif keyword == "endblock" and opened:
            start = opened[1]
            spans.append(Span(opened[0], start.start(), start.end(), token.start(), token.end()))
            opened = None
    return spans


def isolate(source: str, spans: list[Span], block: str) -> str:
    """The file with nothing but one block's content and what is around all blocks."""
    parts: list[str] = []
    position = 0
    for span in spans:
        parts.append(source[position : span.start])
        if span.name == block:
            parts.append(blank(source[span.start : span.content_start]))
            parts.append(source[span.content_start : span.content_end])
            parts.append(blank(source[span.content_end : span.end]))
        else:
            parts.append(blank(source[span.start : span.end]))
        position = span.end
    parts.append(source[position:])
    return "".join(parts)


def stray_text(source: str, spans: list[Span]) -> int | None:
    """The line of the first text outside of all blocks, which nobody would ever see.

    Text inside of `macro` and `call`, and of `set` as a block, is none: it is used elsewhere.
    """
    outside = source
    for span in spans:
        outside = outside[: span.start] + blank(source[span.start : span.end]) + outside[span.end :]
    depth = 0
    position = 0
    for token in [*jinja_tokens(outside), None]:
        text = outside[position : token.start() if token else len(outside)]
        if depth == 0 and text.strip():
            return line_of(outside, position + len(text) - len(text.lstrip()))
        if token is None:
            break
        depth += _captures(token[0])
        position = token.end()
    return None


def _captures(token: str) -> int:
    statement = _STATEMENT.match(token)
    if statement is None:
        return 0
    keyword = statement[1]
    if keyword in {"macro", "call"} or (keyword == "set" and "=" not in token):
        return 1
    return -1 if keyword in {"endmacro", "endcall", "endset"} else 0
