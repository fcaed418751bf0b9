"""Tokens for users, signed by us: for backends that do not sign their own."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Final

from fastapi import APIRouter
from pydantic import BaseModel

from notifier.api.access import ManagesRecipients, Tokens
from notifier.api.bodies import takes_up_to
from notifier.api.paths import RecipientId
from notifier.api.problems import responses
from notifier.api.reading import OptionalObject, body_schema, invalid, known
from notifier.event import parse_recipient
from notifier.operations.views import moment
from notifier.settings import parse_duration

router = APIRouter(prefix="/v1/recipients/{id}/tokens", tags=["recipients"], dependencies=[ManagesRecipients])

_LIFETIME: Final = "^([1-9][0-9]{0,3}s|[1-9][0-9]{0,2}m|([1-9]|1[0-9]|2[0-4])h)$"  # a day at most


class Token(BaseModel):
    """For the header `Authorization: Bearer` of the user's browser or app."""

    model_config = {
        "json_schema_extra": {
            "example": {"token": "eyJhbGciOiJIUzI1NiJ9.…", "expires_at": "2026-01-31T13:00:00.000Z"}
        }
    }

    token: str
    expires_at: str


@router.post(
    "",
    summary="Sign a token for a user",
    responses={
        **responses(400, 401, 403, 409, 413, 415, 422),
    },
    openapi_extra=body_schema(
        {
            "type": "object",
            "properties": {"expires_in": {"type": "string", "pattern": _LIFETIME, "default": "1h"}},
            "additionalProperties": False,
        },
        examples={"for fifteen minutes": {"expires_in": "15m"}},
        required=False,
    ),
    dependencies=[takes_up_to(1_024)],
)
async def sign(recipient_id: RecipientId, body: OptionalObject, tokens: Tokens) -> Token:
    """Whoever holds it reads this recipient's inbox until it expires, in 24 hours at most; it can't be taken
    back. No profile has to be stored. Needs an `hs256` key in `NOTIFIER_TOKEN_KEYS`; otherwise 409.
    """
    lifetime = _lifetime(known(body, "expires_in").get("expires_in", "1h"))
    token, expires = tokens.sign(parse_recipient({"id": recipient_id}).id, lifetime)
    return Token(token=token, expires_at=moment(expires * 1000) or "")


def _lifetime(given: object) -> timedelta:
    if not isinstance(given, str) or not re.fullmatch(_LIFETIME, given):
        raise invalid("expires_in", "must be 1s to 9999s, 1m to 999m, or 1h to 24h")
    return parse_duration(given)
