"""CSS goes into `style` attributes when a template is loaded, not for each mail.

An HTML parser would tear Jinja apart. So it only gets to see a masked copy, in which each start
tag carries a number, and it is asked one thing: which style did each number get? The answers are
put into the original text, of which nothing else changes, line breaks included.

`<style>` is inlined and taken out. `<style data-css-inline="ignore">` stays as it is, for media
queries; `="keep"` is inlined and stays too. The words are those of css-inline.
"""

from __future__ import annotations

import re

import css_inline

from notifier.errors import TemplateError
from notifier.rendering.source import jinja_tokens, line_of, mask
from notifier.rendering.tags import TAG

SLOT = re.compile(r"\{\{-?\s*body\s*-?\}\}")
"""Where a layout takes in the block."""

_STYLE = re.compile(r"(?<=[\s\"'])style\s*=\s*(?P<quote>[\"'])", re.IGNORECASE)
_NUMBER = re.compile(r"\sdata-n=\"b(\d+)\"")
_VALUE = re.compile(r"\sstyle=\"([^\"]*)\"")
_INLINE = re.compile(r"data-css-inline\s*=\s*[\"']?(\w+)[\"']?")


def inline_styles(path: str, source: str, layout: str | None = None) -> str:
    """`source`, an HTML template, with the rules of its own and of its layout in its tags.

    Raises TemplateError when an expression stands in rules that would have to be inlined.
    """
    _refuse_expressions(path, source)
    document = _number(source, "b")
    slot = SLOT.search(layout) if layout is not None else None
    if layout is not None and slot is not None:
        document = _number(layout[: slot.start()], "a") + document + _number(layout[slot.end() :], "a")
    inliner = css_inline.CSSInliner(keep_style_tags=False, load_remote_stylesheets=False)
    try:
        result = inliner.inline(document)
    except css_inline.InlineError as error:
        raise TemplateError(path, f"its CSS can't be inlined: {error}") from None
    return _apply(source, _answers(result))


def _number(source: str, prefix: str) -> str:
    # The tag's own style must not come back with the answer: it may hold expressions.
    index = 0

    def number(tag: re.Match[str]) -> str:
        nonlocal index
        if not tag["name"]:
            return tag[0]
        attributes = _STYLE.sub(lambda own: "xtyle" + own[0][5:], tag["attributes"])
        text = f'<{tag["name"]} data-n="{prefix}{index}"{attributes}>'
        index += 1
        return text

    return TAG.sub(number, mask(source))


def _answers(document: str) -> dict[int, str]:
    # css-inline puts attributes into an order of its own.
    styles: dict[int, str] = {}
    for tag in TAG.finditer(document):
        number = _NUMBER.search(tag["attributes"] or "")
        style = _VALUE.search(tag["attributes"] or "")
        if number and style:
            styles[int(number[1])] = style[1]
    return styles


def _apply(source: str, styles: dict[int, str]) -> str:
    parts: list[str] = []
    position = 0
    index = 0
    for tag in TAG.finditer(mask(source)):
        if tag["raw"] == "style":
            mode = _INLINE.search(tag["raw_attributes"])
            parts.append(source[position : tag.start()])
            text = source[tag.start() : tag.end()]
            parts.append(_INLINE.sub("", text, count=1) if mode else "\n" * text.count("\n"))
            position = tag.end()
        elif tag["name"]:
            style = styles.get(index)
            index += 1
            if style:
                parts.extend(_with_style(source, tag, position, style))
                position = tag.end()
    parts.append(source[position:])
    return "".join(parts)


def _with_style(source: str, tag: re.Match[str], position: int, style: str) -> tuple[str, ...]:
    style = style.rstrip(" ").removesuffix(";")
    own = _STYLE.search(tag["attributes"])
    if own:
        # What the tag says itself comes last, so it wins.
        at = tag.start("attributes") + own.end()
        if own["quote"] == "'":
            style = style.replace("'", "&#39;")
        return source[position:at], style, "; ", source[at : tag.end()]
    at = tag.end() - (2 if source[tag.end() - 2] == "/" else 1)
    return source[position:at].rstrip(" "), f' style="{style}"', source[at : tag.end()]


def _refuse_expressions(path: str, source: str) -> None:
    for tag in TAG.finditer(mask(source)):
        mode = _INLINE.search(tag["raw_attributes"] or "")
        if tag["raw"] != "style" or (mode and mode[1] == "ignore"):
            continue
        for token in jinja_tokens(source):
            if tag.start() <= token.start() < tag.end():
                raise TemplateError(
                    path,
                    'CSS that is inlined can\'t hold expressions; mark it <style data-css-inline="ignore">',
                    line_of(source, token.start()),
                )
