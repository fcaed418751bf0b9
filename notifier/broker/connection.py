"""From a URL to a client: of one server, of the primary that the sentinels name, or of a cluster."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import redis
import redis.asyncio
import redis.asyncio.connection
import redis.connection

from notifier.broker.cluster import Cluster, ClusterLine
from notifier.broker.cluster_sync import SyncCluster
from notifier.broker.line import TIMEOUT, Line
from notifier.broker.sentinel import primary_connection
from notifier.broker.url import SETTING, locate
from notifier.broker.wire import fast, pool_options
from notifier.errors import ConfigurationError

Client = redis.asyncio.Redis | Cluster
SyncClient = redis.Redis | SyncCluster


def connect(url: str, *, timeout: timedelta = TIMEOUT, connections: int = 64) -> Client:
    """An asyncio client with a pool of its own, or one for each node of a cluster. Connects when first used.

    Whoever finds all connections lent out waits, up to `timeout`. Raises ConfigurationError.
    """
    location = locate(url)
    if location.kind == "cluster":
        return Cluster(location, timeout=timeout, connections=connections)
    options = pool_options(timeout, connections, is_async=True)
    if location.kind == "sentinel":
        parse_url: Any = redis.asyncio.connection.parse_url
        connection_class, own = primary_connection(location, is_async=True, parse_url=parse_url)
        pool = redis.asyncio.BlockingConnectionPool(connection_class=connection_class, **options | own)
    else:
        pool = redis.asyncio.BlockingConnectionPool.from_url(url, **options)
        pool.connection_class = fast(pool.connection_class)
    return redis.asyncio.Redis.from_pool(_with_known_options(pool))


def connect_sync(url: str, *, timeout: timedelta = TIMEOUT, connections: int = 64) -> SyncClient:
    """The blocking twin of `connect`, safe to share between threads."""
    location = locate(url)
    if location.kind == "cluster":
        return SyncCluster(location, timeout=timeout, connections=connections)
    options = pool_options(timeout, connections, is_async=False)
    if location.kind == "sentinel":
        parse_url: Any = redis.connection.parse_url
        connection_class, own = primary_connection(location, is_async=False, parse_url=parse_url)
        pool = redis.BlockingConnectionPool(connection_class=connection_class, **options | own)
    else:
        pool = redis.BlockingConnectionPool.from_url(url, **options)
    return redis.Redis.from_pool(_with_known_options(pool))


def _with_known_options(pool: Any) -> Any:
    """The same pool, if redis-py knows the options that the URL's query gave it."""
    try:
        pool.connection_class(**pool.connection_kwargs)  # it does not connect
    except TypeError as error:
        option = str(error).rpartition("'")[0].rpartition("'")[2]
        raise ConfigurationError(SETTING, f"{option or 'something in its query'} is not an option") from None
    return pool


def open_line(client: Client, timeout: timedelta = TIMEOUT) -> Line | ClusterLine:
    """A line beside the client's pool; see `notifier.broker.line`."""
    if isinstance(client, Cluster):
        return ClusterLine(client, timeout)
    return Line(client.connection_pool.make_connection, timeout)
