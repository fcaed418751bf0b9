"""Puts the peers into folders of their own below .peers/, when they are first needed.

Each Python peer has an environment of its own: they ask for releases of redis-py that exclude each other.
They are taken by name, so the newest there is; which one that was stands beside each figure.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
_DRAWN = re.compile(r"[\s|+-]*(?:(?:\d+|\.{3}) -+|and \d+ more exceptions?)?")
"""A line that a traceback draws around the exceptions of a group."""


class Unavailable(Exception):
    """A peer can't be installed or run here. The text says why."""


@dataclass(frozen=True, slots=True)
class Peer:
    """`events` is how many it is given: some seconds of work. `packages` are named as its registry does."""

    name: str
    events: int
    packages: tuple[str, ...]

    def command(self, folder: Path, url: str, count: int, warm_up: int) -> list[str]:
        """What runs it. Raises Unavailable when it can't be installed."""
        raise NotImplementedError

    def version(self, folder: Path) -> str:
        """Of what is installed."""
        raise NotImplementedError


class PythonPeer(Peer):
    """A module of this folder with the peer's name, run with `python -m`."""

    def _python(self, folder: Path) -> Path:
        return (folder / "venv" / self.name / "bin/python").absolute()

    def command(self, folder: Path, url: str, count: int, warm_up: int) -> list[str]:
        python = self._python(folder)
        complete = python.parent / ".installed"
        if not complete.exists():
            uv = [sys.executable, "-m", "uv", "--quiet"]
            _run([*uv, "venv", "--clear", "--python", sys.executable, str(python.parent.parent)])
            _run([*uv, "pip", "install", "--python", str(python), *self.packages, "hiredis", "uvloop"])
            complete.touch()
        return [str(python), "-m", f"benchmarks.peers.{self.name}", url, str(count), str(warm_up)]

    def version(self, folder: Path) -> str:
        ask = f"import importlib.metadata as m; print(m.version({self.name!r}))"
        return _run([str(self._python(folder)), "-c", ask]).strip()


class NodePeer(Peer):
    """An .mjs file of this folder with the peer's name."""

    def _package(self, folder: Path) -> Path:
        return folder / self.name / "node_modules" / self.name / "package.json"

    def command(self, folder: Path, url: str, count: int, warm_up: int) -> list[str]:
        for program in ("node", "npm"):
            if shutil.which(program) is None:
                raise Unavailable(f"{program} is not installed")
        home = (folder / self.name).absolute()
        if not self._package(folder).exists():
            home.mkdir(parents=True, exist_ok=True)
            quietly = ("--no-save", "--no-audit", "--no-fund", "--no-package-lock", "--loglevel=error")
            _run(["npm", "install", "--prefix", str(home), *quietly, *self.packages])
        return ["node", str(HERE / f"{self.name}.mjs"), url, str(home), str(count), str(warm_up)]

    def version(self, folder: Path) -> str:
        version: str = json.loads(self._package(folder).read_text())["version"]
        return version


def _run(command: list[str]) -> str:
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Unavailable(f"{' '.join(command[:4])} …: {last_words(done.stderr or done.stdout)}")
    return done.stdout


def last_words(said: str) -> str:
    """The last line that a failed program printed, without the frames of exception groups."""
    lines = [line.lstrip(" |+").rstrip() for line in said.splitlines() if not _DRAWN.fullmatch(line)]
    return lines[-1][:300] if lines else "it said nothing"


PEERS = (
    NodePeer("bullmq", 20_000, ("bullmq", "ioredis@5")),
    PythonPeer("taskiq", 2_000, ("taskiq", "taskiq-redis")),
    PythonPeer("dramatiq", 2_000, ("dramatiq[redis]",)),
    PythonPeer("arq", 2_000, ("arq",)),
    PythonPeer("saq", 2_000, ("saq[redis]", "typing-extensions")),  # which saq imports and does not ask for
    PythonPeer("streaq", 2_000, ("streaq",)),
)
