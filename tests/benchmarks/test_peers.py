"""`make bench-peers` compares what is there, and says why when a peer is not."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks.peers.installing import PEERS, PythonPeer, last_words
from benchmarks.workload import events

ROOT = Path(__file__).parent.parent.parent
INSTALLED = ROOT / ".peers"

Run = Callable[..., dict[str, Any]]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Runs a very short comparison; its section of the results."""

    def once(peer: str, folder: Path, path: str = os.environ["PATH"]) -> dict[str, Any]:
        results = tmp_path / "results.json"
        done = subprocess.run(
            [
                sys.executable, "-m", "benchmarks.peers", "--rounds", "1", "--scale", "0.002",
                "--only", peer, "--folder", str(folder), "--results", str(results),
            ],
            cwd=ROOT, env=os.environ | {"PATH": path}, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert peer in done.stdout
        peers: dict[str, Any] = json.loads(results.read_text())["peers"]
        return peers

    return once


@pytest.mark.slow
@pytest.mark.parametrize("name", ["bullmq", "saq"])
def test_a_peer_stands_beside_ours_with_its_ratio(run: Run, tmp_path: Path, name: str) -> None:
    there = (INSTALLED / ("venv/saq/bin/.installed" if name == "saq" else name)).exists()
    row = run(name, INSTALLED if there else tmp_path / "peers")[name]
    if "unavailable" in row and not os.environ.get("CI"):
        pytest.skip(row["unavailable"])

    figures = {"fanout_events_per_s", "ours_events_per_s", "ratio"}
    assert row.keys() == figures | {"events", "version", "ended_early"}
    ratio = row["ours_events_per_s"] / row["fanout_events_per_s"]
    assert row["ratio"] == pytest.approx(ratio, rel=0.05, abs=0.01)  # all three are rounded
    assert row["events"] >= 20


@pytest.mark.slow
def test_a_peer_that_can_not_be_installed_is_told_with_the_reason(run: Run, tmp_path: Path) -> None:
    assert run("bullmq", tmp_path / "peers", path=str(tmp_path)) == {
        "bullmq": {"unavailable": "node is not installed"}
    }


@pytest.mark.slow
def test_a_peer_that_fails_is_told_with_its_last_words_and_the_others_stay(run: Run, tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text('{"peers": {"arq": {"ratio": 1}, "saq": {"ratio": 2}}}')
    _stand_in(tmp_path, 'echo start >> starts\necho "it started" >&2\necho "no such queue" >&2\nexit 1')

    assert run("arq", tmp_path / "peers") == {
        "arq": {"unavailable": "ended by itself 4 times in a row, at last with: no such queue"},
        "saq": {"ratio": 2},
    }
    assert _starts(tmp_path) == 4


@pytest.mark.slow
def test_a_peer_that_ends_by_itself_is_started_again_and_that_is_told(run: Run, tmp_path: Path) -> None:
    _stand_in(
        tmp_path,
        'case "$1" in -c) echo 1.0; exit;; esac',
        "echo start >> starts",
        "[ $(wc -l < starts) -gt 2 ] || exit 1",
        """echo '{"fanout_events_per_s": 100}'""",
    )

    row = run("arq", tmp_path / "peers")["arq"]
    assert (row["fanout_events_per_s"], row["version"], row["ended_early"]) == (100, "1.0", 2)
    assert _starts(tmp_path) == 3


def _stand_in(folder: Path, *lines: str) -> None:
    """A shell script in the place of the interpreter of arq's environment; it runs in `folder`."""
    python = folder / "peers/venv/arq/bin/python"
    python.parent.mkdir(parents=True)
    python.write_text("\n".join(["#!/bin/sh", f"cd '{folder}'", *lines, ""]))
    python.chmod(0o755)
    (python.parent / ".installed").touch()


def _starts(folder: Path) -> int:
    return len((folder / "starts").read_text().splitlines())


GROUP = """
  + Exception Group Traceback (most recent call last):
  |   File "streaq.py", line 47, in <module>
  | ExceptionGroup: unhandled errors in a TaskGroup (1 sub-exception)
  +-+---------------- 1 ----------------
    | Exception Group Traceback (most recent call last):
    | ExceptionGroup: unhandled errors in a TaskGroup (16 sub-exceptions)
    +-+---------------- 1 ----------------
      | Traceback (most recent call last):
      |   File "memory.py", line 231, in send_nowait
      |     raise WouldBlock
      | anyio.WouldBlock
      +---------------- ... ----------------
      | and 15 more exceptions
      +------------------------------------
"""


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (GROUP, "anyio.WouldBlock"),
        ("npm error code E404\n\n", "npm error code E404"),
        ("retry later -- 3 left", "retry later -- 3 left"),
        ("-----\n +--+ \n", "it said nothing"),
        ("", "it said nothing"),
    ],
)
def test_the_last_words_are_not_what_a_traceback_draws(said: str, words: str) -> None:
    assert last_words(said) == words


def test_each_peer_has_a_program_and_says_which_settings_it_was_given() -> None:
    for peer in PEERS:
        name = f"{peer.name}.py" if isinstance(peer, PythonPeer) else f"{peer.name}.mjs"
        assert "Settings" in (ROOT / "benchmarks/peers" / name).read_text()


def test_node_is_given_the_same_events_as_we_are() -> None:
    node = shutil.which("node")
    if node is None:
        if os.environ.get("CI"):
            pytest.fail("node is not installed: .ci/run installs it")
        pytest.skip("node is not installed")
    source = (ROOT / "benchmarks/peers/bullmq.mjs").read_text()
    start = source.index("function event(")
    function = source[start : source.index("\n}\n", start) + 3]
    program = f"{function} console.log(JSON.stringify([0, 998, 1001].map(event)))"
    done = subprocess.run([node, "-e", program], capture_output=True, text=True, check=True)
    ours = list(events(1_002))
    assert json.loads(done.stdout) == [ours[0], ours[998], ours[1_001]]
