"""The blocking twin of `notifier.broker.line.exchange`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from redis.exceptions import ResponseError

from notifier.broker.line import Command


@contextmanager
def lent(pool: Any) -> Iterator[Any]:
    """A connection of the pool; closed when anything is raised, since replies may be on their way."""
    connection = pool.get_connection()
    try:
        yield connection
    except BaseException:
        connection.disconnect()
        raise
    finally:
        pool.release(connection)


def send(connection: Any, commands: Sequence[Command]) -> None:
    connection.send_packed_command(connection.pack_commands(commands), check_health=False)


def read_replies(connection: Any, count: int) -> list[Any]:
    """Raw; errors of the server are replies."""
    return [_reply(connection) for _ in range(count)]


def _reply(connection: Any) -> Any:
    try:
        return connection.read_response(disconnect_on_error=False)
    except ResponseError as error:
        return error
