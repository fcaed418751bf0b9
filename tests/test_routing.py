"""Which deliveries follow from an event. Pure."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from notifier.catalogue import EventKind
from notifier.event import parse_body, parse_recipient, parse_to
from notifier.routing import Skip, route, view, wants
from tests.support.channels import ScriptedChannel

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
CHANNELS = {name: ScriptedChannel(name) for name in ("post", "pigeon", "drum")}
LIKE = EventKind("like", category="social", mandatory=False, channels=("post", "pigeon"))
ADA = parse_recipient({"id": "ada", "email": "ada@example.com"})


def body(**fields: Any) -> Any:
    return parse_body(b'{"id":"e1","type":"like","occurred_at":"2026-01-01T00:00:00Z"}').model_copy(
        update=fields
    )


def test_one_delivery_for_each_channel_that_the_type_uses_in_their_order() -> None:
    plan = route(body(), ADA, LIKE, CHANNELS, NOW)
    assert [(channel, address.value) for channel, address in plan.deliveries] == [
        ("post", "ada@example.com"),
        ("pigeon", "ada@example.com"),
    ]
    assert not plan.skips


def test_the_same_address_given_twice_is_one() -> None:
    device = {"kind": "fcm", "token": "t" * 20}
    plan = route(body(), parse_recipient({"id": "ada", "devices": [device, device]}), LIKE, CHANNELS, NOW)
    assert len(plan.deliveries) == 2


def test_every_channel_without_a_delivery_has_its_reason() -> None:
    nobody = parse_recipient({"id": "ada", "preferences": {"social": {"post": False}}})
    plan = route(body(), nobody, LIKE, CHANNELS, NOW)
    assert plan.skips == [Skip("post", "muted"), Skip("pigeon", "no_address")]


@pytest.mark.parametrize(("seconds", "expired"), [(-1, True), (0, True), (1, False)])
def test_an_event_is_expired_from_its_time_on(seconds: int, expired: bool) -> None:
    plan = route(body(expires_at=NOW + timedelta(seconds=seconds)), ADA, LIKE, CHANNELS, NOW)
    assert bool(plan.deliveries) is not expired
    assert {skip.reason for skip in plan.skips} == ({"expired"} if expired else set())


@pytest.mark.parametrize(
    ("preferences", "wanted"),
    [
        ({}, True),
        ({"social": {"post": False}}, False),
        ({"social": {"*": False}}, False),
        ({"*": {"post": False}}, False),
        ({"*": {"*": False}}, False),
        ({"social": {"post": True}, "*": {"*": False}}, True),
        ({"social": {"*": True}, "*": {"post": False}}, True),
        ({"social": {"post": False, "*": True}}, False),
        ({"social": {"pigeon": False}}, True),
        ({"sales": {"*": False}}, True),
    ],
)
def test_the_most_specific_preference_counts(preferences: dict[str, Any], wanted: bool) -> None:
    assert wants(parse_recipient({"id": "ada", "preferences": preferences}), "social", "post") is wanted


def test_a_mandatory_type_ignores_preferences() -> None:
    deaf = ADA.model_copy(update={"preferences": {"*": {"*": False}}})
    loud = EventKind("alarm", category="security", mandatory=True, channels=("post",))
    assert route(body(), deaf, loud, CHANNELS, NOW).deliveries


def test_templates_see_no_address_and_no_preference() -> None:
    full = parse_recipient(
        {
            "id": "ada", "name": "Ada", "locale": "de", "time_zone": "Europe/Berlin", "email": "a@b.example",
            "devices": [{"kind": "fcm", "token": "t" * 20}], "preferences": {"*": {"post": True}},
        }
    )  # fmt: skip
    seen = parse_to(view(full).encode())
    assert seen.model_fields_set == {"id", "name", "locale", "time_zone"}
    assert (seen.name, seen.locale, seen.time_zone) == ("Ada", "de", "Europe/Berlin")
    assert view(parse_recipient({"id": "ada", "email": "ada@example.com"})) == "ada"
