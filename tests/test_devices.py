"""Devices that change hands, on a real server."""

from __future__ import annotations

import asyncio

import pytest
import redis.asyncio

from notifier.channel import device_key
from notifier.errors import InvalidRecipient
from notifier.event import MAX_DEVICES, FcmDevice, WebPushDevice, parse_recipient
from notifier.keys import Keys
from notifier.recipients import Devices, Recipients, Suppressions

KEYS = Keys()
CHANNELS = ("email", "push")
PHONE = FcmDevice(kind="fcm", token="the-same-telephone")
KEY = device_key(PHONE)


@pytest.fixture
def devices(recipients: Recipients, suppressions: Suppressions) -> Devices:
    return Devices(recipients, suppressions, CHANNELS)


def device(number: int) -> FcmDevice:
    return FcmDevice(kind="fcm", token=f"token-{number:04d}")


async def claims(client: redis.asyncio.Redis) -> list[set[bytes]]:
    """Who is written down for each device."""
    return [await client.smembers(key) async for key in client.scan_iter(KEYS.device("*"))]  # type: ignore[misc]


async def who_has(devices: Devices, *names: str) -> list[str]:
    return [name for name in names if await devices.of(name)]


async def test_the_first_device_makes_a_profile(devices: Devices, recipients: Recipients) -> None:
    assert await devices.add("bo", PHONE)
    assert not await devices.add("bo", PHONE)
    assert await recipients.get("bo") == parse_recipient({"id": "bo", "devices": [PHONE.model_dump()]})


async def test_a_device_is_added_to_a_profile_that_stays_as_it_is(
    devices: Devices, recipients: Recipients
) -> None:
    await recipients.put(parse_recipient({"id": "bo", "email": "bo@example.org"}))
    await devices.add("bo", PHONE)
    stored = await recipients.get("bo")
    assert stored is not None
    assert (stored.email, stored.devices) == ("bo@example.org", (PHONE,))


async def test_a_device_belongs_to_who_registered_it_last(
    client: redis.asyncio.Redis, devices: Devices
) -> None:
    for name in ("ada", "bo", "ada", "cy"):
        await devices.add(name, PHONE)
        assert await who_has(devices, "ada", "bo", "cy") == [name]
        assert await claims(client) == [{name.encode()}]


async def test_a_profile_that_is_put_or_changed_registers_its_devices_too(
    client: redis.asyncio.Redis, devices: Devices, recipients: Recipients
) -> None:
    with_phone = {"devices": [PHONE.model_dump()]}
    await recipients.put(parse_recipient({"id": "ada", **with_phone}))
    await recipients.put(parse_recipient({"id": "bo", **with_phone}))
    assert await who_has(devices, "ada", "bo") == ["bo"]
    await recipients.change("ada", lambda _: parse_recipient({"id": "ada", **with_phone}))
    assert await who_has(devices, "ada", "bo") == ["ada"]
    await recipients.put(parse_recipient({"id": "ada"}))
    assert await claims(client) == []


async def test_endpoints_of_browsers_change_hands_although_their_keys_differ(devices: Devices) -> None:
    def browser(letter: str) -> WebPushDevice:
        return WebPushDevice.model_validate(
            {"endpoint": "https://push.example/1", "keys": {"p256dh": letter * 87, "auth": letter * 22}}
        )

    await devices.add("ada", browser("A"))
    await devices.add("bo", browser("B"))
    assert await who_has(devices, "ada", "bo") == ["bo"]


async def test_who_died_between_two_steps_of_registering_is_found_by_the_next(
    client: redis.asyncio.Redis, devices: Devices
) -> None:
    await devices.add("ada", PHONE)
    # Bo's registration came as far as the profile, and did not take the telephone from ada.
    [key] = await client.keys(KEYS.device("*"))
    await client.sadd(key, "bo")  # type: ignore[misc]
    profile = await client.get(KEYS.recipient("ada"))
    await client.set(KEYS.recipient("bo"), profile.replace(b"ada", b"bo"))
    assert await who_has(devices, "ada", "bo") == ["ada", "bo"]
    await devices.add("cy", PHONE)
    assert await who_has(devices, "ada", "bo", "cy") == ["cy"]
    assert await claims(client) == [{b"cy"}]


async def test_of_many_who_register_it_at_once_one_has_it_at_most(
    client: redis.asyncio.Redis, devices: Devices
) -> None:
    names = [f"u{i}" for i in range(8)]
    for _ in range(5):
        await asyncio.gather(*(devices.add(name, PHONE) for name in names))
        assert len(await who_has(devices, *names)) <= 1
        await devices.add("last", PHONE)
        assert await who_has(devices, *names, "last") == ["last"]
    assert await claims(client) == [{b"last"}]


async def test_devices_that_are_registered_at_once_are_all_kept(devices: Devices) -> None:
    await asyncio.gather(*(devices.add("bo", device(i)) for i in range(20)))
    assert {one.device for one in await devices.of("bo")} == {device(i) for i in range(20)}


async def test_removing_a_device_says_whether_it_was_there(
    client: redis.asyncio.Redis, devices: Devices, suppressions: Suppressions
) -> None:
    await devices.add("bo", PHONE)
    await suppressions.add("bo", "push", KEY, "gone")
    assert not await devices.remove("bo", "fcm-unknown")
    assert await devices.remove("bo", KEY)
    assert not await devices.remove("bo", KEY)
    assert not await devices.remove("nobody", KEY)
    assert await claims(client) == []
    assert await suppressions.of("bo") == []


async def test_a_suppressed_device_is_told_and_used_again_when_it_registers(
    devices: Devices, suppressions: Suppressions
) -> None:
    await devices.add("bo", PHONE)
    await devices.add("bo", device(1))
    await suppressions.add("bo", "push", KEY, "404 not registered")
    told = {one.key: one.suppressed and one.suppressed.reason for one in await devices.of("bo")}
    assert told == {KEY: "404 not registered", device_key(device(1)): None}
    assert not await devices.add("bo", PHONE)
    assert [one.suppressed for one in await devices.of("bo")] == [None, None]


async def test_when_there_is_no_room_suppressed_devices_make_it(
    client: redis.asyncio.Redis, devices: Devices, recipients: Recipients, suppressions: Suppressions
) -> None:
    full = [device(i).model_dump() for i in range(MAX_DEVICES)]
    await recipients.put(parse_recipient({"id": "bo", "devices": full}))
    with pytest.raises(InvalidRecipient, match="the limit is 50"):
        await devices.add("bo", PHONE)
    assert [one.device for one in await devices.of("bo")] == [device(i) for i in range(MAX_DEVICES)]
    await suppressions.add("bo", "push", device_key(device(3)), "gone")
    assert await devices.add("bo", PHONE)
    kept = [device(i) for i in range(MAX_DEVICES) if i != 3]
    assert [one.device for one in await devices.of("bo")] == [*kept, PHONE]
    assert await suppressions.of("bo") == []
    assert len(await claims(client)) == MAX_DEVICES


async def test_deleting_a_recipient_forgets_whose_device_it_was(
    client: redis.asyncio.Redis, devices: Devices, recipients: Recipients
) -> None:
    await devices.add("bo", PHONE)
    assert await recipients.delete("bo")
    assert await client.keys("*") == []
