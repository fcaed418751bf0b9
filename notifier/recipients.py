"""Stored profiles, and the addresses that are no longer used.

A profile is the recipient's JSON, with only the fields that were set, under `Keys.recipient(id)`. An
address that turned out not to exist is a field of the hash `Keys.suppressed(partition)`:

    <channel>:<recipient id>/<address key>   ->   {"reason": …, "at": Unix milliseconds}

A channel's name has no colon and an address key no slash, so the field can be taken apart whatever the
id looks like.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from notifier.broker.connection import Client
from notifier.broker.failures import translate
from notifier.broker.line import Command
from notifier.broker.scripts import Call, Caller, ask, execute, run, script
from notifier.errors import InvalidRecipient
from notifier.event import Recipient, parse_recipient
from notifier.inbox import inbox_keys
from notifier.keys import Keys

MAX_PROFILE_BYTES: Final = 64 * 1024

_SCAN_STEP: Final = 500


@dataclass(frozen=True, slots=True)
class Suppression:
    """An address that is passed over, since `at_ms` (Unix milliseconds), and why."""

    channel: str
    address_key: str
    reason: str
    at_ms: int


def suppression_field(channel: str, recipient_id: str, address_key: str) -> str:
    """The field of the hash `Keys.suppressed`."""
    return f"{channel}:{recipient_id}/{address_key}"


def encode_suppression(reason: str, at_ms: int) -> bytes:
    """The value of the hash `Keys.suppressed`."""
    return json.dumps({"reason": reason, "at": at_ms}, ensure_ascii=False, separators=(",", ":")).encode()


def encode_profile(recipient: Recipient) -> bytes:
    """The stored form. Raises InvalidRecipient when it has more than 64 KiB."""
    profile = recipient.model_dump_json(exclude_unset=True).encode()
    if len(profile) > MAX_PROFILE_BYTES:
        raise InvalidRecipient(
            "recipient", f"has {len(profile)} bytes as JSON; the limit is {MAX_PROFILE_BYTES}"
        )
    return profile


class Recipients:
    """The profiles of all recipients. All methods raise BrokerError, and InvalidRecipient for an id
    that can't be one."""

    def __init__(self, client: Client, keys: Keys, caller: Caller | None = None) -> None:
        """`caller` is for `profiles`, which the router asks for all the time."""
        self._caller = caller or client
        self._client = client
        self._keys = keys

    async def put(self, recipient: Recipient) -> bool:
        """Store the profile in place of an earlier one. Whether it is new.

        Raises InvalidRecipient when it has more than 64 KiB as JSON.
        """
        key, profile = self._keys.recipient(recipient.id), encode_profile(recipient)
        [before] = await ask(self._client, ("SET", key, profile, "GET"))
        return before is None

    async def get(self, recipient_id: str) -> Recipient | None:
        [recipient] = await self.get_many([recipient_id])
        return recipient

    async def get_many(self, recipient_ids: Sequence[str]) -> list[Recipient | None]:
        """The profiles in the order of the ids; None where none is stored. One round trip."""
        wanted: dict[int, list[str]] = {}
        for recipient_id in map(_valid_id, recipient_ids):
            wanted.setdefault(self._keys.partition_of(recipient_id), []).append(recipient_id)
        found = {partition: iter(profiles) for partition, profiles in (await self.profiles(wanted)).items()}
        in_order = (next(found[self._keys.partition_of(recipient_id)]) for recipient_id in recipient_ids)
        return [None if profile is None else parse_recipient(profile) for profile in in_order]

    async def profiles(self, wanted: Mapping[int, Sequence[str]]) -> dict[int, list[bytes | None]]:
        """The stored JSON for ids grouped by their partition, in the order of the ids.

        One MGET for each partition, all in one round trip.
        """
        asked = [partition for partition, ids in wanted.items() if ids]
        found: dict[int, list[bytes | None]] = {partition: [] for partition in wanted}
        if asked:
            names = [[self._keys.recipient(recipient_id) for recipient_id in wanted[p]] for p in asked]
            replies = await execute(self._caller, [("MGET", *of_partition) for of_partition in names])
            for partition, reply in zip(asked, replies, strict=True):
                if isinstance(reply, Exception):
                    raise translate(reply)
                found[partition] = reply
        return found

    async def suppressed(self, recipient_id: str) -> list[Suppression]:
        """The recipient's suppressed addresses, by channel and key. Looks through those of the
        partition, a step at a time."""
        fields = await self._suppressed_fields(_valid_id(recipient_id))
        return sorted(
            (_suppression(recipient_id, field, value) for field, value in fields.items()),
            key=lambda found: (found.channel, found.address_key),
        )

    async def unsuppress(self, recipient_id: str, channel: str, address_key: str) -> bool:
        """Use the address again, from the next event on. Whether it was suppressed."""
        hash_key = self._keys.suppressed(self._keys.partition_of(_valid_id(recipient_id)))
        field = suppression_field(channel, recipient_id, address_key)
        [removed] = await ask(self._client, ("HDEL", hash_key, field))
        return bool(removed)

    async def delete(self, recipient_id: str) -> bool:
        """Remove what is held under the id. Whether there was anything.

        First profile and inbox go, then suppressed addresses; then what is scheduled for the
        recipient, found by looking through the partition's scheduled entries in bounded steps: they
        are many, and no index by recipient is kept for a thing done so seldom. Each step can be
        repeated, so a call that raised may be made again.

        What is in a queue, parked or in a dead letter queue stays: it belongs to the owner of the
        queue. It is delivered or given up, and `notifier dlq discard --recipient` removes the rest; an
        in-app delivery on its way starts a new inbox. The dedup window holds ids only, and ends by itself.
        """
        partition = self._keys.partition_of(_valid_id(recipient_id))
        fields = await self._suppressed_fields(recipient_id)
        own = (self._keys.recipient(recipient_id), *inbox_keys(self._keys, recipient_id))
        commands: list[Command] = [("UNLINK", *own)]
        if fields:
            commands.append(("HDEL", self._keys.suppressed(partition), *fields))
        removed = sum(await ask(self._client, *commands))
        return bool(removed + await self._unschedule(partition, recipient_id))

    async def _unschedule(self, partition: int, recipient_id: str) -> int:
        keys = [self._keys.scheduled(partition), self._keys.scheduled_items(partition)]
        cursor, total = b"0", 0
        while True:
            call = Call(script("recipient_unschedule"), keys, (cursor, _SCAN_STEP, recipient_id))
            cursor, dropped = await run(self._client, call)
            total += int(dropped)
            if cursor == b"0":
                return total

    async def _suppressed_fields(self, recipient_id: str) -> dict[bytes, bytes]:
        hash_key = self._keys.suppressed(self._keys.partition_of(recipient_id))
        literally = re.sub(r"([*?\[\]\\])", r"\\\1", recipient_id)
        found: dict[bytes, bytes] = {}
        cursor: str | bytes = "0"
        while True:
            step = ("HSCAN", hash_key, cursor, "MATCH", f"*:{literally}/*", "COUNT", _SCAN_STEP)
            [[cursor, row]] = await ask(self._client, step)
            pairs = zip(row[::2], row[1::2], strict=True)
            found |= {field: value for field, value in pairs if _is_of(recipient_id, field)}
            if cursor == b"0":
                return found


def _valid_id(recipient_id: str) -> str:
    return parse_recipient({"id": recipient_id}).id


def _is_of(recipient_id: str, field: bytes) -> bool:
    # The pattern also finds ids that merely end in this one, or go on after a slash.
    return field.decode().partition(":")[2].rpartition("/")[0] == recipient_id


def _suppression(recipient_id: str, field: bytes, value: bytes) -> Suppression:
    channel, _, rest = field.decode().partition(":")
    told = json.loads(value)
    return Suppression(channel, rest[len(recipient_id) + 1 :], told["reason"], told["at"])
