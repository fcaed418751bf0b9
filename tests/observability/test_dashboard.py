"""The dashboard is what its program writes, and asks for what there is."""

from __future__ import annotations

import json
import re
import subprocess
from itertools import combinations
from pathlib import Path
from typing import Any

import yaml

from observability.dashboard import ROWS, WIDTH, WRITTEN, text
from tests.observability.declared import counted, seen, series
from tests.observability.rules import promtool
from tests.observability.test_runbooks import metrics_of

PANELS: list[dict[str, Any]] = json.loads(WRITTEN.read_text())["panels"]
SHOWN = [panel for panel in PANELS if panel["type"] != "row"]
QUERIES = [target["expr"] for panel in SHOWN for target in panel["targets"]]


def test_it_is_what_its_program_writes() -> None:
    assert WRITTEN.read_text() == text(), "run python3 observability/dashboard.py"


def test_its_queries_ask_for_metrics_that_exist() -> None:
    for query in QUERIES:
        assert metrics_of(query) or query.startswith("ALERTS{"), query
        assert metrics_of(query) <= series(), query


def test_its_queries_can_be_asked(tmp_path: Path) -> None:
    asked = [
        {"record": f"asked:{number}", "expr": query.replace("$__rate_interval", "5m")}
        for number, query in enumerate(QUERIES)
    ]
    file = tmp_path / "asked.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "asked", "rules": asked}]}))
    done = subprocess.run(
        [promtool(), "check", "rules", str(file)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_what_is_counted_is_summed_and_what_is_seen_is_the_maximum() -> None:
    told_alike = "|".join(metric.name for metric in seen() if metric.name != "notifier_broker_up")
    for query in QUERIES:
        if re.search(told_alike, query):
            assert "max" in query, query
    counters = {metric.name for metric in counted() if metric.kind == "counter"}
    for query in QUERIES:
        for name in metrics_of(query) & counters:
            assert re.search(rf"(rate|increase)\({name}", query), query


def test_every_metric_of_the_service_is_drawn() -> None:
    drawn = " ".join(QUERIES)
    left_out = {"notifier_info", "notifier_alerts_total", "notifier_promoted_total"}
    assert {metric.name for metric in [*counted(), *seen()] if metric.name not in drawn} == left_out


def test_legends_name_labels_that_the_query_keeps() -> None:
    for panel in SHOWN:
        for target in panel["targets"]:
            for label in re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]):
                kept = re.findall(r"by \(([^)]*)\)", target["expr"])
                assert label in ", ".join(kept) or (not kept and label in {"instance", "queue"}), target


def test_panels_have_ids_titles_and_places_of_their_own() -> None:
    assert len({panel["id"] for panel in PANELS}) == len(PANELS)
    assert len({panel["title"] for panel in PANELS}) == len(PANELS)
    assert all(panel["description"] for panel in SHOWN)
    for panel in PANELS:
        place = panel["gridPos"]
        assert 0 <= place["x"] < place["x"] + place["w"] <= WIDTH
    for one, other in combinations([panel["gridPos"] for panel in PANELS], 2):
        apart = (
            one["x"] + one["w"] <= other["x"]
            or other["x"] + other["w"] <= one["x"]
            or one["y"] + one["h"] <= other["y"]
            or other["y"] + other["h"] <= one["y"]
        )
        assert apart, (one, other)


def test_every_panel_asks_the_source_that_the_reader_chooses() -> None:
    board = json.loads(WRITTEN.read_text())
    [variable] = board["templating"]["list"]
    assert (variable["name"], variable["type"], variable["query"]) == (
        "datasource",
        "datasource",
        "prometheus",
    )
    for panel in SHOWN:
        for source in (panel["datasource"], *(target["datasource"] for target in panel["targets"])):
            assert source == {"type": "prometheus", "uid": "${datasource}"}
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])


def test_the_first_row_says_whether_it_is_bad() -> None:
    title, panels = ROWS[0]
    assert title == "Is it bad?"
    assert panels[0].kind == "table"
    assert all(panel.limits for panel in panels[1:])
