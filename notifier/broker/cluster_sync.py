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

from notifier.broker.dispatch import REFRESH_EVERY, Dispatch, Parcel
from notifier.broker.failures import broker_errors, translate
from notifier.broker.line import Command
from notifier.broker.line_sync import lent, read_replies, send
from notifier.broker.slots import SlotMap
from notifier.broker.url import Address, Location
from notifier.broker.wire import pool_options
from notifier.errors import BrokerError, BrokerUnavailable

_FIRST_PAUSE, _LONGEST_PAUSE = 0.005, 0.1


class SyncCluster:
    """A pool of connections to each node, made when they are first used. Threads may share it."""

    def __init__(self, location: Location, *, timeout: timedelta, connections: int) -> None:
        options: dict[str, Any] = dict(parse_url(location.plain))
        self._class = options.pop("connection_class", Connection)
        for mine in ("host", "port", "db"):
            options.pop(mine, None)
        self._options = pool_options(timeout, connections, is_async=False) | options
        self._patience = timeout.total_seconds() * 0.8
        self._pools: dict[Address, redis.BlockingConnectionPool] = {}
        self._slots = SlotMap(location.addresses)
        self._refreshed_at = 0.0
        self._must_refresh = True
        self._changing, self._refreshing = threading.Lock(), threading.Lock()

    def execute(self, commands: Sequence[Command], then: Command = ()) -> list[Any]:
        """See `Cluster.execute`."""
        dispatch = Dispatch(self._slots, commands, then)
        give_up = time.monotonic() + self._patience
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
                    connection = stack.enter_context(lent(self._pool(parcel.node)))
                    send(connection, parcel.commands)
                    under_way.append((parcel, connection))
                except (RedisError, OSError) as error:
                    dispatch.failed(parcel, translate(error))
            for parcel, connection in under_way:
                try:
                    dispatch.took(parcel, read_replies(connection, len(parcel.commands)))
                except (RedisError, OSError) as error:
                    connection.disconnect()
                    dispatch.failed(parcel, translate(error))

    def _pool(self, node: Address) -> redis.BlockingConnectionPool:
        with self._changing:
            if node not in self._pools:
                self._pools[node] = redis.BlockingConnectionPool(
                    connection_class=self._class, host=node.host, port=node.port, **self._options
                )
            return self._pools[node]

    def _refresh_if_needed(self) -> None:
        if self._slots.primaries and not self._is_time_to_refresh():
            return
        with self._refreshing:
            if self._is_time_to_refresh():
                self._refresh()
        if not self._slots.primaries:
            raise BrokerUnavailable("the broker can't be reached: no node of the cluster answered")

    def _is_time_to_refresh(self) -> bool:
        return self._must_refresh and time.monotonic() - self._refreshed_at >= REFRESH_EVERY

    def _refresh(self) -> None:
        for node in self._slots.to_ask():
            try:
                with broker_errors(), lent(self._pool(node)) as connection:
                    send(connection, [("CLUSTER", "SLOTS")])
                    [reply] = read_replies(connection, 1)
            except BrokerError:
                self._slots.silent([node])
                continue
            if isinstance(reply, list) and reply:
                self._slots.learn(node, reply)
                self._must_refresh = False
                break
        self._refreshed_at = time.monotonic()
        with self._changing:
            gone = [self._pools.pop(node) for node in self._pools.keys() - self._slots.primaries]
        for pool in gone:
            pool.disconnect(inuse_connections=False)

    def close(self) -> None:
        with self._changing:
            pools, self._pools = list(self._pools.values()), {}
        for pool in pools:
            pool.disconnect()
