"""Connections to whichever server the sentinels call the primary.

Made after the guidelines for Sentinel clients (redis.io, "Guidelines for Redis clients with support for Redis
Sentinel"): ask the sentinels in turn, put the one that answered first, and look at the server's role.

They are asked for each connection, and once a second while connections are used. For a primary that was
replaced because it hung does not know of it when it wakes up: it takes what it is sent for ten seconds more,
until the sentinels make it a replica, and then it is all gone.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Any, Final

import redis.asyncio
import redis.asyncio.connection
import redis.connection
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ReadOnlyError, RedisError

from notifier.broker.url import Address, Location
from notifier.broker.wire import FastConnection, connection_options

_PATIENCE: Final = timedelta(seconds=1)
"""How long one sentinel may take; then the next is asked."""

_OTHER_PRIMARY: Final = "the sentinels name another primary"

_ASK_EVERY, _ASK_AGAIN_AFTER_FAILURE = 1.0, 10.0  # seconds


class Sentinels:
    """The sentinels of one primary. Threads may share it."""

    def __init__(self, location: Location, connection_class: type, tls: Mapping[str, Any]) -> None:
        """`tls` are the options that connections to sentinels share with those to servers."""
        self._service = location.service
        self._addresses = list(location.addresses)
        self._class = connection_class
        self._known: Address | None = None
        self._ask_at = 0.0
        self._options: dict[str, Any] = {
            "username": location.sentinel_username,
            "password": location.sentinel_password,
            **tls,
        }

    def _connection(self, address: Address, *, is_async: bool) -> Any:
        options = connection_options(_PATIENCE, is_async=is_async) | self._options
        return self._class(host=address.host, port=address.port, **options)

    def _question(self) -> tuple[str, ...]:
        return "SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._service

    def _failed(self, sentinel: Address, why: object, said: list[str]) -> None:
        self._addresses = [*(address for address in self._addresses if address != sentinel), sentinel]
        said.append(f"{sentinel}: {why}")

    def _primary(self, sentinel: Address, reply: Any, said: list[str]) -> Address | None:
        if not reply:
            self._failed(sentinel, f"does not know {self._service}", said)
            return None
        self._addresses = [sentinel, *(address for address in self._addresses if address != sentinel)]
        self._known = Address(reply[0].decode(), int(reply[1]))
        self._ask_at = time.monotonic() + _ASK_EVERY
        return self._known

    def _is_time_to_ask(self) -> bool:
        now = time.monotonic()
        if now < self._ask_at:
            return False
        self._ask_at = now + _ASK_AGAIN_AFTER_FAILURE  # unless somebody answers; and one asks for all
        return True

    def _nobody(self, said: Sequence[str]) -> RedisConnectionError:
        return RedisConnectionError(f"no sentinel names a primary: {'; '.join(said)}")

    async def primary(self) -> Address:
        """Raises redis.ConnectionError when no sentinel can tell."""
        said: list[str] = []
        for sentinel in self._addresses:
            connection = self._connection(sentinel, is_async=True)
            try:
                async with asyncio.timeout(_PATIENCE.total_seconds()):
                    await connection.connect()
                    await connection.send_command(*self._question())
                    reply = await connection.read_response()
            except (RedisError, OSError, TimeoutError) as error:
                self._failed(sentinel, str(error) or type(error).__name__, said)
            else:
                if primary := self._primary(sentinel, reply, said):
                    return primary
            finally:
                await connection.disconnect(nowait=True)
        raise self._nobody(said)

    async def is_primary(self, address: Address) -> bool:
        """Whether it still is, as far as we have heard of late."""
        if self._is_time_to_ask():
            with suppress(RedisError):
                await self.primary()
        return self._known == address

    def is_primary_sync(self, address: Address) -> bool:
        """`is_primary` for threads."""
        if self._is_time_to_ask():
            with suppress(RedisError):
                self.primary_sync()
        return self._known == address

    def primary_sync(self) -> Address:
        """`primary` for threads."""
        said: list[str] = []
        for sentinel in self._addresses:
            connection = self._connection(sentinel, is_async=False)
            try:
                connection.connect()
                connection.send_command(*self._question())
                reply = connection.read_response()
            except (RedisError, OSError) as error:
                self._failed(sentinel, str(error) or type(error).__name__, said)
            else:
                if primary := self._primary(sentinel, reply, said):
                    return primary
            finally:
                connection.disconnect()
        raise self._nobody(said)


def _check_role(connection: Any, role: bytes) -> None:
    if role != b"master":
        where = Address(connection.host, connection.port)
        raise RedisConnectionError(f"{where} is no primary, though a sentinel says so")


class PrimaryConnection(FastConnection):
    """An asyncio connection that asks for its address when it connects."""

    sentinels: Sentinels

    async def _connect(self) -> None:
        self.host, self.port = await self.sentinels.primary()
        await super()._connect()  # type: ignore[misc]

    async def _left(self) -> bool:
        connected = self.is_connected  # type: ignore[attr-defined]
        if not connected or await self.sentinels.is_primary(Address(self.host, self.port)):
            return False
        await self.disconnect(nowait=True)  # type: ignore[attr-defined]
        return True

    async def connect(self) -> None:
        await self._left()
        await super().connect()

    async def send_packed_command(self, command: Any, check_health: bool = True) -> None:
        if await self._left():  # not silently: the new primary may not know all that the old one answered
            raise RedisConnectionError(_OTHER_PRIMARY)
        await super().send_packed_command(command, check_health)

    async def on_connect_check_health(self, check_health: bool = True) -> None:
        await super().on_connect_check_health(check_health)  # type: ignore[misc]
        await self.send_command("ROLE", check_health=False)  # type: ignore[attr-defined]
        _check_role(self, (await self.read_response())[0])

    async def read_response(self, *arguments: Any, **options: Any) -> Any:
        try:
            return await super().read_response(*arguments, **options)  # type: ignore[misc]
        except ReadOnlyError:
            self.mark_for_reconnect()  # type: ignore[attr-defined] # the sentinels know who is the primary now
            raise


class PrimaryConnectionSync:
    """Its blocking twin."""

    sentinels: Sentinels

    def _connect(self) -> Any:
        self.host, self.port = self.sentinels.primary_sync()
        return super()._connect()  # type: ignore[misc]

    def _left(self) -> bool:
        connected = self.is_connected  # type: ignore[attr-defined]
        if not connected or self.sentinels.is_primary_sync(Address(self.host, self.port)):
            return False
        self.disconnect()  # type: ignore[attr-defined]
        return True

    def connect(self) -> None:
        self._left()
        super().connect()  # type: ignore[misc]

    def send_packed_command(self, command: Any, check_health: bool = True) -> None:
        if self._left():
            raise RedisConnectionError(_OTHER_PRIMARY)
        super().send_packed_command(command, check_health)  # type: ignore[misc]

    def on_connect_check_health(self, check_health: bool = True) -> None:
        super().on_connect_check_health(check_health)  # type: ignore[misc]
        self.send_command("ROLE", check_health=False)  # type: ignore[attr-defined]
        _check_role(self, self.read_response()[0])

    def read_response(self, *arguments: Any, **options: Any) -> Any:
        try:
            return super().read_response(*arguments, **options)  # type: ignore[misc]
        except ReadOnlyError:
            self.mark_for_reconnect()  # type: ignore[attr-defined]
            raise


def primary_connection(
    location: Location, *, is_async: bool, parse_url: Callable[[str], Mapping[str, Any]]
) -> tuple[type, dict[str, Any]]:
    """The class of connections to the primary, and the options that the URL has for them."""
    options = dict(parse_url(location.plain))
    module: Any = redis.asyncio.connection if is_async else redis.connection
    plain = options.pop("connection_class", module.Connection)
    for found_out in ("host", "port"):
        options.pop(found_out, None)
    tls = {name: value for name, value in options.items() if name.startswith("ssl_")}
    mixin = PrimaryConnection if is_async else PrimaryConnectionSync
    named = type(plain.__name__, (mixin, plain), {"sentinels": Sentinels(location, plain, tls)})
    return named, options
