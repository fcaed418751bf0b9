"""The command line, in this process or in one of its own."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TextIO

import pytest
import redis
import structlog

from notifier.cli.app import run
from notifier.dead_letters import Failure
from notifier.keys import Keys


@dataclass(frozen=True, slots=True)
class Outcome:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def lines(self) -> list[Any]:
        return [json.loads(line) for line in self.out.splitlines()]

    def failed(self, code: int) -> str:
        """The one line that it said on stderr, after making sure that it is one."""
        assert (self.code, self.err.count("\n")) == (code, 1), self
        assert "Traceback" not in self.err
        return self.err.rstrip("\n")


class Cli(Protocol):
    def __call__(self, *arguments: str | Path, **settings: str) -> Outcome: ...


def environment(**settings: str) -> dict[str, str]:
    """Ours without NOTIFIER_*, and with these: `redis_url` is NOTIFIER_REDIS_URL."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("NOTIFIER_")}
    return kept | {f"NOTIFIER_{name.upper()}": value for name, value in settings.items()}


@pytest.fixture
def cli(
    redis_url: str,
    templates_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Iterator[Cli]:
    """Calls a command in this process."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level

    def call(*arguments: str | Path, **settings: str) -> Outcome:
        with monkeypatch.context() as patch:
            for name in [name for name in os.environ if name.startswith("NOTIFIER_")]:
                patch.delenv(name)
            given = {"redis_url": redis_url, "templates": str(templates_folder)} | settings
            for name, value in environment(**given).items():
                patch.setenv(name, value)
            code = run([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return Outcome(code, out, err)

    yield call
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


class Process(subprocess.Popen[str]):
    """`python -m notifier.cli …`; `wait_for_log` reads its stderr, which is a file."""

    log: Path

    def wait_for_log(self, text: str) -> None:
        wait_for(lambda: text in self.log.read_text(), f"{text} in {self.log.read_text()}")

    def check_running(self) -> None:
        assert self.poll() is None, self.log.read_text()

    def finished(self) -> Outcome:
        out, _ = self.communicate(timeout=30)
        return Outcome(self.returncode, out, self.log.read_text())


Start = Callable[..., Process]


class Standard(Protocol):
    def __call__(self, out: TextIO, *, stdin: TextIO | None = None, err: TextIO | None = None) -> None: ...


@pytest.fixture
def standard_streams(monkeypatch: pytest.MonkeyPatch) -> Standard:
    """Puts these in the place of stdout, and of stdin and stderr when they are given."""

    def replace(out: TextIO, *, stdin: TextIO | None = None, err: TextIO | None = None) -> None:
        for name, stream in (("stdout", out), ("stdin", stdin), ("stderr", err)):
            if stream is not None:
                monkeypatch.setattr(sys, name, stream)

    return replace


@pytest.fixture
def start(redis_url: str, templates_folder: Path, tmp_path: Path) -> Iterator[Start]:
    """Starts a command in a process of its own, which is killed at the end if it still runs."""
    processes: list[Process] = []

    def begin(
        *arguments: str | Path,
        stdin: Any = subprocess.DEVNULL,
        stdout: Any = subprocess.PIPE,
        redirect: str = "",
        **settings: str,
    ) -> Process:
        """`redirect` is for the shell, such as `>&-`."""
        log = tmp_path / f"stderr-{len(processes)}.txt"
        env = environment(**{"redis_url": redis_url, "templates": str(templates_folder)} | settings)
        env["PYTHONPATH"] = os.pathsep.join([str(tmp_path), str(templates_folder.parent)])
        command = [sys.executable, "-m", "notifier.cli", *map(str, arguments)]
        if redirect:
            command = ["sh", "-c", f'exec "$@" {redirect}', "sh", *command]
        with log.open("w") as err:
            process = Process(command, stdin=stdin, stdout=stdout, stderr=err, text=True, env=env)
        process.log = log
        processes.append(process)
        return process

    yield begin
    for process in processes:
        with suppress(ProcessLookupError):
            process.kill()
        process.communicate()


def wait_for(condition: Callable[[], object], what: str, seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"not within {seconds} s: {what}")
        time.sleep(0.01)


@pytest.fixture
def waiting() -> Callable[..., None]:
    return wait_for


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url) as connection:
        yield connection


def _events(client: redis.Redis) -> list[tuple[str, str]]:
    keys, found = Keys(), []
    for partition in range(keys.partitions):
        for entry, fields in client.xrange(keys.queue("events", partition)):
            event = json.loads(fields[b"event"])
            order = tuple(map(int, entry.split(b"-")))
            found.append((order, event["id"], fields[b"to"].decode()))
    return [(event_id, to) for _, event_id, to in sorted(found)]


@pytest.fixture
def events(client: redis.Redis) -> Callable[[], list[tuple[str, str]]]:
    """The (id, recipient) of each entry in the events queue."""
    return lambda: _events(client)


@pytest.fixture
def bury(client: redis.Redis) -> Callable[..., str]:
    """Adds a dead letter; returns its id."""
    keys, numbers = Keys(), iter(range(1_000_000))

    def add(
        queue: str = "email", *, state: str = "dlq", recipient: str = "u1", error: str = "TransientFailure",
        kind: str = "like", reason: str = "451 try later", event: bytes | None = None, at: str = "*",
    ) -> str:  # fmt: skip
        partition, number = keys.partition_of(recipient), next(numbers)
        body = event or json.dumps({"id": f"e{number}", "type": kind, "data": {"n": number}}).encode()
        fields: list[Any] = Failure(
            error, reason, "451 4.7.1 try later", 8, 1_764_000_000_000, 1_764_000_100_000
        ).fields()
        if queue == "events":
            fields += ("v", "1", "to", recipient, "event", body)
        else:
            fields += (
                "v",
                "1",
                "id",
                f"e{number}",
                "type",
                kind,
                "event",
                body,
                "rid",
                recipient,
                "to",
                recipient,
            )
            fields += (
                "key",
                f"{recipient}@example.com",
                "address",
                "secret",
                "at",
                "1764000000000",
                "exp",
                "",
            )
        stream = (keys.dlq if state == "dlq" else keys.dead)(queue, partition)
        entry = client.execute_command("XADD", stream, at, *fields).decode()
        return f"{queue}:{partition:02d}:{state}:{entry}"

    return add
