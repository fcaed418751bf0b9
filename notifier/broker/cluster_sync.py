"""The blocking twin of `notifier.broker.cluster`, for publishers in threads."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import timedelta
from typing import Any

import redis
from redis.connection import Connection, parse_url
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from notifier.broker.dispatch import (
    REFRESH_EVERY,
    Dispatch,
    Parcel,
    nobody_answered,
    patience_without_a_map,
)
from notifier.broker.failures import translate
from notifier.broker.line import Command
from notifier.broker.line_sync import lent, read_replies, send
from notifier.broker.pulse import PATIENCE, PINGS, SLOW, is_hung
from notifier.broker.slots import SlotMap
from notifier.broker.url import Address, Location
from notifier.broker.wire import connection_options, pool_options
from notifier.errors import BrokerError

_FIRST_PAUSE, _LONGEST_PAUSE = 0.005, 0.1
_LEFT_ALONE = 2.0  # seconds for which nobody waits for a node that hung; then one call sends it a PING


class SyncCluster:
    """A pool of connections to each node, made when they are first used. Threads may share it."""

    def __init__(self, location: Location, *, timeout: timedelta, connections: int) -> None:
        options: dict[str, Any] = dict(parse_url(location.plain))
        self._class = options.pop("connection_class", Connection)
        for mine in ("host", "port", "db"):
            options.pop(mine, None)
        self._options = pool_options(timeout, connections, is_async=False) | options
        self._plain = options
        self._timeout = timeout.total_seconds()
        self._hung_until: dict[Address, float] = {}
        self._pools: dict[Address, redis.BlockingConnectionPool] = {}
        self._slots = SlotMap(location.addresses)
        self._refreshed_at = 0.0
        self._must_refresh = True
        self._changing, self._refreshing = threading.Lock(), threading.Lock()

    def execute(self, commands: Sequence[Command], then: Command = ()) -> list[Any]:
        """See `Cluster.execute`."""
        dispatch = Dispatch(self._slots, commands, then)
        give_up = time.monotonic() + self._timeout * 0.8
        pause = _FIRST_PAUSE
        while True:
            self._refresh_if_needed()
            while parcels := dispatch.parcels():
                self._deliver(dispatch, parcels)
            self._must_refresh |= dispatch.must_refresh
            if not dispatch.refused or time.monotonic() + pause > give_up:
                return dispatch.replies()
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)
            dispatch.again()

    def _deliver(self, dispatch: Dispatch, parcels: Sequence[Parcel]) -> None:
        """All nodes get their commands before the first is waited for."""
        with ExitStack() as stack:
            under_way: list[tuple[Parcel, Any]] = []
            for parcel in parcels:
                try:
                    self._check(parcel.node)
                    connection = stack.enter_context(lent(self._pool(parcel.node)))
                    send(connection, parcel.commands)
                    under_way.append((parcel, connection))
                except (BrokerError, RedisError, OSError) as error:
                    self._failed(dispatch, parcel, error)
            for parcel, connection in under_way:
                try:
                    self._wait(parcel.node, connection)
                    dispatch.took(parcel, read_replies(connection, len(parcel.commands)))
                except (BrokerError, RedisError, OSError) as error:
                    connection.disconnect()
                    self._failed(dispatch, parcel, error)

    def _failed(self, dispatch: Dispatch, parcel: Parcel, error: Exception) -> None:
        if isinstance(error, RedisTimeoutError):
            self._hung_until[parcel.node] = time.monotonic() + _LEFT_ALONE
        dispatch.failed(parcel, translate(error))

    # Nodes that hang; see `notifier.broker.pulse`.

    def _check(self, node: Address) -> None:
        """Raises BrokerUnavailable for a node that hangs."""
        now, until = time.monotonic(), self._hung_until.get(node)
        if until is None:
            return
        if now < until:
            raise is_hung(node)
        self._hung_until[node] = now + _LEFT_ALONE  # other threads do not ask as well
        if not self._answers(node):
            raise is_hung(node)
        self._hung_until.pop(node, None)

    def _wait(self, node: Address, connection: Any) -> None:
        """Returns when an answer has come. Raises BrokerUnavailable, or redis.TimeoutError."""
        end = time.monotonic() + self._timeout
        while not connection.can_read(min(SLOW, max(0.0, end - time.monotonic()))):
            if time.monotonic() >= end:
                raise RedisTimeoutError(f"Timeout reading from {node}")
            if not any(self._answers(node) for _ in range(PINGS)):
                self._hung_until[node] = time.monotonic() + _LEFT_ALONE
                raise is_hung(node)

    def _answers(self, node: Address) -> bool:
        try:
            self._ask(node, ("PING",))
        except RedisTimeoutError:
            return False
        except (RedisError, OSError):
            pass  # who waits for it is told as much by their own connection
        return True

    def _ask(self, node: Address, command: Command, patience: timedelta = PATIENCE) -> Any:
        """The reply to what takes a node no time. Raises what redis-py does."""
        options = self._plain | connection_options(patience, is_async=False)
        connection = self._class(host=node.host, port=node.port, **options)
        try:
            connection.connect()
            send(connection, [command])
            [reply] = read_replies(connection, 1)
            return reply
        finally:
            connection.disconnect()

    def _pool(self, node: Address) -> redis.BlockingConnectionPool:
        with self._changing:
            if node not in self._pools:
                self._pools[node] = redis.BlockingConnectionPool(
                    connection_class=self._class, host=node.host, port=node.port, **self._options
                )
            return self._pools[node]

    def _refresh_if_needed(self) -> None:
        has_map = bool(self._slots.primaries)
        if has_map and not self._is_time_to_refresh():
            return
        # One thread asks, and those that have a map go on with it.
        if self._refreshing.acquire(blocking=not has_map):
            try:
                if self._is_time_to_refresh():
                    self._refresh()
            finally:
                self._refreshing.release()
        if not self._slots.primaries:
            raise nobody_answered(self._slots)

    def _is_time_to_refresh(self) -> bool:
        return self._must_refresh and time.monotonic() - self._refreshed_at >= REFRESH_EVERY

    def _refresh(self) -> None:
        give_up = time.monotonic() + self._timeout
        if not self._learn(PATIENCE) and (left := patience_without_a_map(self._slots, give_up)):
            self._learn(timedelta(seconds=left))
        self._refreshed_at = time.monotonic()
        with self._changing:
            gone = [self._pools.pop(node) for node in self._pools.keys() - self._slots.primaries]
            for node in self._hung_until.keys() - self._slots.primaries:
                self._hung_until.pop(node, None)
        for pool in gone:
            pool.disconnect(inuse_connections=False)

    def _learn(self, patience: timedelta) -> bool:
        """See `Cluster._learn`."""
        for node in sorted(self._slots.to_ask(), key=self._hung_until.__contains__):
            try:
                reply = self._ask(node, ("CLUSTER", "SLOTS"), patience)
            except (RedisError, OSError) as error:
                reply = error
            if self._slots.heard(node, reply):
                self._must_refresh = False
                return True
        return False

    def close(self) -> None:
        with self._changing:
            pools, self._pools = list(self._pools.values()), {}
        for pool in pools:
            pool.disconnect()
