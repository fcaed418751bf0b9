"""Whether what a document shows is what came out, apart from times, ids and ports."""

from __future__ import annotations

import re

_VOLATILE = [
    (r"\b\d{13}-\d+\b", "ENTRY"),
    (r"\d{4}-\d\d-\d\dT[\d:.]+(?:Z|\+00:00)", "MOMENT"),
    (r"\b\d\d:\d\d:\d\d\b", "CLOCK"),
    (r"\b\d+(?:\.\d+)? ?(?:ms|s|m|h|d)\b", "TIME"),
    (r"(?<=127\.0\.0\.1:)\d+", "PORT"),
    (r"(?<=port )\d+|(?<=ports )\d+ and \d+", "PORT"),
    (r"\bValkey \d+\.\d+\.\d+", "Valkey"),
    (r"\b[\w.-]+-\d+-[0-9a-f]{6}\b", "WORKER"),
    (r"[A-Za-z0-9_-]{22,}", "TOKEN"),
    (r"(?<=bytes )\d[\d,]*|\d[\d,]*(?= bytes)", "SIZE"),
    (r"^(.*\b(?:delivered|dead)\b.*?\d+)\s+\d+$", r"\1 MS"),  # the demo's closing table
    (r"[ \t]+", " "),
]


def plain(text: str) -> str:
    """Without what is different every time, nor blanks at the end of lines."""
    lines = [line.rstrip() for line in text.strip("\n").splitlines()]
    return "\n".join(_plain_line(line) for line in lines)


def _plain_line(line: str) -> str:
    for pattern, name in _VOLATILE:
        line = re.sub(pattern, name, line)
    return line


def shows(shown: str, real: str) -> bool:
    """`…` stands for any text; alone on a line, for any number of lines."""
    pattern = ""
    for line in plain(shown).splitlines():
        if line.strip() == "…":
            pattern += r"(?:[^\n]*\n)*?"
        else:
            pattern += ".*".join(re.escape(part) for part in line.split("…")) + r"\n"
    return re.fullmatch(pattern, plain(real) + "\n" if real.strip() else "") is not None
