"""What each benchmark says of its own figures."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from benchmarks.limits import LIMITS, conclude, judged

ROOT = Path(__file__).parent.parent.parent
GOOD = {
    "fanout": {"ratio": 0.6},
    "latency_ms": {"p50_ratio": 1.3, "p99": 10.0},
    "peers": {"bullmq": {"ratio": 6.2}, "arq": {"unavailable": "no"}},
    "backlog": {"ratio": 1.0},
    "memory": {"ratio": 1.02},
    "bytes_per_event": {"ratio": 1.91},
}


def test_each_limit_is_judged_by_its_figure(capsys: pytest.CaptureFixture[str]) -> None:
    assert [limit for limit, _ in judged(GOOD)] == list(LIMITS)
    conclude(GOOD, strict=True)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(LIMITS)
    assert lines[0] == "holds   fanout ratio: 0.6, at least 0.6"


@pytest.mark.parametrize(
    ("section", "missed"),
    [
        ({"fanout": {"ratio": 0.599}}, "MISSED  fanout ratio: 0.599, at least 0.6"),
        ({"latency_ms": {"p99": 10.1}}, "MISSED  latency_ms p99: 10.1, at most 10"),
        ({"peers": {"bullmq": {"ratio": 5.9}}}, "MISSED  peers.bullmq ratio: 5.9, at least 6"),
    ],
)
def test_what_does_not_hold_is_said_and_ends_a_strict_run(
    section: dict[str, object], missed: str, capsys: pytest.CaptureFixture[str]
) -> None:
    conclude(GOOD | section, strict=False)
    assert missed in capsys.readouterr().out
    with pytest.raises(SystemExit) as ended:
        conclude(GOOD | section, strict=True)
    assert ended.value.code == 1


def test_what_was_not_measured_is_not_judged(capsys: pytest.CaptureFixture[str]) -> None:
    conclude({"peers": {"bullmq": {"unavailable": "node is not installed"}}}, strict=True)
    assert capsys.readouterr().out == ""


def test_the_figures_of_the_page_are_within_the_limits() -> None:
    page = (ROOT / "docs" / "reliability.md").read_text()
    line = re.compile(r"^holds   ([\w.]+) (\w+): ([\d.]+), (at least|at most) ([\d.]+)$", re.MULTILINE)
    told = {(section, figure): rest for section, figure, *rest in line.findall(page)}
    for limit in LIMITS:
        found, bound, value = told[limit.section, limit.figure]
        assert (bound, float(value)) == (limit.bound, limit.value)
        assert limit.holds(float(found))
