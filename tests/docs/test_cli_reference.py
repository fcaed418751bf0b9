"""docs/reference/cli.md has every command with every option, and no other."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from typer.main import get_command

from notifier.cli.app import app
from notifier.cli.publish import publish
from tests.docs.blocks import ROOT

PAGE = ROOT / "docs/reference/cli.md"


def documented() -> dict[str, set[str]]:
    """The option names of each command, by its path; without `--help`, which every command has."""
    found: dict[str, set[str]] = {}
    for section in re.split(r"^## ", PAGE.read_text(), flags=re.MULTILINE)[1:]:
        title, _, text = section.partition("\n")
        if not title.startswith("notifier"):
            continue
        path = " ".join(word for word in title.split() if re.fullmatch(r"[a-z]+", word))
        rows = re.findall(r"^\| (`-.*?) \| ", text, re.MULTILINE)
        found[path] = {name for row in rows for name in re.findall(r"`(--?[a-z-]+)", row)} - {"--help", "-h"}
    return found


def walk(command: Any, path: str) -> Iterator[tuple[str, set[str]]]:
    names = {name for parameter in command.params for name in parameter.opts if name.startswith("-")}
    yield path, names - {"--help", "-h"}
    for name, child in getattr(command, "commands", {}).items():
        yield from walk(child, f"{path} {name}")


def test_every_command_and_option_is_documented_and_no_other() -> None:
    assert documented() == dict(walk(get_command(app), "notifier"))


def test_headings_name_the_arguments_of_a_command() -> None:
    headings = re.findall(r"^## (notifier.*)$", PAGE.read_text(), re.MULTILINE)

    def arguments(command: Any, path: str) -> Iterator[str]:
        words = [p.metavar or p.name.upper() for p in command.params if p.param_type_name == "argument"]
        words = [
            word if p.required else f"[{word}...]"
            for word, p in zip(
                words, (p for p in command.params if p.param_type_name == "argument"), strict=True
            )
        ]
        yield " ".join([path, *words])
        for name, child in getattr(command, "commands", {}).items():
            yield from arguments(child, f"{path} {name}")

    assert headings == list(dict.fromkeys(headings))
    assert set(headings) == set(arguments(get_command(app), "notifier"))


def test_the_json_that_publish_prints_has_the_documented_names() -> None:
    told = re.search(r"## notifier publish.*?`(\{.*?\})`", PAGE.read_text(), re.DOTALL)
    assert told
    source = (ROOT / publish.__code__.co_filename).read_text()
    for name in re.findall(r'"(\w+)"', told[1]):
        assert f'"{name}":' in source
