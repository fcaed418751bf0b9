"""The models on the boundary: `Event`, `Recipient`, `Device`, `Actor`.

All of them are frozen, refuse unknown fields, and bound every size. `parse_event` and
`parse_recipient` turn whatever a producer sent into a model, or raise an error that names the
field.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import cache, lru_cache
from typing import Annotated, Any, Final, Literal, Self, TypeVar
from zoneinfo import available_timezones

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    Strict,
    StrictBool,
    StringConstraints,
    TypeAdapter,
    ValidationError,
    model_validator,
)
from pydantic_core import PydanticCustomError, PydanticSerializationError

from notifier.errors import InvalidEvent, InvalidInput, InvalidRecipient
from notifier.json_data import sound
from notifier.uuid7 import uuid7

MAX_RECIPIENTS: Final = 1_000
MAX_DATA_BYTES: Final = 64 * 1024
MAX_EVENT_BYTES: Final = 256 * 1024
MAX_DEVICES: Final = 50
_PLAIN_WORD: Final = r"[^\s\x00-\x1f\x7f@<>()\[\],;:\\\"]"
_MAILBOX: Final = re.compile(f"{_PLAIN_WORD}{{1,64}}@{_PLAIN_WORD}+")


def _mailbox(text: str) -> str:
    # Deliberately narrower than RFC 5322: no quoting, comments or lists, so that an address can
    # stand in a header as it is.
    if len(text) > 254 or not _MAILBOX.fullmatch(text):
        raise PydanticCustomError("mailbox", "is not a mail address")
    return text


def _locale(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z]{2,3}([-_][A-Za-z0-9]{2,8}){0,3}", text):
        raise PydanticCustomError("locale", "is not a language tag such as de or pt-BR")
    return text.replace("_", "-")


# It looks through the zone files each time, which takes longer than all else that is done for a delivery.
_time_zones = cache(available_timezones)


def _time_zone(text: str) -> str:
    if text not in _time_zones():
        raise PydanticCustomError("time_zone", "is not a time zone such as Europe/Berlin")
    return text


def _iso_time(value: object) -> object:
    # Digits alone would be read as seconds since 1970: "20260131" is not meant so.
    if not isinstance(value, str | datetime) or (isinstance(value, str) and "-" not in value[1:]):
        raise PydanticCustomError("time", "is not an ISO 8601 time such as 2026-01-31T12:00:00Z")
    return value


# No control character and no line or paragraph separator; checked in Rust, since it is on the hot path.
_LINE: Final = r"^[^\p{Cc}\p{Zl}\p{Zp}]*$"

Id = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=_LINE)]
Name = Annotated[str, StringConstraints(max_length=200, pattern=_LINE)]
Link = Annotated[str, StringConstraints(max_length=2_000, pattern=_LINE)]
Mailbox = Annotated[str, AfterValidator(_mailbox)]
Locale = Annotated[str, AfterValidator(_locale)]
TimeZone = Annotated[str, AfterValidator(_time_zone)]
Time = Annotated[AwareDatetime, BeforeValidator(_iso_time)]
EventType = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_.]*$", max_length=100)]


class Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class WebPushKeys(Model):
    """The client's public key and secret of a Web Push subscription, base64url (RFC 8291)."""

    p256dh: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{86,88}=*$")]
    auth: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{22,24}=*$")]


class WebPushDevice(Model):
    """A browser, as `PushSubscription.toJSON()` describes it (RFC 8030)."""

    kind: Literal["web_push"] = "web_push"
    endpoint: Annotated[str, StringConstraints(pattern=r"^https?://[^\s]+$", max_length=2_000)]
    keys: WebPushKeys
    expirationTime: Annotated[float, Strict()] | None = None  # noqa: N815 - the browser's own spelling


class FcmDevice(Model):
    """An Android device or app instance of Firebase Cloud Messaging."""

    kind: Literal["fcm"]
    token: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9:_\-]{8,4096}$")]


class ApnsDevice(Model):
    """An Apple device."""

    kind: Literal["apns"]
    token: Annotated[str, StringConstraints(pattern=r"^[A-Fa-f0-9]{64,200}$")]


def _default_kind(value: object) -> object:
    # What a browser hands over has an endpoint and no kind.
    if isinstance(value, Mapping) and "kind" not in value:
        return {**value, "kind": "web_push"}
    return value


Device = Annotated[
    Annotated[WebPushDevice | FcmDevice | ApnsDevice, Field(discriminator="kind")],
    BeforeValidator(_default_kind),
]

Preferences = Annotated[
    dict[Annotated[str, StringConstraints(max_length=100)], dict[str, StrictBool]], Field(max_length=200)
]
"""Category, or "*", to channel, or "*", to wanted or not. The most specific entry counts."""


