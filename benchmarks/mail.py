"""Mails a second to a real sink: through the service, and from a bare loop of the same clients."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiosmtplib

from benchmarks.bare import BATCH
from benchmarks.ours import Counter, running
from benchmarks.workload import chunks
from channels.email import open_channel
from notifier.broker.connection import connect
from notifier.channel import Channel, Delivery, Sent
from notifier.local.broker import free_port
from notifier.local.mailbox import MailboxServer

CONNECTIONS = 10
_TEMPLATES = Path(__file__).parent.parent / "templates"
_MAIL = (
    b"From: App <app@example.com>\r\nTo: user@example.com\r\nSubject: Ada liked your photo\r\n"
    b"Content-Type: text/html\r\n\r\n" + b"<p>Ada Lovelace liked your photo.</p>\r\n" * 300
)


@contextmanager
def sink() -> Iterator[int]:
    """A server in a process of its own that takes every mail: postfix's smtp-sink, or ours. Its port."""
    port = free_port()
    binary = shutil.which("smtp-sink", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if binary:
        user = ["-u", "postfix"] if os.getuid() == 0 else []
        command = [binary, *user, f"127.0.0.1:{port}", "100"]
    else:
        command = [sys.executable, "-m", "benchmarks.mail", str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            yield port
        finally:
            process.send_signal(signal.SIGTERM)


async def _listening(port: int) -> None:
    async with asyncio.timeout(10):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.02)
            else:
                writer.close()
                return


async def ours(url: str, count: int) -> float:
    """From an event in the queue to the sink's yes: rendered, multipart, with every promise kept."""
    with sink() as port:
        await _listening(port)
        environ = {
            "NOTIFIER_SMTP_URL": f"smtp://127.0.0.1:{port}?starttls=never",
            "NOTIFIER_MAIL_FROM": "App <app@example.com>",
            "NOTIFIER_SMTP_CONNECTIONS": str(CONNECTIONS),
        }
        counter = Counter()
        channel = _Counted(open_channel(environ), counter)
        async with running(url, {"email": channel}, templates=_TEMPLATES) as publisher:
            counter.expect(1)
            for batch in chunks(1, 1):  # until it has come through, the worker may be taking its leases
                await publisher.publish_many(map(_with_mailbox, batch))
            await counter.reached()
            counter.expect(count)
            start = time.perf_counter()
            for batch in chunks(count, 500):
                await publisher.publish_many(map(_with_mailbox, batch))
            await counter.reached()
            return count / (time.perf_counter() - start)


def _with_mailbox(event: dict[str, Any]) -> dict[str, Any]:
    return event | {"recipient": {"id": event["recipient"], "email": f"{event['recipient']}@example.com"}}


class _Counted:
    """The e-mail channel, and a count of the mails that were taken."""

    def __init__(self, channel: Channel, counter: Counter) -> None:
        self._channel = channel
        self._counter = counter

    def __getattr__(self, name: str) -> Any:
        return getattr(self._channel, name)

    async def send(self, delivery: Delivery, content: Mapping[str, str]) -> Sent:
        sent = await self._channel.send(delivery, content)
        self._counter("email")
        return sent


async def bare(url: str, count: int) -> float:
    """A stream with as many entries, one prepared mail for each, and an acknowledgement."""
    with sink() as port:
        await _listening(port)
        async with connect(url) as client:
            await client.xgroup_create("bare:mails", "g", "0", mkstream=True)
            to_sink = {"hostname": "127.0.0.1", "port": port, "start_tls": False}
            connections = [aiosmtplib.SMTP(**to_sink) for _ in range(CONNECTIONS)]
            for connection in connections:
                await connection.connect()
            start = time.perf_counter()
            for batch in chunks(count, 500):
                pipeline = client.pipeline(transaction=False)
                for event in batch:
                    pipeline.execute_command("XADD", "bare:mails", "*", "to", str(event["recipient"]))
                await pipeline.execute()
            left = count
            while left:
                reply = await client.xreadgroup("g", "c", {"bare:mails": ">"}, count=BATCH)
                entries = reply[0][1]
                await asyncio.gather(
                    *(_send(connections[i], entries[i::CONNECTIONS]) for i in range(CONNECTIONS))
                )
                ids = [entry_id for entry_id, _ in entries]
                await client.xack("bare:mails", "g", *ids)
                await client.xdel("bare:mails", *ids)
                left -= len(ids)
            elapsed = time.perf_counter() - start
            for connection in connections:
                await connection.quit()
            return count / elapsed


async def _send(connection: aiosmtplib.SMTP, entries: list[tuple[bytes, dict[bytes, bytes]]]) -> None:
    for _, fields in entries:
        await connection.sendmail("app@example.com", [f"{fields[b'to'].decode()}@example.com"], _MAIL)


async def _serve(port: int) -> None:
    async with MailboxServer(port):
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1])))
