"""What has become of an inbox since a position, as `inbox_changes.lua` tells it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from notifier.broker.scripts import Call, script
from notifier.errors import InvalidInput
from notifier.inbox import Counts, StoredEntry, decode_counts, decode_entry, decode_state

MOST_CHANGES: Final = 100
"""In one update."""

MOST_BYTES: Final = 256 * 1024
"""Of entries in one update, and one entry more."""

_NUMBER: Final = 2**64


@dataclass(frozen=True, slots=True)
class EntryState:
    """The marks of an entry: Unix milliseconds, or None."""

    id: str
    seen_ms: int | None
    read_ms: int | None
    archived_ms: int | None


@dataclass(frozen=True, slots=True)
class Added:
    """An entry is new; its marks are those of now."""

    position: str
    stored: StoredEntry


@dataclass(frozen=True, slots=True)
class Marked:
    """These entries have other marks, or None: too many to name."""

    position: str
    states: tuple[EntryState, ...] | None


@dataclass(frozen=True, slots=True)
class Reset:
    """The inbox is to be loaded again: what happened before this position is not known any more."""

    position: str


Change = Added | Marked | Reset


@dataclass(frozen=True, slots=True)
class Update:
    """Changes in order, and the counts and the position after them. `more`: others follow at once."""

    changes: tuple[Change, ...]
    counts: Counts
    position: str
    more: bool


def check_position(text: str) -> str:
    """A position that a client gives back. Raises InvalidInput."""
    match = re.fullmatch(r"([0-9]{1,20})-([0-9]{1,20})", text, re.ASCII)
    if not match or any(int(part) >= _NUMBER for part in match.groups()):
        raise InvalidInput("Last-Event-ID", "is not an id of an event of this stream")
    return text


def order(position: str) -> tuple[int, int]:
    """Positions of one inbox compare like this."""
    first, _, second = position.partition("-")
    return int(first), int(second)


def ask_since(prefix: str, position: str, *, knew: bool) -> Call:
    """The call for what came after the position, or for the position of now if it is empty. `knew`: it was
    the latest within the time that changes are kept."""
    return Call(script("inbox_changes"), [prefix], (position, int(knew), MOST_CHANGES, MOST_BYTES))


def read_answer(reply: Sequence[Any]) -> Update | str:
    """An update, or the position only, when whoever asked has missed nothing."""
    how, newest, *rest = reply
    position = newest.decode()
    if how == b"same":
        return str(position)
    more, sizes, *values = rest
    rows = zip(values[::5], values[1::5], values[2::5], values[3::5], values[4::5], strict=True)
    changes: list[Change] = [Reset(position)] if how == b"reset" else []
    return Update((*changes, *_changes(list(rows))), decode_counts(sizes), position, bool(more))


def _changes(rows: Sequence[Sequence[bytes]]) -> Iterator[Change]:
    """Marks that follow each other are one change; an entry that is told of brings its own."""
    gone = max((i for i, row in enumerate(rows) if row[1] == b"gone"), default=-1)
    if gone >= 0:  # whatever came before
        yield Reset(rows[gone][0].decode())
    told: set[bytes] = set()
    marks: dict[bytes, EntryState] = {}
    many, last = False, b""
    for change, what, entry_id, entry, state in rows[gone + 1 :]:
        if what == b"add":
            if many or marks:
                yield _marked(last, marks, many=many)
            marks, many = {}, False
            told.add(entry_id)
            yield Added(change.decode(), StoredEntry(decode_entry(entry), *decode_state(state)))
        elif what == b"many":
            many, last = True, change
        elif entry_id not in told:
            marks.pop(entry_id, None)
            marks[entry_id] = EntryState(entry_id.decode(), *decode_state(state))
            last = change
    if many or marks:
        yield _marked(last, marks, many=many)


def _marked(position: bytes, marks: dict[bytes, EntryState], *, many: bool) -> Marked:
    return Marked(position.decode(), None if many else tuple(marks.values()))
