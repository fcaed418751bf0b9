"""What the OpenAPI document says of the inbox: schemas and examples."""

from __future__ import annotations

from typing import Any, Final, get_args

from notifier.api.reading import JSON
from notifier.inbox import MAX_PAGE_SIZE, Archived, Status

_TIME: Final = {"type": ["string", "null"], "format": "date-time"}
_MARKS: Final = {"seen_at": _TIME, "read_at": _TIME, "archived_at": _TIME}
COUNT: Final = {"type": "integer", "minimum": 0}

ENTRY: Final[dict[str, Any]] = {
    "id": "5f3c9a0e6b1d4c7f8a2e1b0d9c8f7a6e",
    "type": "like",
    "title": "Grace Hopper liked your photo",
    "body": "“Morning at the harbour” has 12 likes now.",
    "url": "https://app.example.com/photos/1",
    "actor": {"id": "u7", "name": "Grace Hopper"},
    "data": {"photo_title": "Morning at the harbour"},
    "created_at": "2026-07-01T09:30:00.123Z",
    "seen_at": "2026-07-01T09:31:00.000Z",
    "read_at": None,
    "archived_at": None,
}
COUNTS: Final = {"total": 12, "unread": 3, "unseen": 1}


def _object(properties: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"type": "object", "required": list(properties), "properties": properties, **more}


ENTRY_SCHEMA: Final = _object(
    {
        "id": {"type": "string"},
        "type": {"type": "string", "description": "The event's type"},
        "title": {"type": "string", "description": "Plain text"},
        "body": {"type": "string", "description": "Plain text"},
        "url": {"type": ["string", "null"]},
        "actor": {"type": ["object", "null"]},
        "data": {"type": "object"},
        "created_at": {"type": "string", "format": "date-time"},
        **_MARKS,
    }
)
COUNTS_SCHEMA: Final = _object(
    {"total": COUNT, "unread": COUNT, "unseen": COUNT}, description="Of what is not archived"
)
PAGE_SCHEMA: Final = _object(
    {
        "entries": {"type": "array", "items": ENTRY_SCHEMA},
        "meta": COUNTS_SCHEMA,
        "page_info": _object(
            {
                "has_more": {"type": "boolean"},
                "after": {"type": ["string", "null"], "description": "The cursor of the next page"},
            }
        ),
    }
)
FILTER_SCHEMA: Final[dict[str, Any]] = {
    "type": "object",
    "additionalProperties": False,
    "dependentSchemas": {"ids": {"maxProperties": 1}},
    "properties": {
        "ids": {
            "type": "array",
            "minItems": 1,
            "maxItems": MAX_PAGE_SIZE,
            "items": {"type": "string", "minLength": 1, "maxLength": 200},
            "description": "These entries, and then no other member",
        },
        "status": {"type": "string", "enum": list(get_args(Status)), "default": "all"},
        "archived": {"type": "string", "enum": list(get_args(Archived))},
        "until": {
            "type": "string",
            "format": "date-time",
            "description": "Leaves out what was created later, such as what came since the list was shown",
        },
    },
}


def answer(description: str, schema: dict[str, Any], example: Any) -> dict[int | str, dict[str, Any]]:
    content = {JSON: {"schema": schema, "example": example}}
    return {200: {"description": description, "content": content}}


_EVENTS: Final = """event: entry
id: 1782898200123-0
data: {"id":"5f3c9a0e6b1d4c7f8a2e1b0d9c8f7a6e","type":"like","title":"Grace Hopper liked your photo", …}

event: marks
id: 1782898200123-1
data: {"entries":[{"id":"5f3c9a0e6b1d4c7f8a2e1b0d9c8f7a6e","seen_at":"2026-07-01T09:31:00.000Z","read_at":null,"archived_at":null}]}

event: counts
id: 1782898200123-1
data: {"total":12,"unread":3,"unseen":0}

"""  # noqa: E501 - as it is sent

STREAM: Final[dict[int | str, dict[str, Any]]] = {
    200: {
        "description": "Events as long as the connection lasts",
        "content": {"text/event-stream": {"schema": {"type": "string"}, "example": _EVENTS}},
    }
}
