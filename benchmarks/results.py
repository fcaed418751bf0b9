"""Where every benchmark writes its figures: one JSON object, a section for each subject."""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import structlog


def add_results(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--results", type=Path, default=Path(".bench/results.json"), help="the file that keeps the figures"
    )


def recorded(path: Path) -> dict[str, Any]:
    """The sections in the file; none when there is no file."""
    sections: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return sections


def record(path: Path, sections: Mapping[str, object]) -> None:
    """Writes these sections; what other benchmarks wrote into the file stays."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(recorded(path) | dict(sections), indent=2) + "\n")


def quiet() -> None:
    """Logs warnings and errors only: a benchmark prints its table."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
