"""From the client's errors to ours."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import redis
from redis.exceptions import (
    AskError,
    AuthenticationError,
    ClusterDownError,
    NoPermissionError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TryAgainError,
)

from notifier.errors import BrokerError, BrokerFull, BrokerUnavailable, Fenced, PartitionsMoved

# Of some errors redis-py keeps the class and cuts the first word off; of others the word is all there is.
# MASTERDOWN is a ClusterDownError, and MOVED an AskError.
_UNAVAILABLE = (ReadOnlyError, ClusterDownError, TryAgainError, AskError)
_UNAVAILABLE_WORDS = ("UNBLOCKED", "BUSY ", "NOREPLICAS", "DB index is out of range")
_REFUSED = (AuthenticationError, NoPermissionError)


def translate(error: Exception) -> BrokerError:
    """The typed error for what redis-py raised."""
    text = str(error) or type(error).__name__
    if isinstance(error, BrokerError):
        return error
    if text.startswith("FENCED"):
        return Fenced("another worker owns the partition now")
    if text.startswith("REPARTITIONED"):
        return PartitionsMoved("the number of partitions has changed; a process that goes on starts again")
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
