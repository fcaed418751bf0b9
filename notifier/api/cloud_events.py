"""CloudEvents 1.0 as events: structured, batched, or in HTTP headers (binary mode).

Sources: the specification, its JSON format and its HTTP protocol binding, each of version 1.0.2. What is
taken from which attribute stands in `docs/reference/http-api.md`. The package `cloudevents` (2.2) knows no
batches, and replaces what is not UTF-8 in a header instead of refusing it, so this is our own.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final
from urllib.parse import unquote

from pydantic_core import from_json

from notifier.api.problems import Problem
from notifier.errors import InvalidEvent
from notifier.event import TRACEPARENT

STRUCTURED: Final = "application/cloudevents+json"
BATCH: Final = "application/cloudevents-batch+json"

ATTRIBUTES: Final[Mapping[str, str]] = {
    "id": "id",
    "type": "type",
    "time": "occurred_at",
    "subject": "recipient",
    "actor": "actor",
    "deliverat": "deliver_at",
    "expiresat": "expires_at",
    "traceparent": "traceparent",
}
"""From an attribute to the field of an event. `actor` and what ends with `at` are extensions of ours,
`traceparent` is the one for distributed tracing."""

RECIPIENTS: Final = "recipients"
"""The extension with several ids, separated by commas, in place of `subject`."""

_FIELDS: Final = {field: attribute for attribute, field in ATTRIBUTES.items()}
_JSON: Final = re.compile(r"[\w.+-]+/(json|[\w.+-]+\+json)", re.ASCII)


def is_json(media_type: str) -> bool:
    """Whether data of this type is JSON: application/json, text/json, anything that ends in +json."""
    return _JSON.fullmatch(media_type.partition(";")[0].strip().lower()) is not None


def from_headers(headers: Iterable[tuple[str, str]], body: bytes) -> dict[str, Any]:
    """The attributes of binary mode, decoded, and `data`; for `as_event`. `body` is JSON, or empty.

    Raises Problem (400).
    """
    attributes: dict[str, Any] = {
        name[3:]: _decoded(name, value) for name, value in headers if name.startswith("ce-")
    }
    if body:
        attributes["data"] = parsed(body)
    return attributes


def _decoded(name: str, value: str) -> str:
    """HTTP protocol binding, section 3.1.3.2: quotes, then percents, then UTF-8."""
    if len(value) > 1 and value[0] == value[-1] == '"':
        value = re.sub(r"\\(.)", r"\1", value[1:-1])
    try:
        return unquote(value.encode("latin-1").decode(), errors="strict")
    except UnicodeError:
        raise Problem(400, f"{name}: is not UTF-8", errors=[(name, "is not UTF-8")]) from None


def parsed(body: bytes) -> Any:
    """A body of JSON. Raises Problem (400)."""
    try:
        return from_json(body, allow_inf_nan=False)
    except ValueError as error:
        reason = f"is not JSON: {error}"
        raise Problem(400, f"body: {reason}", errors=[("body", reason)]) from None


def as_event(cloud_event: object) -> dict[str, Any]:
    """The fields of our event. Raises InvalidEvent, which names the attribute."""
    if not isinstance(cloud_event, dict):
        raise InvalidEvent("event", "is not a JSON object")
    _check_context(cloud_event)
    event = {field: cloud_event[name] for name, field in ATTRIBUTES.items() if name in cloud_event}
    if not is_traceparent(event.get("traceparent")):
        event.pop("traceparent", None)
    for name in ("subject", "actor"):
        if name in cloud_event and not isinstance(cloud_event[name], str):
            raise InvalidEvent(name, "is not a string")
    if RECIPIENTS in cloud_event:
        event["recipients"] = _ids(cloud_event[RECIPIENTS])
        if event.pop("recipient", None) is not None:
            raise InvalidEvent(RECIPIENTS, "give either subject or recipients")
    elif "recipient" not in event:
        raise InvalidEvent("subject", "is missing: it is the recipient's id")
    data = _data(cloud_event)
    if data is not None:
        event["data"] = data
    return event


def is_traceparent(value: object) -> bool:
    """What is none, or of a later version, is ignored: W3C Trace Context, section 4.3."""
    return isinstance(value, str) and re.fullmatch(TRACEPARENT, value) is not None


def attribute_of(field: str) -> str:
    """How a CloudEvent calls what an error calls `field`."""
    head, bracket, rest = re.sub(r"^(recipient|actor)\.id$", r"\1", field).partition("[")
    return f"{_FIELDS.get(head, head)}{bracket}{rest}"


def _check_context(cloud_event: Mapping[str, Any]) -> None:
    if cloud_event.get("specversion") != "1.0":
        raise InvalidEvent("specversion", "must be 1.0")
    for name in ("id", "source", "type"):
        value = cloud_event.get(name)
        if not isinstance(value, str) or not value:
            raise InvalidEvent(
                name, "is missing" if value is None else "is not a string with something in it"
            )


def _ids(value: object) -> list[str]:
    if not isinstance(value, str):
        raise InvalidEvent(RECIPIENTS, "is not a string of ids, separated by commas")
    ids = [word.strip() for word in value.split(",")]
    return [word for word in ids if word]


def _data(cloud_event: Mapping[str, Any]) -> Any:
    media_type = cloud_event.get("datacontenttype", "application/json")
    if not isinstance(media_type, str) or not is_json(media_type):
        raise InvalidEvent("datacontenttype", "is not JSON")
    if "data_base64" not in cloud_event:
        return cloud_event.get("data")
    if "data" in cloud_event:
        raise InvalidEvent("data_base64", "give either data or data_base64")
    try:
        return from_json(base64.b64decode(cloud_event["data_base64"], validate=True), allow_inf_nan=False)
    except (binascii.Error, TypeError, ValueError):
        raise InvalidEvent("data_base64", "is not the base64 of JSON") from None
