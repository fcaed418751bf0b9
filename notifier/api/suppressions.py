"""Addresses that are passed over: those of one recipient, and of all."""

from __future__ import annotations

from typing import Annotated, Final

from fastapi import APIRouter, Query
from pydantic import BaseModel
from pydantic.config import JsonDict

from notifier.api.access import ManagesRecipients
from notifier.api.bodies import takes_up_to
from notifier.api.paths import LINE, Decoded, RecipientId, segment
from notifier.api.problems import Problem, responses
from notifier.api.reading import OptionalObject, body_schema, invalid, known
from notifier.api.shared import Parts
from notifier.operations.views import moment
from notifier.recipients import Suppression
from notifier.recipients.suppression import CURSOR, MAX_REASON

router = APIRouter(prefix="/v1", tags=["suppressions"], dependencies=[ManagesRecipients])

_ERRORS: Final = (401, 403, 422, 503)
_PATH: Final = "/recipients/{id}/suppressions/{channel}/{address_key}"
_EXAMPLE: Final[JsonDict] = {
    "recipient": "u42",
    "channel": "email",
    "address_key": "ada@example.com",
    "reason": "550 5.1.1 no such mailbox",
    "at": "2026-01-31T12:00:00.000Z",
}

_Channel = Annotated[
    str,
    segment("channel", "A configured channel", "email", max_length=50, pattern="^[a-z][a-z0-9_]*$"),
    Decoded,
]
_Key = Annotated[
    str,
    segment(
        "address_key",
        "The mailbox in lower case, with `%252F` for a slash in it; or a device's key",
        "ada@example.com",
        max_length=500,
        pattern=LINE.replace("[^", "[^/"),
    ),
    Decoded,
]


class SuppressionView(BaseModel):
    """An address that is passed over since `at`, and why."""

    model_config = {"json_schema_extra": {"example": _EXAMPLE}}

    recipient: str
    channel: str
    address_key: str
    reason: str
    at: str


class SuppressionList(BaseModel):
    """A recipient's, by channel and key."""

    suppressions: list[SuppressionView]


class PageInfo(BaseModel):
    """`after` is for the next request, or null at the end."""

    has_more: bool
    after: str | None


class SuppressionPage(BaseModel):
    """Some of all, in no order."""

    suppressions: list[SuppressionView]
    page_info: PageInfo


@router.get(
    "/suppressions", summary="List the suppressed addresses of all recipients", responses=responses(*_ERRORS)
)
async def list_all(
    parts: Parts,
    after: Annotated[
        str | None, Query(pattern=f"^{CURSOR}$", description="`page_info.after` of the page before")
    ] = None,
    page_size: Annotated[int, Query(ge=1, le=1_000, description="About how many")] = 100,
) -> SuppressionPage:
    """A page holds about `page_size`: a few hundred more when the server hands them out at once; fewer, or
    none, when there is much to look through. Go on while `has_more` is true. What is suppressed all the time
    is on one page at least.
    """
    page = await parts.runtime.suppressions.page(after, page_size)
    return SuppressionPage(
        suppressions=[_view(one) for one in page.found],
        page_info=PageInfo(has_more=page.after is not None, after=page.after),
    )


@router.get(
    "/recipients/{id}/suppressions",
    summary="List a recipient's suppressed addresses",
    responses=responses(*_ERRORS),
)
async def list_of_one(recipient_id: RecipientId, parts: Parts) -> SuppressionList:
    """Because a provider said that they do not exist, or by hand."""
    found = await parts.runtime.suppressions.of(recipient_id)
    return SuppressionList(suppressions=[_view(one) for one in found])


@router.put(
    _PATH,
    summary="Suppress an address",
    status_code=204,
    responses={
        204: {"description": "Passed over from the next event on"},
        **responses(*_ERRORS, 400, 404, 413, 415),
    },
    openapi_extra=body_schema(
        {
            "type": "object",
            "properties": {"reason": {"type": "string", "maxLength": MAX_REASON}},
            "additionalProperties": False,
        },
        examples={"a reason": {"reason": "asked us to by telephone"}},
        required=False,
    ),
    dependencies=[takes_up_to(16 * 1024)],
)
async def suppress(
    recipient_id: RecipientId, channel: _Channel, key: _Key, body: OptionalObject, parts: Parts
) -> None:
    """By hand. It need not be an address of the profile: events may bring addresses along."""
    reason = known(body, "reason").get("reason", "by hand")
    if not isinstance(reason, str):
        raise invalid("reason", "is not text")
    if channel not in parts.channels:
        raise Problem(404, "there is no channel of this name")
    await parts.runtime.suppressions.add(recipient_id, channel, key, reason)


@router.delete(
    _PATH,
    summary="Use an address again",
    status_code=204,
    responses={204: {"description": "Used from the next event on"}, **responses(*_ERRORS, 404)},
)
async def lift(recipient_id: RecipientId, channel: _Channel, key: _Key, parts: Parts) -> None:
    """When the provider was wrong, or the mailbox exists again."""
    if not await parts.runtime.suppressions.lift(recipient_id, channel, key):
        raise Problem(404, "the address is not suppressed")


def _view(one: Suppression) -> SuppressionView:
    return SuppressionView(
        recipient=one.recipient,
        channel=one.channel,
        address_key=one.address_key,
        reason=one.reason,
        at=moment(one.at_ms) or "",
    )
