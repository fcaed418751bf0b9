"""The tables of events.md, templates.md and log-events.md have what the code has."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import pytest

from notifier import catalogue
from notifier.bootstrap import open_channels
from notifier.event import Actor, Event, Recipient
from notifier.operations.views import ADVICE
from notifier.rendering.filters import FILTERS
from notifier.rendering.sandbox import NAMES
from notifier.settings import Settings
from tests.docs.blocks import ROOT

REFERENCE = ROOT / "docs/reference"


def section(page: str, heading: str) -> str:
    """What stands below a heading, up to the next one of any level."""
    text = (REFERENCE / page).read_text()
    found = re.search(rf"^#+ {re.escape(heading)}$(.*?)(?=^#|\Z)", text, re.MULTILINE | re.DOTALL)
    assert found, heading
    return found[1]


def first_column(text: str) -> list[str]:
    cells = re.findall(r"^\| (`.*?) \|", text, re.MULTILINE)
    return [name for cell in cells for name in re.findall(r"`([^`]+)`", cell)]


@pytest.mark.parametrize(
    ("heading", "model"), [("Events", Event), ("Recipient", Recipient), ("Actor", Actor)]
)
def test_every_field_of_a_model_is_documented(heading: str, model: type) -> None:
    fields = model.model_fields  # type: ignore[attr-defined]
    assert set(first_column(section("events.md", heading))) == set(fields)


def test_the_blocks_of_the_channels_are_documented_with_their_limits() -> None:
    rows = re.findall(
        r"^\| (?:`(\w+)`)? *\| `(\w+)` \| (.*) \|$", section("templates.md", "Blocks"), re.MULTILINE
    )
    told: dict[tuple[str, str], str] = {}
    channel = ""
    for name, block, text in rows:
        channel = name or channel
        told[channel, block] = text
    real = {
        (name, block.name): block
        for name, one in open_channels(Settings(), {}).items()
        for block in one.blocks
    }
    assert told.keys() == real.keys()
    for place, block in real.items():
        limit = re.search(r"at most ([\d,]+) characters", told[place])
        if limit:
            assert int(limit[1].replace(",", "")) == block.max_length, place
        assert ("left out" in told[place]) == (not block.required), place


def test_variables_filters_and_options_of_templates_are_documented() -> None:
    assert set(first_column(section("templates.md", "Variables"))) == NAMES
    assert set(re.findall(r"\\\| (\w+)", section("templates.md", "Filters"))) == set(FILTERS)
    known = set(first_column(section("templates.md", "event.toml")))
    for option in known:
        _, problems = catalogue.read_catalogue({"like/event.toml": f"{option} = 5"}, {})
        assert "not known" not in str(problems), option
    source = (ROOT / "notifier/catalogue.py").read_text()
    assert known == set(re.findall(r'"(\w+)"', re.search(r"name not in \{(.*?)\}", source)[1]))  # type: ignore[index]


def logged() -> Iterator[tuple[str, str]]:
    """Event and level of each log line in the code."""
    for path in [*(ROOT / "notifier").rglob("*.py"), *(ROOT / "channels").rglob("*.py")]:
        source = path.read_text()
        for call in ast.walk(ast.parse(source)):
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute | ast.Name) and call.args:
                level = call.func.attr if isinstance(call.func, ast.Attribute) else call.func.id
                owner = call.func.value if isinstance(call.func, ast.Attribute) else None
                chosen = level == "level" and "level = log." in source
                if not (isinstance(owner, ast.Name) and owner.id == "log") and not chosen:
                    continue
                names = [n.value for n in ast.walk(call.args[0]) if isinstance(n, ast.Constant)]
                level = {"exception": "error", "level": "info"}.get(level, level)
                if level in {"debug", "info", "warning", "error"}:
                    yield from ((str(name), level) for name in names)


def test_every_log_event_is_documented_with_its_level() -> None:
    text = (REFERENCE / "log-events.md").read_text()
    rows = re.findall(r"^\| (`.*?) \| (\w+) \|", text, re.MULTILINE)
    told = {(name, level) for cell, level in rows for name in re.findall(r"`(\w+)`", cell)}
    assert told == set(logged())


def test_the_sources_of_log_events_are_found() -> None:
    assert {"worker_started", "delivery_dead", "partition_lost", "breaker_closed"} <= {n for n, _ in logged()}


def test_the_advice_for_every_error_is_in_the_how_to() -> None:
    text = (ROOT / "docs/how-to/handle-dead-letters.md").read_text()
    table = text.partition("| error | what happened |")[2].partition("\n\n")[0]
    # A ChannelUnavailable opens the breaker, so nothing is dead-lettered for it.
    assert set(first_column(table)) == set(ADVICE) - {"ChannelUnavailable"}
