"""`make bench-endurance`: a table, and three sections of the results.

"backlog": {"small": 5000, "small_events_per_s", "large": 500000, "large_events_per_s", "ratio"}
"memory": {"events": 1000000, "early_events": 100000, "early_rss_mb", "end_rss_mb", "ratio"}
"bytes_per_event": {"events": 100000, "json", "with_dedup", "without_dedup",
                    "ratio", "ratio_without_dedup"}
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import redis
from rich.console import Console
from rich.table import Table

from benchmarks.endurance import backlog, memory, size
from benchmarks.limits import add_strict, conclude
from benchmarks.results import add_results, quiet, record
from notifier.bootstrap import settle_memory
from notifier.local.broker import EmbeddedBroker

SUBJECTS = ("bytes_per_event", "backlog", "memory")


def _installed_server() -> Path | None:
    found = shutil.which("valkey-server") or shutil.which("redis-server")
    return Path(found) if found else None


@contextmanager
def _server(options: argparse.Namespace) -> Iterator[tuple[str, str]]:
    """The URL of an empty one; and its name, version and allocator."""
    with (
        tempfile.TemporaryDirectory() as folder,
        EmbeddedBroker(Path(folder), persistent=True, binary=options.server) as broker,
    ):
        with redis.Redis.from_url(broker.url) as client:
            if not options.aof_rewrite:
                client.config_set("auto-aof-rewrite-percentage", 0)
            info = client.info()
        name = "valkey" if "valkey_version" in info else "redis"
        yield broker.url, f"{name} {info[f'{name}_version']}, {info['mem_allocator']}"


def _print(figures: dict[str, dict[str, Any]]) -> None:
    servers = " and ".join({row["server"]: None for row in figures.values()})
    table = Table(title=f"A long queue and a long life, on {servers}")
    for column in ("", "from", "to", "ratio"):
        table.add_column(column, justify="right" if column else "left")
    if row := figures.get("backlog"):
        table.add_row(
            f"events a second with {row['small']:,} waiting, and with {row['large']:,}",
            f"{row['small_events_per_s']:,}", f"{row['large_events_per_s']:,}", f"{row['ratio']:.2f}",
        )  # fmt: skip
        table.add_row(
            "processor's time for each of them, us",
            f"{row['small_cpu_us']:.0f}", f"{row['large_cpu_us']:.0f}", f"{row['cpu_ratio']:.2f}",
        )  # fmt: skip
    if row := figures.get("memory"):
        table.add_row(
            f"MB of a worker after {row['early_events']:,} events, and after {row['events']:,}",
            f"{row['early_rss_mb']:.1f}", f"{row['end_rss_mb']:.1f}", f"{row['ratio']:.2f}",
        )  # fmt: skip
    if row := figures.get("bytes_per_event"):
        json, ratio = f"{row['json']:,}", row["ratio_without_dedup"]
        table.add_row(
            "bytes of an event: as JSON, waiting", json, f"{row['without_dedup']:,}", f"{ratio:.2f}"
        )
        table.add_row(
            "the same with the key that knows its id", json, f"{row['with_dedup']:,}", f"{row['ratio']:.2f}"
        )
    Console(width=None if sys.stdout.isatty() else 110).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="make bench-endurance", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scale", type=float, default=1.0, help="share of the usual number of events")
    parser.add_argument("--only", nargs="+", choices=SUBJECTS, default=SUBJECTS, help="these sections")
    parser.add_argument(
        "--server", type=Path, default=_installed_server(), help="the program of the server to measure on"
    )
    parser.add_argument(
        "--aof-rewrite", action="store_true", help="leave the server's rewriting of its log on"
    )
    add_results(parser)
    add_strict(parser)
    options = parser.parse_args()
    quiet()
    settle_memory()
    figures = {}
    for name in options.only:
        # A server of its own for each: freed memory that it keeps would count for the next.
        with _server(options) as (url, server):
            if name == "backlog":
                with _server(options) as (beside, _):
                    figures[name] = backlog.measure(url, beside, options.scale)
            else:
                measure = memory.measure if name == "memory" else size.measure
                figures[name] = measure(url, options.scale)
            figures[name]["server"] = server
    record(options.results, figures)
    _print(figures)
    conclude(figures, strict=options.strict)


if __name__ == "__main__":
    main()
