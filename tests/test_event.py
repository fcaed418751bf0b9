"""The models on the boundary: what is accepted, what is refused and which field is named."""

from __future__ import annotations

import json
import re
import time
import uuid
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifier.errors import InvalidEvent, InvalidRecipient
from notifier.event import (
    MAX_DATA_BYTES,
    MAX_EVENT_BYTES,
    MAX_RECIPIENTS,
    Event,
    Recipient,
    encode_recipient,
    parse_body,
    parse_event,
    parse_recipient,
    parse_to,
)
from notifier.uuid7 import uuid7

KEYS = {"p256dh": "A" * 87, "auth": "B" * 22}


def event(**fields: Any) -> dict[str, Any]:
    return {"type": "like", "recipient": "u1", **fields}


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


REFUSED: dict[str, tuple[dict[str, Any], str, str]] = {
    "no type": ({"recipient": "u1"}, "type", "is missing"),
    "type in capitals": (event(type="Like"), "type", "must match"),
    "type with a line break": (event(type="like\n"), "type", "must match"),
    "type is no text": (event(type=7), "type", "string"),
    "unknown field": (event(priority=1), "priority", "is not a known field"),
    "unknown field of the recipient": (
        event(recipient={"id": "u1", "phone": "1"}),
        "recipient.phone",
        "is not a known field",
    ),
    "no recipient": ({"type": "like"}, "recipient", "either recipient or recipients"),
    "both recipient and recipients": (
        event(recipients=["u2"]),
        "recipient",
        "either recipient or recipients",
    ),
    "no recipients": ({"type": "like", "recipients": []}, "recipient", "either recipient or recipients"),
    "1,001 recipients": (
        {"type": "like", "recipients": [f"u{i}" for i in range(MAX_RECIPIENTS + 1)]},
        "recipients",
        "1000",
    ),
    "recipient is a number": (event(recipient=5), "recipient", "dictionary"),
    "recipient without id": (event(recipient={"email": "a@b.example"}), "recipient.id", "is missing"),
    "empty recipient id": (event(recipient=""), "recipient.id", "at least 1"),
    "long recipient id": (event(recipient="u" * 201), "recipient.id", "at most 200"),
    "line break in a recipient id": (event(recipient="u\n1"), "recipient.id", "control character"),
    "address of one of many": (
        {"type": "like", "recipients": ["u1", {"id": "u2", "email": "nobody"}]},
        "recipients[1].email",
        "not a mail address",
    ),
    "header injection by address": (
        event(recipient={"id": "u1", "email": "a@b.example\r\nBcc: c@d.example"}),
        "recipient.email",
        "not a mail address",
    ),
    "locale": (event(recipient={"id": "u1", "locale": "German!"}), "recipient.locale", "language tag"),
    "time zone": (
        event(recipient={"id": "u1", "time_zone": "Europe/Bärlin"}),
        "recipient.time_zone",
        "time zone",
    ),
    "device of no kind": (
        event(recipient={"id": "u1", "devices": [{"kind": "pager", "token": "12345678"}]}),
        "recipient.devices[0]",
        "pager",
    ),
    "device with a bad token": (
        event(recipient={"id": "u1", "devices": [{"kind": "apns", "token": "xyz"}]}),
        "recipient.devices[0].token",
        "match",
    ),
    "51 devices": (
        event(recipient={"id": "u1", "devices": [{"kind": "fcm", "token": f"{i:08d}"} for i in range(51)]}),
        "recipient.devices",
        "50",
    ),
    "time without an offset": (event(occurred_at="2026-01-31T12:00:00"), "occurred_at", "offset"),
    "no time at all": (event(occurred_at="yesterday"), "occurred_at", "ISO 8601"),
    "seconds since 1970": (event(deliver_at=1_700_000_000), "deliver_at", "ISO 8601"),
    "a date without dashes": (event(deliver_at="20260131"), "deliver_at", "ISO 8601"),
    "the 32nd": (event(deliver_at="2026-01-32T12:00:00Z"), "deliver_at", "ISO 8601"),
    "expires before it is due": (
        event(deliver_at="2026-02-01T00:00:00Z", expires_at="2026-01-31T00:00:00Z"),
        "expires_at",
        "is not after deliver_at",
    ),
    "data is a list": (event(data=[]), "data", "dictionary"),
    "a set in data": (event(data={"x": {1}}), "data.x", "JSON"),
    "a number that is not finite": (event(data={"x": float("nan")}), "data.x", "finite"),
    "data nested too deeply": (event(data={"x": nested(150)}), "data", "nested too deeply"),
    "an integer of 1,001 digits": (event(data={"x": 10**1_001}), "data.x", "1,000 digits"),
    "half of a surrogate pair": (event(data={"x": "\ud800"}), "data", "not Unicode"),
    "too much data": (event(data={"x": "é" * (MAX_DATA_BYTES // 2)}), "data", str(MAX_DATA_BYTES)),
    "an event too large": (
        {
            "type": "like",
            "recipients": [{"id": f"u{i}", "name": "n" * 200} for i in range(MAX_RECIPIENTS)],
            "data": {"x": "x" * 60_000},
        },
        "event",
        str(MAX_EVENT_BYTES),
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused_names_its_field_in_one_line(case: str) -> None:
    source, field, reason = REFUSED[case]
    with pytest.raises(InvalidEvent) as caught:
        parse_event(source).encode()
    assert caught.value.field == field
    assert reason in caught.value.reason
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "is not JSON"),
        ("{", "is not JSON"),
        ("[]", "object"),
        (b"\xff", "is not JSON"),
        ('{"type":"like","recipient":"u1"} {}', "is not JSON"),
        ('{"type":"like","recipient":"u1","data":{"x":"\\ud800"}}', "is not JSON"),
        ('{"type":"like","recipient":"u1","data":{"x":' + "[" * 300 + "]" * 300 + "}}", "nested too deeply"),
        (" " * (2 * MAX_EVENT_BYTES + 1), "bytes"),
    ],
)
def test_text_that_is_no_event_is_told_so(text: str | bytes, reason: str) -> None:
    with pytest.raises(InvalidEvent) as caught:
        parse_event(text)
    assert caught.value.field == "event"
    assert reason in caught.value.reason


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_a_number_that_json_can_not_carry_is_refused_and_not_turned_into_null(number: str) -> None:
    with pytest.raises(InvalidEvent, match=r"data\.x\[0\]: has a number that is not finite"):
        parse_event(f'{{"type":"like","recipient":"u1","data":{{"x":[{number}]}}}}')


def test_a_deep_mapping_gets_a_short_message() -> None:
    data: dict[str, Any] = {}
    inner = data
    for _ in range(5_000):
        inner["a"] = {}
        inner = inner["a"]
    with pytest.raises(InvalidEvent) as caught:
        parse_event(event(data=data))
    assert len(str(caught.value)) < 300


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(data=st.dictionaries(st.text(), JSON, max_size=5))
def test_any_json_data_comes_out_of_the_queue_as_it_went_in(data: dict[str, Any]) -> None:
    body, to = parse_event(event(data=data)).encode()
    assert parse_body(body).data == data
    assert to == [b"u1"]


def test_the_largest_numbers_and_the_deepest_nesting_that_are_accepted_can_be_read_again() -> None:
    data = {"big": 10**999, "deep": nested(98)}
    body, _ = parse_event(event(data=data)).encode()
    assert parse_body(body).data == data


def test_an_event_without_id_gets_a_version_7_uuid() -> None:
    before = time.time_ns() // 1_000_000
    made = uuid.UUID(parse_event(event()).id)
    after = time.time_ns() // 1_000_000
    assert (made.version, made.variant) == (7, uuid.RFC_4122)
    assert before <= made.int >> 80 <= after
    assert len({uuid7() for _ in range(1_000)}) == 1_000


def test_the_same_event_as_mapping_text_bytes_and_model_has_one_wire_form() -> None:
    source = event(id="e1", occurred_at="2026-01-31T12:00:00+02:00", actor="u9")
    model = parse_event(source)
    forms = [source, json.dumps(source), json.dumps(source).encode(), model]
    assert {parse_event(form).encode()[0] for form in forms} == {model.encode()[0]}
    assert model.actor is not None
    assert model.actor.id == "u9"


def test_a_bare_recipient_travels_as_its_id_and_any_other_as_json() -> None:
    assert encode_recipient(Recipient(id="ü1")) == "ü1".encode()
    assert json.loads(encode_recipient(Recipient(id="u1", name="Ada"))) == {"id": "u1", "name": "Ada"}
    assert json.loads(encode_recipient(Recipient(id="{u1"))) == {"id": "{u1"}


@given(id_=st.text(min_size=1, max_size=200).filter(str.isprintable))
def test_every_id_survives_the_wire(id_: str) -> None:
    assert parse_to(encode_recipient(Recipient(id=id_))).id == id_


@pytest.mark.parametrize("to", [b"", b"\xff", b"{", b'{"id":1}', b"u\n"])
def test_a_broken_to_is_an_invalid_recipient(to: bytes) -> None:
    with pytest.raises(InvalidRecipient):
        parse_to(to)


def test_what_a_browser_hands_over_is_a_web_push_device() -> None:
    subscription = {"endpoint": "https://push.example/1", "expirationTime": None, "keys": KEYS}
    recipient = parse_recipient({"id": "u1", "devices": [subscription]})
    assert recipient.devices[0].kind == "web_push"


def test_inline_values_lie_on_top_of_the_stored_profile_and_only_those_that_were_given() -> None:
    stored = Recipient(id="u1", email="old@example.com", name="Ada", locale="de")
    inline = parse_recipient({"id": "u1", "email": "new@example.com", "locale": None})
    merged = stored.with_inline(inline)
    assert (merged.email, merged.name, merged.locale) == ("new@example.com", "Ada", None)


def test_models_are_frozen() -> None:
    made = parse_event(event())
    with pytest.raises(ValueError, match="frozen"):
        made.type = "other"  # type: ignore[misc]


def test_times_keep_their_offset() -> None:
    made = parse_event(event(deliver_at="2026-01-31T12:00:00+02:00"))
    assert made.deliver_at == datetime(2026, 1, 31, 10, tzinfo=UTC)
    assert isinstance(made, Event)
    assert re.search(rb'"deliver_at":"2026-01-31T12:00:00\+02:00"', made.encode()[0])
