"""docs/reference/settings.md names every setting of the code, with its default, and no other."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

from pydantic.fields import FieldInfo

from channels.smtp import parse_smtp_url
from docs.settings_page import fields, page
from notifier.settings import PREFIX, Settings, load, parse_duration
from tests.docs.blocks import ROOT

PAGE = ROOT / "docs/reference/settings.md"


def documented() -> dict[str, str]:
    rows = re.findall(r"^\| `(NOTIFIER_\w+)` \| (.*?) \|", PAGE.read_text(), re.MULTILINE)
    assert len(dict(rows)) == len(rows), "a setting stands there twice"
    return {name: default.strip("`") for name, default in rows}


def as_default(field: FieldInfo, text: str) -> Any:
    """The documented text in the type of the field's default."""
    default = field.default
    if text == "unset":
        return () if default == () else None
    if isinstance(default, timedelta):
        return parse_duration(text)
    if isinstance(default, tuple):
        return tuple(text.split(","))
    if isinstance(default, bool):
        return text == "true"
    if text.startswith("smtp://"):
        return parse_smtp_url(text)
    return type(default)(text)


def test_the_page_is_what_the_generator_writes() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run `make reference`"


def test_every_setting_is_documented_and_no_other() -> None:
    assert documented().keys() == fields().keys()


def test_the_documented_defaults_are_those_of_the_code() -> None:
    known = fields()
    told = {name: as_default(known[name], text) for name, text in documented().items()}
    assert told == {name: field.default for name, field in known.items()}


def test_the_documented_defaults_can_be_set() -> None:
    own = {PREFIX + name.upper() for name in Settings.model_fields}
    given = {name: text for name, text in documented().items() if name in own and text != "unset"}
    assert load(given).model_dump() == Settings().model_dump()


def test_channels_read_no_setting_that_is_not_documented() -> None:
    sources = [path.read_text() for path in (ROOT / "channels").rglob("*.py")]
    named = {name for source in sources for name in re.findall(r"\bNOTIFIER_[A-Z_]+[A-Z]\b", source)}
    assert named <= documented().keys()
