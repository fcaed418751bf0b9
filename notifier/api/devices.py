"""Devices that push reaches: registered by the app's backend, or by the user's browser or app itself."""

from __future__ import annotations

from typing import Annotated, Any, Final

import structlog
from fastapi import APIRouter, Depends, Response
from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic.config import JsonDict

from notifier.api import recipient_schemas as schemas
from notifier.api.access import ManagesRecipients, User
from notifier.api.bodies import takes_up_to
from notifier.api.paths import Decoded, RecipientId, segment
from notifier.api.problems import Problem, responses
from notifier.api.reading import JsonObject, body_schema, invalid
from notifier.api.shared import Parts
from notifier.channel import TakesDevices, device_key
from notifier.errors import ConfigurationError
from notifier.event import Device
from notifier.recipients import Devices

log = structlog.get_logger(__name__)

backend = APIRouter(prefix="/v1/recipients/{id}/devices", tags=["devices"], dependencies=[ManagesRecipients])
user = APIRouter(prefix="/v1/inbox", tags=["inbox"])

_LIMIT: Final = 16 * 1024
_DEVICE: Final[TypeAdapter[Device]] = TypeAdapter(Device)
_ERRORS: Final = (401, 422, 503)
_EXAMPLE: Final[JsonDict] = {"key": "web_push-c2a86c6dc35b", "kind": "web_push", "suppressed": None}
_BODY: Final = body_schema(
    schemas.ref("Device"),
    examples={
        "a browser's PushSubscription": schemas.SUBSCRIPTION,
        "Firebase Cloud Messaging": {"kind": "fcm", "token": "fYk3-1xTQ0:APA91bH"},
        "Apple": {"kind": "apns", "token": "0f" * 32},
    },
)


class DeviceView(BaseModel):
    """A device without its endpoint or token, which are secrets. `key` stands for it; `suppressed` says why
    it is passed over."""

    model_config = {"json_schema_extra": {"example": _EXAMPLE}}

    key: str
    kind: str
    suppressed: str | None


class DeviceList(BaseModel):
    """Devices in the order in which they were registered."""

    devices: list[DeviceView]


async def _devices(parts: Parts) -> Devices:
    runtime = parts.runtime
    return Devices(runtime.recipients, runtime.suppressions, tuple(parts.channels))


async def _device(body: JsonObject, parts: Parts) -> Device:
    """The body. Raises Problem (422) or InvalidRecipient."""
    try:
        device = _DEVICE.validate_python(body, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        names = [str(part) for part in first["loc"] if part not in {"web_push", "fcm", "apns"}]
        raise invalid(".".join(names) or "kind", first["msg"][:1].lower() + first["msg"][1:]) from None
    for channel in parts.channels.values():
        if isinstance(channel, TakesDevices):
            channel.check_device(device)
    return device


_Devices = Annotated[Devices, Depends(_devices)]
_Body = Annotated[Device, Depends(_device)]
_Key = Annotated[
    str, segment("key", "As registering answered", "web_push-c2a86c6dc35b", max_length=50), Decoded
]


async def _list(devices: Devices, recipient_id: str) -> DeviceList:
    return DeviceList(
        devices=[
            DeviceView(key=one.key, kind=one.device.kind, suppressed=one.suppressed and one.suppressed.reason)
            for one in await devices.of(recipient_id)
        ]
    )


async def _add(devices: Devices, recipient_id: str, device: Device, response: Response) -> DeviceView:
    if await devices.add(recipient_id, device):
        response.status_code = 201
    return DeviceView(key=device_key(device), kind=device.kind, suppressed=None)


async def _remove(devices: Devices, recipient_id: str, key: str) -> None:
    if not await devices.remove(recipient_id, key):
        raise Problem(404, "no device is registered under this key")


_ADDED: Final[dict[int | str, dict[str, Any]]] = {
    200: {"description": "It was registered before; what is given now counts", "model": DeviceView},
    201: {"description": "Registered", "model": DeviceView},
}


@backend.get("", summary="List a recipient's devices", responses=responses(*_ERRORS, 403, 404))
async def list_devices(recipient_id: RecipientId, devices: _Devices, parts: Parts) -> DeviceList:
    """Without their endpoints and tokens, which the profile has. 404: there is no profile."""
    if await parts.runtime.recipients.get(recipient_id) is None:
        raise Problem(404, "no profile is stored under this id")
    return await _list(devices, recipient_id)


@backend.post(
    "",
    summary="Register a device",
    responses={**_ADDED, **responses(*_ERRORS, 400, 403, 413, 415)},
    openapi_extra=_BODY,
    dependencies=[takes_up_to(_LIMIT)],
)
async def add_device(
    recipient_id: RecipientId, devices: _Devices, device: _Body, response: Response
) -> DeviceView:
    """As `POST /v1/inbox/devices` does it for users."""
    return await _add(devices, recipient_id, device, response)


@backend.delete(
    "/{key}",
    summary="Remove a device",
    status_code=204,
    responses={204: {"description": "Removed"}, **responses(*_ERRORS, 403, 404)},
)
async def remove_device(recipient_id: RecipientId, key: _Key, devices: _Devices) -> None:
    """It is not used from the next event on."""
    await _remove(devices, recipient_id, key)


@user.get("/devices", summary="List my devices", responses=responses(*_ERRORS))
async def list_own(recipient_id: User, devices: _Devices) -> DeviceList:
    """Without their endpoints and tokens."""
    return await _list(devices, recipient_id)


@user.post(
    "/devices",
    summary="Register this device",
    responses={**_ADDED, **responses(*_ERRORS, 400, 413, 415)},
    openapi_extra=_BODY,
    dependencies=[takes_up_to(_LIMIT)],
)
async def add_own(recipient_id: User, devices: _Devices, device: _Body, response: Response) -> DeviceView:
    """A browser's `PushSubscription` as `toJSON()` gives it, or the token of an app. Do it at every start: it
    is one device for one endpoint or token, and belongs to who registered it last, so whoever used this
    browser before is pushed nothing here any more. There may be 50.
    """
    return await _add(devices, recipient_id, device, response)


@user.delete(
    "/devices/{key}",
    summary="Remove a device of mine",
    status_code=204,
    responses={204: {"description": "Removed"}, **responses(*_ERRORS, 404)},
)
async def remove_own(recipient_id: User, key: _Key, devices: _Devices) -> None:
    """When the user logs out, or turns pushes off. The key is what registering answered."""
    await _remove(devices, recipient_id, key)


class PushKey(BaseModel):
    """The key for `pushManager.subscribe({applicationServerKey})`: base64url."""

    public_key: str


@user.get("/push-key", summary="The key to subscribe with", responses=responses(401, 404, 500))
async def push_key(_: User, parts: Parts) -> PushKey:
    """The public VAPID key (RFC 8292) of this installation. 404: it pushes to no browsers."""
    try:
        for channel in parts.channels.values():
            if isinstance(channel, TakesDevices) and (key := channel.push_key()):
                return PushKey(public_key=key)
    except ConfigurationError as error:
        log.warning("push_key_unusable", setting=error.setting, reason=error.reason)
        raise Problem(500, "the key for Web Push can't be used; the log says more") from error
    raise Problem(404, "there is no key for Web Push")
