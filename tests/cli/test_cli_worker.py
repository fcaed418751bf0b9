"""`notifier worker` as a process: it works, it stops when told to, and says why when it can't."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest
import redis

from notifier.keys import Keys

CHANNEL = """
import asyncio
from notifier.channel import Address, Sent

class Odd:
    name, blocks = "odd", ()

    def addresses(self, recipient):
        return [Address("a", "a")]

    async def open(self): ...
    async def close(self): ...

    async def send(self, delivery, content):
        print("sending", flush=True)
        {then}
        return Sent()

def open_channel(environ):
    return Odd()
"""
EVENT = json.dumps(
    {
        "id": "e1",
        "type": "like",
        "recipient": "u1",
        "actor": {"id": "u2", "name": "Ada"},
        "data": {"photo_title": "Harbour", "url": "https://app.example.com/p/1"},
    }
)


@pytest.fixture
def odd(tmp_path: Path) -> Any:
    """Settings with a channel of our own, and what its `send` does after it said so."""

    def write(then: str) -> dict[str, str]:
        (tmp_path / "odd_channel.py").write_text(CHANNEL.format(then=then))
        return {"channels": "odd_channel:open_channel"}

    return write


@pytest.mark.usefixtures("terminal")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_worker_delivers_and_hands_over_on_sigterm_and_when_its_terminal_closes(
    start: Any, cli: Any, client: redis.Redis, tmp_path: Path, waiting: Any, number: int
) -> None:
    (tmp_path / "e.jsonl").write_text(EVENT)
    worker = start("worker", "in_app", "router", log_format="json")
    worker.wait_for_log("worker_started")
    assert cli("publish", tmp_path / "e.jsonl").code == 0
    inbox = Keys().inbox("u1") + ":entries"
    waiting(lambda: client.hlen(inbox) == 1, "the entry is in the inbox")
    owners = {row["queue"]: row["owners"] for row in cli("queues", "--json").json}
    assert sum(owners["events"].values()) == sum(owners["in_app"].values()) == 16
    assert owners["email"] == {}

    worker.send_signal(number)
    outcome = worker.finished()
    assert (outcome.code, outcome.out) == (0, "")
    told = [json.loads(line) for line in outcome.err.splitlines()]
    assert told[-1]["event"] == "worker_stopped"
    assert all(row["owners"] == {} for row in cli("queues", "--json").json)


@pytest.mark.parametrize("redirect", ["2>/dev/full", "2>&-"])
def test_a_log_that_can_not_be_written_stops_nobody(
    start: Any, cli: Any, client: redis.Redis, tmp_path: Path, waiting: Any, redirect: str
) -> None:
    (tmp_path / "e.jsonl").write_text(EVENT)
    worker = start("worker", "in_app", "router", redirect=redirect)
    assert cli("publish", tmp_path / "e.jsonl").code == 0
    inbox = Keys().inbox("u1") + ":entries"
    waiting(lambda: client.hlen(inbox) == 1, "the entry is in the inbox")
    worker.send_signal(signal.SIGTERM)
    assert worker.finished().code == 0


def test_behind_nohup_it_outlives_its_terminal(start: Any) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # what it starts inherits that
    try:
        worker = start("worker", "router")
    finally:
        signal.signal(signal.SIGHUP, before)
    worker.wait_for_log("worker_started")
    worker.send_signal(signal.SIGHUP)
    worker.send_signal(signal.SIGTERM)
    outcome = worker.finished()
    assert outcome.code == 0
    assert "SIGTERM" in outcome.err
    assert "SIGHUP" not in outcome.err


def test_a_second_signal_aborts(start: Any, cli: Any, tmp_path: Path, odd: Any) -> None:
    (tmp_path / "e.jsonl").write_text(EVENT)
    settings = odd("await asyncio.sleep(600)")
    cli("publish", tmp_path / "e.jsonl")
    worker = start("worker", "all", **settings)
    assert worker.stdout.readline() == "sending\n"
    worker.send_signal(signal.SIGINT)
    worker.wait_for_log("worker_stopping")
    worker.send_signal(signal.SIGHUP)  # as a shell passes it on
    assert worker.poll() is None
    worker.send_signal(signal.SIGTERM)
    outcome = worker.finished()
    assert outcome.code == 128 + signal.SIGTERM
    assert "worker_aborted" in outcome.err


def test_a_crash_is_logged_with_its_traceback(start: Any, cli: Any, tmp_path: Path, odd: Any) -> None:
    (tmp_path / "e.jsonl").write_text(EVENT)
    cli("publish", tmp_path / "e.jsonl")
    outcome = start("worker", "all", **odd("raise GeneratorExit('no mere exception')")).finished()
    assert outcome.code == 1
    crash = json.loads(outcome.err.splitlines()[-1])
    assert crash["event"] == "worker_crashed"
    assert "GeneratorExit: no mere exception" in crash["exception"]


def test_a_channel_that_lacks_a_setting_is_one_line(cli: Any) -> None:
    assert (
        cli("worker", "email", log_level="error").failed(2)
        == "notifier: NOTIFIER_MAIL_FROM: is needed to send mail"
    )
