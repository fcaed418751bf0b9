"""`make capacity-page`: docs/reference/capacity.md from the results and from docs/capacity_frame.txt.

`<<section.name>>` in the frame is a figure of .bench/results.json; a name without a section is computed here.
What has not been measured is written as a dash.
"""

from __future__ import annotations

import argparse
import math
import os
import platform
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.results import add_results, recorded

_DOCS = Path(__file__).parent.parent / "docs"
FRAME, PAGE = _DOCS / "capacity_frame.txt", _DOCS / "reference/capacity.md"
MISSING = "–"  # noqa: RUF001 - what a table shows
PLACE = re.compile(r"<<([\w.]+)>>")
_PLANNED = 0.7
_GIB = 1 << 30


class Figures:
    """The results; a figure that is missing raises KeyError."""

    def __init__(self, results: Mapping[str, Any]) -> None:
        self._results = results

    def __call__(self, path: str) -> Any:
        section, _, name = path.partition(".")
        return self._results[section][name]

    # What is computed.

    def machine(self) -> str:
        load = self("capacity.load")
        quiet = "quiet" if load < 2 else "busy with other things, so take them as too low"
        cores = f"{os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()}"
        return f"{cores}, {self('capacity.server')}, load {load} when it was measured ({quiet})"

    def server_events_per_s(self) -> float:
        return float(1e6 / self("capacity.server_us"))

    def server_planned(self) -> float:
        return self.server_events_per_s() * _PLANNED

    def workers_of_a_server(self) -> int:
        return math.ceil(self("capacity.worker_us") / self("capacity.server_us"))

    def core_hours(self) -> float:
        return float(self("capacity.server_us") + self("capacity.worker_us")) / 3_600

    def core_hours_30(self) -> float:
        return self.core_hours() / 0.3

    def _inboxes(self) -> float:
        return 1e6 * (self("capacity.profile_bytes") + 50 * self("capacity.inbox_entry_bytes"))

    def example_gib(self) -> float:
        return (self._inboxes() + 1e6 * (self("capacity.dedup_bytes") + self("capacity.trace_bytes"))) / _GIB

    def example_inbox_share(self) -> str:
        return f"{self._inboxes() / _GIB / self.example_gib():.0%}"

    def list_calls(self) -> float:
        return 1_000 * 3 / 5

    def planned(self, primaries: int) -> float:
        return self.server_planned() * primaries


COMPUTED: Mapping[str, Callable[[Figures], Any]] = {
    **{
        name: getattr(Figures, name)
        for name in (
            "machine", "server_events_per_s", "server_planned", "workers_of_a_server", "core_hours",
            "core_hours_30", "example_gib", "example_inbox_share", "list_calls",
        )
    },
    **{f"planned_{n}": lambda figures, n=n: figures.planned(n) for n in (1, 3, 6)},
    **{f"daily_{n}": lambda figures, n=n: _rounded(figures.planned(n) * 86_400) for n in (1, 3, 6)},
}  # fmt: skip


def _rounded(value: float) -> str:
    """A count in millions: what is computed is no more exact than that."""
    return f"{value / 1e6:,.0f} million"


def shown(value: Any) -> str:
    """With three digits at least, and thousands separators."""
    if isinstance(value, str):
        return value
    return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}"


def page(results: Mapping[str, Any]) -> str:
    figures = Figures(results)

    def put(match: re.Match[str]) -> str:
        name = match[1]
        try:
            return shown(COMPUTED[name](figures) if name in COMPUTED else figures(name))
        except KeyError:
            return MISSING

    return PLACE.sub(put, FRAME.read_text(encoding="utf-8"))


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="make capacity-page", description=(__doc__ or "").partition("\n")[0]
    )
    add_results(parser)
    options = parser.parse_args()
    PAGE.write_text(page(recorded(options.results)), encoding="utf-8")


if __name__ == "__main__":
    main()
