"""`make soak`: ten minutes of random faults, then the other long checks."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import sys
import tempfile
from pathlib import Path

from tests.soak.soak import soak
from tests.soak.takeover import TTL, measure


def say(*lines: str) -> None:
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    sys.stdout.flush()


def main() -> int:
    seconds = float(os.environ.get("NOTIFIER_SOAK_SECONDS", "600"))
    kills = int(os.environ.get("NOTIFIER_SOAK_KILLS", "100"))
    seed = int(os.environ.get("NOTIFIER_SOAK_SEED") or random.randrange(10**6))
    say(f"soak of {seconds:g} s, NOTIFIER_SOAK_SEED={seed}, appendfsync always")
    folder = Path(tempfile.mkdtemp(prefix="soak-"))
    outcome = asyncio.run(soak(folder, seconds, seed, say))
    say(*outcome.lines)
    if outcome.problems:
        say(*outcome.problems, f"what the workers said is in {folder}")
        return 1
    shutil.rmtree(folder)
    if kills:
        with tempfile.TemporaryDirectory() as other:
            found = asyncio.run(measure(Path(other), kills))
        say(*found.lines())
        return int(found.p99 > TTL + 1 or bool(found.problems))
    return 0


if __name__ == "__main__":
    sys.exit(main())
