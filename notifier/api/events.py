"""`POST /v1/events`: one event, a list of them, or CloudEvents.

The answer is the same for all: `{"events": […]}` with one object for each event, in order. 202 means that the
broker has all of them, as durably as `NOTIFIER_DURABILITY` says.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final

import prometheus_client
from fastapi import APIRouter, Request, Response
from pydantic_core import to_json
from starlette.datastructures import Headers

from notifier.api import cloud_events
from notifier.api import event_schemas as schemas
from notifier.api.access import Publishes
from notifier.api.idempotency import Notes, Repetition
from notifier.api.problems import Problem, problem_of, responses
from notifier.api.shared import Parts, Shared
from notifier.errors import BrokerError, InvalidEvent
from notifier.event import Event, parse_event
from notifier.publisher import Accepted, AsyncPublisher

MAX_EVENTS: Final = 1_000
MAX_NOTIFICATIONS: Final = 10_000
"""Recipients of all events of a request together."""

EVENTS: Final = prometheus_client.Counter(
    "notifier_api_events_total", "Events that came by HTTP: accepted, duplicate or refused.", ["outcome"]
)
_JSON: Final = "application/json"
_TAKEN: Final = (_JSON, cloud_events.STRUCTURED, cloud_events.BATCH)

router = APIRouter(tags=["events"])

Outcome = Event | InvalidEvent


@dataclass(slots=True)
class Batch:
    """What came: each event, or why it is none. `is_list` says how it came: one event is no list."""

    outcomes: list[Outcome]
    is_list: bool

    @property
    def events(self) -> list[Event]:
        return [one for one in self.outcomes if isinstance(one, Event)]


# Reading


def read(headers: Headers, body: bytes, id_of: Callable[[int], str] | None = None) -> Batch:
    """The events of a request. `id_of` makes an id, by its place, for one that has none.

    Raises Problem: 400, 413 or 415; and InvalidEvent for one event that is no list.
    """
    content, is_cloud = _content(headers, body)
    is_list = isinstance(content, list)
    items = content if is_list else [content]
    if not 1 <= len(items) <= MAX_EVENTS:
        reason = f"has {len(items)} events; 1 to {MAX_EVENTS} are taken"
        raise Problem(413 if items else 422, f"body: {reason}", errors=[("body", reason)])
    if is_cloud:
        outcomes = [_outcome(_from_cloud, item) for item in items]
    else:
        if id_of:
            _give_ids(items, id_of)
        outcomes = [_outcome(_plain, item) for item in items]
    batch = Batch(_traced(outcomes, headers.get("traceparent")), is_list)
    if not is_list and isinstance(outcomes[0], InvalidEvent):
        raise outcomes[0]
    if sum(len(event.recipients) or 1 for event in batch.events) > MAX_NOTIFICATIONS:
        reason = f"has events for more than {MAX_NOTIFICATIONS} recipients together"
        raise Problem(413, f"body: {reason}", errors=[("body", reason)])
    return batch


def _content(headers: Headers, body: bytes) -> tuple[Any, bool]:
    """What the body holds, as JSON, and whether it is about CloudEvents."""
    if headers.get("content-encoding", "identity").lower() != "identity":
        raise _unsupported("content-encoding")
    media_type, _, parameters = headers.get("content-type", _JSON).lower().partition(";")
    media_type = media_type.strip()
    charset = parameters.replace(" ", "").replace('"', "").partition("charset=")[2].partition(";")[0]
    if charset not in {"", "utf-8", "utf8", "us-ascii"}:
        raise _unsupported("content-type")
    if media_type == cloud_events.BATCH:
        content = cloud_events.parsed(body)
        if not isinstance(content, list):
            raise Problem(422, "body: is not a list", errors=[("body", "is not a list")])
        return content, True
    if media_type == cloud_events.STRUCTURED:
        content = cloud_events.parsed(body)
        return (None if isinstance(content, list) else content), True
    if "ce-specversion" in headers:
        if body and not cloud_events.is_json(media_type):
            raise _unsupported("content-type")
        return cloud_events.from_headers(headers.items(), body), True
    if media_type != _JSON:
        raise _unsupported("content-type")
    return cloud_events.parsed(body), False


def _traced(outcomes: list[Outcome], traceparent: str | None) -> list[Outcome]:
    """Those that name no trace of their own are part of the request's."""
    if not cloud_events.is_traceparent(traceparent):
        return outcomes
    return [
        one.model_copy(update={"traceparent": traceparent})
        if isinstance(one, Event) and one.traceparent is None
        else one
        for one in outcomes
    ]


