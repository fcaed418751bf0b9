"""The files that an event type starts with."""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import typer

from notifier.catalogue import LAYOUTS, OPTIONS_FILE, SAMPLE_FILE
from notifier.channel import Block, Channel
from notifier.cli.lines import reason
from notifier.errors import ConfigurationError
from notifier.rendering.files import SETTING

_PARTS = "layouts/parts.jinja"
_MAX_TYPE: Final = 100

_OPTIONS = """\
# What recipients mute. Event types may share a category; without this line it is the type.
category = "{type}"

# true: sent even to those who muted it, for security and billing.
# mandatory = true
"""
_TITLE = '{{ actor | name("Someone") }}: {{ data.title }}'
_TEXT = "{{ data.message }}"
_HTML = """
<h1>{{ data.title }}</h1>
<p>{{ data.message }}</p>
"""
_HTML_WITH_PARTS = """
<h1>{{ data.title }}</h1>
<p>{{ data.message }}</p>
{{ button(data.url, "Have a look") }}
"""
_LINES: Final = {"url": "{{ data.url | safe_url }}"}


def create(templates: Path, event_type: str, channels: Sequence[Channel]) -> Path:
    """Makes the folder of an event type, whole or not at all, and returns it.

    Raises BadParameter for a type that can't be one or is there already, and ConfigurationError when the
    folder of all types is missing.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_.]*", event_type) or event_type == LAYOUTS:
        raise typer.BadParameter(
            f"{event_type!r} can't be an event type: it must match [a-z][a-z0-9_.]*", param_hint="TYPE"
        )
    if len(event_type) > _MAX_TYPE:
        raise typer.BadParameter(f"has more than {_MAX_TYPE} characters", param_hint="TYPE")
    if not templates.is_dir():
        raise ConfigurationError(SETTING, f"there is no folder {templates}")
    folder = templates / event_type
    if folder.exists():
        raise typer.BadParameter(f"{folder} is there already", param_hint="TYPE")
    files = starting_files(event_type, channels, with_parts=(templates / _PARTS).is_file())
    try:
        _write(folder, files)
    except OSError as error:
        raise ConfigurationError(SETTING, f"{folder} can't be written: {reason(error)}") from None
    return folder


def _write(folder: Path, files: dict[str, str]) -> None:
    # A running worker looks at the templates every second, and would complain of half of them; it passes
    # over names that begin with a dot.
    making = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        for name, text in files.items():
            (making / name).write_text(text, encoding="utf-8")
        mask = os.umask(0)
        os.umask(mask)
        making.chmod(0o777 & ~mask)
        making.rename(folder)
    except BaseException:
        shutil.rmtree(making, ignore_errors=True)
        raise


def starting_files(event_type: str, channels: Sequence[Channel], *, with_parts: bool) -> dict[str, str]:
    """Their text by their names: the options, a template for each channel with blocks, and the sample."""
    files = {
        OPTIONS_FILE: _OPTIONS.format(type=event_type),
        SAMPLE_FILE: json.dumps(_sample(event_type), indent=2) + "\n",
    }
    for channel in channels:
        if channel.blocks:
            files[f"{channel.name}.jinja"] = _template(channel.blocks, with_parts=with_parts)
    return files


def _template(blocks: Sequence[Block], *, with_parts: bool) -> str:
    has_button = with_parts and any(block.kind == "html" for block in blocks)
    start = f'{{% from "{_PARTS}" import button %}}\n' if has_button else ""
    written = [block for block in blocks if block.derived_from is None]
    return start + "".join(
        f"{{% block {block.name} %}}{_content(block, with_parts=has_button)}{{% endblock %}}\n"
        for block in written
    )


def _content(block: Block, *, with_parts: bool) -> str:
    if block.kind == "html":
        return _HTML_WITH_PARTS if with_parts else _HTML
    return _LINES.get(block.name, _TITLE if block.kind == "line" else _TEXT)


def _sample(event_type: str) -> dict[str, object]:
    return {
        "id": f"{event_type}-1",
        "type": event_type,
        "recipient": {"id": "u-1042", "name": "Grace Hopper", "email": "grace@example.com", "locale": "en"},
        "actor": {"id": "u-7", "name": "Ada Lovelace"},
        "data": {
            "title": "Something happened",
            "message": "This text comes from the event. Say here what a reader wants to know.",
            "url": "https://app.example.com/somewhere",
        },
        "occurred_at": "2026-01-31T12:00:00Z",
    }
