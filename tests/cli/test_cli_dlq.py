"""`notifier dlq`: what operators see of dead letters, and what they do with them."""

from __future__ import annotations

import io
import os
import pty
import sys
from collections.abc import Callable
from contextlib import suppress
from threading import Thread
from typing import Any

import pytest
import redis

from notifier.keys import Keys
from notifier.operations import mending


@pytest.fixture
def waiting_in(client: redis.Redis) -> Callable[[str], int]:
    """How many entries a queue has."""
    keys = Keys()
    return lambda queue: sum(client.xlen(keys.queue(queue, partition)) for partition in range(16))


def test_lists_ids_that_the_other_commands_take(cli: Any, bury: Any) -> None:
    ids = [
        bury("email", at="1000-0"),
        bury("push", state="dead", error="TemplateError", reason="x is\nmissing", at="1001-0"),
        bury("events", at="1002-0"),
    ]
    out = cli("dlq", "list").out
    assert [line.split()[0] for line in out.splitlines()[1:]] == ids
    assert "x is missing" in out
    assert [row["id"] for row in cli("dlq", "list", "--json").lines] == ids
    for letter_id in ids:
        assert cli("dlq", "redrive", letter_id).out == "Redriven 1 dead letter\n"
    assert cli("dlq", "list").out == "No dead letters\n"


def test_a_list_is_cut_with_a_word_and_whole_for_programs(cli: Any, bury: Any) -> None:
    for _ in range(60):
        bury()
    outcome = cli("dlq", "list")
    assert len(outcome.out.splitlines()) == 51
    assert outcome.err == "notifier: these are the oldest 50 of 60; --limit 0 lists all\n"
    assert len(cli("dlq", "list", "--limit", "0").out.splitlines()) == 61
    assert len(cli("dlq", "list", "--json").lines) == 60
    assert len(cli("dlq", "list", "--json", "--limit", "7").lines) == 7


@pytest.mark.parametrize(("action", "done"), [("discard", "discarded"), ("redrive", "redriven")])
def test_ctrl_c_says_how_many_are_done(
    cli: Any, bury: Any, monkeypatch: pytest.MonkeyPatch, action: str, done: str
) -> None:
    for _ in range(5):
        bury("email", state="dead")

    async def interrupted(*arguments: Any) -> Any:
        results = await mend(*arguments)
        if before:
            raise KeyboardInterrupt
        before.append(results)
        return results

    mend, before = mending.mend, list[Any]()
    monkeypatch.setattr(mending, "mend", interrupted)
    outcome = cli("dlq", action, "--all", "--yes", "--rate", "10/s")  # one at a time
    assert outcome.code == 130
    assert outcome.err == (
        f"notifier: interrupted; 1 letter {done}, and perhaps those that were under way: "
        "run it again for the rest\n"
    )
    monkeypatch.undo()
    assert len(cli("dlq", "list", "--json").lines) == 3


def test_filters_reach_the_selection(cli: Any, bury: Any) -> None:
    one = bury("email", error="TemplateError", kind="order", recipient="u2", state="dead", at="1000-0")
    bury("push")
    for narrowed in (
        ("--channel", "email"),
        ("--error", "TemplateError", "--error", "Poison"),
        ("--type", "order"),
        ("--recipient", "u2"),
        ("--older-than", "1h"),
        ("--state", "dead"),
    ):
        assert [row["id"] for row in cli("dlq", "list", "--json", *narrowed).lines] == [one]
    assert cli("dlq", "list", "--type", "nope").out == "No dead letters like these\n"


def test_show_says_what_happened_and_what_to_do_and_keeps_the_terminal_safe(cli: Any, bury: Any) -> None:
    event = '{"id": "e1", "data": {"text": "\\u001b[31m", "clear": "\u009b2J", "who": "Zoë"}}'.encode()
    letter_id = bury(
        "email", error="TemplateError", reason="like/email.jinja:3: x is missing\x1b[2J", event=event
    )
    out = cli("dlq", "show", letter_id).out
    assert letter_id in out
    assert "like/email.jinja:3: x is missing" in out
    assert "notifier templates check" in out
    assert "2025-11-24T16:00:00.000Z" in out
    assert "Zoë" in out
    assert not any(c in out for c in "\x1b\x9b")
    told = cli("dlq", "show", "--json", letter_id).json
    assert told["event"]["data"]["who"] == "Zoë"
    assert told["attempts"] == 8
    assert "secret" not in out + str(told)


