"""From a URL to a client, and from the client's errors to ours.

Clients never retry a write by themselves: after a lost answer a command may have run, and only the
caller knows whether running it again is harmless. Replies are RESP2 and raw bytes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

import redis
import redis.asyncio
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    ClusterDownError,
    NoPermissionError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TryAgainError,
)
from redis.retry import Retry

from notifier.errors import BrokerError, BrokerFull, BrokerUnavailable, ConfigurationError, Fenced

SETTING = "NOTIFIER_REDIS_URL"

# Of some errors redis-py keeps the class and cuts the first word off; of others the word is all there is.
_UNAVAILABLE = (ReadOnlyError, ClusterDownError, TryAgainError)  # MASTERDOWN is a ClusterDownError
_UNAVAILABLE_WORDS = ("UNBLOCKED", "BUSY ", "NOREPLICAS")
_REFUSED = (AuthenticationError, NoPermissionError)


def check_url(url: str) -> str:
    """The same URL, if it is one that `connect` understands. Raises ConfigurationError."""
    try:
        parts = urlsplit(url)
        port_is_number = parts.port is None or parts.port > 0
    except ValueError as error:
        raise ConfigurationError(SETTING, f"is not a URL: {error}") from None
    if parts.scheme in {"redis+sentinel", "redis+cluster"}:
        raise ConfigurationError(SETTING, f"{parts.scheme}:// is not supported yet; use redis://")
    if parts.scheme not in {"redis", "rediss", "unix"} or not port_is_number:
        raise ConfigurationError(SETTING, "must begin with redis://, rediss:// or unix://")
    if parts.scheme != "unix" and not parts.hostname:
        raise ConfigurationError(SETTING, "names no host")
    return url


def display_url(url: str) -> str:
    """The URL without its password, for messages and logs."""
    parts = urlsplit(url)
    if parts.password is None:
        return url
    return parts._replace(netloc=f"{parts.username or ''}:***@{parts.netloc.rpartition('@')[2]}").geturl()


def _options(timeout: timedelta, connections: int) -> dict[str, Any]:
    return {
        "timeout": timeout.total_seconds(),  # for a connection of the pool, when all are lent out
        "socket_timeout": timeout.total_seconds(),
        "socket_connect_timeout": timeout.total_seconds(),
        "max_connections": connections,
        "protocol": 2,
        "decode_responses": False,
        "health_check_interval": 0,
    }


class _FastConnection:
    """What redis-py's asyncio connection lacks.

    It packs commands in Python; hiredis does it in C. And it sends under asyncio.wait_for, which before
    Python 3.12 can swallow the cancellation of the task (bpo-37658): a worker that is told to stop would
    go on.
    """

    socket_timeout: float | None

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
    name, *rest = command
    words = (*name.split(), *rest) if isinstance(name, str) else command
    return _pack_words(tuple(words))


def _pack_plainly(words: tuple[Any, ...]) -> bytes:
    encoded = [word if isinstance(word, bytes) else str(word).encode() for word in words]
    return b"".join([b"*%d\r\n" % len(words), *(b"$%d\r\n%b\r\n" % (len(w), w) for w in encoded)])


_pack_words: Callable[[tuple[Any, ...]], bytes] = _pack_plainly
with suppress(ImportError):  # comes with the extra `service`
    from hiredis import pack_command as _pack_words


def _fast(connection_class: type) -> type:
    return type(connection_class.__name__, (_FastConnection, connection_class), {})


def connect(
    url: str, *, timeout: timedelta = timedelta(seconds=5), connections: int = 64
) -> redis.asyncio.Redis:
    """An asyncio client with a pool of its own. Connects when first used.

    Whoever finds all connections lent out waits, up to `timeout`.
    """
    pool = redis.asyncio.BlockingConnectionPool.from_url(
        check_url(url), retry=AsyncRetry(NoBackoff(), 0), **_options(timeout, connections)
    )
    pool.connection_class = _fast(pool.connection_class)
    return redis.asyncio.Redis.from_pool(pool)


def connect_sync(
    url: str, *, timeout: timedelta = timedelta(seconds=5), connections: int = 64
) -> redis.Redis:
    """The blocking twin of `connect`, safe to share between threads."""
    pool = redis.BlockingConnectionPool.from_url(
        check_url(url), retry=Retry(NoBackoff(), 0), **_options(timeout, connections)
    )
    return redis.Redis.from_pool(pool)


def translate(error: Exception) -> BrokerError:
    """The typed error for what redis-py raised."""
    text = str(error) or type(error).__name__
    if isinstance(error, BrokerError):
        return error
    if text.startswith("FENCED"):
        return Fenced("another worker owns the partition now")
    if isinstance(error, redis.exceptions.OutOfMemoryError) or text.startswith("OOM") or "maxmemory" in text:
        return BrokerFull("the server is at its memory limit (maxmemory)")
    if isinstance(error, _REFUSED):
        return BrokerUnavailable(f"the server refused the user name or password ({text})")
    is_answer = isinstance(error, ResponseError) and not isinstance(error, _UNAVAILABLE)
    if is_answer and not text.startswith(_UNAVAILABLE_WORDS):
        return BrokerError(f"the server answered: {text}")
    return BrokerUnavailable(f"the broker can't be reached: {text}")


@contextmanager
def broker_errors() -> Iterator[None]:
    """Turns what redis-py raises inside into BrokerUnavailable, BrokerFull or BrokerError."""
    try:
        yield
    except (RedisError, OSError, TimeoutError) as error:
        raise translate(error) from error
