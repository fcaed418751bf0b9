"""`notifier templates`: checking, previewing, and starting an event type."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def folder(tmp_path: Path, templates_folder: Path) -> Path:
    """A copy of the templates, to change."""
    return Path(shutil.copytree(templates_folder, tmp_path / "templates"))


def test_good_templates_are_said_to_be(cli: Any) -> None:
    outcome = cli("templates", "check")
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out.endswith(" templates, no problem\n")
    assert cli("templates", "check", "--json").json["problems"] == []


def test_every_problem_is_a_row_with_its_place(cli: Any, folder: Path) -> None:
    (folder / "like" / "push.jinja").write_text("{% block title %}{{ data.nothing }}{% endblock %}")
    (folder / "like" / "event.toml").write_text("colour = 1")
    outcome = cli("templates", "check", templates=str(folder))
    assert "problem" in outcome.failed(1)
    assert "like/event.toml" in outcome.out
    assert "option colour is not known" in outcome.out
    told = cli("templates", "check", "--json", templates=str(folder))
    assert told.code == 1
    assert "like/push.jinja" in {row["template"] for row in told.json["problems"]}


def test_a_preview_shows_each_channel(cli: Any) -> None:
    out = cli("templates", "preview", "like").out
    assert "Ada Lovelace liked your photo" in out
    assert [line for line in out.splitlines() if line in {"email", "push", "in_app"}] == [
        "email",
        "push",
        "in_app",
    ]
    german = cli("templates", "preview", "like", "--channel", "push", "--locale", "de", "--json").json
    assert german["push"]["title"] == "Ada Lovelace gefällt dein Foto"


def test_the_html_of_a_preview_goes_to_a_file_or_to_stdout(cli: Any, tmp_path: Path) -> None:
    cli("templates", "preview", "like", "--html", tmp_path / "like.html")
    html = (tmp_path / "like.html").read_text()
    assert html.startswith("<!DOCTYPE html>")
    assert cli("templates", "preview", "like", "--html", "-").out.strip() == html.strip()
    assert "no such file" in cli("templates", "preview", "like", "--html", tmp_path / "no" / "x").failed(1)
    assert "push has no HTML" in cli(
        "templates", "preview", "like", "--channel", "push", "--html", "-"
    ).failed(2)


def test_a_preview_of_what_is_not_there(cli: Any) -> None:
    assert "'nope' is not one of course_launched, " in cli("templates", "preview", "nope").failed(2)
    assert "no template for 'sms'" in cli("templates", "preview", "like", "--channel", "sms").failed(2)
    assert "locale: is not a language tag" in cli("templates", "preview", "like", "--locale", "x y").failed(2)


def test_a_new_type_passes_the_check_and_can_be_previewed(cli: Any, folder: Path) -> None:
    outcome = cli("templates", "new", "course.started", templates=str(folder))
    assert outcome.code == 0
    names = sorted(path.name for path in (folder / "course.started").iterdir())
    assert names == ["email.jinja", "event.toml", "in_app.jinja", "push.jinja", "sample.json"]
    assert cli("templates", "check", templates=str(folder)).code == 0
    out = cli("templates", "preview", "course.started", templates=str(folder)).out
    assert "Ada Lovelace: Something happened" in out
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]


def test_a_new_type_needs_no_shared_parts(cli: Any, tmp_path: Path) -> None:
    (tmp_path / "bare").mkdir()
    assert cli("templates", "new", "hello", templates=str(tmp_path / "bare")).code == 0
    assert cli("templates", "check", templates=str(tmp_path / "bare")).code == 0


@pytest.mark.parametrize("name", ["Bad", "../x", "1st", "a-b", "layouts", "", "x" * 101])
def test_a_bad_name_is_refused(cli: Any, folder: Path, name: str) -> None:
    before = sorted(folder.rglob("*"))
    cli("templates", "new", name, templates=str(folder)).failed(2)
    assert sorted(folder.rglob("*")) == before


def test_an_existing_type_is_left_as_it_is(cli: Any, folder: Path) -> None:
    before = (folder / "like" / "email.jinja").read_text()
    assert "is there already" in cli("templates", "new", "like", templates=str(folder)).failed(2)
    assert (folder / "like" / "email.jinja").read_text() == before