def _unsupported(header: str) -> Problem:
    instead = "none" if header == "content-encoding" else f"{', '.join(_TAKEN)}, in UTF-8"
    reason = f"is not one that is read here; send {instead}"
    return Problem(
        415, f"{header}: {reason}", errors=[(header, reason)], headers={"Accept": ", ".join(_TAKEN)}
    )


def _give_ids(items: Sequence[Any], id_of: Callable[[int], str]) -> None:
    for place, item in enumerate(items):
        if isinstance(item, dict):
            item.setdefault("id", id_of(place))


def _outcome(parse: Callable[[object], Event], item: object) -> Outcome:
    try:
        return parse(item)
    except InvalidEvent as error:
        return error


def _plain(item: object) -> Event:
    if not isinstance(item, dict):
        raise InvalidEvent("event", "is not a JSON object")
    return parse_event(item)


def _from_cloud(item: object) -> Event:
    try:
        return parse_event(cloud_events.as_event(item))
    except InvalidEvent as error:
        reason = error.reason.replace("deliver_at", "deliverat")
        raise InvalidEvent(cloud_events.attribute_of(error.field), reason) from None


# Publishing


async def _publish(publisher: AsyncPublisher, batch: Batch) -> dict[int, list[int] | None]:
    """Publishes what is an event, and notes what became of it. Raises BrokerError; and InvalidEvent when
    the one event that is no list turns out to be too large."""
    notes: dict[int, list[int] | None] = {}
    try:
        accepted = await publisher.publish_many(batch.events)
    except InvalidEvent:  # some event is too large, which is seen when it is encoded, and before any is sent
        _refuse_too_large(batch)
        notes = {place: None for place, one in enumerate(batch.outcomes) if isinstance(one, InvalidEvent)}
        accepted = await publisher.publish_many(batch.events)
    done = iter(accepted)
    for place, one in enumerate(batch.outcomes):
        if isinstance(one, Event) and (before := _duplicates(next(done))):
            notes[place] = before
    return notes


def _refuse_too_large(batch: Batch) -> None:
    for place, one in enumerate(batch.outcomes):
        if isinstance(one, Event):
            try:
                one.encode()
            except InvalidEvent as error:
                if not batch.is_list:
                    raise
                batch.outcomes[place] = error


def _duplicates(accepted: Accepted) -> list[int]:
    """The places of the recipients who had the event before. Who is named twice had it the second time."""
    if not accepted.duplicates:
        return []
    left = Counter(accepted.duplicates)
    places = []
    for place in range(len(accepted.recipients) - 1, -1, -1):
        if left[accepted.recipients[place]] > 0:
            left[accepted.recipients[place]] -= 1
            places.append(place)
    return places[::-1]


# Answering


def _rows(batch: Batch, notes: Notes) -> list[dict[str, Any]]:
    return [_row(one, notes.get(place) or ()) for place, one in enumerate(batch.outcomes)]


def _row(one: Outcome, duplicates: Sequence[int]) -> dict[str, Any]:
    if isinstance(one, InvalidEvent):
        return {"error": {"field": one.field[:200], "reason": one.reason[:500]}}
    recipients = [{"recipient": recipient.id, "duplicate": False} for recipient in one.everyone()]
    for place in duplicates:
        recipients[place]["duplicate"] = True
    return {"id": one.id, "recipients": recipients}


