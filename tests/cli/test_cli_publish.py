"""Publishing files: what is wrong in which line, and that a rerun publishes no duplicate."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import redis

from notifier.cli.line_ids import LineIds
from notifier.cli.publish import CHUNK
from notifier.event import Event
from notifier.keys import Keys
from notifier.publisher import Accepted, Publisher

GOOD = '{"type": "like", "recipient": "u1", "data": {"n": %d}}'

Events = Callable[[], list[tuple[str, str]]]


def _file(folder: Path, *lines: str | bytes) -> Path:
    path = folder / "events.jsonl"
    path.write_bytes(b"\n".join(line if isinstance(line, bytes) else line.encode() for line in lines))
    return path


def test_publishes_every_line_in_order(cli: Any, events: Events, tmp_path: Path) -> None:
    path = _file(tmp_path, *(f'{{"id": "e{n}", "type": "like", "recipient": "u1"}}' for n in range(1_200)))
    assert cli("publish", path).out == "Published 1200 events\n"
    assert [event_id for event_id, _ in events()] == [f"e{n}" for n in range(1_200)]


def test_counts_recipients_and_duplicates(cli: Any, tmp_path: Path) -> None:
    path = _file(
        tmp_path,
        '{"id": "a", "type": "like", "recipient": "u1"}',
        '{"id": "a", "type": "like", "recipients": ["u1", "u2"]}',
        '{"id": "a", "type": "like", "recipient": "u2"}',
    )
    told = {"accepted": 2, "duplicates": 1, "notifications": 2, "repeat_from": None}
    assert cli("publish", "--json", path).json == told


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ('{"type": "like", "recipient"', "event: is not JSON"),
        ('{"recipient": "u1"}', "type: is missing"),
        ('{"type": "like", "recipient": "u1", "colour": 1}', "colour: is not a known field"),
        (
            '{"type": "like", "recipient": "u1", "occurred_at": "yesterday"}',
            "occurred_at: is not an ISO 8601 time",
        ),
        (
            json.dumps({"type": "like", "recipient": "u1", "data": {"x": "y" * 70_000}}),
            "data: has 70008 bytes",
        ),
        (json.dumps({"type": "like", "recipients": ["u"] * 1_001}), "recipients: "),
        ("x" * 600_000, "event: has more than 262144 bytes"),
        (b"\x00\xff\xfe\x80garbage", "event: is not JSON"),
        ("{", "each line must hold one whole JSON object"),
    ],
)
def test_a_bad_line_7_is_named_and_the_lines_before_it_are_published(
    cli: Any, events: Events, tmp_path: Path, line: str | bytes, told: str
) -> None:
    path = _file(tmp_path, *(GOOD % n for n in range(6)), line, GOOD % 8)
    said = cli("publish", path).failed(2)
    assert said.startswith(f"{path}:7: ")
    assert told in said
    assert said.endswith("; lines 1-6 are published, and count as duplicates when you run it again")
    assert len(events()) == 6


def test_a_mended_file_publishes_only_what_was_missing(cli: Any, events: Events, tmp_path: Path) -> None:
    path = _file(tmp_path, *(GOOD % n for n in range(6)), "{}", GOOD % 8)
    assert cli("publish", "--json", path).json["repeat_from"] == 7
    path = _file(tmp_path, *(GOOD % n for n in range(6)), GOOD % 7, GOOD % 8)
    assert cli("publish", path).out == (
        "Published 2 events; 6 duplicates: already published within 24h; --new-ids sends them again\n"
    )
    assert len(events()) == 8
    assert cli("publish", path).out.startswith("Nothing new; 8 duplicates: ")


def test_identical_lines_are_events_of_their_own(cli: Any, events: Events, tmp_path: Path) -> None:
    path = _file(tmp_path, GOOD % 1, GOOD % 1, GOOD % 1)
    assert cli("publish", path).out == "Published 3 events\n"
    assert cli("publish", "--json", path).json["duplicates"] == 3
    assert len(events()) == 3


def test_new_ids_publish_a_file_again(cli: Any, events: Events, tmp_path: Path) -> None:
    path = _file(tmp_path, GOOD % 1, '{"id": "own", "type": "like", "recipient": "u1"}')
    cli("publish", path)
    counts = cli("publish", "--new-ids", "--json", path).json
    assert (counts["accepted"], counts["duplicates"]) == (1, 1)
    assert len(events()) == 3


def test_with_new_ids_the_message_says_where_to_go_on(cli: Any, tmp_path: Path) -> None:
    said = cli("publish", "--new-ids", _file(tmp_path, GOOD % 1, "{}")).failed(2)
    assert said.endswith("; line 1 is published: go on behind it")


def test_blank_lines_count_but_are_skipped(cli: Any, events: Events, tmp_path: Path) -> None:
    path = _file(tmp_path, b"\xef\xbb\xbf" + (GOOD % 1).encode(), "", "  \r", GOOD % 2 + "\r", "[]")
    assert f"{path}:5: " in cli("publish", path).failed(2)
    assert len(events()) == 2


@pytest.mark.parametrize(
    ("options", "advice"),
    [
        ((), "or all of it: what is published is not repeated"),
        (("--new-ids",), "on: what is published of it comes twice"),
    ],
)
def test_ctrl_c_says_where_to_go_on(
    cli: Any,
    events: Events,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: Sequence[str],
    advice: str,
) -> None:
    file, publish_many = tmp_path / "events.jsonl", Publisher.publish_many
    file.write_text("".join(f'{{"type":"ping","recipient":"u{n}"}}\n' for n in range(CHUNK + 2)))

    def interrupted(publisher: Publisher, some: Sequence[Event]) -> Sequence[Accepted]:
        accepted = publish_many(publisher, some)
        if len(some) < CHUNK:
            raise KeyboardInterrupt
        return accepted

    monkeypatch.setattr(Publisher, "publish_many", interrupted)
    outcome = cli("publish", *options, file, "--json")
    assert outcome.code == 130
    assert f"interrupted; lines 1-{CHUNK} are published; " in outcome.err
    assert outcome.err.rstrip().endswith(advice)
    assert json.loads(outcome.out)["repeat_from"] == CHUNK + 1
    monkeypatch.undo()
    assert len(events()) == CHUNK + 2


def test_an_error_in_line_1_says_that_nothing_is_published(cli: Any, tmp_path: Path) -> None:
    assert cli("publish", _file(tmp_path, "{}")).failed(2).endswith("; nothing is published")


def test_blank_lines_are_not_published(cli: Any, tmp_path: Path) -> None:
    assert cli("publish", _file(tmp_path, "\n\n{}")).failed(2).endswith("; nothing is published")


def test_an_empty_file_is_no_error(cli: Any, tmp_path: Path) -> None:
    path = _file(tmp_path, "")
    assert cli("publish", path).failed(0) == f"notifier: {path} is empty: nothing to publish"


def test_files_that_can_not_be_read(cli: Any, tmp_path: Path) -> None:
    missing = tmp_path / "none"
    assert cli("publish", missing).failed(2) == f"notifier: {missing}: no such file or directory"
    assert cli("publish", tmp_path).failed(2) == f"notifier: {tmp_path}: is a directory"


@pytest.mark.parametrize(("limit", "published"), [("450", 500), ("150", 200)])
def test_a_backlog_limit_says_where_to_repeat_and_a_rerun_completes(
    cli: Any, events: Events, client: redis.Redis, tmp_path: Path, limit: str, published: int
) -> None:
    path = _file(tmp_path, *(GOOD % n for n in range(700)))
    said = cli("publish", path, backlog_limit=limit).failed(1)
    assert f"holds {published} events; the limit is {limit}; " in said
    whole_chunk = "lines 1-500 are published; " if published == 500 else ""
    first = 501 if published == 500 else 1
    again = f"repeat {path} from line {first} on, or all of it: what is published is not repeated"
    assert said.endswith(f"is {limit}; {whole_chunk}{again}")
    assert len(events()) == published
    client.delete(Keys().queue("events", Keys().partition_of("u1")))
    assert cli("publish", "--json", path).json["accepted"] == 700 - published


def test_a_full_broker_is_told_with_the_line(cli: Any, client: redis.Redis, tmp_path: Path) -> None:
    path = _file(tmp_path, GOOD % 1, GOOD % 2)
    cli("publish", path)
    client.config_set("maxmemory", 1)
    said = cli("publish", path).failed(1)
    assert "memory limit" in said
    assert "from line 1 on" in said


def test_lines_from_a_slow_pipe_are_not_held_back(start: Any, events: Events, waiting: Any) -> None:
    process = start("publish", "-", stdin=subprocess.PIPE)
    for n in range(2):
        process.stdin.write(GOOD % n + "\n")
        process.stdin.flush()
        waiting(lambda n=n: process.check_running() or len(events()) == n + 1, "the line is published")
    process.stdin.write("{}\n")
    process.stdin.close()
    process.stdin = None
    assert process.finished().failed(2).startswith("stdin:3: type: is missing; lines 1-2 are published")


def test_line_ids_depend_on_content_and_place_among_identical_lines_only() -> None:
    lines = [b"a", b"b", b"a", b"c", b"a"]
    first, second = LineIds(), LineIds()
    ids = [first.next(line) for line in lines]
    assert len(set(ids)) == 5
    assert ids == [second.next(line) for line in lines]
    assert ids[0].rpartition("-")[0] == ids[2].rpartition("-")[0]
