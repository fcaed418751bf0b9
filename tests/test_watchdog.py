"""A process whose loop hangs ends itself; one that was merely stopped does not."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from notifier.watchdog import EXIT_CODE, stuck_after

BOUND = 1.0
CHILD = f"""
import asyncio, sys, time
from notifier.observability import configure
from notifier.watchdog import watched_loop

def blocks():
    time.sleep(60)

async def main():
    with watched_loop({BOUND}):
        print("ready", flush=True)
        while True:
            line = await asyncio.to_thread(sys.stdin.readline)
            if line == "block\\n":
                blocks()
            if line == "end\\n":
                return
            print("alive", flush=True)

configure("info", "json")
asyncio.run(main())
"""


@pytest.fixture
def child() -> Iterator[subprocess.Popen[str]]:
    pipe = subprocess.PIPE
    with subprocess.Popen(
        [sys.executable, "-c", CHILD], stdin=pipe, stdout=pipe, stderr=pipe, text=True, bufsize=1
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.kill()


def say(process: subprocess.Popen[str], line: str) -> None:
    assert process.stdin is not None
    process.stdin.write(line + "\n")


def test_a_loop_that_hangs_ends_the_process_and_says_where(child: subprocess.Popen[str]) -> None:
    say(child, "block")
    assert child.wait(timeout=30) == EXIT_CODE
    assert child.stderr is not None
    told = [json.loads(line) for line in child.stderr]
    assert [(line["event"], line["level"]) for line in told] == [("worker_stuck", "error")]
    assert "in blocks" in told[0]["stack"]
    assert told[0]["seconds"] >= BOUND


def test_a_process_that_was_stopped_goes_on(child: subprocess.Popen[str]) -> None:
    child.send_signal(signal.SIGSTOP)
    with pytest.raises(subprocess.TimeoutExpired):
        child.wait(timeout=BOUND * 2)
    child.send_signal(signal.SIGCONT)
    deadline = time.monotonic() + BOUND * 1.5
    while time.monotonic() < deadline:  # longer than a loop that hangs would be given
        say(child, "hello")
        assert child.stdout is not None
        assert child.stdout.readline() == "alive\n"
    say(child, "end")
    assert child.wait(timeout=30) == 0


def test_the_bound_is_far_above_the_lease() -> None:
    assert [stuck_after(ttl) for ttl in (1.0, 5.0, 10.0)] == [30.0, 30.0, 60.0]
