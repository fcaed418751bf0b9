"""Short ways to say what was found."""

from __future__ import annotations

from notifier.channel import Finding


def ok(what: str, found: str) -> Finding:
    return Finding("ok", what, found)


def warning(what: str, found: str, means: str, mend: str) -> Finding:
    return Finding("warning", what, found, means, mend)


def error(what: str, found: str, means: str, mend: str) -> Finding:
    return Finding("error", what, found, means, mend)


def counted(count: int, noun: str, plural: str = "") -> str:
    """1 event, 2 events."""
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"
