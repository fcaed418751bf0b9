"""Logs: one line an event, in one form for ours and for libraries', without secrets."""

from __future__ import annotations

import errno
import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from notifier.observability import SAID_AGAIN_AFTER, OutagesOnce, configure


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def _told(form: Any, level: str = "info") -> str:
    stream = io.StringIO()
    configure("error", "json", stream=io.StringIO())
    configure(level, form, stream=stream)
    log = structlog.get_logger("test")
    log.debug("hidden")
    log.info("connected", url="redis://user:p@ss@host:1/0", count=3)
    try:
        raise ValueError("smtp://me:pw@mail:25 refused")
    except ValueError:
        log.exception("failed")
        logging.getLogger("library").exception("%s broke", "it")
    logging.getLogger("library").info("GET https://push.example.com/secret-token")
    return stream.getvalue()


def test_json_is_one_object_a_line() -> None:
    rows = [json.loads(line) for line in _told("json").splitlines()]
    assert [row["event"] for row in rows] == ["connected", "failed", "it broke"]
    assert (rows[0]["url"], rows[0]["count"], rows[0]["level"]) == ("redis://***@host:1/0", 3, "info")
    assert rows[2]["logger"] == "library"
    assert all("ValueError: smtp://***@mail:25 refused" in row["exception"] for row in rows[1:])


@pytest.mark.parametrize("form", ["json", "console"])
def test_no_secret_gets_out(form: str) -> None:
    told = _told(form)
    assert "connected" in told
    assert "it broke" in told
    assert not any(secret in told for secret in ("p@ss", "pw@", "secret-token", "hidden", "\x1b"))


class Disk(io.StringIO):
    """A file on a disk that is full from time to time."""

    is_full = False

    def write(self, text: str) -> int:
        if self.is_full:
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().write(text)


def test_what_could_not_be_written_is_counted_once_lines_come_through_again() -> None:
    disk = Disk()
    configure("info", "json", stream=disk)
    log = structlog.get_logger("test")
    log.info("before")
    disk.is_full = True
    log.info("lost")
    logging.getLogger("library").warning("lost too")
    disk.is_full = False
    log.info("after")
    log.info("at last")
    rows = [json.loads(line) for line in disk.getvalue().splitlines()]
    assert [(row["event"], row.get("lines_lost")) for row in rows] == [
        ("before", None),
        ("after", 2),
        ("at last", None),
    ]


def test_the_level_is_the_lowest_that_is_told() -> None:
    assert "connected" not in _told("json", "warning")
    assert "hidden" in _told("json", "debug")


def test_an_outage_is_said_once_and_again_while_it_lasts() -> None:
    now = 0.0
    once = OutagesOnce(lambda: now)

    def said(**line: Any) -> dict[str, Any] | None:
        try:
            return dict(once(None, "warning", {"event": "lease_not_renewed", "queue": "email"} | line))
        except structlog.DropEvent:
            return None

    assert said(error="gone", partition=1) == {
        "event": "lease_not_renewed", "queue": "email", "error": "gone", "partition": 1
    }  # fmt: skip
    assert [said(error="gone", partition=n) for n in range(2, 6)] == [None] * 4
    for other in ({"error": "full"}, {"error": "gone", "queue": "push"}, {"error": "gone", "event": "x"}):
        assert said(**other) is not None
    assert said(event="x") is not None
    now += SAID_AGAIN_AFTER
    again = said(error="gone", partition=7)
    assert again is not None
    assert again["left_out"] == 4
    assert said(error="gone") is None


def test_errors_that_are_never_the_same_take_no_memory() -> None:
    once = OutagesOnce()
    for n in range(10_000):
        once(None, "warning", {"event": "read_failed", "error": f"port {n}"})
    assert len(once._said) < 1_000  # noqa: SLF001 - its memory is what is at stake


def test_the_log_of_an_outage_is_short() -> None:
    stream = io.StringIO()
    configure("info", "json", stream=stream)
    log = structlog.get_logger("test")
    for beat in range(10):
        for partition in range(16):
            log.warning("lease_not_renewed", queue="email", partition=partition, error="gone")
        log.info("beat", number=beat)
    assert [json.loads(line)["event"] for line in stream.getvalue().splitlines()] == [
        "lease_not_renewed", *["beat"] * 10
    ]  # fmt: skip
