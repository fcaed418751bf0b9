"""Logs: one line an event, in one form for ours and for libraries', without secrets."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from notifier.observability import configure


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


def test_the_level_is_the_lowest_that_is_told() -> None:
    assert "connected" not in _told("json", "warning")
    assert "hidden" in _told("json", "debug")
