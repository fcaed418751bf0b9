"""A stored profile, and what makes another of it. Pure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final

from pydantic import ValidationError
from pydantic_core import to_json

from notifier.channel import device_key
from notifier.errors import InvalidRecipient
from notifier.event import MAX_DEVICES, Device, Recipient, parse_recipient

MAX_PROFILE_BYTES: Final = 64 * 1024

_TAGS: Final = frozenset({"web_push", "fcm", "apns"})  # of the union of devices; no field


@dataclass(frozen=True, slots=True)
class Profile:
    """What is stored of a recipient: the JSON as it lies there."""

    source: bytes

    @property
    def version(self) -> str:
        """32 hex digits; another one after every change."""
        return hashlib.blake2b(self.source, digest_size=16).hexdigest()

    def parsed(self) -> Recipient:
        """Raises InvalidRecipient for what another program has stored there."""
        return parse_recipient(self.source)


def encode_profile(recipient: Recipient) -> bytes:
    """The stored form. Raises InvalidRecipient when it has more than 64 KiB."""
    profile = recipient.model_dump_json(exclude_unset=True).encode()
    if len(profile) > MAX_PROFILE_BYTES:
        raise InvalidRecipient(
            "recipient", f"has {len(profile)} bytes as JSON; the limit is {MAX_PROFILE_BYTES}"
        )
    return profile


def devices_of(profile: Profile | None) -> tuple[Device, ...]:
    """The devices; none of a profile that can't be read."""
    if profile is None or b'"devices"' not in profile.source:
        return ()
    try:
        return profile.parsed().devices
    except InvalidRecipient:
        return ()


def parse_profile(source: Mapping[str, Any] | bytes) -> Recipient:
    """A profile that is to be stored, from JSON or what was parsed of it. Raises InvalidRecipient.

    What an event says of a recipient is read as it is meant; what is kept is taken by the letter: "yes" is
    not true.
    """
    recipient = parse_recipient(source)
    try:
        Recipient.model_validate_json(source if isinstance(source, bytes) else to_json(source), strict=True)
    except ValidationError as failure:
        first = failure.errors(include_url=False, include_input=False)[0]
        field = ".".join(str(part) for part in first["loc"] if part not in _TAGS)
        raise InvalidRecipient(field or "recipient", first["msg"][:1].lower() + first["msg"][1:]) from None
    return recipient


def merged(target: object, patch: object) -> object:
    """What a JSON merge patch (RFC 7396, section 2) makes of `target`: null removes a member."""
    if not isinstance(patch, Mapping):
        return patch
    result = dict(target) if isinstance(target, Mapping) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = merged(result.get(name), value)
    return result


def patched(profile: Profile, recipient_id: str, patch: Mapping[str, Any]) -> Recipient:
    """The profile with the merge patch. Raises InvalidRecipient, also when the id would change."""
    changed = merged(json.loads(profile.source), patch)
    assert isinstance(changed, Mapping)
    return of_id(parse_profile(changed), recipient_id)


def of_id(recipient: Recipient, recipient_id: str) -> Recipient:
    """The same. Raises InvalidRecipient when it is somebody else's."""
    if recipient.id != recipient_id:
        raise InvalidRecipient("id", "is not the id that is asked for")
    return recipient


class TooManyDevices(InvalidRecipient):
    """There is no room for one more. `devices` are those that are there."""

    def __init__(self, devices: tuple[Device, ...]) -> None:
        self.devices = devices
        super().__init__("devices", f"are {len(devices)} already; the limit is {MAX_DEVICES}: remove one")

    def __reduce__(self) -> tuple[type[TooManyDevices], tuple[tuple[Device, ...]]]:  # type: ignore[override]
        return type(self), (self.devices,)


def with_device(recipient: Recipient, device: Device, gone: Collection[str] = ()) -> Recipient:
    """With this device, in the place of an earlier registration of it.

    Those whose key is in `gone` make room for it when there is none. Raises TooManyDevices.
    """
    key = device_key(device)
    devices = {device_key(one): one for one in recipient.devices} | {key: device}
    if len(devices) > MAX_DEVICES:
        devices = {name: one for name, one in devices.items() if name not in gone or name == key}
    if len(devices) > MAX_DEVICES:
        raise TooManyDevices(recipient.devices)
    return recipient.model_copy(update={"devices": tuple(devices.values())})


def without_device(recipient: Recipient, key: str) -> Recipient:
    """Without the device of this key."""
    kept = tuple(device for device in recipient.devices if device_key(device) != key)
    if len(kept) == len(recipient.devices):
        return recipient
    return recipient.model_copy(update={"devices": kept})
