"""What makes another profile of a stored one."""

from __future__ import annotations

import json
import pickle
from typing import Any

import pytest

from notifier.channel import device_key
from notifier.errors import InvalidRecipient
from notifier.event import MAX_DEVICES, FcmDevice, parse_recipient
from notifier.recipients import MAX_PROFILE_BYTES, Profile, encode_profile, merged
from notifier.recipients.profile import TooManyDevices, devices_of, patched, with_device, without_device


@pytest.mark.parametrize(
    ("target", "patch", "result"),
    [  # RFC 7396, appendix A
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        (["a", "b"], ["c", "d"], ["c", "d"]),
        ({"a": "b"}, ["c"], ["c"]),
        ({"a": "foo"}, None, None),
        ({"a": "foo"}, "bar", "bar"),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
def test_a_merge_patch_does_what_its_rfc_shows(target: Any, patch: Any, result: Any) -> None:
    before = json.dumps(target)
    assert merged(target, patch) == result
    assert json.dumps(target) == before


def profile(**fields: Any) -> Profile:
    return Profile(encode_profile(parse_recipient({"id": "bo", **fields})))


def test_a_patch_sets_and_removes_members() -> None:
    muted = {"social": {"email": False, "push": False}}
    stored = profile(name="Bo", email="bo@example.org", preferences=muted)
    patch = {"email": None, "locale": "de", "preferences": {"social": {"push": None}}}
    changed = patched(stored, "bo", patch)
    assert encode_profile(changed) == encode_profile(
        parse_recipient(
            {"id": "bo", "name": "Bo", "preferences": {"social": {"email": False}}, "locale": "de"}
        )
    )


@pytest.mark.parametrize(
    ("patch", "field"),
    [
        ({"id": "ada"}, "id"),
        ({"id": None}, "id"),
        ({"age": 3}, "age"),
        ({"email": "nobody"}, "email"),
        ({"preferences": {"social": []}}, "preferences.social"),
        ({"devices": {}}, "devices"),
    ],
)
def test_a_patch_that_makes_no_profile_names_the_field(patch: Any, field: str) -> None:
    with pytest.raises(InvalidRecipient) as caught:
        patched(profile(name="Bo"), "bo", patch)
    assert caught.value.field == field


def test_another_profile_has_another_version() -> None:
    assert profile(name="Bo").version == profile(name="Bo").version != profile(name="Bö").version


def device(number: int) -> FcmDevice:
    return FcmDevice(kind="fcm", token=f"token-{number:04d}")


def test_a_device_registered_again_stays_one_device() -> None:
    recipient = with_device(with_device(parse_recipient({"id": "bo"}), device(1)), device(2))
    assert with_device(recipient, device(1)).devices == (device(1), device(2))
    browser = {"endpoint": "https://push.example/1", "keys": {"p256dh": "A" * 87, "auth": "B" * 22}}
    first = parse_recipient({"id": "bo", "devices": [browser]})
    [renewed] = parse_recipient(
        {"id": "bo", "devices": [browser | {"keys": {"p256dh": "C" * 87, "auth": "D" * 22}}]}
    ).devices
    assert with_device(first, renewed).devices == (renewed,)


def test_there_is_room_for_so_many_devices_and_suppressed_ones_make_more() -> None:
    full = parse_recipient({"id": "bo", "devices": [device(i).model_dump() for i in range(MAX_DEVICES)]})
    with pytest.raises(
        TooManyDevices, match="devices: are 50 already; the limit is 50: remove one"
    ) as caught:
        with_device(full, device(99))
    assert pickle.loads(pickle.dumps(caught.value)).devices == full.devices  # noqa: S301
    assert with_device(full, device(7)) == full
    more = with_device(full, device(99), {device_key(device(3)), "fcm-unknown"})
    assert more.devices == (*full.devices[:3], *full.devices[4:], device(99))


def test_a_device_is_removed_by_its_key() -> None:
    both = parse_recipient({"id": "bo", "devices": [device(1).model_dump(), device(2).model_dump()]})
    assert without_device(both, device_key(device(1))).devices == (device(2),)
    assert without_device(both, "fcm-unknown") is both


def test_a_profile_that_can_not_be_read_has_no_devices() -> None:
    assert devices_of(Profile(b'{"devices": 3')) == ()
    assert devices_of(None) == ()
    assert devices_of(profile(devices=[device(1).model_dump()])) == (device(1),)


def test_a_profile_has_a_limit() -> None:
    with pytest.raises(InvalidRecipient, match=f"the limit is {MAX_PROFILE_BYTES}"):
        encode_profile(
            parse_recipient({"id": "bo", "preferences": {f"c{i}": {"x" * 400: True} for i in range(200)}})
        )