_ID_ONLY: Final = {"id"}


class Recipient(Model):
    """Who is told. Only `id` is needed; the rest may be stored before or sent inline."""

    id: Id
    email: Mailbox | None = None
    name: Name | None = None
    locale: Locale | None = None
    time_zone: TimeZone | None = None
    devices: Annotated[tuple[Device, ...], Field(max_length=MAX_DEVICES)] = ()
    preferences: Preferences = Field(default_factory=dict)

    def with_inline(self, inline: Recipient) -> Recipient:
        """This profile, with what the event said of the recipient on top."""
        if inline.model_fields_set == _ID_ONLY:
            return self
        return self.model_copy(update={name: getattr(inline, name) for name in inline.model_fields_set})


def _recipient(value: object) -> object:
    return _of_bare(value) if isinstance(value, str) else value


@lru_cache(maxsize=4_096)  # most events name recipients who were named before
def _of_bare(recipient_id: str) -> object:
    try:
        return Recipient(id=recipient_id)
    except ValidationError:
        return {"id": recipient_id}  # whoever asked is told where it stands


def _actor(value: object) -> object:
    return {"id": value} if isinstance(value, str) else value


class Actor(Model):
    """Who did it: Ada liked your photo."""

    id: Id
    name: Name | None = None
    image: Link | None = None
    url: Link | None = None


class EventBody(Model):
    """An event without its recipients: what travels through the queues, encoded once.

    Times carry an offset. `data` is JSON of up to 64 KiB.
    """

    id: Id = Field(default_factory=uuid7)
    type: EventType
    actor: Annotated[Actor | None, BeforeValidator(_actor)] = None
    data: Annotated[dict[str, Any], AfterValidator(sound)] = Field(default_factory=dict)
    occurred_at: Time = Field(default_factory=lambda: datetime.now(UTC))
    deliver_at: Time | None = None
    expires_at: Time | None = None

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        if self.expires_at:
            self._check_times()
        return self

    def _check_times(self) -> None:
        if self.deliver_at and self.expires_at and self.expires_at <= self.deliver_at:
            raise PydanticCustomError("expires_at", "is not after deliver_at")


_BODY: Final = EventBody.__pydantic_serializer__  # what model_dump_json uses, without text between

TRACEPARENT: Final = r"^00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$"
"""Version 00 of W3C Trace Context, section 3.2."""


class Event(EventBody):
    """One fact from a producer, for one `recipient` or up to 1,000 `recipients`.

    `traceparent` is the trace that it is part of (W3C Trace Context); it travels beside the event.
    """

    recipient: Annotated[Recipient | None, BeforeValidator(_recipient)] = None
    recipients: Annotated[
        tuple[Annotated[Recipient, BeforeValidator(_recipient)], ...], Field(max_length=MAX_RECIPIENTS)
    ] = ()
    traceparent: Annotated[str | None, Field(pattern=TRACEPARENT)] = None

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:  # in the place of the body's: each costs a call
        if self.expires_at:
            self._check_times()
        if (self.recipient is None) == (not self.recipients):
            raise PydanticCustomError("recipient", "give either recipient or recipients")
        return self

    def everyone(self) -> tuple[Recipient, ...]:
        return self.recipients or (self.recipient,)  # type: ignore[return-value]

    def encode(self) -> tuple[bytes, list[bytes]]:
        """The wire form: the JSON of the body, and one `to` for each recipient.

        Raises InvalidEvent when a size limit is passed.
        """
        try:
            body: bytes = _BODY.to_json(self, exclude_none=True)
        except PydanticSerializationError:  # half of a surrogate pair
            raise InvalidEvent("data", "has text that is not Unicode") from None
        if len(body) > MAX_DATA_BYTES:
            size = len(json.dumps(self.data, ensure_ascii=False, separators=(",", ":")).encode())
            if size > MAX_DATA_BYTES:
                raise InvalidEvent("data", f"has {size} bytes as JSON; the limit is {MAX_DATA_BYTES}")
        if self.recipient is not None:
            to = [encode_recipient(self.recipient)]
            size = len(body) + len(to[0])
        else:
            to = [encode_recipient(recipient) for recipient in self.recipients]
            size = len(body) + sum(map(len, to))
        if size > MAX_EVENT_BYTES:
            raise InvalidEvent("event", f"has {size} bytes as JSON; the limit is {MAX_EVENT_BYTES}")
        return body, to


def encode_recipient(recipient: Recipient) -> bytes:
    """The `to` of the wire: the bare id, or a JSON object when there is more than the id."""
    if recipient.model_fields_set == _ID_ONLY and recipient.id[0] != "{":
        return recipient.id.encode()
    return recipient.model_dump_json(exclude_unset=True).encode()


