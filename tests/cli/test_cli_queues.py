"""`notifier queues`: the table for people, the JSON for programs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import redis

from notifier.keys import Keys


def test_the_table_names_every_queue_and_what_nobody_serves(cli: Any, bury: Any, tmp_path: Path) -> None:
    (tmp_path / "e.jsonl").write_text('{"type": "like", "recipients": ["u1", "u2"]}\n')
    cli("publish", tmp_path / "e.jsonl")
    bury("email", state="dead")
    out = cli("queues").out
    rows = {line.split()[0]: line.split()[1:] for line in out.splitlines() if line}
    assert rows["queue"] == [
        "waiting",
        "in",
        "hand",
        "parked",
        "scheduled",
        "dlq",
        "dead",
        "oldest",
        "workers",
    ]
    assert rows["events"][:6] == ["2", "0", "0", "0", "0", "0"]
    assert rows["email"][:6] == ["0", "0", "0", "-", "0", "1"]
    assert {"push", "in_app"} <= set(rows)
    assert "notifier worker router email push in_app dead_letters" in out
    assert "\x1b" not in out
    assert not any(line.endswith(" ") for line in out.splitlines())


def test_json_has_the_same_for_programs(cli: Any, client: redis.Redis) -> None:
    client.xadd(Keys().queue("email", 3), {"n": 1})
    events, email, *_ = cli("queues", "--json").json
    assert events["scheduled"] == 0
    assert (email["waiting"], email["in_hand"], email["scheduled"]) == (1, 0, None)
    assert email["oldest_seconds"] < 60
    assert (email["owners"], email["unowned_partitions"], email["dlq_owners"]) == ({}, 16, {})


def test_queues_follow_the_configured_channels(cli: Any) -> None:
    rows = cli("queues", "--json", channels="channels.in_app:open_channel").json
    assert [row["queue"] for row in rows] == ["events", "in_app"]
