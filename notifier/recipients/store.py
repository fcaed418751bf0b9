"""The profiles of all recipients: read, put, changed, deleted."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from notifier.broker.connection import Client
from notifier.broker.failures import translate
from notifier.broker.scripts import Call, Caller, execute, run, run_all, script
from notifier.channel import device_key
from notifier.errors import BrokerError, BrokerUnavailable
from notifier.event import Recipient
from notifier.inbox import Inbox
from notifier.keys import Keys
from notifier.recipients.owners import Owned, Owners
from notifier.recipients.profile import Profile, devices_of, encode_profile, without_device
from notifier.recipients.suppression import Suppressions, valid_id

Edit = Callable[[Profile | None], Recipient | None]
"""From the stored profile, if there is one, to the one that is to be stored, or None to remove it. What it
raises is raised to the caller, and nothing is changed."""

_SCAN_STEP: Final = 500
_MOST_TRIES: Final = 100


@dataclass(frozen=True, slots=True)
class Change:
    """A profile before and after."""

    before: Profile | None
    after: Profile | None


class Recipients:
    """The profiles of all recipients. All methods raise BrokerError, and InvalidRecipient for an id
    that can't be one."""

    def __init__(self, client: Client, keys: Keys, caller: Caller | None = None) -> None:
        """`caller` is for `profiles`, which the router asks for all the time."""
        self._caller = caller or client
        self._client = client
        self._keys = keys
        self._owners = Owners(client, keys)

    # Reading.

    async def get(self, recipient_id: str) -> Recipient | None:
        [recipient] = await self.get_many([recipient_id])
        return recipient

    async def get_many(self, recipient_ids: Sequence[str]) -> list[Recipient | None]:
        """The profiles in the order of the ids; None where none is stored. One round trip."""
        found = await self.find(recipient_ids)
        return [None if profile is None else profile.parsed() for profile in found]

    async def find(self, recipient_ids: Sequence[str]) -> list[Profile | None]:
        """The same, as they are stored."""
        wanted: dict[int, list[str]] = {}
        for recipient_id in map(valid_id, recipient_ids):
            wanted.setdefault(self._keys.partition_of(recipient_id), []).append(recipient_id)
        found = {partition: iter(profiles) for partition, profiles in (await self.profiles(wanted)).items()}
        in_order = (next(found[self._keys.partition_of(recipient_id)]) for recipient_id in recipient_ids)
        return [None if source is None else Profile(source) for source in in_order]

    async def profiles(self, wanted: Mapping[int, Sequence[str]]) -> dict[int, list[bytes | None]]:
        """The stored JSON for ids grouped by their partition, in the order of the ids.

        One MGET for each partition, all in one round trip.
        """
        asked = [partition for partition, ids in wanted.items() if ids]
        found: dict[int, list[bytes | None]] = {partition: [] for partition in wanted}
        if asked:
            prefixes = [self._keys.recipient_prefix(partition) for partition in asked]
            names = [[prefix + one for one in wanted[p]] for p, prefix in zip(asked, prefixes, strict=True)]
            replies = await execute(self._caller, [("MGET", *of_partition) for of_partition in names])
            for partition, reply in zip(asked, replies, strict=True):
                if isinstance(reply, Exception):
                    raise translate(reply)
                found[partition] = reply
        return found

    # Changing.

    async def put(self, recipient: Recipient) -> bool:
        """Store the profile in place of an earlier one. Whether it is new.

        Raises InvalidRecipient when it has more than 64 KiB as JSON.
        """
        change = await self.change(recipient.id, lambda _: recipient)
        return change.before is None

    async def put_many(self, recipients: Iterable[Recipient]) -> int:
        """Store these; of several with one id the last one counts. How many are new.

        Raises InvalidRecipient when one has more than 64 KiB as JSON; then none is stored.
        """
        changes = await self.change_many({recipient.id: _replace(recipient) for recipient in recipients})
        return sum(change.before is None for change in changes.values())

    async def change(self, recipient_id: str, edit: Edit) -> Change:
        """Change one profile, whatever others change at the same time."""
        return (await self.change_many({recipient_id: edit}))[recipient_id]

    async def change_many(self, edits: Mapping[str, Edit]) -> dict[str, Change]:
        """Read the profiles, edit each, and store it if nobody has changed it since; otherwise once more.

        Each profile is changed by itself: when an error is raised, some may be changed and others not.
        Three round trips, and two more where a device is new. Raises InvalidRecipient when a profile has
        more than 64 KiB as JSON.
        """
        changes: dict[str, Change] = {}
        left = list(edits)
        for _ in range(_MOST_TRIES):
            planned = {
                recipient_id: Change(before, _encoded(edits[recipient_id](before)))
                for recipient_id, before in zip(left, await self.find(left), strict=True)
            }
            lost = await self._store(planned)
            changes |= {i: change for i, change in planned.items() if i not in lost}
            left = [i for i in left if i in lost]
            if not left:
                return changes
        raise BrokerUnavailable("somebody changes the same profile all the time")

    async def _store(self, planned: Mapping[str, Change]) -> set[str]:
        """Makes the changes. Returns whose were not made: others have changed them meanwhile."""
        changes = {i: change for i, change in planned.items() if change.before != change.after}
        gained = [owned for i, change in changes.items() for owned in _gained(i, change)]
        others = await self._owners.claim(gained)
        replies = await run_all(self._client, [self._call(i, change) for i, change in changes.items()])
        lost = {i for i, reply in zip(changes, replies, strict=True) if reply != 1}
        await self._settle({i: change for i, change in changes.items() if i not in lost}, gained, others)
        for reply in replies:
            if isinstance(reply, BrokerError):
                raise reply
        return lost

    def _call(self, recipient_id: str, change: Change) -> Call:
        before = change.before.source if change.before else b""
        key = [self._keys.recipient(recipient_id)]
        if change.after is None:
            return Call(script("recipient_remove"), key, (before,))
        return Call(script("recipient_change"), key, (before, change.after.source))

    async def _settle(
        self, done: Mapping[str, Change], gained: Sequence[Owned], others: Sequence[Owned]
    ) -> None:
        """Takes the devices that were gained from those who had them; the newest registration wins.

        Whoever dies in between leaves them written down, and the next registration takes them away.
        """
        kept = [owned for owned in gained if owned.recipient_id in done]
        devices = {owned.device for owned in kept}
        taken = [owned for owned in others if owned.device in devices]
        taken += await self._owners.lost(kept)
        for device, recipient_id in taken:
            await self.change(recipient_id, _leave(device_key(device)))
        freed = [owned for recipient_id, change in done.items() for owned in _lost(recipient_id, change)]
        await self._owners.release([*taken, *freed])

    async def delete(self, recipient_id: str, check: Callable[[Profile | None], None] | None = None) -> bool:
        """Remove what is held under the id. Whether there was anything.

        First profile and inbox go, then suppressed addresses; then what is scheduled for the
        recipient, found by looking through the partition's scheduled entries in bounded steps: they
        are many, and no index by recipient is kept for a thing done so seldom. Each step can be
        repeated, so a call that raised may be made again. `check` is given the profile first; what it
        raises is raised, and nothing is removed.

        What is in a queue or parked stays: it belongs to the owner of the queue. It is delivered or given
        up; an in-app delivery on its way starts a new inbox. The dedup window holds ids only, and ends by
        itself. Dead letters are another layer's: see `notifier.operations.forgetting`.
        """

        def remove(profile: Profile | None) -> None:
            if check:
                check(profile)

        change = await self.change(valid_id(recipient_id), remove)
        had_inbox = await Inbox(self._client, self._keys).delete(recipient_id)
        removed = await Suppressions(self._client, self._keys).delete(recipient_id)
        removed += await self._unschedule(recipient_id)
        return change.before is not None or had_inbox or removed > 0

    async def _unschedule(self, recipient_id: str) -> int:
        partition = self._keys.partition_of(recipient_id)
        keys = [self._keys.scheduled(partition), self._keys.scheduled_items(partition)]
        cursor, total = b"0", 0
        while True:
            call = Call(script("recipient_unschedule"), keys, (cursor, _SCAN_STEP, recipient_id))
            cursor, dropped = await run(self._client, call)
            total += int(dropped)
            if cursor == b"0":
                return total


def _replace(recipient: Recipient) -> Edit:
    return lambda _: recipient


def _encoded(recipient: Recipient | None) -> Profile | None:
    return None if recipient is None else Profile(encode_profile(recipient))


def _gained(recipient_id: str, change: Change) -> list[Owned]:
    had = {device_key(device) for device in devices_of(change.before)}
    return [Owned(d, recipient_id) for d in devices_of(change.after) if device_key(d) not in had]


def _lost(recipient_id: str, change: Change) -> list[Owned]:
    return _gained(recipient_id, Change(change.after, change.before))


def _leave(key: str) -> Edit:
    """Without the device of this key; nothing, where there is no profile."""
    return lambda profile: None if profile is None else without_device(profile.parsed(), key)
