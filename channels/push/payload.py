"""What a browser is pushed: compact JSON that fits into one record of RFC 8188."""

from __future__ import annotations

import json
import unicodedata
from typing import Final

from notifier.channel import PermanentFailure

MAX_BYTES: Final = 3_993
"""Of plaintext. With header, padding and tag a push service's 4,096 bytes are full (RFC 8291, section 4)."""

_MAX_TITLE: Final = 800
_MAX_URL: Final = 2_000
_ELLIPSIS: Final = "…"
_JOINER: Final = "\u200d"


def encode(*, title: str, body: str, url: str | None, event_id: str, event_type: str) -> bytes:
    """`{"title", "body", "url", "id", "type"}` as UTF-8, at most `MAX_BYTES`; no `url` without one.

    A title beyond 800 bytes, and then a body beyond what room is left, end with an ellipsis. They are
    cut between characters as people see them: never inside an emoji of several parts, nor before an
    accent. Raises PermanentFailure for a URL beyond 2,000 bytes, since half a link is none.
    """
    if url and _size(url) > _MAX_URL:
        raise PermanentFailure(f"the url has more than {_MAX_URL} bytes")
    fields = {"title": shorten(title, _MAX_TITLE), "body": body, "id": event_id, "type": event_type}
    if url:
        fields["url"] = url
    data = _dump(fields)
    if len(data) > MAX_BYTES:
        room = MAX_BYTES - len(_dump({**fields, "body": ""}))
        data = _dump({**fields, "body": shorten(body, room)})
    return data


def shorten(text: str, room: int) -> str:
    """The text, or as much of its beginning as fits into `room` bytes of JSON with an ellipsis."""
    if _size(text) <= room:
        return text
    room -= _size(_ELLIPSIS)
    low, high = 0, min(len(text), max(room, 0))
    while low < high:
        middle = (low + high + 1) // 2
        if _size(text[:middle]) <= room:
            low = middle
        else:
            high = middle - 1
    while low > 0 and not _is_boundary(text, low):
        low -= 1
    return text[:low].rstrip() + _ELLIPSIS


def _is_boundary(text: str, at: int) -> bool:
    """Whether a new character, as people see it, begins at `at`: the main rules of Unicode's UAX #29."""
    before, after = text[at - 1], text[at]
    if _JOINER in {after, before} or unicodedata.category(after) in {"Mn", "Me", "Mc"}:
        return False
    if "\U0001f3fb" <= after <= "\U0001f3ff":  # skin tones
        return False
    if _is_flag_letter(before) and _is_flag_letter(after):
        first = at - 1
        while first > 0 and _is_flag_letter(text[first - 1]):
            first -= 1
        return (at - first) % 2 == 0
    return True


def _is_flag_letter(char: str) -> bool:
    return "\U0001f1e6" <= char <= "\U0001f1ff"


def _dump(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


def _size(text: str) -> int:
    return len(_dump(text)) - 2  # without the quotes
