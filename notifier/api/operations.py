"""What operators look at and mend: the queues and the dead letters."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Annotated, Final

from fastapi import APIRouter, Depends, Query
from pydantic import ValidationError

from notifier.api import operation_schemas as schemas
from notifier.api.access import Operates
from notifier.api.bodies import takes_up_to
from notifier.api.paths import Decoded, segment
from notifier.api.problems import Problem, responses
from notifier.api.reading import JsonObject, body_schema, invalid
from notifier.api.shared import Parts, Shared
from notifier.errors import InvalidInput
from notifier.keys import EVENTS
from notifier.operations.dead_letters import (
    ID,
    POSITION,
    STATES,
    Bounds,
    Letter,
    LetterId,
    Position,
    Selection,
    get,
    parse_id,
    parse_position,
    some,
)
from notifier.operations.mending import Action, Result, mend, mend_some
from notifier.operations.queues import look
from notifier.operations.views import letter_view, queue_view
from notifier.settings import parse_duration

router = APIRouter(prefix="/v1", tags=["operations"], dependencies=[Operates])

_ERRORS: Final = (401, 403, 422, 503)
_BODY: Final = body_schema({"$ref": "#/components/schemas/MendRequest"})


@router.get("/queues", summary="Look at the queues", responses=responses(*_ERRORS))
async def queues(parts: Parts) -> schemas.QueueList:
    """What lies where, and who serves it."""
    runtime = parts.runtime
    partitions = runtime.keys.partitions
    states = await look(runtime.client, runtime.keys, tuple(parts.channels))
    return schemas.QueueList.model_validate(
        {"partitions": partitions, "queues": [queue_view(state, partitions) for state in states]}
    )


# Which dead letters.


def _queues(parts: Shared) -> tuple[str, ...]:
    return (EVENTS, *parts.channels)


def _selection(
    parts: Shared,
    *,
    channel: Sequence[str] | None,
    error: Sequence[str] | None,
    type: Sequence[str] | None,  # noqa: A002 - the filter's name
    recipient: str | None,
    older_than: str | None,
    state: str | None,
) -> Selection:
    known = _queues(parts)
    for name in channel or ():
        if name not in known:
            reason = f"is not one of {', '.join(known)}"
            raise Problem(404, f"channel: {reason}", errors=[("channel", reason)])
    return Selection(
        queues=tuple(queue for queue in known if not channel or queue in channel),
        states=tuple(one for one in STATES if state in {one, "all", None}),
        errors=frozenset(error or ()),
        types=frozenset(type or ()),
        recipient=recipient or None,
        older_than=parse_duration(older_than or "0s"),
    )


_Words = Annotated[list[str] | None, Query(max_length=50)]


async def _filters(
    parts: Parts,
    channel: Annotated[_Words, Query(description="Of this channel, or `events`; may be repeated")] = None,
    error: Annotated[_Words, Query(description="The class of the error; may be repeated")] = None,
    type: Annotated[_Words, Query(description="Of this event type; may be repeated")] = None,  # noqa: A002
    recipient: Annotated[str | None, Query(max_length=200, description="For this recipient")] = None,
    older_than: Annotated[
        str | None, Query(pattern=schemas.DURATION, description="There for longer than `10m`, `2h`, `3d`")
    ] = None,
    state: Annotated[
        schemas.State, Query(description="Those that wait for their second try, or gave up")
    ] = "all",
) -> Selection:
    return _selection(
        parts,
        channel=channel,
        error=error,
        type=type,
        recipient=recipient,
        older_than=older_than,
        state=state,
    )


_Filters = Annotated[Selection, Depends(_filters)]


def _position(after: str | None) -> Position | None:
    return parse_position(after) if after else None


def _page_info(position: Position | None) -> schemas.PageInfo:
    return schemas.PageInfo(has_more=position is not None, after=None if position is None else str(position))


# Looking.


@router.get("/dead-letters", summary="List dead letters", responses=responses(*_ERRORS, 404))
async def list_letters(
    parts: Parts,
    selection: _Filters,
    after: Annotated[
        str | None, Query(pattern=f"^{POSITION}$", description="`page_info.after` of the page before")
    ] = None,
    page_size: Annotated[int, Query(ge=1, le=200, description="At most so many")] = 50,
) -> schemas.LetterPage:
    """Oldest first; those that were there when the first page was asked for. A page may be short, or empty,
    when the filters take few of many: go on while `has_more` is true.
    """
    runtime = parts.runtime
    position = _position(after)
    found: list[Letter] = []
    async for letters, place in some(
        runtime.client, runtime.keys, selection, Bounds(page_size), position, page_size
    ):
        found += letters
        position = place
    return schemas.LetterPage(
        dead_letters=[schemas.LetterView.model_validate(letter_view(letter)) for letter in found],
        page_info=_page_info(position),
    )


_Id = Annotated[
    str,
    segment("id", "As the list names it", "email:07:dead:1764000000000-0", pattern=f"^{ID}$"),
    Decoded,
]


@router.get("/dead-letters/{id}", summary="Show a dead letter", responses=responses(*_ERRORS, 404))
async def show_letter(letter_id: _Id, parts: Parts) -> schemas.WholeLetter:
    """What failed, the event, and what to do about it."""
    runtime = parts.runtime
    try:
        wanted = parse_id(letter_id, runtime.keys, _queues(parts))
    except InvalidInput as error:
        raise Problem(404, str(error), errors=[(error.field, error.reason)]) from None
    letter = await get(runtime.client, runtime.keys, wanted)
    if letter is None:
        raise Problem(404, "it is not there any more: redriven, discarded or delivered")
    return schemas.WholeLetter.model_validate(letter_view(letter, whole=True))


# Mending.


_MODELS: Final[Mapping[str, type[schemas.MendRequest]]] = {
    "ids": schemas.MendByIds,
    "all": schemas.MendAll,
    "filters": schemas.MendByFilters,
}


async def _asked(body: JsonObject) -> schemas.MendRequest:
    """The body. Raises Problem (422)."""
    by = "ids" if "ids" in body else "all" if "all" in body else "filters"
    for name, value in body.items():
        if value is None:
            raise invalid(name, "is null; leave it out")
    try:
        asked: schemas.MendRequest = _MODELS[by].model_validate(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise invalid(".".join(map(str, first["loc"])), first["msg"][:1].lower() + first["msg"][1:]) from None
    if by == "filters" and body.keys().isdisjoint(schemas.FILTERS):
        raise invalid("ids", "say which: by their ids, by a filter, or all")
    return asked


_Asked = Annotated[schemas.MendRequest, Depends(_asked)]


@router.post(
    "/dead-letters/redrive",
    summary="Redrive dead letters",
    responses=responses(*_ERRORS, 400, 404, 413, 415),
    openapi_extra=_BODY,
    dependencies=[takes_up_to(256 * 1024)],
)
async def redrive(asked: _Asked, parts: Parts) -> schemas.Mended:
    """Back into the queue that they came from, with fresh attempts and the templates of now.

    A request takes up to `limit` of them and about ten seconds; then `page_info` says where to go on. What
    comes back meanwhile is not taken again. After an error the same request may be sent again.
    """
    return await _mend(parts, "redrive", asked)


@router.post(
    "/dead-letters/discard",
    summary="Discard dead letters",
    responses=responses(*_ERRORS, 400, 404, 413, 415),
    openapi_extra=_BODY,
    dependencies=[takes_up_to(256 * 1024)],
)
async def discard(asked: _Asked, parts: Parts) -> schemas.Mended:
    """Deletes them for good; otherwise as redriving."""
    return await _mend(parts, "discard", asked)


async def _mend(parts: Shared, action: Action, asked: schemas.MendRequest) -> schemas.Mended:
    if isinstance(asked, schemas.MendByIds):
        return await _mend_ids(parts, action, asked)
    filters = asked.model_dump(include=set(schemas.FILTERS))
    selection = _selection(parts, **dict.fromkeys(schemas.FILTERS) | filters)
    position = _position(asked.after)
    runtime, bounds = parts.runtime, Bounds(asked.limit)
    if asked.dry_run:
        groups: Counter[tuple[str, ...]] = Counter()
        async for letters, place in some(runtime.client, runtime.keys, selection, bounds, position):
            groups.update(map(_group, letters))
            position = place
        return _planned(groups, position)
    step = await mend_some(
        runtime.client, runtime.keys, action, selection, bounds, after=position, rate=asked.rate
    )
    return _mended(step.results, step.after)


async def _mend_ids(parts: Shared, action: Action, asked: schemas.MendByIds) -> schemas.Mended:
    runtime, known = parts.runtime, _queues(parts)
    ids = []
    for text in dict.fromkeys(asked.ids):
        try:
            ids.append(parse_id(text, runtime.keys, known))
        except InvalidInput as error:
            raise Problem(404, str(error), errors=[("ids", error.reason)]) from None
    if asked.dry_run:
        found = [await get(runtime.client, runtime.keys, letter_id) for letter_id in ids]
        return _planned(Counter(_group(letter) for letter in found if letter), None)
    results = await mend(runtime.client, runtime.keys, action, ids)
    return _mended(Counter(results), None, list(zip(ids, results, strict=True)))


def _group(letter: Letter) -> tuple[str, ...]:
    return letter.id.queue, letter.id.state, letter.failure.error, letter.type


def _planned(groups: Counter[tuple[str, ...]], position: Position | None) -> schemas.Mended:
    names = ("queue", "state", "error", "type")
    rows = [{**dict(zip(names, group, strict=True)), "count": n} for group, n in sorted(groups.items())]
    return schemas.Mended(
        dry_run=True,
        matched=groups.total(),
        groups=[schemas.GroupView.model_validate(row) for row in rows],
        page_info=_page_info(position),
    )


def _mended(
    results: Counter[Result], position: Position | None, by_id: Sequence[tuple[LetterId, Result]] = ()
) -> schemas.Mended:
    counts = {result.value: results[result] for result in Result}
    left = [{"id": str(i), "result": result.value} for i, result in by_id if result is not Result.DONE]
    return schemas.Mended.model_validate(
        {"dry_run": False, **counts, "left": left, "page_info": _page_info(position)}
    )
