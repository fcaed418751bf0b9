"""The text part of a mail, made from its rendered HTML.

Written for our own well-formed HTML and for one pass per mail: inscriptis, made for the wild web,
takes about ten times as long, and would be most of what a mail costs.
"""

from __future__ import annotations

import re
from html import unescape
from typing import Final

_TOKEN = re.compile(
    r"<!--.*?-->|<(?P<close>/?)(?P<name>[a-zA-Z][a-zA-Z0-9]*)"
    r"(?P<attributes>[^'\">]*(?:(?:\"[^\"]*\"|'[^']*')[^'\">]*)*)>"
    r"|(?P<text>[^<]+|<)",
    re.DOTALL,
)
_HREF = re.compile(r"(?:^|\s)href\s*=\s*(?:\"([^\"]*)\"|'([^']*)'|([^\s\"'>]+))", re.IGNORECASE)
_ALT = re.compile(r"(?:^|\s)alt\s*=\s*(?:\"([^\"]*)\"|'([^']*)')", re.IGNORECASE)
_HIDDEN = re.compile(
    r"display\s*:\s*none|(?:^|\s)(?:hidden(?:\s|=|$)|aria-hidden\s*=\s*\W?true)", re.IGNORECASE
)
_SPACE = re.compile(r"[ \t\r\n\f]+")

_PARAGRAPHS: Final = frozenset({"p", "h1", "h2", "h3", "h4", "h5", "h6", "table", "ul", "ol", "blockquote"})
_LINES: Final = frozenset({"div", "tr", "li", "section", "header", "footer", "pre", "hr", "dt", "dd"})
_SKIPPED: Final = frozenset({"style", "script", "head", "title"})
_VOID: Final = frozenset({"br", "hr", "img", "meta", "link", "input", "wbr", "col", "source"})


def text_of(html: str) -> str:
    """Paragraphs apart by an empty line, rows of a table on a line each, links as `label <target>`.

    What is hidden, by its own style or from screen readers, and comments, are left out.
    """
    writer = _Writer()
    for token in _TOKEN.finditer(html):
        tag = token["name"]
        if tag:
            writer.tag(tag.lower(), bool(token["close"]), token["attributes"])
        elif token["text"]:
            writer.text(token["text"])
    return writer.result()


def _hides(name: str, attributes: str) -> bool:
    if name in _SKIPPED:
        return True
    # Most tags have a long style and none of these words: the search would be most of the work.
    return ("none" in attributes or "hidden" in attributes) and _HIDDEN.search(attributes) is not None


class _Writer:
    __slots__ = ("_breaks", "_cell", "_hidden", "_label_at", "_parts", "_space", "_target")

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._breaks = 0  # line breaks owed before the next word
        self._space = False
        self._cell = False
        self._hidden: list[str] = []  # open tags since the one that hides them
        self._target: str | None = None
        self._label_at = 0

    def text(self, raw: str) -> None:
        if self._hidden:
            return
        if raw.isspace() and "\xa0" not in raw:
            self._space = True
            return
        words = _SPACE.sub(" ", unescape(raw) if "&" in raw else raw)
        self._space = self._space or words[0] == " "
        self._write(words.strip(" "))
        self._space = words[-1] == " "

    def tag(self, name: str, closing: bool, attributes: str) -> None:
        if self._hidden:
            self._hidden_tag(name, closing)
        elif not closing and name not in _VOID and _hides(name, attributes):
            self._hidden.append(name)
        elif name == "a":
            self._link(closing, attributes)
        elif name == "br":
            self._breaks += 1
        elif name in {"td", "th"}:
            self._cell = self._cell or closing
        elif name == "img":
            alt = _ALT.search(attributes)
            self.text((alt[1] or alt[2] or " ") if alt else " ")
        else:
            self._boundary(name, closing)

    def _boundary(self, name: str, closing: bool) -> None:
        if name in _PARAGRAPHS:
            self._breaks = max(self._breaks, 2)
        elif name in _LINES:
            self._breaks = max(self._breaks, 1)
        if name == "li" and not closing:
            self._write("-")
            self._space = True

    def result(self) -> str:
        return "".join(self._parts).strip()

    def _hidden_tag(self, name: str, closing: bool) -> None:
        if name in _VOID:
            return
        if not closing:
            self._hidden.append(name)
        elif name in self._hidden:
            while self._hidden.pop() != name:
                pass

    def _link(self, closing: bool, attributes: str) -> None:
        if not closing:
            found = _HREF.search(attributes)
            target = unescape(found[1] or found[2] or found[3] or "") if found else ""
            self._target = target if target.startswith(("http", "mailto:", "tel:")) else None
            self._label_at = len(self._parts)
        elif self._target:
            target, self._target = self._target, None
            label = "".join(self._parts[self._label_at :]).strip()
            if target not in {label, f"mailto:{label}"}:
                self._space = bool(label)
                self._write(f"<{target}>" if label else target)

    def _write(self, words: str) -> None:
        if not words:
            return
        if self._breaks:
            if self._parts:
                self._parts.append("\n" * min(self._breaks, 2))
            self._breaks = 0
        elif self._cell and self._parts:
            self._parts.append("  ")
        elif self._space and self._parts:
            self._parts.append(" ")
        self._space = self._cell = False
        self._parts.append(words)
