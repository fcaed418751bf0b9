"""`notifier recipients`: storing, showing, deleting, and using a suppressed address again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import redis

from notifier.keys import Keys
from notifier.recipients import encode_suppression, suppression_field


def _file(folder: Path, text: str) -> Path:
    path = folder / "people.json"
    path.write_text(text)
    return path


def test_json_lines_are_stored_and_shown(cli: Any, tmp_path: Path) -> None:
    path = _file(tmp_path, '{"id": "u1", "email": "ada@example.com"}\n\n{"id": "u2", "name": "Zoë"}\n')
    assert cli("recipients", "put", path).out == "Stored 2 recipients, 2 of them new\n"
    assert cli("recipients", "put", "--json", path).json == {"stored": 2, "new": 0}
    assert cli("recipients", "show", "--json", "u1").json == {
        "id": "u1", "profile": {"id": "u1", "email": "ada@example.com"}, "suppressed": [],
    }  # fmt: skip
    assert '"name": "Zoë"' in cli("recipients", "show", "u2").out


def test_one_object_may_be_spread_over_lines(cli: Any, tmp_path: Path) -> None:
    path = _file(tmp_path, '\n{\n  "id": "u1",\n  "preferences": {\n    "social": {"*": false}\n  }\n}\n')
    assert cli("recipients", "put", path).code == 0
    assert cli("recipients", "show", "u1", "--json").json["profile"]["preferences"] == {
        "social": {"*": False}
    }


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ('{"id": "u3", "email": "nobody"}', "email: is not a mail address"),
        ('{"id": "u3", "age": 3}', "age: is not a known field"),
        ("{}", "id: is missing"),
        ("nonsense", "recipient: is not JSON"),
        ('{"id": "u3", "name": "' + "x" * 600_000 + '"}', "recipient: has more than"),
    ],
)
def test_a_wrong_line_is_named(cli: Any, tmp_path: Path, line: str, told: str) -> None:
    path = _file(tmp_path, f'{{"id": "u1"}}\n{{"id": "u2"}}\n{line}\n{{"id": "u4"}}\n')
    said = cli("recipients", "put", path).failed(2)
    assert said.startswith(f"{path}:3: {told}")
    assert said.endswith("; lines 1-2 are stored")
    assert cli("recipients", "show", "u2").code == 0
    assert cli("recipients", "show", "u4").code == 1


def test_an_object_that_never_ends_is_refused(cli: Any, tmp_path: Path) -> None:
    said = cli("recipients", "put", _file(tmp_path, '{\n"id": "u1",\n')).failed(2)
    assert ":1: recipient: is not JSON" in said
    assert said.endswith("; nothing is stored")
    endless = _file(tmp_path, "{\n" + ' "x",\n' * 60_000)
    assert "has more than" in cli("recipients", "put", endless).failed(2)


def test_nothing_stored_is_told(cli: Any, tmp_path: Path) -> None:
    assert cli("recipients", "show", "u9").failed(1) == "notifier: no profile is stored for u9"
    assert cli("recipients", "show", "").failed(2).startswith("notifier: id: ")
    assert "is empty" in cli("recipients", "put", _file(tmp_path, "\n")).failed(0)


def test_deleting_twice_is_no_error(cli: Any, tmp_path: Path) -> None:
    cli("recipients", "put", _file(tmp_path, '{"id": "u1"}'))
    assert cli("recipients", "delete", "u1").out == "Deleted u1\n"
    assert cli("recipients", "delete", "u1").out == "Nothing was stored of u1\n"
    assert cli("recipients", "delete", "--json", "u1").json == {"id": "u1", "deleted": False}


def test_a_suppressed_address_is_shown_and_used_again(cli: Any, client: redis.Redis) -> None:
    keys = Keys()
    field = suppression_field("email", "u1", "ada@example.com")
    reason = encode_suppression("550 no such user", 1_764_000_000_000)
    client.hset(keys.suppressed(keys.partition_of("u1")), field, reason)
    shown = cli("recipients", "show", "u1")
    assert shown.code == 0
    assert "550 no such user" in shown.out
    assert "2025-11-24T16:00:00.000Z" in shown.out
    assert cli("recipients", "unsuppress", "u1", "email", "ada@example.com").code == 0
    assert cli("recipients", "show", "u1", "--json").json["suppressed"] == []
    said = cli("recipients", "unsuppress", "u1", "email", "ada@example.com").failed(1)
    assert said == "notifier: email does not pass over ada@example.com of u1"


def test_many_lines_are_stored(cli: Any, tmp_path: Path) -> None:
    lines = [f'{{"id": "u{i % 1100}", "name": "{i}"}}' for i in range(1_200)]
    path = _file(tmp_path, "\n".join(lines))
    assert cli("recipients", "put", "--json", path).json == {"stored": 1_200, "new": 1_100}
    assert cli("recipients", "show", "u7", "--json").json["profile"]["name"] == "1107"
    said = cli("recipients", "put", _file(tmp_path, "\n".join([*lines, "nonsense"]))).failed(2)
    assert said.endswith("; lines 1-1200 are stored")


def test_a_profile_that_is_too_large_is_named(cli: Any, tmp_path: Path) -> None:
    devices = ",".join(f'{{"kind": "fcm", "token": "{i:04d}{"t" * 4_000}"}}' for i in range(20))
    said = cli(
        "recipients", "put", _file(tmp_path, f'{{"id": "u1"}}\n{{"id": "u2", "devices": [{devices}]}}')
    )
    told = said.failed(2)
    assert ":2: recipient: has " in told
    assert told.endswith("; line 1 is stored")


def test_a_full_broker_says_what_is_stored(cli: Any, tmp_path: Path, client: redis.Redis) -> None:
    path = _file(tmp_path, '{"id": "u1"}')
    assert cli("recipients", "put", path).code == 0
    client.config_set("maxmemory", 1)
    said = cli("recipients", "put", _file(tmp_path, '{"id": "u1", "name": "N"}')).failed(1)
    client.config_set("maxmemory", 0)
    assert said.endswith("run it again, which does no harm")


def test_addresses_are_suppressed_listed_and_used_again(cli: Any) -> None:
    assert cli("recipients", "suppressed").out == "No address is passed over\n"
    assert cli("recipients", "suppressed", "--json").out == ""
    said = cli("recipients", "suppress", "u1", "email", "ada@example.com", "--reason", "asked us to")
    assert said.out == "ada@example.com is passed over for u1, from the next event on\n"
    assert cli("recipients", "suppress", "u2", "push", "fcm-0", "--json").json == {
        "id": "u2", "suppressed": True, "new": True,
    }  # fmt: skip
    rows = cli("recipients", "suppressed", "--json").lines
    assert sorted((row["recipient"], row["channel"], row["address_key"], row["reason"]) for row in rows) == [
        ("u1", "email", "ada@example.com", "asked us to"),
        ("u2", "push", "fcm-0", "by hand"),
    ]
    table = cli("recipients", "suppressed").out
    assert table.startswith("recipient  channel")
    assert "asked us to" in table
    assert [
        row["recipient"] for row in cli("recipients", "suppressed", "--channel", "push", "--json").lines
    ] == ["u2"]
    assert len(cli("recipients", "suppressed", "--limit", "1", "--json").lines) == 1
    assert cli("recipients", "unsuppress", "u2", "push", "fcm-0").code == 0
    assert len(cli("recipients", "suppressed", "--json").lines) == 1


def test_what_can_not_be_suppressed_is_refused(cli: Any) -> None:
    assert (
        "'pigeon' is not one of email, push, in_app" in cli("recipients", "suppress", "u1", "pigeon", "k").err
    )
    assert cli("recipients", "suppress", "u1", "email", "a/b").failed(2).startswith("notifier: address_key: ")
    assert cli("recipients", "suppress", "", "email", "k").failed(2).startswith("notifier: id: ")


def test_deleting_removes_dead_letters_too(cli: Any, client: redis.Redis) -> None:
    keys = Keys()
    stream = keys.dead("email", keys.partition_of("u1"))
    head = "1\ne1\nlike\nu1\nu1\nk\nada@example.com\n1\n"
    client.xadd(stream, {"head": head, "event": "{}"})
    assert cli("recipients", "delete", "u1").out == "Deleted u1\n"
    assert client.xlen(stream) == 0
