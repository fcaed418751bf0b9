"""What the OpenAPI document says of bodies that are not read by FastAPI: derived from the models of
`notifier.event`, so that both say the same."""

from __future__ import annotations

from typing import Any, Final

from fastapi import Header
from pydantic.json_schema import models_json_schema

from notifier.api import cloud_events
from notifier.event import Event

_REF: Final = "#/components/schemas/"
_LINE: Final = r"^[^\u0000-\u001f\u007f-\u009f\u2028\u2029]*$"
"""What `notifier.event` writes as Unicode categories, which JSON Schema does not know."""

_ID: Final = {"type": "string", "minLength": 1, "maxLength": 200, "pattern": _LINE}


def _short(name: str) -> dict[str, Any]:
    """An id alone stands for an object with that id."""
    return {"anyOf": [_ID, {"$ref": _REF + name}]}


def _plain(value: Any) -> Any:
    """Patterns that every reader of JSON Schema understands."""
    if isinstance(value, dict):
        return {
            name: _LINE if name == "pattern" and "\\p{" in str(inner) else _plain(inner)
            for name, inner in value.items()
        }
    return [_plain(inner) for inner in value] if isinstance(value, list) else value


def _models() -> dict[str, Any]:
    """Event and Actor; what an event says of a recipient is the schema of a profile."""
    _, document = models_json_schema([(Event, "validation")], ref_template=_REF + "{model}")
    event, actor = (_plain(document["$defs"][name]) for name in ("Event", "Actor"))
    nothing = {"type": "null"}
    event["properties"] |= {
        "recipient": {"anyOf": [*_short("Recipient")["anyOf"], nothing]},
        "recipients": {"type": "array", "items": _short("Recipient"), "maxItems": 1_000},
        "actor": {"anyOf": [*_short("Actor")["anyOf"], nothing]},
    }
    one = {"recipient": {"not": nothing}, "recipients": {"maxItems": 0}}
    several = {"recipient": nothing, "recipients": {"minItems": 1}}
    event["oneOf"] = [
        {"required": ["recipient"], "properties": one},
        {"required": ["recipients"], "properties": several},
    ]
    return {"Event": event, "Actor": actor}


_TEXT: Final = {"type": "string", "minLength": 1}
_TIME_OR_NULL: Final = {"anyOf": [{"type": "string", "format": "date-time"}, {"type": "null"}]}
_CLOUD_EVENT: Final = {
    "type": "object",
    "description": "CloudEvents 1.0, JSON format. Extensions that are not named here are ignored.",
    "required": ["specversion", "id", "source", "type"],
    "oneOf": [{"required": ["subject"]}, {"required": ["recipients"]}],
    "properties": {
        "specversion": {"const": "1.0"},
        "id": _ID,
        "source": {**_TEXT, "description": "Not kept, and no part of the id"},
        "type": {"type": "string", "pattern": "^[a-z][a-z0-9_.]*$", "maxLength": 100},
        "subject": {**_ID, "description": "The recipient's id"},
        "recipients": {
            **_TEXT,
            "pattern": r"^[\w-]{1,50}(,[\w-]{1,50}){0,20}$",
            "description": "Ids, with commas",
        },
        "actor": _ID,
        "time": {"type": "string", "format": "date-time"},
        "deliverat": _TIME_OR_NULL,
        "expiresat": _TIME_OR_NULL,
        "traceparent": {"description": "The trace that it is part of; what is none is ignored"},
        "datacontenttype": {"const": "application/json"},
        "data": {"type": ["object", "null"]},
    },
}
_EXAMPLE: Final = {
    "id": "like-88123",
    "type": "like",
    "recipient": "u-1042",
    "actor": {"id": "u-7", "name": "Ada Lovelace"},
    "data": {"photo_title": "Morning at the harbour", "url": "https://app.example.com/photos/p-311"},
}
_CLOUD_EXAMPLE: Final = {
    "specversion": "1.0",
    "id": "like-88123",
    "source": "/photos",
    "type": "like",
    "subject": "u-1042",
    "data": {"photo_title": "Morning at the harbour", "url": "https://app.example.com/photos/p-311"},
}

COMPONENTS: Final[dict[str, Any]] = {
    **_models(),
    "CloudEvent": _CLOUD_EVENT,
    "Published": {
        "type": "object",
        "required": ["events"],
        "properties": {
            "events": {
                "type": "array",
                "items": {"anyOf": [{"$ref": _REF + "PublishedEvent"}, {"$ref": _REF + "RefusedEvent"}]},
            }
        },
    },
    "PublishedEvent": {
        "type": "object",
        "required": ["id", "recipients"],
        "properties": {
            "id": {"type": "string"},
            "recipients": {
                "type": "array",
                "items": {
                    "type": "object",
                    "required": ["recipient", "duplicate"],
                    "properties": {"recipient": {"type": "string"}, "duplicate": {"type": "boolean"}},
                },
            },
        },
    },
    "RefusedEvent": {
        "type": "object",
        "required": ["error"],
        "properties": {
            "error": {
                "type": "object",
                "required": ["field", "reason"],
                "properties": {"field": {"type": "string"}, "reason": {"type": "string"}},
            }
        },
    },
}


def _list_of(name: str) -> dict[str, Any]:
    return {"type": "array", "items": {"$ref": _REF + name}, "minItems": 1, "maxItems": 1_000}


EVENTS_BODY: Final[dict[str, Any]] = {
    "required": True,
    "content": {
        "application/json": {
            "schema": {"anyOf": [{"$ref": _REF + "Event"}, _list_of("Event")]},
            "examples": {"one": {"value": _EXAMPLE}, "list": {"value": [_EXAMPLE]}},
        },
        cloud_events.STRUCTURED: {"schema": {"$ref": _REF + "CloudEvent"}, "example": _CLOUD_EXAMPLE},
        cloud_events.BATCH: {"schema": _list_of("CloudEvent"), "example": [_CLOUD_EXAMPLE]},
    },
}

_ACCEPTED: Final = {"id": "like-88123", "recipients": [{"recipient": "u-1042", "duplicate": False}]}
_REFUSED: Final = {"error": {"field": "type", "reason": "is missing"}}


def _published(description: str, *rows: dict[str, Any]) -> dict[str, Any]:
    content = {"schema": {"$ref": _REF + "Published"}, "example": {"events": list(rows)}}
    replayed = {
        "description": "`true`: this is the answer to an earlier request",
        "schema": {"const": "true"},
    }
    return {
        "description": description,
        "headers": {"Idempotent-Replayed": replayed},
        "content": {"application/json": content},
    }


PUBLISHED: Final[dict[int | str, dict[str, Any]]] = {
    202: _published("The broker has all events", _ACCEPTED),
    207: _published("The broker has some events of the list; the others are refused", _ACCEPTED, _REFUSED),
}

IDEMPOTENCY_KEY: Final[Any] = Header(
    description="Makes the whole request harmless to repeat for 24 hours: the first answer comes again.",
    json_schema_extra={"pattern": '^("[ !#-~]{1,255}"|[!#-~]{1,255})$'},
)
