"""What became of an event, for whom it was published, and why."""

from __future__ import annotations

from typing import Annotated, Any, Final, get_args

from fastapi import APIRouter, Response

from notifier.api.access import PublishesOrOperates
from notifier.api.entries import time_of, to_json
from notifier.api.paths import Decoded, segment
from notifier.api.problems import Problem, responses
from notifier.api.reading import JSON
from notifier.api.shared import Parts
from notifier.event_traces import Step, What, latest

router = APIRouter(prefix="/v1/events", tags=["events"], dependencies=[PublishesOrOperates])

_ID: Final = "01997d3c-0a5e-7c4e-9d53-1f2f3a4b5c6d"
_STATES: Final = ["waiting", *(what for what in get_args(What) if what != "routed")]

EventId = Annotated[str, segment("id", "The event's id, percent-encoded", _ID), Decoded]

_EXAMPLE: Final = {
    "id": _ID,
    "recipients": [
        {
            "recipient": "u42",
            "deliveries": [
                {
                    "channel": "email", "address": "0d6a3f1e", "state": "parked", "attempts": 1,
                    "until": "2026-07-01T09:30:05.900Z", "reason": "greylisted",
                    "answer": "451 4.7.1 try again later",
                },
                {
                    "channel": "in_app", "address": "inbox", "state": "delivered", "attempts": 1,
                    "until": None, "reason": None, "answer": None,
                },
            ],
            "steps": [
                {
                    "at": "2026-07-01T09:30:00.123Z", "what": "routed", "attempt": None, "until": None,
                    "reason": "like", "answer": None,
                    "places": [
                        {"channel": "email", "address": "0d6a3f1e"},
                        {"channel": "in_app", "address": "inbox"},
                    ],
                },
            ],
        }
    ],
}  # fmt: skip
_TEXT: Final = {"type": ["string", "null"]}
_TIME: Final = {"type": ["string", "null"], "format": "date-time"}
_PLACE: Final = {
    "channel": {"type": "string"},
    "address": {"type": "string", "description": "The address's key, which names it and is no secret"},
}


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "required": list(properties), "properties": properties}


def _list(properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": _object(properties)}


_SCHEMA: Final = _object(
    {
        "id": {"type": "string"},
        "recipients": _list(
            {
                "recipient": {"type": "string"},
                "deliveries": _list(
                    {
                        **_PLACE,
                        "state": {"type": "string", "enum": _STATES},
                        "attempts": {"type": "integer", "minimum": 0},
                        "until": _TIME,
                        "reason": _TEXT,
                        "answer": _TEXT,
                    }
                ),
                "steps": _list(
                    {
                        "at": {"type": "string", "format": "date-time"},
                        "what": {"type": "string", "enum": list(get_args(What))},
                        "places": _list(_PLACE),
                        "attempt": {"type": ["integer", "null"]},
                        "until": _TIME,
                        "reason": _TEXT,
                        "answer": _TEXT,
                    }
                ),
            }
        ),
    }
)


@router.get(
    "/{id}",
    summary="What became of an event",
    response_class=Response,
    responses={
        200: {
            "description": "For each recipient what happened, in order",
            "content": {JSON: {"schema": _SCHEMA, "example": _EXAMPLE}},
        },
        **responses(401, 403, 404, 422, 503),
    },
)
async def trace(event_id: EventId, parts: Parts) -> Response:
    """A recipient without steps: accepted, and waiting or scheduled. `deliveries` are where each one stands
    now; `steps` are how it got there, with the provider's answers. Kept for `NOTIFIER_TRACE_RETENTION`; that
    the event was accepted, for `NOTIFIER_DEDUP_WINDOW`. Mail addresses and push endpoints are left out.
    """
    found = await parts.runtime.traces.get(event_id)
    if not found:
        raise Problem(404, "nothing is known of this event, or not any more", errors=[("id", "is not known")])
    recipients = [
        {"recipient": recipient, "deliveries": _deliveries(steps), "steps": [_step(step) for step in steps]}
        for recipient, steps in found.items()
    ]
    return Response(to_json({"id": event_id, "recipients": recipients}), media_type=JSON)


def _deliveries(steps: list[Step]) -> list[dict[str, Any]]:
    attempts: dict[tuple[str, str], int] = {}
    for step in steps:
        for pair in step.places:
            attempts[pair] = max(attempts.get(pair, 0), step.attempt)
    return [
        {
            **_place(pair),
            "state": "waiting" if step.what == "routed" else step.what,
            "attempts": attempts[pair],
            "until": time_of(step.until_ms or None),
            "reason": None if step.what == "routed" else step.reason or None,
            "answer": step.answer or None,
        }
        for pair, step in latest(steps).items()
    ]


def _step(step: Step) -> dict[str, Any]:
    return {
        "at": time_of(step.at_ms),
        "what": step.what,
        "places": [_place(pair) for pair in step.places],
        "attempt": step.attempt or None,
        "until": time_of(step.until_ms or None),
        "reason": step.reason or None,
        "answer": step.answer or None,
    }


def _place(pair: tuple[str, str]) -> dict[str, str]:
    channel, address = pair
    return {"channel": channel, "address": address}
