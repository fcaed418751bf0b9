"""`make bench`: prints a table, and writes .bench/results.json."""

from __future__ import annotations

import argparse
import gc
import statistics
import sys
import tempfile
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import redis
import uvloop
from rich.console import Console
from rich.table import Table

from benchmarks import api, bare, mail, ours, streams
from benchmarks.limits import add_strict, conclude
from benchmarks.results import add_results, quiet, record
from notifier.bootstrap import settle_memory
from notifier.local.broker import EmbeddedBroker

Measure = Callable[[str, int], Coroutine[Any, Any, Any]]


class Bench:
    """Runs measurements in turn, theirs and ours, each on an emptied server."""

    def __init__(self, url: str, rounds: int) -> None:
        self._url = url
        self._rounds = rounds

    def _run(self, measure: Measure, count: int) -> Any:
        with redis.Redis.from_url(self._url) as client:
            client.flushall()
        gc.collect()
        return uvloop.run(measure(self._url, count))

    def rates(self, bare_loop: Measure, own: Measure, count: int, unit: str) -> dict[str, float]:
        """The median of the pairs' ratios, and the rates of that pair. The machine may change its speed
        within a pair, so each goes first in turn; and what is run for the first time is not counted."""
        self._run(bare_loop, count // 10)
        self._run(own, count // 10)
        pairs = []
        for number in range(self._rounds):
            if number % 2:
                theirs, mine = self._run(bare_loop, count), self._run(own, count)
            else:
                mine, theirs = self._run(own, count), self._run(bare_loop, count)
            pairs.append((theirs, mine))
        pairs.sort(key=lambda pair: pair[1] / pair[0])
        theirs, mine = pairs[len(pairs) // 2]
        return {
            f"{unit}_per_s": round(mine),
            f"bare_loop_{unit}_per_s": round(theirs),
            "ratio": round(mine / theirs, 3),
        }

    def latency(self, count: int) -> dict[str, float]:
        """Milliseconds, of all rounds together."""
        theirs: list[float] = []
        mine: list[float] = []
        for _ in range(self._rounds):
            theirs += self._run(bare.latency, count)
            mine += self._run(ours.latency, count)
        figures = {"p50": _percentile(mine, 50), "p99": _percentile(mine, 99)}
        figures |= {"bare_p50": _percentile(theirs, 50), "bare_p99": _percentile(theirs, 99)}
        return figures | {"p50_ratio": round(figures["p50"] / figures["bare_p50"], 2)}

    def streams(self, clients: int) -> dict[str, float]:
        """Milliseconds of all rounds together, and the median of KiB for each client."""
        runs = [self._run(streams.streams, clients) for _ in range(self._rounds)]
        theirs = [time for _ in range(self._rounds) for time in self._run(streams.bare, 200)]
        mine = [time for run in runs for time in run["times"]]
        return {
            "clients": clients,
            "kib_per_idle_client": round(statistics.median(run["kib"] for run in runs), 1),
            "push_p50_ms": _percentile(mine, 50),
            "push_p99_ms": _percentile(mine, 99),
            "bare_p50_ms": _percentile(theirs, 50),
            "bare_p99_ms": _percentile(theirs, 99),
        }


def _percentile(times: list[float], percent: int) -> float:
    return round(statistics.quantiles(times, n=100)[percent - 1], 2)


def measure(rounds: int, scale: float) -> dict[str, dict[str, float]]:
    """All figures. `scale` makes the counts smaller or larger."""
    with tempfile.TemporaryDirectory() as folder, EmbeddedBroker(Path(folder), persistent=True) as broker:
        bench = Bench(broker.url, rounds)
        return {
            "fanout": bench.rates(bare.fan_out, ours.fan_out, int(20_000 * scale), "events"),
            "latency_ms": bench.latency(int(500 * scale)),
            "publish": bench.rates(bare.publish, ours.publish, int(20_000 * scale), "events"),
            "email": bench.rates(mail.bare, mail.ours, int(2_000 * scale), "mails"),
            "api": bench.rates(api.empty, api.published, int(50_000 * scale), "events"),
            "streams": bench.streams(int(3_000 * scale)),
        }


def _print(results: dict[str, dict[str, float]]) -> None:
    table = Table(title="The service beside the bare loop of the same client and server, in one process")
    for column in ("", "service", "bare loop", "ratio"):
        table.add_column(column, justify="left" if not column else "right")
    for name, title, unit in (
        ("fanout", "fan-out: publish, route, three deliveries", "events"),
        ("publish", "publish, in batches of 500", "events"),
        ("email", "e-mail to a real sink", "mails"),
        ("api", "HTTP: publish, in batches of 100, beside an empty 202", "events"),
    ):
        row = results[name]
        theirs, mine = row[f"bare_loop_{unit}_per_s"], row[f"{unit}_per_s"]
        table.add_row(title, f"{mine:,.0f}/s", f"{theirs:,.0f}/s", f"{row['ratio']:.2f}")
    latency = results["latency_ms"]
    table.add_row(
        "latency publish to handler, p50",
        f"{latency['p50']} ms",
        f"{latency['bare_p50']} ms",
        f"{latency['p50_ratio']}",
    )
    table.add_row("latency publish to handler, p99", f"{latency['p99']} ms", f"{latency['bare_p99']} ms", "")
    live = results["streams"]
    table.add_row(
        f"inbox entry to one of {live['clients']:,.0f} SSE clients, p50",
        f"{live['push_p50_ms']} ms",
        f"{live['bare_p50_ms']} ms",
        "",
    )
    table.add_row("the same, p99", f"{live['push_p99_ms']} ms", f"{live['bare_p99_ms']} ms", "")
    table.add_row("memory for each SSE client that waits", f"{live['kib_per_idle_client']} KiB", "", "")
    Console(width=None if sys.stdout.isatty() else 110).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=7, help="pairs of runs; the median pair is reported")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the usual number of events")
    add_results(parser)
    add_strict(parser)
    options = parser.parse_args()
    quiet()
    settle_memory()
    results = measure(options.rounds, options.scale)
    record(options.results, results)
    _print(results)
    conclude(results, strict=options.strict)


if __name__ == "__main__":
    main()
