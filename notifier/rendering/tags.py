"""What a start tag is, and what may stand in one that strangers' data goes into."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import unescape

from notifier.errors import TemplateError
from notifier.rendering.source import jinja_tokens, line_of, mask

TAG = re.compile(
    r"<!--.*?-->"
    r"|<(?P<raw>style|script|title|textarea)\b(?P<raw_attributes>[^>]*)>.*?</(?P=raw)\s*>"
    r"|<(?P<name>[a-zA-Z][\w:-]*)(?P<attributes>[^'\">]*(?:(?:\"[^\"]*\"|'[^']*')[^'\">]*)*)>",
    re.DOTALL,
)
"""A start tag; or a comment, or an element whose content is not HTML, as a whole."""

_QUOTED = re.compile(r"\"[^\"]*\"|'[^']*'")
_ATTRIBUTE = re.compile(r"([^\s=\"'/>]+)\s*=\s*(?:\"([^\"]*)\"|'([^']*)'|([^\s>]*))")
_LINKS = frozenset({"href", "src", "action", "formaction", "background"})
_MAYBE_LINK = re.compile(
    r"\s(?:href|src|action|formaction|background)\s*=\s*(?:\"([^\"]*)|'([^']*)|([^\s>]*))", re.IGNORECASE
)
_HARMLESS = re.compile(r"(?:https?://|mailto:|tel:|cid:|#|$)", re.IGNORECASE)


def refuse_unquoted(path: str, source: str) -> None:
    """Raise TemplateError for an expression in a tag but not in quotes.

    Escaping keeps data inside of quotes; outside of them a space would start a new attribute.
    """
    tokens = [token for token in jinja_tokens(source) if token[0].startswith("{{")]
    for tag in TAG.finditer(mask(source)):
        if not tag["name"]:
            continue
        start = tag.start("attributes")
        quoted = [(start + q.start(), start + q.end()) for q in _QUOTED.finditer(tag["attributes"])]
        for token in tokens:
            inside = tag.start() < token.start() < tag.end()
            if inside and not any(left < token.start() < right for left, right in quoted):
                line = line_of(source, token.start())
                raise TemplateError(path, f"{token[0]} stands in a tag but not in quotes", line)


def refuse_links(path: str, html: str) -> None:
    """Raise TemplateError when a tag leads to anything but http, https, mailto, tel, cid or `#`."""
    # Nearly always there is nothing to find: one quick scan, which also sees what is only text.
    if all(_HARMLESS.match(found[1] or found[2] or found[3] or "") for found in _MAYBE_LINK.finditer(html)):
        return
    for target in _targets(html):
        if not _HARMLESS.match(target):
            reason = f"a link leads to {target[:40]!r}, which is neither http, https, mailto, tel nor cid"
            raise TemplateError(path, reason)


def _targets(html: str) -> Iterator[str]:
    for tag in TAG.finditer(html):
        for name, double, single, bare in _ATTRIBUTE.findall(tag["attributes"] or ""):
            if name.lower() in _LINKS:
                yield unescape(double or single or bare)
