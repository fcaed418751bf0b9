"""The figures of capacity are of the things that they are named after, and the page has them in its text."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from benchmarks.capacity import measure
from benchmarks.capacity_page import COMPUTED, FRAME, MISSING, PAGE, PLACE, page


@pytest.mark.slow
def test_everything_that_is_measured_costs_something() -> None:
    figures = measure(0.2)
    numbers = {name: value for name, value in figures.items() if name not in {"server", "load"}}
    assert min(numbers.values()) > 0, figures
    assert 200 < figures["inbox_entry_bytes"] < 5_000
    assert 50 < figures["profile_bytes"] < 2_000


def test_the_page_is_the_frame_with_figures() -> None:
    parts = PLACE.split(FRAME.read_text(encoding="utf-8"))[::2]
    pattern = r"[^\n]{1,200}?".join(map(re.escape, parts))
    assert re.fullmatch(pattern, PAGE.read_text(encoding="utf-8")), "run `make capacity-page`"


def test_what_was_not_measured_is_a_dash_and_what_was_is_put_in() -> None:
    capacity = {"server_us": 50, "worker_us": 150, "deliveries": 3, "load": 0.5, "server": "valkey 9.1.0"}
    text = page({"capacity": capacity, "fanout": {"events_per_s": 6_543}})
    assert "| 6,543 | `make bench` |" in text
    assert "| 20,000 | computed |" in text  # a million microseconds by 50
    assert f"| {MISSING} ms | `make bench` |" in text
    assert "<<" not in text


def test_each_place_of_the_frame_is_a_figure_or_computed() -> None:
    names = set(PLACE.findall(FRAME.read_text(encoding="utf-8")))
    assert {name for name in names if "." not in name} == COMPUTED.keys()


def test_make_names_the_commands_of_the_page() -> None:
    makefile = (Path(__file__).parent.parent.parent / "Makefile").read_text()
    for target in ("bench", "bench-endurance", "bench-capacity", "capacity-page"):
        assert re.search(f"^{target}:", makefile, re.MULTILINE)
