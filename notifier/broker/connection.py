"""From a URL to a client: of one server, of the primary that the sentinels name, or of a cluster."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Final

import redis
import redis.asyncio
import redis.asyncio.connection
import redis.connection

from notifier.broker.cluster import Cluster, ClusterLine
from notifier.broker.cluster_sync import SyncCluster
from notifier.broker.line import TIMEOUT, Line
from notifier.broker.sentinel import primary_connection
from notifier.broker.url import SETTING, Location, locate
from notifier.broker.wire import fast, pool_options
from notifier.errors import ConfigurationError

Client = redis.asyncio.Redis | Cluster
SyncClient = redis.Redis | SyncCluster

_OURS: Final = frozenset({"decode_responses", "protocol"})
"""What redis-py takes from a URL, and our code does not work with."""
_OF_POOLS: Final = frozenset({"max_connections", "timeout"})
_TLS_FILES: Final = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")


def connect(url: str, *, timeout: timedelta = TIMEOUT, connections: int = 64) -> Client:
    """An asyncio client with a pool of its own, or one for each node of a cluster. Connects when first used.

    Whoever finds all connections lent out waits, up to `timeout`. Raises ConfigurationError.
    """
    location = _checked(url)
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
    return redis.asyncio.Redis.from_pool(pool)


def connect_sync(url: str, *, timeout: timedelta = TIMEOUT, connections: int = 64) -> SyncClient:
    """The blocking twin of `connect`, safe to share between threads."""
    location = _checked(url)
    if location.kind == "cluster":
        return SyncCluster(location, timeout=timeout, connections=connections)
    options = pool_options(timeout, connections, is_async=False)
    if location.kind == "sentinel":
        parse_url: Any = redis.connection.parse_url
        connection_class, own = primary_connection(location, is_async=False, parse_url=parse_url)
        pool = redis.BlockingConnectionPool(connection_class=connection_class, **options | own)
    else:
        pool = redis.BlockingConnectionPool.from_url(url, **options)
    return redis.Redis.from_pool(pool)


def _checked(url: str) -> Location:
    """The URL, taken apart. Raises ConfigurationError, also for an option that could not work."""
    location = locate(url)
    try:
        options = dict(redis.connection.parse_url(location.plain))
        if own := _OURS & options.keys():
            raise ConfigurationError(SETTING, f"{min(own)} is not an option")
        connection_class: Any = options.pop("connection_class", redis.Connection)
        connection_class(**{name: value for name, value in options.items() if name not in _OF_POOLS})
    except TypeError as error:
        option = str(error).rpartition("'")[0].rpartition("'")[2]
        raise ConfigurationError(SETTING, f"{option or 'something in its query'} is not an option") from None
    except (ValueError, redis.RedisError) as error:
        raise ConfigurationError(SETTING, str(error).rstrip(".")) from None
    _check_tls(options)
    return location


def _check_tls(options: Mapping[str, Any]) -> None:
    """Loads the files that an `ssl_…` option names, which otherwise passes for a server that is away."""
    authorities, certificate, key = (
        options.get(f"ssl_{name}") for name in ("ca_certs", "certfile", "keyfile")
    )
    try:
        if authorities:
            ssl.create_default_context(cafile=authorities)
        if certificate or key:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.load_cert_chain(certificate or "", key, options.get("ssl_password"))
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        names = [name for name in _TLS_FILES if options.get(name)]
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise ConfigurationError(SETTING, f"{' or '.join(names)} can't be used: {reason}") from None


def open_line(client: Client, timeout: timedelta = TIMEOUT) -> Line | ClusterLine:
    """A line beside the client's pool; see `notifier.broker.line`."""
    if isinstance(client, Cluster):
        return ClusterLine(client, timeout)
    return Line(client.connection_pool.make_connection, timeout)
