"""One connection to the broker that is kept, for those who send often.

A pooled client looks for stray bytes under a timeout each time it lends a connection, and turns replies
into other shapes. A line does neither: commands go out together, their raw replies come back in order, one
caller at a time.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import redis.asyncio
from redis.exceptions import ResponseError

from notifier.broker.connection import broker_errors

Argument = str | bytes | int | float
Command = Sequence[Argument]


class Line:
    """Commands of one kind of work, on a connection like those of `client`'s pool."""

    def __init__(self, client: redis.asyncio.Redis, timeout: timedelta = timedelta(seconds=5)) -> None:
        """`timeout` is for all commands of one call together."""
        self._pool = client.connection_pool
        self._timeout = timeout.total_seconds()
        self._connection: Any = None
        self._turn = asyncio.Lock()

    async def execute(self, commands: Sequence[Command]) -> list[Any]:
        """The replies in order; one that is an error has the ResponseError there.

        Raises BrokerUnavailable when the connection fails; then any of the commands may have run.
        """
        with broker_errors():
            async with self._turn, asyncio.timeout(self._timeout):
                return await self._execute(commands)

    async def _execute(self, commands: Sequence[Command]) -> list[Any]:
        connection = await self._connected()
        try:
            await connection.send_packed_command(connection.pack_commands(commands), check_health=False)
            return [await self._reply(connection) for _ in commands]
        except BaseException:
            # Replies may be on their way that nobody will read.
            await self._disconnect()
            raise

    async def _connected(self) -> Any:
        if self._connection is None:
            self._connection = self._pool.make_connection()
        if not self._connection.is_connected:
            await self._connection.connect()
        return self._connection

    async def _reply(self, connection: Any) -> Any:
        try:
            return await connection.read_response(timeout=math.inf, disconnect_on_error=False)
        except ResponseError as error:
            return error

    async def _disconnect(self) -> None:
        if self._connection is not None:
            await self._connection.disconnect(nowait=True)

    async def close(self) -> None:
        """Closes the connection; the next call would open it again."""
        await self._disconnect()
        self._connection = None
