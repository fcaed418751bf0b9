"""Writes grafana/notifier.json, the dashboard: `python3 observability/dashboard.py`. It needs only Python.

To change the dashboard, change `ROWS` and run it again; a test compares both. The order is that of somebody
who was just woken: is it bad, what waits, who is to blame, and then the details.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

WRITTEN = Path(__file__).parent / "grafana" / "notifier.json"
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
WIDTH = 24


@dataclass(frozen=True)
class Panel:
    """A panel of one or more queries, each with its legend. `limits` are (value, colour), in rising order."""

    title: str
    description: str
    queries: Sequence[tuple[str, str]]
    kind: str = "timeseries"
    unit: str = "short"
    width: int = 8
    height: int = 7
    limits: Sequence[tuple[float, str]] = ()
    words: dict[str, str] = field(default_factory=dict)
    """What is shown instead of a value."""


def stat(title: str, description: str, query: str, limits: Sequence[tuple[float, str]], **more: Any) -> Panel:
    return Panel(title, description, [(query, "")], "stat", width=3, height=4, limits=limits, **more)


def lines(
    title: str, description: str, *queries: tuple[str, str], unit: str = "short", width: int = 8
) -> Panel:
    return Panel(title, description, queries, unit=unit, width=width)


def quantile(part: float, metric: str, by: str) -> str:
    return f"histogram_quantile({part}, sum by ({by}, le) (rate({metric}_bucket[$__rate_interval])))"


RED, YELLOW = "red", "orange"
FAILED = "sum by (channel) (rate(notifier_failed_total[$__rate_interval]))"
ROWS: Sequence[tuple[str, Sequence[Panel]]] = (
    ("Is it bad?", (
        Panel(
            "Alerts that fire",
            "Each has a page in docs/runbooks, with its own name.",
            [('ALERTS{alertname=~"Notifier.*", alertstate="firing"}', "")],
            "table", width=24, height=5,
        ),
        stat("Oldest waits", "Of all queues. Alert above 5 minutes.",
             "max(notifier_queue_oldest_seconds)", [(60, YELLOW), (300, RED)], unit="s"),
        stat("Partitions without owner", "Nobody delivers what lies in them.",
             "sum(max by (queue) (notifier_partitions_without_owner))", [(1, RED)]),
        stat("Breakers open", "Queues whose provider is away.",
             "count(max by (queue) (notifier_breaker_open) > 0) or vector(0)", [(1, RED)]),
        stat("Dead", "Gave up; kept until somebody redrives or discards them.",
             'sum(max by (queue) (notifier_queue_entries{state="dead"}))', [(1, YELLOW)]),
        stat("In dead letter queues", "Get one more try by themselves.",
             'sum(max by (queue) (notifier_queue_entries{state="dlq"}))', [(1, YELLOW)]),
        stat("Memory of the broker", "Of maxmemory; empty when it has no limit.",
             "max(notifier_broker_memory_bytes / notifier_broker_memory_limit_bytes)",
             [(0.6, YELLOW), (0.8, RED)], unit="percentunit"),
        stat("Broker", "Away: some process can't reach it.", "min(notifier_broker_up)",
             [(0, RED), (1, "green")], words={"0": "away", "1": "up"}),
        stat("Broken templates", "On any worker.", "max(notifier_template_problems)", [(1, YELLOW)]),
    )),
    ("What waits, and what goes out", (
        lines("Oldest entry", "Of those that wait or are in hand.",
              ("max by (queue) (notifier_queue_oldest_seconds)", "{{queue}}"), unit="s"),
        lines("Backlog", "Waiting and in hand.",
              ('sum by (queue) (max by (queue, state) (notifier_queue_entries{state=~"waiting|in_hand"}))',
               "{{queue}}")),
        lines("Waits for its time", "Parked lanes retry by themselves; scheduled is not due yet.",
              ('max by (queue, state) (notifier_queue_entries{state=~"parked|scheduled"})',
               "{{queue}} {{state}}")),
        lines("Accepted and routed", "Notifications a second; one for each recipient.",
              ('max(rate(notifier_queue_added_total{queue="events"}[$__rate_interval]))', "accepted"),
              ("sum(rate(notifier_routed_total[$__rate_interval]))", "routed"), unit="cps"),
        lines("Delivered", "By channel.",
              ("sum by (channel) (rate(notifier_delivery_seconds_count[$__rate_interval]))", "{{channel}}"),
              unit="cps"),
        lines("From accepted to delivered", "End to end. What was parked or scheduled counts with its wait.",
              (quantile(0.5, "notifier_delivery_seconds", "channel"), "{{channel}} half"),
              (quantile(0.95, "notifier_delivery_seconds", "channel"), "{{channel}} 95 %"), unit="s"),
    )),
    ("What fails", (
        lines("Failed attempts", "By outcome.",
              ("sum by (channel, outcome) (rate(notifier_failed_total[$__rate_interval]))",
               "{{channel}} {{outcome}}"), unit="cps"),
        lines("Share of failed attempts", "Alert above one half.",
              (f"{FAILED} / sum by (channel) (rate(notifier_send_seconds_count[$__rate_interval]))",
               "{{channel}}"),
              unit="percentunit"),
        lines("Retries", "Attempts after the first, and lanes that were parked.",
              ("sum by (channel) (rate(notifier_retries_total[$__rate_interval]))", "{{channel}} retries"),
              ("sum by (channel) (rate(notifier_parked_total[$__rate_interval]))", "{{channel}} parked"),
              unit="cps"),
        lines("Dead letters and dead", "What lies there now.",
              ('max by (queue, state) (notifier_queue_entries{state=~"dlq|dead"})', "{{queue}} {{state}}")),
        lines("To the dead letter queue, and given up", "In five minutes.",
              ("sum by (queue) (increase(notifier_dead_letters_total[5m]))", "{{queue}} dlq"),
              ("sum by (queue) (increase(notifier_dead_total[5m]))", "{{queue}} dead")),
        lines("Not sent", "Deliveries that were not made, by reason.",
              ("sum by (reason) (rate(notifier_skipped_total[$__rate_interval]))", "{{reason}}"), unit="cps"),
    )),
    ("Providers and templates", (
        lines("The provider takes", "One attempt.",
              (quantile(0.5, "notifier_send_seconds", "channel"), "{{channel}} half"),
              (quantile(0.95, "notifier_send_seconds", "channel"), "{{channel}} 95 %"), unit="s"),
        lines("Breaker open", "How many processes say so.",
              ("sum by (queue) (notifier_breaker_open)", "{{queue}}")),
        lines("Rendering takes", "One delivery.",
              (quantile(0.95, "notifier_render_seconds", "channel"), "{{channel}} 95 %"), unit="s"),
    )),
    ("Workers", (
        lines("Who owns how many partitions", "Even shares, unless somebody just came or left.",
              ("notifier_leases", "{{instance}} {{queue}}")),
        lines("Hand-overs", "Lost: a worker was held up longer than its lease.",
              ("sum by (change) (increase(notifier_lease_changes_total[5m]))", "{{change}}")),
        lines("Starts", "In 15 minutes, of each process.",
              ('changes(process_start_time_seconds{job=~"notifier.*"}[15m])', "{{instance}}")),
        lines("Processor", "Cores.",
              ('rate(process_cpu_seconds_total{job=~"notifier.*"}[$__rate_interval])', "{{instance}}")),
        lines("Memory", "Resident.",
              ('process_resident_memory_bytes{job=~"notifier.*"}', "{{instance}}"), unit="bytes"),
        lines("Open files", "Of those allowed.",
              ('process_open_fds{job=~"notifier.*"} / process_max_fds', "{{instance}}"), unit="percentunit"),
    )),
    ("The broker", (
        lines("A round trip takes", "Commits, and the renewal of leases.",
              (quantile(0.5, "notifier_broker_seconds", "call"), "{{call}} half"),
              (quantile(0.99, "notifier_broker_seconds", "call"), "{{call}} 99 %"), unit="s"),
        lines("Memory of the server", "At its limit publishing fails.",
              ("max by (node) (notifier_broker_memory_bytes)", "{{node}} used"),
              ("max by (node) (notifier_broker_memory_limit_bytes)", "{{node}} limit"), unit="bytes"),
        lines("Processes that reach it", "And those that don't.",
              ("count(notifier_broker_up == 1) or vector(0)", "reach it"),
              ("count(notifier_broker_up == 0) or vector(0)", "don't")),
    )),
    ("HTTP API", (
        lines("Requests", "By status.",
              ("sum by (status) (rate(notifier_http_requests_total[$__rate_interval]))", "{{status}}"),
              unit="reqps"),
        lines("An answer takes", "95 %, by route.",
              (quantile(0.95, "notifier_http_request_seconds", "route"), "{{route}}"), unit="s"),
        lines("Events by HTTP, and open streams", "Events by outcome; clients that listen to an inbox.",
              ("sum by (outcome) (rate(notifier_api_events_total[$__rate_interval]))", "{{outcome}}"),
              ("sum(notifier_streams)", "streams")),
    )),
)  # fmt: skip


def _limits(panel: Panel) -> dict[str, Any]:
    steps: list[dict[str, Any]] = [{"color": "green", "value": None}]
    steps += [{"color": colour, "value": value} for value, colour in panel.limits]
    return {"mode": "absolute", "steps": steps}


def _options(panel: Panel) -> dict[str, Any]:
    if panel.kind == "stat":
        return {
            "colorMode": "background", "graphMode": "area", "justifyMode": "center", "textMode": "value",
            "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        }  # fmt: skip
    if panel.kind == "table":
        return {"showHeader": True}
    return {
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
        "tooltip": {"mode": "multi", "sort": "desc"},
    }


def _field(panel: Panel) -> dict[str, Any]:
    defaults: dict[str, Any] = {"unit": panel.unit, "thresholds": _limits(panel), "min": 0}
    if panel.kind == "stat":
        defaults |= {"color": {"mode": "thresholds"}, "noValue": "-"}
    if panel.words:
        options = {value: {"text": text, "index": at} for at, (value, text) in enumerate(panel.words.items())}
        defaults["mappings"] = [{"type": "value", "options": options}]
    return {"defaults": defaults, "overrides": []}


def _panel(panel: Panel, number: int, at: tuple[int, int]) -> dict[str, Any]:
    is_now = panel.kind == "table"
    made: dict[str, Any] = {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.description,
        "datasource": SOURCE,
        "gridPos": {"x": at[0], "y": at[1], "w": panel.width, "h": panel.height},
        "targets": [
            {
                "refId": chr(ord("A") + place), "datasource": SOURCE, "expr": query,
                "legendFormat": legend or "__auto", "instant": is_now, "range": not is_now,
                "format": "table" if is_now else "time_series",
            }
            for place, (query, legend) in enumerate(panel.queries)
        ],
        "fieldConfig": _field(panel),
        "options": _options(panel),
    }  # fmt: skip
    if is_now:
        wanted = ("alertname", "severity", "queue", "channel", "job", "node")
        shown = {"include": {"names": list(wanted)}}
        made["transformations"] = [{"id": "filterFieldsByName", "options": shown}]
    return made


def _panels() -> Iterator[dict[str, Any]]:
    number, x, y, tallest = 0, 0, 0, 0
    for title, panels in ROWS:
        number += 1
        yield {
            "id": number, "type": "row", "title": title, "collapsed": False, "panels": [],
            "gridPos": {"x": 0, "y": y, "w": WIDTH, "h": 1},
        }  # fmt: skip
        x, y, tallest = 0, y + 1, 0
        for panel in panels:
            if x + panel.width > WIDTH:
                x, y, tallest = 0, y + tallest, 0
            number += 1
            yield _panel(panel, number, (x, y))
            x, tallest = x + panel.width, max(tallest, panel.height)
        y += tallest


def dashboard() -> dict[str, Any]:
    """The dashboard, as Grafana 10 and later import it."""
    return {
        "uid": "notifier",
        "title": "notifier",
        "description": "Written by observability/dashboard.py.",
        "tags": ["notifier"],
        "schemaVersion": 39,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "timezone": "browser",
        "templating": {
            "list": [
                {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus"}
            ]
        },
        "annotations": {"list": []},
        "links": [],
        "panels": list(_panels()),
    }


def text() -> str:
    return json.dumps(dashboard(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    WRITTEN.parent.mkdir(exist_ok=True)
    WRITTEN.write_text(text(), encoding="utf-8")
    sys.exit(0)
