"""A client of a cluster: its commands go to the nodes that serve them, side by side.

redis-py's own cluster client was not an option: its pipelines refuse EVALSHA, and it sends again what may
have run already. See `docs/decisions/0009-cluster-and-sentinel.md`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from types import TracebackType
from typing import Any, Self

import redis.asyncio
from redis.asyncio.connection import Connection, parse_url
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from notifier.broker.dispatch import (
    REFRESH_EVERY,
    Dispatch,
    Parcel,
    nobody_answered,
    patience_without_a_map,
)
from notifier.broker.failures import broker_errors, translate
from notifier.broker.line import TIMEOUT, Argument, Command, Line, exchange, exchange_on_lent
from notifier.broker.pulse import PATIENCE, Pulse
from notifier.broker.slots import SlotMap, slot_of
from notifier.broker.url import Address, Location
from notifier.broker.wire import fast, pool_options
from notifier.errors import BrokerError, BrokerUnavailable

_FIRST_PAUSE, _LONGEST_PAUSE = 0.005, 0.1

Send = Callable[[Parcel], Awaitable[list[Any]]]


class Cluster:
    """A pool of connections to each node, made when they are first used."""

    def __init__(self, location: Location, *, timeout: timedelta, connections: int) -> None:
        """`connections` counts those to one node."""
        options: dict[str, Any] = dict(parse_url(location.plain))
        self._class = fast(options.pop("connection_class", Connection))
        for mine in ("host", "port", "db"):
            options.pop(mine, None)
        self._options = pool_options(timeout, connections, is_async=True) | options
        self._timeout = timeout.total_seconds()
        self._pools: dict[Address, redis.asyncio.BlockingConnectionPool] = {}
        self._slots = SlotMap(location.addresses)
        self.pulse = Pulse(self._answers)
        self._refreshed_at = 0.0
        self._must_refresh = True
        self._refreshing = asyncio.Lock()

    async def execute(self, commands: Sequence[Command], then: Command = ()) -> list[Any]:
        """See `Caller`; a node that does not answer spoils only its own part.

        `then` goes to each node that had one of the commands, and its least favourable reply comes last.
        What is refused because the cluster changes is sent again for most of the timeout.
        """
        return await self.carry(commands, then, self._send, patience=self._timeout * 0.8)

    async def _send(self, parcel: Parcel) -> list[Any]:
        async with self.pulse.watched(parcel.node):
            return await self._ask(parcel.node, parcel.commands)

    async def _ask(self, node: Address, commands: Sequence[Command]) -> list[Any]:
        with broker_errors():
            async with asyncio.timeout(self._timeout):
                return await exchange_on_lent(self.pool(node), commands)

    async def _answers(self, node: Address) -> bool:
        """Whether it says anything. Not on a connection of the pool: all of them may be waiting for it."""
        connection = self.pool(node).make_connection()
        try:
            async with asyncio.timeout(PATIENCE.total_seconds()):
                await connection.connect()
                await exchange(connection, [("PING",)])
        except (TimeoutError, RedisTimeoutError):
            return False
        except (RedisError, OSError):
            pass  # who waits for it is told as much by their own connection
        finally:
            await connection.disconnect(nowait=True)
        return True

    async def carry(
        self, commands: Sequence[Command], then: Command, send: Send, patience: float
    ) -> list[Any]:
        """Has the commands brought by `send`, and again for `patience` seconds where they are refused."""
        dispatch = Dispatch(self._slots, commands, then)
        give_up = time.monotonic() + patience
        pause = _FIRST_PAUSE
        while True:
            await self.refresh_if_needed()
            await _deliver(dispatch, send)
            self._must_refresh |= dispatch.must_refresh
            if not dispatch.refused or time.monotonic() + pause > give_up:
                return dispatch.replies()
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)
            dispatch.again()

    # Who serves what.

    @property
    def primaries(self) -> frozenset[Address]:
        return self._slots.primaries

    async def node_of(self, key: Argument) -> Address:
        """The node that serves the key's slot. Raises BrokerUnavailable when none is known."""
        await self.refresh_if_needed()
        node = self._slots.node_of(slot_of(key))
        if node is None:
            self._must_refresh = True
            raise BrokerUnavailable(f"no node of the cluster is known to serve slot {slot_of(key)}")
        return node

    def pool(self, node: Address) -> redis.asyncio.BlockingConnectionPool:
        if node not in self._pools:
            self._pools[node] = redis.asyncio.BlockingConnectionPool(
                connection_class=self._class, host=node.host, port=node.port, **self._options
            )
        return self._pools[node]

    def doubt(self) -> None:
        """Says that the slot map is out of date, or a node is away."""
        self._must_refresh = True

    async def refresh_if_needed(self) -> None:
        """Asks for the slot map, if it is in doubt and was not asked for just now. Raises BrokerUnavailable
        when there is none at all."""
        if self._slots.primaries and (self._refreshing.locked() or not self._is_time_to_refresh()):
            return
        async with self._refreshing:
            if self._is_time_to_refresh():
                await self._refresh()
        if not self._slots.primaries:
            raise nobody_answered(self._slots)

    def _is_time_to_refresh(self) -> bool:
        return self._must_refresh and time.monotonic() - self._refreshed_at >= REFRESH_EVERY

    async def _refresh(self) -> None:
        give_up = time.monotonic() + self._timeout
        is_answered = await self._learn(PATIENCE.total_seconds())
        if not is_answered and (left := patience_without_a_map(self._slots, give_up)):
            await self._learn(left)
        self._refreshed_at = time.monotonic()
        gone = self._pools.keys() - self._slots.primaries
        await self.pulse.forget(*gone)
        for node in gone:
            await self._pools.pop(node).disconnect(inuse_connections=False)

    async def _learn(self, patience: float) -> bool:
        """Asks one node after the other for the slot map, until one answers. `patience` is for each, in
        seconds."""
        for node in sorted(self._slots.to_ask(), key=self.pulse.hung.__contains__):
            try:
                async with asyncio.timeout(patience):
                    [reply] = await exchange_on_lent(self.pool(node), [("CLUSTER", "SLOTS")])
            except (RedisError, OSError, TimeoutError) as error:
                reply = error
            if self._slots.heard(node, reply):
                self._must_refresh = False
                return True
        return False

    # Like redis.asyncio.Redis.

    async def aclose(self) -> None:
        await self.pulse.close()
        for pool in self._pools.values():
            await pool.aclose()
        self._pools.clear()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()


