"""One device of somebody: registered, removed, listed."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from notifier.channel import device_key
from notifier.event import Device, Recipient
from notifier.recipients.profile import Profile, TooManyDevices, with_device, without_device
from notifier.recipients.store import Edit, Recipients
from notifier.recipients.suppression import Suppression, Suppressions


@dataclass(frozen=True, slots=True)
class Registered:
    """A device, and why it is passed over, if it is."""

    key: str
    device: Device
    suppressed: Suppression | None


class Devices:
    """The devices of all recipients. All methods raise BrokerError, and InvalidRecipient for an id that
    can't be one."""

    def __init__(self, recipients: Recipients, suppressions: Suppressions, channels: Collection[str]) -> None:
        """`channels` are those on which a device may be suppressed."""
        self._recipients = recipients
        self._suppressions = suppressions
        self._channels = channels

    async def of(self, recipient_id: str) -> list[Registered]:
        recipient = await self._recipients.get(recipient_id)
        keys = {device_key(device): device for device in recipient.devices} if recipient else {}
        suppressed = {
            one.address_key: one for one in await self._suppressions.among(recipient_id, self._channels, keys)
        }
        return [Registered(key, device, suppressed.get(key)) for key, device in keys.items()]

    async def add(self, recipient_id: str, device: Device) -> bool:
        """Register it. Whether it is new to the recipient; a profile is made when there is none.

        It is taken from whoever had registered it before, and used again if it was suppressed. When there
        is no room, suppressed ones make it; raises InvalidRecipient when that is not enough.
        """
        try:
            change = await self._recipients.change(recipient_id, _with(recipient_id, device))
        except TooManyDevices as full:
            keys = [device_key(one) for one in full.devices]
            suppressed = await self._suppressions.among(recipient_id, self._channels, keys)
            gone = {one.address_key for one in suppressed}
            change = await self._recipients.change(recipient_id, _with(recipient_id, device, gone))
            await self._suppressions.lift_all(recipient_id, self._channels, gone)
        key = device_key(device)
        await self._suppressions.lift_all(recipient_id, self._channels, [key])
        return change.before is None or key not in map(device_key, change.before.parsed().devices)

    async def remove(self, recipient_id: str, key: str) -> bool:
        """Whether it was there."""

        def edit(profile: Profile | None) -> Recipient | None:
            return None if profile is None else without_device(profile.parsed(), key)

        change = await self._recipients.change(recipient_id, edit)
        await self._suppressions.lift_all(recipient_id, self._channels, [key])
        return change.before != change.after


def _with(recipient_id: str, device: Device, gone: Collection[str] = ()) -> Edit:
    def edit(profile: Profile | None) -> Recipient:
        recipient = Recipient(id=recipient_id) if profile is None else profile.parsed()
        return with_device(recipient, device, gone)

    return edit
