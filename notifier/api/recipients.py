"""Profiles: put, read, changed, deleted, and brought in by the thousand."""

from __future__ import annotations

from typing import Any, Final

import structlog
from fastapi import APIRouter, Request, Response
from starlette.requests import ClientDisconnect

from notifier.api import recipient_schemas as schemas
from notifier.api.access import ManagesRecipients
from notifier.api.bodies import takes_up_to
from notifier.api.conditions import Given, etag
from notifier.api.paths import RecipientId
from notifier.api.problems import Problem, problem_of, responses
from notifier.api.reading import JSON, MERGE_PATCH, JsonObject, MergePatch, body_schema, check_content_type
from notifier.api.shared import Parts
from notifier.errors import BrokerError
from notifier.event import Recipient
from notifier.operations.forgetting import forget
from notifier.recipients import Import, Profile, import_lines
from notifier.recipients.profile import of_id, parse_profile, patched

log = structlog.get_logger(__name__)

router = APIRouter(prefix="/v1/recipients", tags=["recipients"], dependencies=[ManagesRecipients])

JSON_LINES: Final = ("application/x-ndjson", "application/jsonl")
IMPORT_LIMIT: Final = 1 << 30
"""Bytes of one import: what comes in one request is bounded, what is in memory much more so."""

_PROFILE_LIMIT: Final = 256 * 1024
_ERRORS = (401, 403, 422, 503)
_BODY_ERRORS = (400, 413, 415)
_ETAG = {"ETag": {"description": "The version, for `If-Match`", "schema": {"type": "string"}}}
_STORED: dict[str, Any] = {
    "description": "What is stored now",
    "headers": _ETAG,
    "content": {JSON: {"schema": schemas.ref("Recipient"), "example": schemas.ADA}},
}

_LINES: Final = {"description": "On each line a `Recipient`; what a line holds is checked when it comes"}


def _answer(profile: Profile, status: int = 200) -> Response:
    return Response(profile.source, status, {"ETag": etag(profile)}, JSON)


# Before the routes with an id: `import` is none.
@router.post(
    "/import",
    summary="Store many profiles",
    responses={200: {"description": "What became of the lines"}, **responses(*_ERRORS, *_BODY_ERRORS)},
    response_model=schemas.ImportReport,
    openapi_extra=body_schema(_LINES, *JSON_LINES, examples={"two profiles": schemas.LINES}, required=False),
    dependencies=[takes_up_to(IMPORT_LIMIT)],
)
async def import_recipients(request: Request, parts: Parts) -> schemas.ImportReport:
    """One profile a line, each in place of an earlier one with the same id. Each is accepted or refused on
    its own, and a refused one is named by its number; the first 1,000 of them are. Lines are stored while
    they come, so whatever ends the request, those before are stored; sending all again does no harm.
    """
    check_content_type(request, *JSON_LINES)
    report = Import()
    try:
        await import_lines(parts.runtime.recipients, request.stream(), report)
    except BrokerError as error:
        problem = problem_of(error)
        detail = f"{problem.detail}; lines up to {report.done} are done, send all again"
        raise Problem(problem.status_code, detail, headers=problem.headers) from error
    except ClientDisconnect:
        log.info("import_cut", stored=report.stored, refused=report.refused)
        raise Problem(400, "the body ended before its end") from None
    return schemas.ImportReport.of(report)


@router.put(
    "/{id}",
    summary="Store a profile",
    response_class=Response,
    responses={
        200: _STORED,
        201: {**_STORED, "description": "Stored, where there was none before"},
        **responses(*_ERRORS, *_BODY_ERRORS, 412),
    },
    openapi_extra=body_schema(schemas.ref("Profile"), examples={"ada": schemas.ADA_WITHOUT_ID}),
    dependencies=[takes_up_to(_PROFILE_LIMIT)],
)
async def put_recipient(
    recipient_id: RecipientId, body: JsonObject, conditions: Given, parts: Parts
) -> Response:
    """In place of an earlier one, as a whole: a member that is left out is removed. `If-Match` guards against
    overwriting what somebody else has changed; `If-None-Match: *` only stores what is new.
    """
    recipient = of_id(parse_profile({"id": recipient_id} | body), recipient_id)

    def edit(profile: Profile | None) -> Recipient:
        conditions.check(profile)
        return recipient

    change = await parts.runtime.recipients.change(recipient_id, edit)
    assert change.after is not None
    return _answer(change.after, 201 if change.before is None else 200)


@router.get(
    "/{id}",
    summary="Read a profile",
    response_class=Response,
    responses={
        200: _STORED,
        304: {"description": "`If-None-Match` names it"},
        **responses(*_ERRORS, 404, 412),
    },
)
async def get_recipient(recipient_id: RecipientId, conditions: Given, parts: Parts) -> Response:
    """As it was stored, with what was set only."""
    [profile] = await parts.runtime.recipients.find([recipient_id])
    if profile is None:
        raise _unknown()
    if conditions.is_known(profile):
        return Response(status_code=304, headers={"ETag": etag(profile)})
    conditions.check(profile)
    return _answer(profile)


@router.patch(
    "/{id}",
    summary="Change a profile",
    response_class=Response,
    responses={200: _STORED, **responses(*_ERRORS, *_BODY_ERRORS, 404, 412)},
    openapi_extra=body_schema(
        schemas.ref("ProfilePatch"),
        MERGE_PATCH,
        JSON,
        examples={"another mailbox, no name": {"email": "ada@example.org", "name": None}},
    ),
    dependencies=[takes_up_to(_PROFILE_LIMIT)],
)
async def patch_recipient(
    recipient_id: RecipientId, patch: MergePatch, conditions: Given, parts: Parts
) -> Response:
    """A JSON merge patch (RFC 7396): members that are given are set, null removes one, and lists are replaced
    as a whole. Two patches at once are both applied, one after the other. There must be a profile.
    """

    def edit(profile: Profile | None) -> Recipient:
        if profile is None:
            raise _unknown()
        changed = patched(profile, recipient_id, patch)
        conditions.check(profile)
        return changed

    change = await parts.runtime.recipients.change(recipient_id, edit)
    assert change.after is not None
    return _answer(change.after)


@router.delete(
    "/{id}",
    summary="Delete all that is kept about a recipient",
    status_code=204,
    responses={204: {"description": "Nothing is kept any more"}, **responses(*_ERRORS, 412)},
)
async def delete_recipient(recipient_id: RecipientId, conditions: Given, parts: Parts) -> None:
    """Profile, inbox, traces, suppressed addresses, devices, what is scheduled, and dead letters. What is on
    its way in a queue is still delivered, and may leave an entry in a new inbox: delete again when the queues
    are empty. Deleting twice does no harm; after an error it may be sent again.
    """
    runtime = parts.runtime
    retention = runtime.settings.trace_retention
    await forget(
        runtime.client, runtime.keys, tuple(parts.channels), retention, recipient_id, conditions.check
    )


def _unknown() -> Problem:
    return Problem(404, "no profile is stored under this id")
