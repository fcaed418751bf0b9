"""What is published in every benchmark."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

RECIPIENTS = 1_000


def events(count: int) -> Iterator[dict[str, Any]]:
    """Events of one type for a thousand recipients in turn, of about 250 bytes each."""
    for number in range(count):
        yield {
            "type": "like",
            "recipient": f"user-{number % RECIPIENTS}",
            "actor": {"id": f"user-{number % 977}", "name": "Ada Lovelace"},
            "data": {"photo_id": f"p{number}", "photo_title": "Sunset over the sea", "likes": number},
        }


def chunks(count: int, size: int) -> Iterator[list[dict[str, Any]]]:
    """The events in lists of `size`."""
    chunk: list[dict[str, Any]] = []
    for event in events(count):
        chunk.append(event)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk
