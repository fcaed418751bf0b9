"""How an inbox entry and its counts look outside: the same in a page and in the stream.

Titles, bodies and data stand there as they are stored: text and JSON, never markup.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from notifier.inbox import Counts, StoredEntry
from notifier.live import EntryState

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_LAST_MS: Final = 253_402_300_799_999
"""The end of the year 9999, the last that RFC 3339 can write."""


def time_of(ms: int | None) -> str | None:
    """RFC 3339 in UTC, with milliseconds."""
    if ms is None:
        return None
    time = EPOCH + timedelta(milliseconds=min(ms, _LAST_MS))
    return f"{time:%Y-%m-%dT%H:%M:%S}.{time.microsecond // 1000:03d}Z"


def entry_of(stored: StoredEntry) -> dict[str, Any]:
    entry = stored.entry
    return {
        "id": entry.id,
        "type": entry.type,
        "title": entry.title,
        "body": entry.body,
        "url": entry.url,
        "actor": entry.actor,
        "data": entry.data,
        "created_at": time_of(entry.created_ms),
        "seen_at": time_of(stored.seen_ms),
        "read_at": time_of(stored.read_ms),
        "archived_at": time_of(stored.archived_ms),
    }


def marks_of(state: EntryState) -> dict[str, Any]:
    return {
        "id": state.id,
        "seen_at": time_of(state.seen_ms),
        "read_at": time_of(state.read_ms),
        "archived_at": time_of(state.archived_ms),
    }


def counts_of(counts: Counts) -> dict[str, int]:
    return {"total": counts.total, "unread": counts.unread, "unseen": counts.unseen}


def to_json(value: object) -> bytes:
    """Compact, in one line: JSON escapes all line breaks in strings."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode(errors="replace")
