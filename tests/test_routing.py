"""Which deliveries follow from an event. Pure."""

from __future__ import annotations

from typing import Any

import pytest

from notifier.catalogue import EventKind
from notifier.event import parse_recipient, parse_to
from notifier.routing import Skip, route, view, wants
from tests.support.channels import ScriptedChannel

CHANNELS = {name: ScriptedChannel(name) for name in ("post", "pigeon", "drum")}
LIKE = EventKind("like", category="social", mandatory=False, channels=("post", "pigeon"))
ADA = parse_recipient({"id": "ada", "email": "ada@example.com"})


def test_one_delivery_for_each_channel_that_the_type_uses_in_their_order() -> None:
    plan = route(ADA, LIKE, CHANNELS)
    assert plan.channels == ["post", "pigeon"]
    assert [address.value for address in plan.addresses] == ["ada@example.com", "ada@example.com"]
    assert not plan.skips


def test_the_same_address_given_twice_is_one() -> None:
    device = {"kind": "fcm", "token": "t" * 20}
    plan = route(parse_recipient({"id": "ada", "devices": [device, device]}), LIKE, CHANNELS)
    assert len(plan.channels) == len(plan.addresses) == 2


def test_every_channel_without_a_delivery_has_its_reason() -> None:
    nobody = parse_recipient({"id": "ada", "preferences": {"social": {"post": False}}})
    plan = route(nobody, LIKE, CHANNELS)
    assert plan.skips == [Skip("post", "muted"), Skip("pigeon", "no_address")]


def test_an_expired_event_goes_nowhere_and_says_so() -> None:
    plan = route(ADA, LIKE, CHANNELS, expired=True)
    assert plan.skips == [Skip("post", "expired"), Skip("pigeon", "expired")]
    assert not plan.channels


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
    assert route(deaf, loud, CHANNELS).channels


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
