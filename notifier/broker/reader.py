"""How new entries come in: at once as they are added, or after they have waited.

Both say which partition each entry is of. After any error the entries of a lost answer are pending with
us and unseen, so the caller recovers every partition before it reads on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Protocol

from notifier.broker.connection import Client, open_line
from notifier.broker.failures import translate
from notifier.broker.line import Command
from notifier.broker.partition import Partition
from notifier.broker.scripts import Call, run_all, script
from notifier.errors import BrokerError
from notifier.keys import GROUP

BLOCK = timedelta(milliseconds=250)
"""How long a read waits for entries: far shorter than a lease, since a change of partitions waits for it."""

Entries = list[list[Any]]


class Reader(Protocol):
    async def read(self, partitions: Sequence[Partition], count: int) -> list[tuple[Partition, Entries]]:
        """Up to `count` entries of each partition as [id, flat fields]. Raises BrokerError."""

    async def close(self) -> None: ...


class StreamReader:
    """Reads the streams of all partitions in one blocking call, on a connection of its own."""

    def __init__(self, client: Client, consumer: str) -> None:
        self._line = open_line(client, timeout=BLOCK + timedelta(seconds=5))
        self._consumer = consumer

    async def read(self, partitions: Sequence[Partition], count: int) -> list[tuple[Partition, Entries]]:
        streams = {partition.stream_bytes: partition for partition in partitions}
        command: Command = (
            "XREADGROUP", "GROUP", GROUP, self._consumer, "COUNT", count,
            "BLOCK", BLOCK // timedelta(milliseconds=1), "STREAMS", *streams, *(b">" for _ in streams),
        )  # fmt: skip
        [reply] = await self._line.execute([command])
        if isinstance(reply, Exception):
            raise translate(reply)
        return [(streams[stream], entries) for stream, entries in reply or ()]

    async def close(self) -> None:
        await self._line.close()


class DueReader:
    """Reads what has waited for `delay`; asks a few times within it."""

    def __init__(self, client: Client, consumer: str, delay: timedelta) -> None:
        self._client = client
        self._consumer = consumer
        self._delay_ms = int(delay / timedelta(milliseconds=1))
        self._pause = min(max(delay.total_seconds() / 10, 0.05), 1.0)

    async def read(self, partitions: Sequence[Partition], count: int) -> list[tuple[Partition, Entries]]:
        calls = [
            Call(
                script("read_due"),
                partition.commit_keys[:2],
                (partition.lease.token, GROUP, self._consumer, self._delay_ms, count),
            )
            for partition in partitions
        ]
        found: list[tuple[Partition, Entries]] = []
        for partition, reply in zip(partitions, await run_all(self._client, calls), strict=True):
            if isinstance(reply, BrokerError):
                raise reply
            if reply:
                found.append((partition, reply))
        if not found:
            await asyncio.sleep(self._pause)
        return found

    async def close(self) -> None:
        """Its client belongs to somebody else."""
