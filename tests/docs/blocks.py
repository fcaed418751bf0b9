"""Fenced blocks of a Markdown file, and what their info strings ask for.

```console                 commands after `$ `, run in order in the file's own shell; what follows a
                           command is its output
```console in=NAME         one command that stays up, in a terminal called NAME
```text in=NAME            lines that come up in that terminal, in any order
```LANGUAGE file=PATH      the content of a file, written there
```LANGUAGE of=PATH        the content of a file of the repository, compared
```python                  a script, run
```text of=script          what the last script printed
<!-- before COMMAND -->    run first, and not shown to readers
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent

_FENCE = re.compile(
    r"^(?P<indent> *)```(?P<language>\w+)(?P<info>[^\n`]*)\n(?P<text>.*?)^(?P=indent)```$"
    r"|^<!-- before (?P<before>.*?) -->$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Block:
    """`where` is path and line, for messages; `language` is `before` for a hidden command."""

    where: str
    language: str
    text: str
    info: dict[str, str] = field(default_factory=dict)


def blocks(path: Path) -> Iterator[Block]:
    source = path.read_text(encoding="utf-8")
    for found in _FENCE.finditer(source):
        where = f"{path.relative_to(ROOT)}:{source.count(chr(10), 0, found.start()) + 1}"
        if found["before"]:
            yield Block(where, "before", found["before"])
            continue
        indent = found["indent"]
        text = re.sub(f"^{indent}", "", found["text"], flags=re.MULTILINE) if indent else found["text"]
        info = dict(word.split("=", 1) for word in found["info"].split() if "=" in word)
        yield Block(where, found["language"], text, info)


@dataclass(frozen=True, slots=True)
class Command:
    """A command, possibly of several lines, and what a reader is told that it prints."""

    where: str
    text: str
    output: str


def commands(block: Block) -> Iterator[Command]:
    """Lines after `$ ` are commands, and go on after `> `."""
    for part in re.split(r"^\$ ", block.text, flags=re.MULTILINE)[1:]:
        lines = part.splitlines()
        end = 1
        while end < len(lines) and lines[end].startswith("> "):
            end += 1
        text = "\n".join([lines[0], *(line[2:] for line in lines[1:end])])
        yield Command(block.where, text, "\n".join(lines[end:]))
