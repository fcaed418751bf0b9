"""The service under the soak: a server behind a proxy, workers of all roles, a mail server, a load."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import redis
import redis.asyncio

from notifier.broker.connection import connect
from notifier.errors import BrokerError
from notifier.keys import Keys
from notifier.local.broker import EmbeddedBroker, end_with_parent
from notifier.publisher import AsyncPublisher
from tests.support.mailbox import AccountingMailbox
from tests.support.proxy import Proxy, open_proxy

WORKERS = 3
TTL = 2.0
IN_HAND = 50
PEOPLE = tuple(f"u{i}" for i in range(120))
QUEUES = ("events", "email", "in_app")
CONNECTIONS = (4 + 3) * len(QUEUES) + len(QUEUES) + 2
"""A worker has no more. Each queue has a line for beats, for commits, for calls and for reads; a DLQ has
three, since it is read through the pool. Of the pool each who uses it takes one: the readers of DLQs, and the
alerter, which also publishes."""
OWN_CONNECTIONS = 8  # of the soak itself
_ROOT = Path(__file__).parent.parent.parent
_TEMPLATES = {
    "email.jinja": "{% block subject %}{{ event.id }}{% endblock %}{% block body %}<p>Hi</p>{% endblock %}",
    "in_app.jinja": "{% block title %}{{ event.id }}{% endblock %}{% block body %}Hello{% endblock %}",
}


class DebuggableBroker(EmbeddedBroker):
    """Understands DEBUG SLEEP."""

    def _command(self) -> list[str]:
        return [*super()._command(), "--enable-debug-command", "yes", "--appendfsync", "always"]


class SlowMailbox(AccountingMailbox):
    """`slow` is how many seconds it listens to nobody once somebody has named a recipient."""

    def __init__(self) -> None:
        super().__init__()
        self.slow = 0.0

    def answer_to(self, mailbox: str) -> str | None:
        if self.slow:
            self.did["slow"] += 1
            for dialogue in self._dialogues:
                if (transport := dialogue.transport) is not None:
                    transport.pause_reading()
                    asyncio.get_running_loop().call_later(self.slow, transport.resume_reading)
        return super().answer_to(mailbox)


@dataclass(repr=False)
class Service:
    broker: EmbeddedBroker
    proxy: Proxy
    client: redis.asyncio.Redis
    publisher: AsyncPublisher
    mailbox: SlowMailbox
    folder: Path
    keys: Keys = field(default_factory=Keys)
    workers: list[subprocess.Popen[bytes]] = field(default_factory=list)
    published: dict[str, list[str]] = field(default_factory=dict)
    refused: int = 0
    failed_starts: int = 0
    peak_kib: int = 0
    most_connections: int = 0

    # Workers.

    def start_worker(self) -> subprocess.Popen[bytes]:
        environ = {
            "NOTIFIER_REDIS_URL": self.proxy.url,
            "NOTIFIER_TEMPLATES": str(self.folder / "types"),
            "NOTIFIER_CHANNELS": "channels.email:open_channel,channels.in_app:open_channel",
            "NOTIFIER_SMTP_URL": f"{self.mailbox.url}?starttls=never",
            "NOTIFIER_MAIL_FROM": "App <app@example.com>",
            "NOTIFIER_ADMINS": "ops@example.com",
            "NOTIFIER_LEASE_TTL": f"{TTL:g}s",
            "NOTIFIER_IN_HAND": str(IN_HAND),
            "NOTIFIER_RETRY_ATTEMPTS": "100",
            "NOTIFIER_RETRY_BASE": "100ms",
            "NOTIFIER_RETRY_MAX": "1s",
            "NOTIFIER_DLQ_DELAY": "1s",
        }
        parent = os.getpid()
        with (self.folder / "workers.log").open("ab") as said:
            worker = subprocess.Popen(
                [sys.executable, "-m", "notifier.cli", "worker", "all"],
                cwd=_ROOT,
                env=os.environ | environ,
                stdout=said,
                stderr=said,
                preexec_fn=lambda: end_with_parent(parent),  # noqa: PLW1509 - no thread is needed in the child
            )
        self.workers.append(worker)
        return worker

    def replace(self, worker: subprocess.Popen[bytes]) -> None:
        self.workers.remove(worker)
        self.start_worker()

    def supervise(self) -> None:
        """Starts workers again that found no server as they started, as a supervisor does."""
        for worker in list(self.workers):
            if worker.poll() is not None:
                self.failed_starts += 1
                self.replace(worker)

    def refused_to_start(self) -> int:
        """How many workers said so; any other end would be a crash."""
        return self.said().count("notifier: NOTIFIER_REDIS_URL: ")

    def said(self) -> str:
        return (self.folder / "workers.log").read_text(errors="replace")

    def dead_lettered(self) -> set[str]:
        """The ids of events of which a mail went to the DLQ and so left its lane."""
        rows = (row for row in self.said().splitlines() if '"delivery_dead_lettered"' in row)
        return {json.loads(row).get("event_id", "") for row in rows}

    def look_at_memory(self) -> None:
        for worker in self.workers:
            try:
                words = Path(f"/proc/{worker.pid}/statm").read_text().split()
            except OSError:
                continue
            self.peak_kib = max(self.peak_kib, int(words[1]) * os.sysconf("SC_PAGE_SIZE") // 1024)

    def connections(self, worker: subprocess.Popen[bytes]) -> int:
        """How many sockets to the server this process has open, also such as the server has closed."""
        port = f":{self.proxy.port:04X}"
        rows = [row.split() for row in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        sockets = {f"socket:[{row[9]}]" for row in rows if row[2].endswith(port)}
        try:
            return sum(_link(fd) in sockets for fd in Path(f"/proc/{worker.pid}/fd").iterdir())
        except OSError:  # it has ended
            return 0

    async def too_many_connections(self) -> list[str]:
        """What is wrong with those of the workers that run, as the workers and as the server see them."""
        counts = [self.connections(worker) for worker in self.workers]
        clients, most = len(await self.client.client_list()), WORKERS * CONNECTIONS + OWN_CONNECTIONS
        self.most_connections = max(counts)
        found = [f"a worker has {n} connections, {CONNECTIONS} allowed" for n in counts if n > CONNECTIONS]
        return found + ([f"the server has {clients} connections, {most} allowed"] if clients > most else [])

    async def owned_by(self, worker: subprocess.Popen[bytes]) -> set[tuple[str, int]]:
        mark = f"-{worker.pid}-".encode()
        return {place for place, token in (await self.tokens()).items() if mark in token}

    async def tokens(self) -> dict[tuple[str, int], bytes]:
        """The lease token of each (queue, partition)."""
        places = [(queue, p) for queue in QUEUES for p in range(self.keys.partitions)]
        pipeline = self.client.pipeline(transaction=False)
        for queue, p in places:
            pipeline.hget(self.keys.lease(queue, p), "token")
        return {place: token or b"" for place, token in zip(places, await pipeline.execute(), strict=True)}

    # The load.

    async def publish(self, number: int) -> None:
        """Ten events for ten people, again and again until the server has taken them."""
        events: list[dict[str, Any]] = []
        for i in range(10 * number, 10 * number + 10):
            recipient = PEOPLE[i % len(PEOPLE)]
            to = {"id": recipient, "email": f"{recipient}@example.com"}
            events.append({"id": f"e{i}", "type": "ping", "recipient": to})
            self.published.setdefault(recipient, []).append(f"e{i}")
        while True:
            try:
                await self.publisher.publish_many(events)
            except BrokerError:
                self.refused += 1
                await asyncio.sleep(0.05)
            else:
                return

    @property
    def events(self) -> int:
        return sum(map(len, self.published.values()))

    async def is_drained(self) -> bool:
        wanted = {(f"{u}@example.com", e) for u, ids in self.published.items() for e in ids}
        if not wanted <= set(self.mailbox.taken):
            return False
        try:
            pipeline = self.client.pipeline(transaction=False)
            for p in range(self.keys.partitions):
                for queue in QUEUES:
                    pipeline.xlen(self.keys.queue(queue, p))
                    pipeline.xlen(self.keys.dlq(queue, p))
                    pipeline.zcard(self.keys.parked(queue, p))
            return not any(await pipeline.execute())
        except redis.RedisError:
            return False


def _link(path: Path) -> str:
    try:
        return str(path.readlink())
    except OSError:  # closed meanwhile
        return ""


@asynccontextmanager
async def open_service(folder: Path) -> AsyncIterator[Service]:
    for name, text in _TEMPLATES.items():
        for kind in ("ping", "system.dead_letters"):
            (folder / "types" / kind).mkdir(parents=True, exist_ok=True)
            (folder / "types" / kind / name).write_text(text)
    with DebuggableBroker(folder / "broker", persistent=True) as broker:
        async with (
            connect(broker.url) as client,
            open_proxy(broker.url) as proxy,
            AsyncPublisher(proxy.url) as publisher,
            SlowMailbox() as mailbox,
        ):
            service = Service(broker, proxy, client, publisher, mailbox, folder)
            try:
                yield service
            finally:
                for worker in service.workers:
                    worker.send_signal(signal.SIGCONT)
                    worker.kill()
                    worker.wait()


async def ended(worker: subprocess.Popen[bytes], seconds: float) -> int | None:
    """Its exit code, or None when it still runs after that time."""
    deadline = time.monotonic() + seconds
    while (code := worker.poll()) is None and time.monotonic() < deadline:
        await asyncio.sleep(0.02)
    return code