def test_show_of_what_is_gone_or_no_id(cli: Any) -> None:
    assert "is not there any more" in cli("dlq", "show", "email:01:dlq:1-1").failed(1)
    assert cli("dlq", "show", "email").failed(2).startswith("notifier: id: 'email' is not of the form ")
    assert "there are only 16 partitions" in cli("dlq", "show", "email:16:dlq:1-1").failed(2)


def test_show_of_an_event_that_is_no_json(cli: Any, bury: Any) -> None:
    out = cli("dlq", "show", bury("events", event=b"\xff not json", error="InvalidEvent")).out
    assert "not json" in out
    assert "Mend the producer" in out


def test_a_dry_run_counts_and_changes_nothing(cli: Any, bury: Any, waiting_in: Callable[[str], int]) -> None:
    for _ in range(3):
        bury("email", error="TemplateError")
    bury("push", state="dead")
    out = cli("dlq", "redrive", "--all", "--dry-run").out
    assert out.splitlines()[1].split() == ["3", "email", "dlq", "TemplateError", "like"]
    assert out.splitlines()[-1] == "Would redrive 4 dead letters"
    told = cli("dlq", "discard", "--dry-run", "--json", "--channel", "push").json
    assert (told["matched"], told["groups"][0]["state"]) == (1, "dead")
    assert cli("dlq", "redrive", "--all", "--dry-run", "--limit", "2", "--json").json["matched"] == 2
    assert (waiting_in("email"), waiting_in("push")) == (0, 0)


def test_redrives_what_the_filters_select(cli: Any, bury: Any, waiting_in: Callable[[str], int]) -> None:
    for number in range(130):
        bury("email", error="TemplateError", recipient=f"u{number % 9}")
    bury("push")
    told = cli("dlq", "redrive", "--error", "TemplateError", "--json").json
    assert told == {"redriven": 130, "gone": 0, "busy": 0, "unusable": 0}
    assert (waiting_in("email"), waiting_in("push")) == (130, 0)


def test_discards_at_most_so_many_oldest_first(cli: Any, bury: Any, waiting_in: Callable[[str], int]) -> None:
    ids = [bury("email", recipient=f"u{number}", at=f"{1000 + number}-0") for number in range(5)]
    assert (
        cli("dlq", "discard", "--all", "--limit", "2", "--rate", "1000/s").out == "Discarded 2 dead letters\n"
    )
    assert [row["id"] for row in cli("dlq", "list", "--json").lines] == ids[2:]
    assert waiting_in("email") == 0


def test_ids_that_are_gone_are_named(cli: Any, bury: Any) -> None:
    there, gone = bury("email"), "email:03:dead:5-5"
    outcome = cli("dlq", "redrive", there, gone)
    assert outcome.out == "Redriven 1 dead letter; 1 not there any more\n"
    assert outcome.failed(1) == f"notifier: {gone} not there any more: redriven, discarded or delivered"


def _read_all(terminal: int, into: list[bytes]) -> None:
    with suppress(OSError):  # EIO: nobody has the other side open any more
        while block := os.read(terminal, 4096):
            into.append(block)


@pytest.mark.parametrize(("answer", "code", "left"), [("n", 1, 2), ("y", 0, 0)])
def test_on_a_terminal_it_asks_first(cli: Any, bury: Any, answer: str, code: int, left: int) -> None:
    bury("email")
    bury("push")
    ours, theirs = pty.openpty()
    os.write(ours, answer.encode() + b"\n")
    shown: list[bytes] = []
    reader = Thread(target=_read_all, args=(ours, shown))
    reader.start()
    with (
        os.fdopen(theirs, "r+b", buffering=0) as raw,
        io.TextIOWrapper(raw, write_through=True) as terminal,
        pytest.MonkeyPatch.context() as patch,
    ):
        for name in ("stdin", "stdout", "stderr"):
            patch.setattr(sys, name, terminal)
        assert cli("dlq", "discard", "--all").code == code
    reader.join()
    os.close(ours)
    told = b"".join(shown)
    assert b"Discard 2 dead letters? [y/N]" in told
    assert (b"Discarded 2 dead letters" in told) == (answer == "y")
    assert len(cli("dlq", "list", "--json").lines) == left