def _answer(batch: Batch, notes: Notes, *, is_replayed: bool) -> Response:
    """202, or 207 when some events were refused."""
    status = 207 if len(batch.events) < len(batch.outcomes) else 202
    headers = {"Idempotent-Replayed": "true"} if is_replayed else None
    return Response(to_json({"events": _rows(batch, notes)}), status, headers, _JSON)


def _all_refused(batch: Batch) -> Problem:
    errors = [
        (f"[{place}].{one.field}", one.reason)
        for place, one in enumerate(batch.outcomes)
        if isinstance(one, InvalidEvent)
    ]
    return Problem(
        422, "none of the events can be accepted", errors=errors, more={"events": _rows(batch, {})}
    )


def _not_taken(error: BrokerError, batch: Batch) -> Problem:
    """With the ids of all events, under which they can be sent again without a duplicate."""
    problem = problem_of(error)
    problem.detail += "; some of the events may have been accepted: send them again with these ids"
    rows = [{"id": one.id} if isinstance(one, Event) else _row(one, ()) for one in batch.outcomes]
    problem.more = {"events": rows}
    return problem


def _count(batch: Batch, notes: Notes) -> None:
    refused = len(batch.outcomes) - len(batch.events)
    duplicates = sum(
        1
        for place, before in notes.items()
        if isinstance(one := batch.outcomes[place], Event) and len(before or ()) == len(one.everyone())
    )
    EVENTS.labels("accepted").inc(len(batch.events) - duplicates)
    if duplicates:
        EVENTS.labels("duplicate").inc(duplicates)
    if refused:
        EVENTS.labels("refused").inc(refused)


@router.post(
    "/v1/events",
    summary="Publish events",
    status_code=202,
    dependencies=[Publishes],
    response_class=Response,
    responses={**schemas.PUBLISHED, **responses(400, 401, 403, 409, 413, 415, 422, 429, 503)},
    openapi_extra={"requestBody": schemas.EVENTS_BODY},
)
async def publish(
    request: Request,
    parts: Parts,
    idempotency_key: Annotated[str | None, schemas.IDEMPOTENCY_KEY] = None,
) -> Response:
    """One event, a list of up to 1,000, or CloudEvents 1.0: structured, as a batch, or in binary mode.

    Events of a list are accepted or refused each on its own. 202: the broker has all of them. 207: some were
    refused. 422 with a list: all were. An event that was accepted before, for a recipient, is a `duplicate`.
    After 429 and 503 some may have been accepted; `events` has their ids, so that they can be sent again.
    """
    body = await request.body()
    repetition = _repetition(parts, request.headers, idempotency_key, body)
    batch = read(request.headers, body, repetition.event_id if repetition else None)
    if not batch.events:
        raise _all_refused(batch)
    if repetition is None:
        return await _fresh(parts, batch)
    notes = await repetition.begin()
    if notes is not None:
        _refuse_again(batch, notes)
        return _answer(batch, notes, is_replayed=True)
    try:
        return await _fresh(parts, batch, repetition)
    except Problem:
        await repetition.forget()
        raise


def _repetition(parts: Shared, headers: Headers, key: str | None, body: bytes) -> Repetition | None:
    if key is None:
        return None
    attributes = sorted((name, value) for name, value in headers.items() if name.startswith("ce-"))
    content = repr((headers.get("content-type"), attributes)).encode() + body
    return Repetition(parts.runtime, key, headers.get("authorization", ""), content)


async def _fresh(parts: Shared, batch: Batch, repetition: Repetition | None = None) -> Response:
    try:
        notes = await _publish(parts.publisher, batch)
    except BrokerError as error:
        raise _not_taken(error, batch) from error
    except InvalidEvent as error:
        raise problem_of(error) from error
    if not batch.events:
        raise _all_refused(batch)
    if repetition:
        await repetition.keep(notes)
    _count(batch, notes)
    return _answer(batch, notes, is_replayed=False)


def _refuse_again(batch: Batch, notes: Notes) -> None:
    if None in notes.values():
        _refuse_too_large(batch)
