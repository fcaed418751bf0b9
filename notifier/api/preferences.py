"""What recipients want to be told, and how."""

from __future__ import annotations

from typing import Any, Final

from fastapi import APIRouter
from pydantic import BaseModel
from pydantic.config import JsonDict

from notifier.api import recipient_schemas as schemas
from notifier.api.access import ManagesRecipients, User
from notifier.api.bodies import takes_up_to
from notifier.api.paths import RecipientId
from notifier.api.problems import Problem, responses
from notifier.api.reading import JSON, MERGE_PATCH, JsonObject, MergePatch, body_schema, invalid, known
from notifier.api.shared import Parts, Shared
from notifier.categories import Category, categories
from notifier.event import Recipient
from notifier.recipients import Profile, merged
from notifier.recipients.profile import parse_profile

backend = APIRouter(
    prefix="/v1/recipients/{id}/preferences", tags=["preferences"], dependencies=[ManagesRecipients]
)
user = APIRouter(prefix="/v1/inbox/preferences", tags=["inbox"])

_LIMIT: Final = 256 * 1024
_ERRORS: Final = (401, 422, 503)
_WRITE_ERRORS: Final = (*_ERRORS, 400, 413, 415)
_EXAMPLE: Final[JsonDict] = {"preferences": {"social": {"email": False}}}


class CategoryView(BaseModel):
    """A category of the templates: its event types, and what holds now for the recipient on each channel that
    one of them has. A `mandatory` one can't be muted."""

    category: str
    mandatory: bool
    types: list[str]
    channels: dict[str, bool]


class PreferencesView(BaseModel):
    """`preferences` is what was set: category, or `*`, to channel, or `*`, to wanted or not; the most
    specific entry counts, and what nothing is said of is wanted. `categories` is what can be set."""

    model_config = {
        "json_schema_extra": {
            "example": {
                **_EXAMPLE,
                "categories": [
                    {
                        "category": "social",
                        "mandatory": False,
                        "types": ["friend_request", "like"],
                        "channels": {"email": False, "push": True, "in_app": True},
                    }
                ],
            }
        }
    }

    preferences: dict[str, dict[str, bool]]
    categories: list[CategoryView]


async def _view(parts: Shared, recipient: Recipient) -> PreferencesView:
    found = categories(await parts.catalogue.current(), tuple(parts.channels), recipient)
    return PreferencesView(preferences=recipient.preferences, categories=[_category(one) for one in found])


def _nobody() -> Problem:
    return Problem(404, "no profile is stored under this id")


def _category(one: Category) -> CategoryView:
    return CategoryView(
        category=one.name, mandatory=one.mandatory, types=list(one.types), channels=dict(one.channels)
    )


async def _change(
    parts: Shared, recipient_id: str, body: dict[str, Any], *, merges: bool, makes: bool = True
) -> PreferencesView:
    """Replaces or patches the preferences; where there is no profile, one is made if `makes` is true."""
    if "preferences" not in known(body, "preferences"):
        raise invalid("preferences", "is missing")

    def edit(profile: Profile | None) -> Recipient:
        if profile is None and not makes:
            raise _nobody()
        stored = Recipient(id=recipient_id) if profile is None else profile.parsed()
        wanted = merged(stored.preferences, body["preferences"]) if merges else body["preferences"]
        checked = parse_profile({"id": recipient_id, "preferences": wanted})
        return stored.model_copy(update={"preferences": checked.preferences})

    change = await parts.runtime.recipients.change(recipient_id, edit)
    assert change.after is not None
    return await _view(parts, change.after.parsed())


def _body(schema: str, *media_types: str) -> dict[str, Any]:
    inner = {
        "type": "object",
        "required": ["preferences"],
        "properties": {"preferences": schemas.ref(schema)},
        "additionalProperties": False,
    }
    return body_schema(inner, *media_types, examples={"no mails about likes and friends": _EXAMPLE})


_PUT: Final = _body("Preferences")
_PATCH: Final = _body("PreferencesPatch", MERGE_PATCH, JSON)


@backend.get("", summary="Read a recipient's preferences", responses=responses(*_ERRORS, 403, 404))
async def get_preferences(recipient_id: RecipientId, parts: Parts) -> PreferencesView:
    """404: there is no profile, so everything is wanted."""
    stored = await parts.runtime.recipients.get(recipient_id)
    if stored is None:
        raise _nobody()
    return await _view(parts, stored)


@backend.put(
    "",
    summary="Replace a recipient's preferences",
    responses=responses(*_WRITE_ERRORS, 403),
    openapi_extra=_PUT,
    dependencies=[takes_up_to(_LIMIT)],
)
async def put_preferences(recipient_id: RecipientId, body: JsonObject, parts: Parts) -> PreferencesView:
    """As a whole. A profile is made when there is none."""
    return await _change(parts, recipient_id, body, merges=False)


@backend.patch(
    "",
    summary="Change some of a recipient's preferences",
    responses=responses(*_WRITE_ERRORS, 403, 404),
    openapi_extra=_PATCH,
    dependencies=[takes_up_to(_LIMIT)],
)
async def patch_preferences(recipient_id: RecipientId, body: MergePatch, parts: Parts) -> PreferencesView:
    """A JSON merge patch (RFC 7396): null removes an entry. There must be a profile."""
    return await _change(parts, recipient_id, body, merges=True, makes=False)


@user.get("", summary="Read my preferences", responses=responses(*_ERRORS))
async def get_own(recipient_id: User, parts: Parts) -> PreferencesView:
    """What was set, and for a page with switches which categories there are and what holds now."""
    stored = await parts.runtime.recipients.get(recipient_id)
    return await _view(parts, stored or Recipient(id=recipient_id))


@user.put(
    "",
    summary="Replace my preferences",
    responses=responses(*_WRITE_ERRORS),
    openapi_extra=_PUT,
    dependencies=[takes_up_to(_LIMIT)],
)
async def put_own(recipient_id: User, body: JsonObject, parts: Parts) -> PreferencesView:
    """As a whole."""
    return await _change(parts, recipient_id, body, merges=False)


@user.patch(
    "",
    summary="Change some of my preferences",
    responses=responses(*_WRITE_ERRORS),
    openapi_extra=_PATCH,
    dependencies=[takes_up_to(_LIMIT)],
)
async def patch_own(recipient_id: User, body: MergePatch, parts: Parts) -> PreferencesView:
    """One switch, say: a JSON merge patch (RFC 7396), which leaves alone what another tab has changed."""
    return await _change(parts, recipient_id, body, merges=True)
