"""What a broker's URL says: one server, the sentinels of a primary, or the nodes of a cluster."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, NamedTuple
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

from notifier.errors import ConfigurationError

SETTING = "NOTIFIER_REDIS_URL"

Kind = Literal["server", "sentinel", "cluster"]

_PLAIN = ("redis", "rediss", "unix")
_PORTS: dict[Kind, int] = {"server": 6379, "sentinel": 26379, "cluster": 6379}
_SECRETS = ("password", "sentinel_password")
_FOR_SENTINELS = ("sentinel_username", "sentinel_password")


class Address(NamedTuple):
    """Where a server listens."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Location:
    """A URL, taken apart. `addresses` are those of the server, the sentinels, or some nodes of the cluster.

    `plain` is a redis://, rediss:// or unix:// URL of the first of them, with the user, password, database
    and options that are meant for data servers. `service` is the sentinels' name for the primary.
    """

    kind: Kind
    addresses: tuple[Address, ...]
    plain: str
    service: str = ""
    sentinel_username: str | None = None
    sentinel_password: str | None = None


def locate(url: str) -> Location:
    """Takes a URL apart. Raises ConfigurationError, which says what is wrong with it."""
    try:
        parts = urlsplit(url)
    except ValueError:  # a [ without its ], say
        raise _unreadable() from None
    scheme, _, topology = parts.scheme.partition("+")
    if scheme == "unix" and not topology:
        return Location("server", (), url)
    if scheme not in _PLAIN[:2] or topology not in {"", "sentinel", "cluster"}:
        raise _wrong("must begin with redis://, rediss://, unix://, redis+sentinel:// or redis+cluster://")
    # A password that begins with digits, and then has one of these characters, passes for a port.
    if parts.fragment or "@" in parts.path or "@" in parts.query.partition("=")[0]:
        raise _unreadable()
    kind: Kind = "sentinel" if topology == "sentinel" else "cluster" if topology == "cluster" else "server"
    user, _, hosts = parts.netloc.rpartition("@")
    addresses = tuple(_address(host, kind) for host in hosts.split(","))
    if kind == "server":
        if len(addresses) > 1:
            raise _wrong(f"names several hosts; {scheme}+sentinel:// and {scheme}+cluster:// do that")
        _database(unquote(parts.path).strip("/"))
        return Location("server", addresses, url)
    path = unquote(parts.path).strip("/")
    service, database = _service(path) if kind == "sentinel" else ("", _no_database(path))
    query = dict(parse_qsl(parts.query))
    own = {name: query.pop(name, None) for name in _FOR_SENTINELS}
    plain = f"{scheme}://{user + '@' if user else ''}{addresses[0]}/{database}"
    if query:
        plain += "?" + urlencode(query)
    return Location(kind, addresses, plain, service, own["sentinel_username"], own["sentinel_password"])


def check_url(url: str) -> str:
    """The same URL, if it is one that `connect` understands. Raises ConfigurationError."""
    locate(url)
    return url


def display_url(url: str) -> str:
    """The URL without its passwords, for messages and logs."""
    parts = urlsplit(url)
    user, at, hosts = parts.netloc.rpartition("@")
    if ":" in user:
        parts = parts._replace(netloc=f"{user.partition(':')[0]}:***{at}{hosts}")
    if any(f"{secret}=" in parts.query for secret in _SECRETS):
        shown = [(name, "***" if name in _SECRETS else value) for name, value in parse_qsl(parts.query)]
        parts = parts._replace(query=urlencode(shown, safe="*"))
    return parts.geturl()


def _unreadable() -> ConfigurationError:
    # Nothing of the text: what looks like a host may be the beginning of a password.
    return _wrong(
        "has no host and port that can be read; in a password, characters such as # / ? @ [ must be "
        "percent-encoded"
    )


def _wrong(reason: str) -> ConfigurationError:
    return ConfigurationError(SETTING, reason)


def _address(text: str, kind: Kind) -> Address:
    try:
        parts = urlsplit(f"//{text}")
        port = parts.port
    except ValueError:
        raise _unreadable() from None
    if not parts.hostname or port == 0:
        raise _wrong("names no host" if not parts.hostname else "has no usable port")
    return Address(unquote(parts.hostname), port or _PORTS[kind])


def _service(path: str) -> tuple[str, int]:
    service, _, database = path.partition("/")
    if not service:
        raise _wrong("names no primary; it goes behind the sentinels: redis+sentinel://host:26379/mymaster")
    return service, _database(database)


def _database(text: str) -> int:
    if text and not re.fullmatch(r"[0-9]{1,9}", text):
        raise _wrong(f"{text} is not the number of a database")
    return int(text or 0)


def _no_database(path: str) -> int:
    if path not in {"", "0"}:
        raise _wrong(f"a cluster has only database 0, not {path}")
    return 0
