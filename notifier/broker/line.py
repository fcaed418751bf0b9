"""Commands go out together, their raw replies come back in order.

A `Line` is one connection that is kept, for those who send often: a pooled client looks for stray bytes
under a timeout each time it lends a connection.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, Protocol

from redis.exceptions import ReadOnlyError, ResponseError

from notifier.broker.failures import broker_errors

Argument = str | bytes | int | float
Command = Sequence[Argument]

TIMEOUT = timedelta(seconds=5)


class Caller(Protocol):
    """Whoever brings commands to where they run."""

    async def execute(self, commands: Sequence[Command], then: Command = ()) -> list[Any]:
        """The raw replies in order, in one round trip; a command that failed has its exception there.

        `then` is one command more that follows on the same connection, such as WAIT; its reply comes last.
        Raises BrokerUnavailable when no answer came at all; then any of the commands may have run.
        """


async def exchange(connection: Any, commands: Sequence[Command]) -> list[Any]:
    """Sends commands on a connection of redis-py and reads their replies; errors of the server are replies.

    Whatever is raised, the connection is closed, since replies may be on their way that nobody will read.
    """
    try:
        await connection.send_packed_command(connection.pack_commands(commands), check_health=False)
        return [await _reply(connection) for _ in commands]
    except BaseException:
        await connection.disconnect(nowait=True)
        raise


async def exchange_on_lent(pool: Any, commands: Sequence[Command]) -> list[Any]:
    """`exchange` on a connection that the pool lends."""
    connection = await pool.get_connection()
    try:
        return await exchange(connection, commands)
    finally:
        await pool.release(connection)


async def _reply(connection: Any) -> Any:
    try:
        return await connection.read_response(timeout=math.inf, disconnect_on_error=False)
    except ResponseError as error:
        if isinstance(error, ReadOnlyError):
            connection.mark_for_reconnect()  # the primary became a replica, so another server is the primary
        return error


class Line:
    """Commands of one kind of work, on one connection, one caller at a time."""

    def __init__(self, make_connection: Callable[[], Any], timeout: timedelta = TIMEOUT) -> None:
        """`make_connection` is as redis-py's pools have it; `timeout` is for all of one call together."""
        self._make_connection = make_connection
        self._timeout = timeout.total_seconds()
        self._connection: Any = None
        self._turn = asyncio.Lock()

    async def execute(self, commands: Sequence[Command], then: Command = ()) -> list[Any]:
        """See `Caller`."""
        if then:
            commands = [*commands, then]
        with broker_errors():
            async with self._turn, asyncio.timeout(self._timeout):
                return await exchange(await self._connected(), commands)

    async def _connected(self) -> Any:
        if self._connection is None:
            self._connection = self._make_connection()
        connection = self._connection
        if connection.should_reconnect():
            await connection.disconnect(nowait=True)
        if not connection.is_connected:
            await connection.connect()
        return connection

    async def close(self) -> None:
        """Closes the connection; the next call would open it again."""
        if self._connection is not None:
            await self._connection.disconnect(nowait=True)
        self._connection = None
