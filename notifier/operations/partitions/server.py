"""The server as a step sees it: calls go out only while this process is the one that moves."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from typing import Any, Final

from notifier.broker.connection import Client
from notifier.broker.line import Command
from notifier.broker.scripts import Call, ask, execute, run, run_all, script
from notifier.errors import BrokerError, PartitionsMoved
from notifier.keys import Keys

PATIENCE: Final = timedelta(seconds=10)
"""How long another one that moves is waited for: one that was killed is gone by then."""


class Server:
    """Runs what changes something. All methods raise BrokerError, of the first call that failed; and
    PartitionsMoved when another process has taken over."""

    def __init__(self, client: Client, keys: Keys) -> None:
        self.client = client
        self._key = keys.changing()
        self._token = secrets.token_hex(8)
        self._until = 0.0

    async def ask(self, *commands: Command) -> list[Any]:
        await self._hold()
        return await ask(self.client, *commands) if commands else []

    async def try_all(self, commands: Sequence[Command]) -> list[Any]:
        """The raw replies, an error as redis-py's exception."""
        await self._hold()
        return await execute(self.client, commands) if commands else []

    async def run(self, calls: Sequence[Call]) -> list[Any]:
        await self._hold()
        replies = await run_all(self.client, calls) if calls else []
        for reply in replies:
            if isinstance(reply, BrokerError):
                raise reply
        return replies

    async def _hold(self) -> None:
        """One key says who moves. It is renewed long before it expires."""
        now = time.monotonic()
        if now < self._until - PATIENCE.total_seconds() / 2:
            return
        hold = Call(script("partition_hold"), [self._key], (self._token, _ms(PATIENCE)))
        if not await run(self.client, hold):
            raise PartitionsMoved("another process moves the partitions, and goes on with it")
        self._until = now + PATIENCE.total_seconds()

    @asynccontextmanager
    async def held(self) -> AsyncIterator[None]:
        """While this process is the one that moves. Raises PartitionsMoved when another one is, for long."""
        give_up = time.monotonic() + 2 * PATIENCE.total_seconds()
        while True:
            now = time.monotonic()
            [taken] = await ask(self.client, ("SET", self._key, self._token, "NX", "PX", _ms(PATIENCE)))
            if taken:
                break
            if now > give_up:
                raise PartitionsMoved("another process is changing the number of partitions")
            await asyncio.sleep(0.2)
        self._until = now + PATIENCE.total_seconds()
        try:
            yield
        finally:
            with suppress(BrokerError):  # it expires by itself
                [there] = await ask(self.client, ("GET", self._key))
                if there == self._token.encode():
                    await ask(self.client, ("DEL", self._key))


def _ms(time: timedelta) -> int:
    return int(time / timedelta(milliseconds=1))