async def _deliver(dispatch: Dispatch, send: Send) -> None:
    while parcels := dispatch.parcels():
        outcomes = await asyncio.gather(*(_outcome(send, parcel) for parcel in parcels))
        for parcel, outcome in zip(parcels, outcomes, strict=True):
            if isinstance(outcome, BrokerError):
                dispatch.failed(parcel, outcome)
            else:
                dispatch.took(parcel, outcome)


async def _outcome(send: Send, parcel: Parcel) -> list[Any] | BrokerError:
    try:
        return await send(parcel)
    except BrokerError as error:
        return error
    except RedisError as error:
        return translate(error)


class ClusterLine:
    """A line to each node that serves one of the commands. It does not wait for anybody: what is refused,
    and what a node does not answer, is the caller's to send again."""

    def __init__(self, cluster: Cluster, timeout: timedelta = TIMEOUT) -> None:
        self._cluster = cluster
        self._timeout = timeout
        self._lines: dict[Address, Line] = {}

    async def execute(self, commands: Sequence[Command], then: Command = ()) -> list[Any]:
        """See `Caller`; a node that does not answer spoils only its own part."""
        return await self._cluster.carry(commands, then, self._send, patience=0)

    async def _send(self, parcel: Parcel) -> list[Any]:
        node = parcel.node
        if node not in self._lines:
            self._lines[node] = Line(self._cluster.pool(node).make_connection, self._timeout)
        try:
            async with self._cluster.pulse.watched(node):
                return await self._lines[node].execute(parcel.commands)
        except BrokerError:
            await self._forget_nodes_that_left()
            raise

    async def _forget_nodes_that_left(self) -> None:
        for node in self._lines.keys() - self._cluster.primaries:
            await self._lines.pop(node).close()

    async def close(self) -> None:
        for line in self._lines.values():
            await line.close()
        self._lines.clear()
