"""Addresses that are passed over: because a provider said that they do not exist, or by hand."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

from notifier.broker.connection import Client
from notifier.broker.scripts import ask
from notifier.errors import InvalidInput
from notifier.event import parse_recipient
from notifier.keys import Keys

CURSOR: Final = "[0-9]{1,4}-[0-9]{1,19}"
"""A page's cursor: a partition, and where its scan stands."""

MAX_REASON: Final = 500
"""Characters of a reason that is given by hand."""

_SCAN_STEP: Final = 500
_MOST_STEPS: Final = 20  # of one page
_CHANNEL = re.compile(r"[a-z][a-z0-9_]{0,49}")
_KEY = re.compile(r"[^/\x00-\x1f\x7f-\x9f\u2028\u2029]{1,500}")
_CURSOR = re.compile(CURSOR)


@dataclass(frozen=True, slots=True)
class Suppression:
    """An address that is passed over, since `at_ms` (Unix milliseconds), and why."""

    recipient: str
    channel: str
    address_key: str
    reason: str
    at_ms: int


@dataclass(frozen=True, slots=True)
class SuppressionPage:
    """`after` is the cursor of the next page, or None at the end. A page may be empty and not the last."""

    found: tuple[Suppression, ...]
    after: str | None


def suppression_field(channel: str, recipient_id: str, address_key: str) -> str:
    """The field of the hash `Keys.suppressed`."""
    return f"{channel}:{recipient_id}/{address_key}"


def encode_suppression(reason: str, at_ms: int) -> bytes:
    """The value of the hash `Keys.suppressed`."""
    return json.dumps({"reason": reason, "at": at_ms}, ensure_ascii=False, separators=(",", ":")).encode()


def valid_id(recipient_id: str) -> str:
    """The same. Raises InvalidRecipient when it can't be an id."""
    return parse_recipient({"id": recipient_id}).id


