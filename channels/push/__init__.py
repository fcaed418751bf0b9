"""The channel `push`: one delivery for each device, through a sender for its kind.

A kind of device is a module with a `Sender`; `open_channel` puts those together that the settings
configure. A recipient's devices of other kinds are not addresses.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final, Protocol

from pydantic import TypeAdapter, ValidationError

from channels.push.web_push import WebPushSender
from notifier.channel import (
    Address,
    Block,
    Channel,
    Delivery,
    Finding,
    PermanentFailure,
    Sent,
    device_key,
)
from notifier.errors import InvalidRecipient
from notifier.event import Device, Recipient

_DEVICE: Final[TypeAdapter[Device]] = TypeAdapter(Device)


class Sender(Protocol):
    """Pushes to one kind of device. One instance serves one worker process."""

    @property
    def kind(self) -> str:
        """The `kind` of its devices."""

    async def open(self) -> None:
        """Open clients. Raises ConfigurationError when a setting that sending needs is unusable."""

    def check(self, device: Any) -> None:
        """Raises PermanentFailure for a device that nothing will ever be sent to."""

    def variables(self) -> Collection[str]:
        """The environment variables that it reads."""

    async def check_settings(self) -> Sequence[Finding]:
        """How its settings and its provider are, once it is open; sends nothing to anybody."""

    async def send(self, delivery: Delivery, device: Any, content: Mapping[str, str]) -> Sent:
        """Try once to push to `device`, a model of this kind. Raises DeliveryError."""

    async def close(self) -> None:
        """Close clients."""


class PushChannel:
    """See the module. `senders` are the configured ones."""

    name: Final = "push"
    blocks: Final[Sequence[Block]] = (
        Block("title", "line", max_length=1_000),
        Block("body", "text", max_length=16 * 1024),
        Block("url", "line", required=False, max_length=2_000),
    )

    def __init__(self, senders: Sequence[Sender]) -> None:
        self._senders = {sender.kind: sender for sender in senders}

    def addresses(self, recipient: Recipient) -> Sequence[Address]:
        found = {}
        for device in recipient.devices:
            if device.kind in self._senders:
                key = device_key(device)
                found[key] = Address(key=key, value=device.model_dump_json(exclude_none=True))
        return tuple(found.values())

    def check_device(self, device: Device) -> None:
        """See `notifier.channel.TakesDevices`. Kinds without a sender are kept for when there is one."""
        sender = self._senders.get(device.kind)
        try:
            if sender:
                sender.check(device)
        except PermanentFailure as failure:
            raise InvalidRecipient("device", failure.reason) from None

    def push_key(self) -> str | None:
        """See `notifier.channel.TakesDevices`."""
        sender = self._senders.get("web_push")
        return sender.public_key() if isinstance(sender, WebPushSender) else None

    def variables(self) -> Collection[str]:
        """See `notifier.channel.ChecksItself`."""
        return {name for sender in self._senders.values() for name in sender.variables()}

    async def check(self) -> Sequence[Finding]:
        """See `notifier.channel.ChecksItself`."""
        return [finding for sender in self._senders.values() for finding in await sender.check_settings()]

    async def open(self) -> None:
        try:
            for sender in self._senders.values():
                await sender.open()
        except BaseException:
            await self.close()
            raise

    async def send(self, delivery: Delivery, content: Mapping[str, str]) -> Sent:
        try:
            device = _DEVICE.validate_json(delivery.address)
        except ValidationError:
            raise PermanentFailure("the device is not in a form that can be read") from None
        sender = self._senders.get(device.kind)
        if sender is None:
            raise PermanentFailure(f"devices of the kind {device.kind} are not configured any more")
        return await sender.send(delivery, device, content)

    async def close(self) -> None:
        for sender in self._senders.values():
            await sender.close()


def open_channel(environ: Mapping[str, str]) -> Channel:
    """The factory behind `channels.push:open_channel`. Raises ConfigurationError."""
    return PushChannel([WebPushSender.from_environ(environ)])
