"""Who has registered a device.

A browser or a telephone changes hands, or somebody else logs in. Its endpoint or token stays the same, and
what is pushed to it must reach the newest user only. So every registration is written down under a digest
of the token, outside of the partitions, and whoever registers is told who did before.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

from notifier.broker.connection import Client
from notifier.broker.scripts import Call, ask, run_all, script
from notifier.channel import device_secret
from notifier.errors import BrokerError
from notifier.event import Device
from notifier.keys import Keys


class Owned(NamedTuple):
    """A device of somebody."""

    device: Device
    recipient_id: str


class Owners:
    """The registrations of all devices. All methods raise BrokerError; each is one round trip."""

    def __init__(self, client: Client, keys: Keys) -> None:
        self._client = client
        self._keys = keys

    async def claim(self, claims: Sequence[Owned]) -> list[Owned]:
        """Write these down, and return who else has registered the same devices until now."""
        if not claims:
            return []
        calls = [Call(script("device_claim"), [self._key(one.device)], (one.recipient_id,)) for one in claims]
        others: list[Owned] = []
        for claim, reply in zip(claims, await run_all(self._client, calls), strict=True):
            if isinstance(reply, BrokerError):
                raise reply
            others += (Owned(claim.device, other.decode()) for other in reply)
        return others

    async def lost(self, claims: Sequence[Owned]) -> list[Owned]:
        """Those that somebody has taken over since they were claimed."""
        if not claims:
            return []
        commands = [("SISMEMBER", self._key(one.device), one.recipient_id) for one in claims]
        replies = await ask(self._client, *commands)
        return [claim for claim, is_there in zip(claims, replies, strict=True) if not is_there]

    async def release(self, claims: Sequence[Owned]) -> None:
        """Forget these."""
        if claims:
            commands = [("SREM", self._key(one.device), one.recipient_id) for one in claims]
            await ask(self._client, *commands)

    def _key(self, device: Device) -> str:
        digest = hashlib.blake2b(device_secret(device).encode(), digest_size=16)
        return self._keys.device(digest.hexdigest())
