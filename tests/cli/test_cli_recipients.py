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
