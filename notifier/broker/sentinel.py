"""Connections to whichever server the sentinels call the primary, asked anew for each connection.

Made after the guidelines for Sentinel clients (redis.io, "Guidelines for Redis clients with support for Redis
Sentinel"): ask the sentinels in turn, put the one that answered first, and look at the server's role.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
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


class Sentinels:
    """The sentinels of one primary. Threads may share it."""

    def __init__(self, location: Location, connection_class: type, tls: Mapping[str, Any]) -> None:
        """`tls` are the options that connections to sentinels share with those to servers."""
        self._service = location.service
        self._addresses = list(location.addresses)
        self._class = connection_class
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

    def _primary(self, sentinel: Address, reply: Any, said: list[str]) -> Address | None:
        if not reply:
            said.append(f"{sentinel} does not know {self._service}")
            return None
        addresses = self._addresses
        self._addresses = [sentinel, *(address for address in addresses if address != sentinel)]
        return Address(reply[0].decode(), int(reply[1]))

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
                said.append(f"{sentinel}: {str(error) or type(error).__name__}")
            else:
                if primary := self._primary(sentinel, reply, said):
                    return primary
            finally:
                await connection.disconnect(nowait=True)
        raise self._nobody(said)

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
                said.append(f"{sentinel}: {str(error) or type(error).__name__}")
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
