"""What the alert rules say of scrapes, by promtool and a clock that is not ours.

Time is played: each scrape stands for as many minutes as it is said to, at one sample in 15 seconds.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from tests.docs.blocks import ROOT
from tests.observability.installation import Scrape

RULES = ROOT / "observability/alerts.yaml"
_PER_MINUTE = 4
_USED = re.compile(r"notifier_|up$|process_")


class Alert(NamedTuple):
    """A firing alert. `labels` are beside those of its rule."""

    name: str
    labels: tuple[tuple[str, str], ...] = ()


class Rule(NamedTuple):
    name: str
    expr: str
    labels: dict[str, str]
    annotations: dict[str, str]


def rules() -> list[Rule]:
    [group] = yaml.safe_load(RULES.read_text())["groups"]
    return [Rule(one["alert"], one["expr"], one["labels"], one["annotations"]) for one in group["rules"]]


def promtool() -> str:
    """Skips the test where it is not installed, and fails it in CI."""
    found = shutil.which("promtool")
    if found is None:
        if os.environ.get("CI"):
            pytest.fail("CI must have promtool: .ci/run installs Debian's prometheus")
        pytest.skip("promtool is not installed: it comes with Debian's prometheus")
    return found


class Played(NamedTuple):
    """A scrape, and for how many minutes it is what Prometheus sees."""

    scrape: Scrape
    minutes: int


class Moment(NamedTuple):
    """When to look, and exactly which alerts fire then."""

    minutes: float
    firing: Sequence[Alert]


def check(played: Sequence[Played], moments: Iterable[Moment], folder: Path) -> None:
    """Fails the test with promtool's words when other alerts fire, or not all of these."""
    known = {rule.name: rule for rule in rules()}
    tests = [
        {
            "eval_time": f"{round(moment.minutes * 60)}s",
            "alertname": name,
            "exp_alerts": [_expected(rule, alert) for alert in moment.firing if alert.name == name],
        }
        for moment in moments
        for name, rule in known.items()
    ]
    assert {alert.name for moment in moments for alert in moment.firing} <= known.keys()
    file = folder / "played.yaml"
    content = {
        "rule_files": [str(RULES)],
        "evaluation_interval": "15s",
        "tests": [{"interval": "15s", "input_series": _series(played), "alert_rule_test": tests}],
    }
    file.write_text(yaml.safe_dump(content))
    done = subprocess.run(
        [promtool(), "test", "rules", str(file)], capture_output=True, text=True, check=False, timeout=30
    )
    assert done.returncode == 0, done.stdout + done.stderr


def _expected(rule: Rule, alert: Alert) -> dict[str, Any]:
    labels = dict(alert.labels)
    texts = {
        name: re.sub(r"\{\{ \$labels\.(\w+) \}\}", lambda found: labels[found[1]], text)
        for name, text in rule.annotations.items()
    }
    return {"exp_labels": {**rule.labels, **labels}, "exp_annotations": texts}


def _series(played: Sequence[Played]) -> list[dict[str, str]]:
    names = {series for scrape, _ in played for series in scrape if _USED.match(series[0])}
    return [
        {
            "series": name + "{" + ",".join(f'{label}="{value}"' for label, value in labels) + "}",
            "values": " ".join(_values(scrape.get((name, labels)), minutes) for scrape, minutes in played),
        }
        for name, labels in sorted(names)
    ]


def _values(value: float | None, minutes: int) -> str:
    samples = minutes * _PER_MINUTE
    # What a target does not tell any more gets a marker from Prometheus, and is gone at once.
    return f"stale _x{samples - 1}" if value is None else f"{value!r}+0x{samples - 1}"
