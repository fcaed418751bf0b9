"""What operators send and are sent, as models, for the OpenAPI document."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints

from notifier.operations.dead_letters import ID, POSITION

DURATION: Final = "^[0-9]{1,6}([.][0-9]{1,3})?(ms|s|m|h|d|w)$"
MAX_IDS: Final = 1_000
MAX_TAKEN: Final = 10_000

Words = Annotated[list[Annotated[str, StringConstraints(max_length=200)]], Field(min_length=1, max_length=50)]
State = Literal["dlq", "dead", "all"]


class PageInfo(BaseModel):
    """`after` is for the next request with the same filters, or null at the end."""

    has_more: bool
    after: str | None


class QueueView(BaseModel):
    """One queue over all partitions.

    `waiting` nobody has yet, `in_hand` are with a worker, `parked` wait for a retry in `parked_lanes` (there
    are more than that when `parked_exact` is false), `scheduled` wait for their time (told for `events`
    only), `dlq` wait for their second try, `dead` gave up. `oldest_seconds` is the age of the oldest that
    waits or is in hand. `owners` are workers, with the number of partitions that each serves.
    """

    queue: str
    waiting: int
    in_hand: int
    parked: int
    parked_lanes: int
    parked_exact: bool
    scheduled: int | None
    dlq: int
    dead: int
    oldest_seconds: float | None
    owners: dict[str, int]
    unowned_partitions: int
    dlq_owners: dict[str, int]


class QueueList(BaseModel):
    """`events`, then the channels."""

    partitions: int
    queues: list[QueueView]


class LetterView(BaseModel):
    """A delivery, or an event, that could not be handled. `since` is when it came where it lies."""

    id: str
    queue: str
    state: Literal["dlq", "dead"]
    error: str
    reason: str
    answer: str
    attempts: int
    first_failed_at: str | None
    last_failed_at: str | None
    since: str
    event_id: str
    type: str
    recipient: str
    address_key: str
    accepted_at: str | None
    expires_at: str | None


class WholeLetter(LetterView):
    """With the event as the producer sent it, and what to do about it."""

    event: Any
    advice: str


class LetterPage(BaseModel):
    """Dead letters, oldest first."""

    dead_letters: list[LetterView]
    page_info: PageInfo


class _Mending(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    dry_run: Annotated[bool, Field(description="Only count what it would be")] = False


def _whole(value: object) -> object:
    return int(value) if isinstance(value, float) and value.is_integer() else value  # JSON knows one kind


class _Many(_Mending):
    limit: Annotated[
        int, Field(ge=1, le=MAX_TAKEN, description="At most so many in this request"), BeforeValidator(_whole)
    ] = 1_000
    rate: Annotated[float, Field(ge=0.1, le=100_000, strict=False, description="Letters a second")] = 0.0
    after: Annotated[
        str, StringConstraints(pattern=f"^{POSITION}$"), Field(description="Where the request before ended")
    ] = ""


class MendByIds(_Mending):
    """These dead letters."""

    ids: Annotated[
        list[Annotated[str, StringConstraints(pattern=f"^{ID}$")]], Field(min_length=1, max_length=MAX_IDS)
    ]


class MendAll(_Many):
    """Every dead letter."""

    all: Literal[True]


class MendByFilters(_Many):
    """Those that all of these select together; at least one of them is needed."""

    channel: Words = []
    error: Words = []
    type: Words = []
    recipient: Annotated[str, StringConstraints(min_length=1, max_length=200)] = ""
    older_than: Annotated[str, StringConstraints(pattern=DURATION)] = "0s"
    state: Literal["dlq", "dead"] | None = None


FILTERS: Final = ("channel", "error", "type", "recipient", "older_than", "state")
MendRequest = MendByIds | MendAll | MendByFilters


def _components() -> dict[str, Any]:
    """The schemas of a request: what may be left out is left out, and not null."""
    found = {model.__name__: model.model_json_schema() for model in (MendByIds, MendAll, MendByFilters)}
    state = found["MendByFilters"]["properties"]["state"]
    found["MendByFilters"]["properties"]["state"] = {"enum": state["anyOf"][0]["enum"], "type": "string"}
    found["MendByFilters"]["anyOf"] = [{"required": [name]} for name in FILTERS]
    for schema in found.values():
        for field in schema["properties"].values():
            if field.get("default") in ([], "", None, 0.0):
                field.pop("default", None)
    return found | {
        "MendRequest": {
            "oneOf": [{"$ref": f"#/components/schemas/{name}"} for name in found],
            "examples": [
                {"ids": ["email:07:dead:1764000000000-0"]},
                {"channel": ["email"], "error": ["TransientFailure"], "older_than": "10m", "rate": 50},
                {"all": True, "dry_run": True},
            ],
        }
    }


COMPONENTS: Final = _components()


class LeftLetter(BaseModel):
    """One that was left alone, and why."""

    id: str
    result: Literal["gone", "busy", "unusable"]


class GroupView(BaseModel):
    """How many there are of one kind."""

    queue: str
    state: str
    error: str
    type: str
    count: int


class Mended(BaseModel):
    """What became of them, or with `dry_run` what they are.

    `done` were redriven or discarded. `gone` are not there any more, `busy` are being tried by the DLQ's
    worker now, `unusable` hold nothing that could be queued and can only be discarded. With `ids`, `left`
    names them. `matched` and `groups` are for a dry run. Go on with `page_info.after` while `has_more` is
    true.
    """

    dry_run: bool
    done: int = 0
    gone: int = 0
    busy: int = 0
    unusable: int = 0
    left: list[LeftLetter] = []
    matched: int | None = None
    groups: list[GroupView] = []
    page_info: PageInfo
