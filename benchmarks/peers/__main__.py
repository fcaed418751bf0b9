"""`make bench-peers`: ours and each peer in turn, on one server; a table, and a section of the results.

    "peers": {
      "bullmq": {"fanout_events_per_s": 1300, "ours_events_per_s": 10000, "ratio": 7.7,
                 "events": 20000, "version": "6.7.0", "ended_early": 0},
      "arq": {"unavailable": "did not finish 2000 events in 300 s"}, …
    }

The ratio is ours to the peer: the median of the pairs, each pair measured one right after the other, and
each side first in turn. Ours is always given as many events as `make bench` gives it; slow peers are given
fewer. All are given a tenth more to warm up. A peer that ends by itself is started again, up to three times
for each figure; `ended_early` says how often it did.
"""

from __future__ import annotations

import argparse
import gc
import json
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import redis
import uvloop
from rich.console import Console
from rich.table import Table

from benchmarks import ours
from benchmarks.limits import add_strict, conclude
from benchmarks.peers.installing import PEERS, Peer, Unavailable, last_words
from benchmarks.results import add_results, quiet, record, recorded
from notifier.bootstrap import settle_memory
from notifier.local.broker import EmbeddedBroker

ROOT = Path(__file__).parent.parent.parent
EVENTS = 20_000
_DEADLINE = 300.0
_LEAST = 20
_STARTS = 4


class EndedEarly(Exception):
    """A peer's program was over before it had its figure. The text says why."""


class Comparison:
    """Runs pairs on one server, which is emptied before each half."""

    def __init__(self, url: str, folder: Path, scale: float) -> None:
        self._url = url
        self._folder = folder
        self._scale = scale
        self._ended_early: Counter[str] = Counter()

    def run(self, peers: Sequence[Peer], rounds: int) -> dict[str, dict[str, Any]]:
        pairs: dict[str, list[tuple[float, float]]] = {peer.name: [] for peer in peers}
        reasons: dict[str, str] = {}
        for number in range(rounds):
            for peer in peers:
                if peer.name not in reasons:
                    try:
                        pairs[peer.name].append(self._pair(peer, ours_first=number % 2 == 1))
                    except Unavailable as reason:
                        reasons[peer.name] = str(reason)
        return {
            peer.name: {"unavailable": reasons[peer.name]}
            if peer.name in reasons
            else self._figures(peer, pairs[peer.name])
            for peer in peers
        }

    def _pair(self, peer: Peer, *, ours_first: bool) -> tuple[float, float]:
        if ours_first:
            mine = self._ours()
            return self._theirs(peer), mine
        return self._theirs(peer), self._ours()

    def _figures(self, peer: Peer, pairs: list[tuple[float, float]]) -> dict[str, Any]:
        pairs.sort(key=lambda pair: pair[1] / pair[0])
        theirs, mine = pairs[len(pairs) // 2]
        return {
            "fanout_events_per_s": round(theirs),
            "ours_events_per_s": round(mine),
            "ratio": round(mine / theirs, 2),
            "events": self._count(peer.events),
            "version": peer.version(self._folder),
            "ended_early": self._ended_early[peer.name],
        }

    def _count(self, events: int) -> int:
        return max(_LEAST, int(events * self._scale))

    def _emptied(self) -> str:
        with redis.Redis.from_url(self._url) as client:
            client.flushall()
        return self._url

    def _ours(self) -> float:
        gc.collect()
        count = self._count(EVENTS)
        return uvloop.run(ours.fan_out(self._emptied(), count, max(_LEAST, count // 10)))

    def _theirs(self, peer: Peer) -> float:
        last = ""
        for _ in range(_STARTS):
            try:
                return self._once(peer)
            except EndedEarly as reason:
                self._ended_early[peer.name] += 1
                last = str(reason)
        raise Unavailable(f"ended by itself {_STARTS} times in a row, at last with: {last}")

    def _once(self, peer: Peer) -> float:
        count = self._count(peer.events)
        command = peer.command(self._folder, self._emptied(), count, max(_LEAST, count // 10))
        try:
            done = subprocess.run(
                command, cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True,
                text=True, check=False, timeout=_DEADLINE,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise Unavailable(f"did not finish {count} events in {_DEADLINE:.0f} s") from None
        if done.returncode or not done.stdout:
            raise EndedEarly(last_words(done.stderr))
        rate: float = json.loads(done.stdout.splitlines()[-1])["fanout_events_per_s"]
        return rate


def _print(figures: dict[str, dict[str, Any]]) -> None:
    table = Table(title="Fan-out of an event to three queues, three deliveries that do nothing")
    for column in ("", "version", "peer", "ours", "ours / peer"):
        table.add_column(column, justify="right" if column in {"peer", "ours", "ours / peer"} else "left")
    for name, row in figures.items():
        if "unavailable" in row:
            table.add_row(name, "", "-", "-", "-")
        else:
            theirs, mine = row["fanout_events_per_s"], row["ours_events_per_s"]
            table.add_row(name, row["version"], f"{theirs:,}/s", f"{mine:,}/s", f"{row['ratio']:.1f}")
    console = Console(width=None if sys.stdout.isatty() else 110)
    console.print(table)
    for name, row in figures.items():
        if "unavailable" in row:
            console.print(f"{name} is unavailable: {row['unavailable']}", markup=False, highlight=False)
        elif row["ended_early"]:
            said = f"{name} ended by itself and was started again: {row['ended_early']} times"
            console.print(said, markup=False, highlight=False)


def main() -> None:
    names = [peer.name for peer in PEERS]
    parser = argparse.ArgumentParser(
        prog="make bench-peers", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5, help="pairs of runs; the median pair is reported")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the usual number of events")
    parser.add_argument(
        "--only", nargs="+", choices=names, default=names, help="these peers; the figures of the others stay"
    )
    parser.add_argument("--folder", type=Path, default=Path(".peers"), help="where the peers are installed")
    add_results(parser)
    add_strict(parser)
    options = parser.parse_args()
    quiet()
    settle_memory()
    chosen = [peer for peer in PEERS if peer.name in options.only]
    with tempfile.TemporaryDirectory() as folder, EmbeddedBroker(Path(folder), persistent=True) as broker:
        figures = Comparison(broker.url, options.folder, options.scale).run(chosen, options.rounds)
    record(options.results, {"peers": recorded(options.results).get("peers", {}) | figures})
    _print(figures)
    conclude({"peers": figures}, strict=options.strict)


if __name__ == "__main__":
    main()
