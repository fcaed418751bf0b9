"""The connections of redis-py, made fit for us; commands go out as RESP2, replies come back as raw bytes.

Connections never retry by themselves: after a lost answer a command may have run, and only the caller knows
whether running it again is harmless.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Any

from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.retry import Retry


def connection_options(timeout: timedelta, *, is_async: bool) -> dict[str, Any]:
    """How every connection is made. `timeout` is for connecting, and for one answer."""
    return {
        "socket_timeout": timeout.total_seconds(),
        "socket_connect_timeout": timeout.total_seconds(),
        "protocol": 2,
        "decode_responses": False,
        "health_check_interval": 0,
        "retry": AsyncRetry(NoBackoff(), 0) if is_async else Retry(NoBackoff(), 0),
    }


def pool_options(timeout: timedelta, connections: int, *, is_async: bool) -> dict[str, Any]:
    """Those of a pool. Whoever finds all connections lent out waits, up to `timeout`."""
    options = connection_options(timeout, is_async=is_async)
    return options | {"timeout": timeout.total_seconds(), "max_connections": connections}


class FastConnection:
    """What redis-py's asyncio connection lacks.

    It packs commands in Python; hiredis does it in C. A connection that was cancelled while it connected
    passes for connected. And it sends under asyncio.wait_for, which before
    Python 3.12 can swallow the cancellation of the task (bpo-37658): a worker that is told to stop would
    go on.
    """

    socket_timeout: float | None

    async def connect(self) -> None:
        # Cancelled in the middle of the handshake, it would pass for connected, and what is sent next
        # would take the answers to the handshake for its own.
        try:
            await super().connect()  # type: ignore[misc]
        except BaseException:
            await self.disconnect(nowait=True)  # type: ignore[attr-defined]
            raise

    async def send_packed_command(self, command: Any, check_health: bool = True) -> None:
        timeout, self.socket_timeout = self.socket_timeout, None
        try:
            async with asyncio.timeout(timeout):
                await super().send_packed_command(command, check_health)  # type: ignore[misc]
        finally:
            self.socket_timeout = timeout

    def pack_command(self, *words: Any) -> list[bytes]:
        return self.pack_commands([words])

    def pack_commands(self, commands: Iterable[Sequence[Any]]) -> list[bytes]:
        return [b"".join([_pack(command) for command in commands])]


def _pack(command: Sequence[Any]) -> bytes:
    """One command in RESP. The name may be two words, such as SCRIPT LOAD."""
    name = command[0]
    if isinstance(name, str) and " " in name:
        command = (*name.split(), *command[1:])
    return _pack_words(command if type(command) is tuple else tuple(command))


def _pack_plainly(words: tuple[Any, ...]) -> bytes:
    encoded = [word if isinstance(word, bytes) else str(word).encode() for word in words]
    return b"".join([b"*%d\r\n" % len(words), *(b"$%d\r\n%b\r\n" % (len(w), w) for w in encoded)])


_pack_words: Callable[[tuple[Any, ...]], bytes] = _pack_plainly
with suppress(ImportError):  # comes with the extra `service`
    from hiredis import pack_command as _pack_words


def fast(connection_class: type) -> type:
    """The connection class that redis-py chose, made fit."""
    return type(connection_class.__name__, (FastConnection, connection_class), {})
