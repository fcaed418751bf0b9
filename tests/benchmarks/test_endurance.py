"""`make bench-endurance` writes the figures that its text promises."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.ours import NoOpChannel, serving

ROOT = Path(__file__).parent.parent.parent


def run(results: Path, *arguments: str) -> tuple[dict[str, dict[str, Any]], str]:
    """The results file, and what was printed."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.endurance", "--results", str(results), *arguments],
        cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(results.read_text()), done.stdout


@pytest.mark.slow
@pytest.mark.timeout(240)  # fourteen workers start and stop
def test_each_subject_has_its_section_and_the_rest_of_the_file_stays(tmp_path: Path) -> None:
    results = tmp_path / "bench" / "results.json"
    results.parent.mkdir()
    results.write_text('{"fanout": {"ratio": 0.5}, "memory": {"ratio": 99}}')

    figures, printed = run(results, "--scale", "0.002")

    assert figures["fanout"] == {"ratio": 0.5}
    assert set(figures) == {"fanout", "backlog", "memory", "bytes_per_event"}
    assert figures["backlog"].keys() == {
        "small", "small_events_per_s", "small_cpu_us",
        "large", "large_events_per_s", "large_cpu_us", "ratio", "cpu_ratio", "server",
    }  # fmt: skip
    assert figures["memory"].keys() == {
        "events", "early_events", "early_rss_mb", "end_rss_mb", "ratio", "server"
    }  # fmt: skip
    assert figures["bytes_per_event"].keys() == {
        "events", "json", "with_dedup", "without_dedup", "ratio", "ratio_without_dedup", "server"
    }  # fmt: skip
    for name in ("backlog", "memory", "bytes_per_event"):
        server = figures[name].pop("server")
        assert re.fullmatch(r"(valkey|redis) [0-9.]+, \S+", server)
        assert all(value > 0 for value in figures[name].values()), name
    assert (figures["backlog"]["large"], figures["memory"]["events"]) == (20_000, 2_000)
    assert f"{figures['memory']['end_rss_mb']:.1f}" in printed


@pytest.mark.slow
def test_an_event_that_is_remembered_takes_more_room_than_one_that_is_not(tmp_path: Path) -> None:
    figures, _ = run(tmp_path / "results.json", "--scale", "0.02", "--only", "bytes_per_event")
    size = figures["bytes_per_event"]
    assert figures.keys() == {"bytes_per_event"}
    assert size["json"] * 0.8 < size["without_dedup"] < size["with_dedup"]


async def test_a_worker_that_dies_ends_the_benchmark_with_its_error(redis_url: str) -> None:
    class Broken(NoOpChannel):
        async def open(self) -> None:
            raise RuntimeError("no such provider")

    with pytest.raises(ExceptionGroup) as failure:
        async with serving(redis_url, {"one": Broken("one", lambda _: None)}):
            await asyncio.Event().wait()
    assert failure.group_contains(RuntimeError, match="no such provider")