_M = TypeVar("_M", bound=BaseModel)
_TEXT: Final = (str, bytes)


def parse_event(source: Event | Mapping[str, Any] | str | bytes) -> Event:
    """An event from a mapping or JSON text. Raises InvalidEvent, which names the field."""
    if isinstance(source, Event):
        return source
    return _parse(Event, source, InvalidEvent, "event")


def parse_events(sources: Sequence[Event | Mapping[str, Any] | str | bytes]) -> list[Event]:
    """Many events. Raises InvalidEvent, with a field such as `events[3].type`."""
    if sources and isinstance(sources[0], dict):
        try:  # in one call, which takes a quarter less time
            found: list[Event] = _EVENTS.validate_python(sources)
            return found
        except (ValidationError, RecursionError):
            pass  # some are text, or one by one it is seen which is wrong
    events = []
    for place, source in enumerate(sources):
        try:
            events.append(parse_event(source))
        except InvalidEvent as error:
            raise InvalidEvent(f"events[{place}].{error.field}", error.reason) from None
    return events


_EVENTS: Final = TypeAdapter(list[Event]).validator


def parse_body(source: bytes) -> EventBody:
    """The `event` field of a queue entry. Raises InvalidEvent."""
    return _parse(EventBody, source, InvalidEvent, "event")


def parse_recipient(source: Recipient | Mapping[str, Any] | str | bytes) -> Recipient:
    """A recipient from a mapping or JSON text. Raises InvalidRecipient."""
    if isinstance(source, Recipient):
        return source
    return _parse(Recipient, source, InvalidRecipient, "recipient")


def parse_to(to: bytes) -> Recipient:
    """The `to` field of a queue entry. Raises InvalidRecipient."""
    return parse_recipient(to) if to.startswith(b"{") else _parse_bare(to)


@lru_cache(maxsize=4_096)
def _parse_bare(to: bytes) -> Recipient:
    try:
        return _parse(Recipient, {"id": to.decode()}, InvalidRecipient, "to")
    except UnicodeDecodeError:
        raise InvalidRecipient("to", "is not UTF-8") from None


def _parse(model: type[_M], source: object, error: Callable[[str, str], InvalidInput], what: str) -> _M:
    try:
        if isinstance(source, _TEXT):
            if len(source) > 2 * MAX_EVENT_BYTES:
                raise error(what, f"has more than {MAX_EVENT_BYTES} bytes")
            return model.model_validate_json(source)
        parsed: _M = model.__pydantic_validator__.validate_python(
            source
        )  # as model_validate, without options
        return parsed
    except ValidationError as failure:
        first = failure.errors(include_url=False, include_input=False)[0]
        field, reason = _explain(first["type"], first["loc"], first["msg"], what)
        raise error(field + first.get("ctx", {}).get("path", ""), reason) from None
    except RecursionError:
        raise error(what, "is nested too deeply") from None


_OWN_WORDS: Final = {
    "extra_forbidden": "is not a known field",
    "missing": "is missing",
    "recipient": "give either recipient or recipients",
    "timezone_aware": "is not an ISO 8601 time with an offset, such as 2026-01-31T12:00:00Z",
}
_RAISED_BY_THE_WHOLE: Final = ("recipient", "expires_at")


def _explain(kind: str, loc: tuple[int | str, ...], message: str, what: str) -> tuple[str, str]:
    field = "".join(_path(loc)).lstrip(".") or (kind if kind in _RAISED_BY_THE_WHOLE else what)
    if kind.startswith("datetime"):
        kind = "timezone_aware"
    reason = _OWN_WORDS.get(kind) or message[:1].lower() + message[1:]
    if kind == "too_long" and loc[-1:] == ("recipients",):
        reason = f"has {message.rpartition('not ')[2]} entries; the limit is {MAX_RECIPIENTS}"
    elif kind == "finite_number":
        field = field.removesuffix(".float")
    elif kind == "json_invalid":
        field, reason = what, "is not JSON: " + message.removeprefix("Invalid JSON: ")
        if "recursion limit" in message:
            reason = "is nested too deeply"
    elif kind == "string_pattern_mismatch":
        if "Cc" in message:
            reason = "has a control character"
        elif loc[-1:] == ("type",):
            reason = "must match [a-z][a-z0-9_.]*"
        elif loc[-1:] == ("traceparent",):
            reason = "is not a traceparent of W3C Trace Context, version 00"
    return field, reason


def _path(loc: tuple[int | str, ...]) -> Iterator[str]:
    for part in loc[:20]:
        if isinstance(part, int):
            yield f"[{part}]"
        elif part not in {"web_push", "fcm", "apns"}:  # the union's tags are no field
            yield f".{part}"
