"""A user's own inbox. Whose it is says the token alone."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Annotated, Any, Final, get_args

from fastapi import APIRouter, Path, Query, Response

from notifier.api import inbox_schemas as schemas
from notifier.api.access import User
from notifier.api.entries import EPOCH, counts_of, entry_of, to_json
from notifier.api.paths import Decoded, segment
from notifier.api.problems import Problem, responses
from notifier.api.reading import JSON, OptionalObject, body_schema, invalid, known
from notifier.api.shared import Parts
from notifier.inbox import MAX_PAGE_SIZE, Archived, Counts, Mark, Status

router = APIRouter(prefix="/v1/inbox", tags=["inbox"])

_CURSOR_LIMIT: Final = 1_000
_ID_LIMIT: Final = 200
_ERRORS = (401, 422, 503)
_COUNTED = schemas.answer("The counts after it", schemas.COUNTS_SCHEMA, schemas.COUNTS)
_TIME: Final = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d{1,20})?([Zz]|[+-]\d\d:\d\d)", re.ASCII)
"""RFC 3339, section 5.6."""

EntryId = Annotated[str, segment("id", "The entry's id", schemas.ENTRY["id"]), Decoded]
PathMark = Annotated[
    Mark, Path(description="`read` implies `seen`; `unread` leaves it seen. A second time changes nothing")
]


def _answer(value: object) -> Response:
    return Response(to_json(value), media_type=JSON)


def _counts(counts: Counts) -> Response:
    return _answer(counts_of(counts))


@router.get(
    "",
    summary="Read a page of the inbox",
    response_class=Response,
    responses={
        **schemas.answer(
            "Entries, newest first",
            schemas.PAGE_SCHEMA,
            {
                "entries": [schemas.ENTRY],
                "meta": schemas.COUNTS,
                "page_info": {"has_more": True, "after": "MDAxNzgyODk4MjAwMTIzNWYz"},
            },
        ),
        **responses(*_ERRORS),
    },
)
async def read_inbox(
    user: User,
    parts: Parts,
    status: Annotated[Status, Query(description="`unseen` entries are `unread` too")] = "all",
    archived: Annotated[Archived, Query(description="Whether archived entries are among them")] = "exclude",
    after: Annotated[
        str | None, Query(max_length=_CURSOR_LIMIT, description="`page_info.after` of the page before")
    ] = None,
    page_size: Annotated[int, Query(ge=1, le=MAX_PAGE_SIZE)] = 20,
) -> Response:
    """A cursor names a place in time: whatever comes or is marked meanwhile, no entry is shown twice or left
    out. `meta` counts what is not archived, whatever the filter.
    """
    page = await parts.runtime.inbox.list(
        user, status=status, archived=archived, after=after, page_size=page_size
    )
    return _answer(
        {
            "entries": [entry_of(stored) for stored in page.entries],
            "meta": counts_of(page.counts),
            "page_info": {"has_more": page.after is not None, "after": page.after},
        }
    )


@router.get(
    "/counts",
    summary="Count the inbox",
    response_class=Response,
    responses={
        **schemas.answer("The counts", schemas.COUNTS_SCHEMA, schemas.COUNTS),
        **responses(401, 503),
    },
)
async def count_inbox(user: User, parts: Parts) -> Response:
    """For the number on a bell: `unseen` or `unread`, as the app likes."""
    return _counts(await parts.runtime.inbox.counts(user))


@router.post(
    "/{id}/{mark}",
    summary="Mark an entry",
    response_class=Response,
    responses={**_COUNTED, **responses(*_ERRORS, 404)},
)
async def mark_entry(entry_id: EntryId, mark: PathMark, user: User, parts: Parts) -> Response:
    """Idempotent; answers with the new counts."""
    counts = await parts.runtime.inbox.mark(user, entry_id, mark)
    if counts is None:
        raise Problem(404, "there is no such entry in this inbox")
    return _counts(counts)


@router.post(
    "/{mark}",
    summary="Mark all entries of a filter",
    response_class=Response,
    responses={**_COUNTED, **responses(*_ERRORS, 400, 413, 415)},
    openapi_extra=body_schema(
        schemas.FILTER_SCHEMA,
        examples={
            "what was shown": {"status": "unread", "until": "2026-07-01T09:30:00.123Z"},
            "some": {"ids": [schemas.ENTRY["id"]]},
            "all": {},
        },
        required=False,
    ),
)
async def mark_entries(mark: PathMark, body: OptionalObject, user: User, parts: Parts) -> Response:
    """In one step, and idempotent. Without `archived`, `unarchived` is for what is archived, and any other
    mark for what is not. With `ids`, and then with nothing else, these entries are marked, such as all that
    were shown; ids that are not there are passed over.
    """
    if "ids" in body:
        ids = _ids(known(body, "ids")["ids"])
        return _counts(await parts.runtime.inbox.mark_some(user, ids, mark))
    known(body, "status", "archived", "until")
    counts = await parts.runtime.inbox.mark_all(
        user,
        mark,
        status=_one_of(body, "status", Status) or "all",
        archived=_one_of(body, "archived", Archived),
        until_ms=_until_ms(body["until"]) if "until" in body else None,
    )
    return _counts(counts)


def _ids(value: object) -> list[str]:
    if not isinstance(value, list) or not 1 <= len(value) <= MAX_PAGE_SIZE:
        raise invalid("ids", f"must be a list of 1 to {MAX_PAGE_SIZE} ids")
    for place, entry_id in enumerate(value):
        if not isinstance(entry_id, str) or not 1 <= len(entry_id) <= _ID_LIMIT:
            raise invalid(f"ids[{place}]", f"must be text of 1 to {_ID_LIMIT} characters")
        if not _is_text(entry_id):
            raise invalid(f"ids[{place}]", "is not Unicode")
    return value


def _is_text(value: str) -> bool:
    """False for half of a surrogate pair, which JSON can spell and UTF-8 can't."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _one_of(body: Mapping[str, Any], name: str, literal: Any) -> Any:
    if name in body and body[name] not in get_args(literal):
        raise invalid(name, f"must be one of {', '.join(get_args(literal))}")
    return body.get(name)


def _until_ms(value: object) -> int:
    """Unix milliseconds. Raises Problem (422)."""
    try:
        if not isinstance(value, str) or not _TIME.fullmatch(value):
            raise ValueError
        until = datetime.fromisoformat(value.upper())
    except ValueError:
        raise invalid("until", "is not a time such as 2026-07-01T09:30:00Z") from None
    return max(0, (until - EPOCH) // timedelta(milliseconds=1))
