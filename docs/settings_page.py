"""Writes docs/reference/settings.md: the tables are made of the code, what stands around them is a file.

python -m docs.settings_page            prints it
python -m docs.settings_page --write    puts it into its place
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

from pydantic.fields import FieldInfo

from channels.email import EmailSettings
from channels.push.web_push import WebPushSettings
from channels.smtp import SmtpServer
from notifier.settings import PREFIX, Settings

PAGE = Path(__file__).parent / "reference/settings.md"

FRAME = Path(__file__).parent / "settings_frame.txt"
"""`<<names>>` stands for a table of these settings, in this order."""


def fields() -> dict[str, FieldInfo]:
    """Every setting, by its variable."""
    found = {PREFIX + name.upper(): field for name, field in Settings.model_fields.items()}
    for model in (EmailSettings, WebPushSettings):
        found |= {str(field.validation_alias): field for field in model.model_fields.values()}
    return found


def page() -> str:
    """The document. Raises KeyError for a setting of the frame that is none, and ValueError for one that has
    no place in it, or no text."""
    left = fields()
    text = re.sub(
        r"<<([^>]+)>>", lambda match: _table(match[1].split(), left), FRAME.read_text(encoding="utf-8")
    )
    if left:
        raise ValueError(f"these settings have no place in the page: {', '.join(left)}")
    return text


def _table(names: list[str], left: dict[str, FieldInfo]) -> str:
    rows = ["| setting | default | meaning |", "|---|---|---|"]
    for name in names:
        variable = PREFIX + name.upper()
        field = left.pop(variable)
        meaning = " ".join((field.description or "").split())
        if not meaning:
            raise ValueError(f"{variable} has no text: write it below the field")
        rows.append(f"| `{variable}` | {_default(field.default)} | {meaning} |")
    return "\n".join(rows)


def _default(value: Any) -> str:
    """As it would be written in the environment."""
    if value is None or value == ():
        return "unset"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, timedelta):
        return f"`{_duration(value)}`"
    if isinstance(value, tuple):
        return f"`{','.join(value)}`"
    if isinstance(value, SmtpServer):
        return f"`smtp://{value.host}:{value.port}`"
    return f"`{value}`"


_UNITS: Mapping[str, timedelta] = {
    "w": timedelta(weeks=1),
    "d": timedelta(days=1),
    "h": timedelta(hours=1),
    "m": timedelta(minutes=1),
    "s": timedelta(seconds=1),
}


def _duration(value: timedelta) -> str:
    """In the largest unit of which there are two or more, or that it is exactly one of: 24h, 90s, 1m."""
    for unit, size in _UNITS.items():
        if value % size == timedelta(0) and (value >= 2 * size or unit in "hms"):
            return f"{value // size}{unit}"
    return f"{value // timedelta(milliseconds=1)}ms"


if __name__ == "__main__":
    if "--write" in sys.argv[1:]:
        PAGE.write_text(page(), encoding="utf-8")
    else:
        sys.stdout.write(page())
