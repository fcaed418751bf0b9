"""Who changed an inbox wakes whoever listens: a connection that hears of it.

Changes are published on sharded channels (SPUBLISH), one for each inbox, of the name of its stream. So a
process hears of those inboxes only that it asked for, and in a cluster nothing leaves the node. Nothing is
lost with a wake-up: it only says when to look, and whoever listens looks after each reconnect as well.
"""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from itertools import islice
from typing import Any, Final, Protocol

import structlog
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from notifier.broker.cancelling import cancel_until_done
from notifier.broker.failures import broker_errors
from notifier.errors import BrokerError

log = structlog.get_logger(__name__)

PING_EVERY: Final = 5.0
"""Seconds: a server that has not answered a ping by the next one is left."""

_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 2.0
_CHANNELS_AT_ONCE: Final = 500


class Listener(Protocol):
    def heard(self, channel: bytes, position: bytes) -> None:
        """The inbox has changed, and the change has this position."""

    def listening(self, channel: bytes) -> None:
        """From now on its changes are heard; those before may have been missed."""

    def deaf(self) -> None:
        """Nothing is heard at the moment, of any channel."""


class WakeUps:
    """The channels of some inboxes, on one connection; in a cluster all of one slot."""

    def __init__(self, connect: Callable[[], Awaitable[Any]], listener: Listener) -> None:
        """`connect` opens a connection of redis-py to the server that has the channels now."""
        self._connect = connect
        self._listener = listener
        self._wanted: set[bytes] = set()
        self._heard: set[bytes] = set()
        self._asked: set[bytes] = set()
        self._leaving: Counter[bytes] = Counter()
        self._wishes = asyncio.Event()
        self._connected_at = 0.0
        self._last_word = 0.0

    def listen(self, channel: bytes) -> bool:
        """Whether it is heard already; otherwise `listening` is told when it is."""
        self._wanted.add(channel)
        if channel in self._heard:
            return True
        self._wishes.set()
        return False

    def leave(self, channel: bytes) -> None:
        self._wanted.discard(channel)
        self._wishes.set()

    async def run(self) -> None:
        """Listens until it is cancelled; reconnects."""
        pause = 0.0
        while True:
            self._connected_at = math.inf
            try:
                with broker_errors():
                    await self._listen()
            except BrokerError as error:
                is_new = not pause or time.monotonic() - self._connected_at > 2 * _LONGEST_PAUSE
                if is_new:
                    log.warning("inboxes_not_heard", error=str(error), inboxes=len(self._wanted))
                pause = _FIRST_PAUSE if is_new else min(2 * pause, _LONGEST_PAUSE)
            finally:
                self._heard.clear()
                self._asked.clear()
                self._leaving.clear()
            self._listener.deaf()
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - not all processes at once

    async def _listen(self) -> None:
        connection = await self._connect()
        self._connected_at = self._last_word = time.monotonic()
        asking = asyncio.create_task(self._keep_asking(connection))
        try:
            while True:
                message = await connection.read_response(timeout=math.inf, disconnect_on_error=False)
                self._last_word = time.monotonic()
                if isinstance(message, list):  # and not the answer to a ping without any channel
                    self._take(message)
        finally:
            # First: redis-py connects again when something is sent, and nobody would read from that.
            await cancel_until_done(asking)
            await connection.disconnect(nowait=True)
            if not asking.cancelled():
                asking.result()

    # What is heard.

    def _take(self, message: Sequence[Any]) -> None:
        kind, channel, value = message if len(message) == 3 else (message[0], b"", b"")
        if kind == b"smessage":
            self._listener.heard(channel, value)
        elif kind == b"ssubscribe":
            if channel in self._wanted and not self._leaving[channel]:
                self._heard.add(channel)
                self._listener.listening(channel)
        elif kind == b"sunsubscribe":
            if not self._leaving[channel]:  # its slot moved to another node of the cluster
                raise RedisConnectionError("the server does not have the channel any more")
            self._leaving[channel] -= 1
            if not self._leaving[channel]:
                del self._leaving[channel]

    # What is asked for.

    async def _keep_asking(self, connection: Any) -> None:
        """Until the connection is lost, or closed by this: whoever reads from it learns it that way."""
        pinged = 0.0
        self._wishes.set()
        try:
            while True:
                with suppress(TimeoutError):
                    async with asyncio.timeout(PING_EVERY):
                        await self._wishes.wait()
                self._wishes.clear()
                await self._ask(connection)
                if time.monotonic() - pinged >= PING_EVERY:
                    if self._last_word < pinged:
                        raise RedisConnectionError("the server does not answer")
                    pinged = time.monotonic()
                    await _send(connection, "PING")
        except (RedisError, OSError, TimeoutError) as error:
            log.info("listener_disconnected", error=str(error))
        finally:
            await connection.disconnect(nowait=True)

    async def _ask(self, connection: Any) -> None:
        left, new = self._asked - self._wanted, self._wanted - self._asked
        for channels in _some(left):
            self._leaving.update(channels)
            self._asked.difference_update(channels)
            self._heard.difference_update(channels)
            await _send(connection, "SUNSUBSCRIBE", channels)
        for channels in _some(new):
            self._asked.update(channels)
            await _send(connection, "SSUBSCRIBE", channels)


def _some(channels: Iterable[bytes]) -> Iterable[Sequence[bytes]]:
    rest = iter(channels)
    while some := tuple(islice(rest, _CHANNELS_AT_ONCE)):
        yield some


async def _send(connection: Any, name: str, channels: Sequence[bytes] = ()) -> None:
    if not connection.is_connected:
        raise RedisConnectionError("the connection is closed")
    await connection.send_packed_command(connection.pack_command(name, *channels), check_health=False)