class Suppressions:
    """The suppressed addresses of all recipients. All methods raise BrokerError, and InvalidRecipient for
    an id that can't be one."""

    def __init__(self, client: Client, keys: Keys) -> None:
        self._client = client
        self._keys = keys

    async def of(self, recipient_id: str) -> list[Suppression]:
        """All of the recipient's, by channel and key. Looks through those of the partition, a step at a
        time."""
        fields = await self._fields(valid_id(recipient_id))
        found = [_suppression(field, value) for field, value in fields.items()]
        return sorted(found, key=lambda one: (one.channel, one.address_key))

    async def among(
        self, recipient_id: str, channels: Collection[str], address_keys: Collection[str]
    ) -> list[Suppression]:
        """Those of the recipient with these keys. One round trip, however many there are of others."""
        pairs = [(channel, key) for channel in channels for key in address_keys]
        if not pairs:
            return []
        fields = [suppression_field(channel, valid_id(recipient_id), key) for channel, key in pairs]
        [values] = await ask(self._client, ("HMGET", self._hash(recipient_id), *fields))
        pairs_and_values = zip(fields, values, strict=True)
        return [_suppression(field.encode(), value) for field, value in pairs_and_values if value is not None]

    async def page(self, after: str | None = None, page_size: int = 100) -> SuppressionPage:
        """Some of all recipients', in no order. Raises InvalidInput for a cursor that is none.

        An address that is suppressed all the time is found once at least. A page holds about `page_size`: a
        few hundred more when the server hands them out at once, fewer when there is much to look through.
        """
        partition, cursor = self._position(after)
        found: list[Suppression] = []
        for _ in range(_MOST_STEPS):
            if partition >= self._keys.partitions:
                return SuppressionPage(tuple(found), None)
            step = ("HSCAN", self._keys.suppressed(partition), cursor, "COUNT", page_size - len(found))
            [[next_cursor, row]] = await ask(self._client, step)
            found += (_suppression(*pair) for pair in zip(row[::2], row[1::2], strict=True))
            cursor = int(next_cursor)
            if cursor == 0:
                partition += 1
            if len(found) >= page_size:
                break
        is_over = partition >= self._keys.partitions
        return SuppressionPage(tuple(found), None if is_over else f"{partition}-{cursor}")

    async def add(self, recipient_id: str, channel: str, address_key: str, reason: str) -> bool:
        """Pass over the address from the next event on. Whether it was not before.

        A mailbox may be written as its owner does; its key is in lower case.
        Raises InvalidInput for what can't be a channel, a key or a reason.
        """
        if not _CHANNEL.fullmatch(channel):
            raise InvalidInput("channel", "must match [a-z][a-z0-9_]*")
        if not _KEY.fullmatch(address_key) or not _is_unicode(address_key):
            raise InvalidInput(
                "address_key", "must have 1 to 500 characters, no slash and no control character"
            )
        if len(reason) > MAX_REASON or not _is_unicode(reason):
            raise InvalidInput("reason", f"must be text of at most {MAX_REASON} characters")
        field = suppression_field(channel, valid_id(recipient_id), _as_key(address_key))
        value = encode_suppression(reason, time.time_ns() // 1_000_000)
        [added] = await ask(self._client, ("HSET", self._hash(recipient_id), field, value))
        return bool(added)

    async def lift(self, recipient_id: str, channel: str, address_key: str) -> bool:
        """Use the address again, from the next event on. Whether it was suppressed."""
        return await self.lift_all(recipient_id, [channel], [address_key]) > 0

    async def lift_all(
        self, recipient_id: str, channels: Collection[str], address_keys: Collection[str]
    ) -> int:
        """Use these again, on each of the channels. How many were suppressed."""
        keys = {spelling for key in address_keys for spelling in (key, _as_key(key))}
        pairs = [(channel, key) for channel in channels for key in keys if _is_unicode(channel + key)]
        return await self._remove(
            recipient_id,
            [suppression_field(channel, valid_id(recipient_id), key).encode() for channel, key in pairs],
        )

    async def delete(self, recipient_id: str) -> int:
        """Forget all of the recipient's. How many there were."""
        return await self._remove(recipient_id, list(await self._fields(valid_id(recipient_id))))

    async def _remove(self, recipient_id: str, fields: Sequence[bytes]) -> int:
        if not fields:
            return 0
        [removed] = await ask(self._client, ("HDEL", self._hash(recipient_id), *fields))
        return int(removed)

    async def _fields(self, recipient_id: str) -> dict[bytes, bytes]:
        literally = re.sub(r"([*?\[\]\\])", r"\\\1", recipient_id)
        found: dict[bytes, bytes] = {}
        cursor: str | bytes = "0"
        while True:
            pattern = f"*:{literally}/*"
            step = ("HSCAN", self._hash(recipient_id), cursor, "MATCH", pattern, "COUNT", _SCAN_STEP)
            [[cursor, row]] = await ask(self._client, step)
            pairs = zip(row[::2], row[1::2], strict=True)
            # The pattern also finds ids that merely end in this one, or go on after a slash.
            found |= {field: value for field, value in pairs if _parts(field)[1] == recipient_id}
            if cursor == b"0":
                return found

    def _hash(self, recipient_id: str) -> str:
        return self._keys.suppressed(self._keys.partition_of(recipient_id))

    def _position(self, after: str | None) -> tuple[int, int]:
        """Partition and cursor of HSCAN."""
        if after is None:
            return 0, 0
        if not _CURSOR.fullmatch(after):
            raise InvalidInput("after", "is not a cursor of an earlier page")
        partition, _, cursor = after.partition("-")
        return int(partition), int(cursor)


def _parts(field: bytes) -> tuple[str, str, str]:
    """Channel, recipient id, address key."""
    channel, _, rest = field.decode(errors="replace").partition(":")
    recipient_id, _, key = rest.rpartition("/")
    return channel, recipient_id, key


def _suppression(field: bytes, value: bytes) -> Suppression:
    channel, recipient_id, key = _parts(field)
    try:
        told = json.loads(value)
        return Suppression(recipient_id, channel, key, str(told["reason"]), int(told["at"]))
    except (ValueError, KeyError, TypeError):  # written by another program
        return Suppression(recipient_id, channel, key, "", 0)


def _as_key(address_key: str) -> str:
    """As the channels write it: what has an `@` is a mailbox, in which `%2F` stands for a slash."""
    return address_key.lower().replace("%2f", "%2F") if "@" in address_key else address_key


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # half of a surrogate pair
        return False
    return True
