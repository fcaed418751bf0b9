"""How new entries come in: at once as they are added, or after they have waited.

All say which partition each entry is of. After an error the entries of a lost answer are pending with us
and unseen, so the caller recovers the partition before it reads on.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Protocol

import redis.asyncio
from redis.exceptions import AskError, ClusterDownError, TryAgainError

from notifier.broker.cluster import Cluster
from notifier.broker.connection import Client, open_line
from notifier.broker.failures import translate
from notifier.broker.line import TIMEOUT, Command, Line
from notifier.broker.partition import Partition
from notifier.broker.scripts import Call, run_all, script
from notifier.broker.url import Address
from notifier.errors import BrokerError
from notifier.keys import GROUP

BLOCK = timedelta(milliseconds=250)
"""How long a read waits for entries: far shorter than a lease, since a change of partitions waits for it."""

_PAUSE = 0.05  # seconds, before a stream is read again whose slot is on its way

Entries = list[list[Any]]


Found = list[tuple[Partition, Entries | BrokerError]]


class Reader(Protocol):
    async def read(self, partitions: Sequence[Partition], count: int) -> Found:
        """Up to `count` entries of each partition as [id, flat fields], or why it could not be read.

        Raises BrokerError when that is so for all of them.
        """

    def is_reading(self, partition: Partition) -> bool:
        """Whether a read goes on behind `read`. When it does not, nobody has what it brought, which is
        pending with us."""

    async def finished(self, partitions: Sequence[Partition]) -> None:
        """Returns when no read of these goes on."""

    async def close(self) -> None: ...


class _ReadsWhileAsked:
    """Nothing goes on behind `read`."""

    def is_reading(self, partition: Partition) -> bool:
        return False

    async def finished(self, partitions: Sequence[Partition]) -> None:
        """Nothing to wait for."""


def _read(consumer: str, count: int, streams: Sequence[bytes]) -> Command:
    return (
        "XREADGROUP", "GROUP", GROUP, consumer, "COUNT", count,
        "BLOCK", BLOCK // timedelta(milliseconds=1), "STREAMS", *streams, *(b">" for _ in streams),
    )  # fmt: skip


class StreamReader(_ReadsWhileAsked):
    """Reads the streams of all partitions in one blocking call, on a connection of its own."""

    def __init__(self, client: redis.asyncio.Redis, consumer: str) -> None:
        self._line = open_line(client, BLOCK + TIMEOUT)
        self._consumer = consumer

    async def read(self, partitions: Sequence[Partition], count: int) -> Found:
        streams = {partition.stream_bytes: partition for partition in partitions}
        [reply] = await self._line.execute([_read(self._consumer, count, tuple(streams))])
        if isinstance(reply, Exception):
            raise translate(reply)
        return [(streams[stream], entries) for stream, entries in reply or ()]

    async def close(self) -> None:
        await self._line.close()


class ClusterReader:
    """Reads each stream on a connection of its own, since one command takes the streams of one slot only.

    A read waits for entries in the server until they come or `BLOCK` is over. It goes on when others have
    brought something: so an entry costs one read, however many partitions there are, and no poll.
    """

    def __init__(self, cluster: Cluster, consumer: str) -> None:
        self._cluster = cluster
        self._consumer = consumer
        self._lines: dict[bytes, tuple[Address, Line]] = {}
        self._reads: dict[bytes, asyncio.Task[Entries | BrokerError]] = {}

    async def read(self, partitions: Sequence[Partition], count: int) -> Found:
        await self._close_all_but({partition.stream_bytes for partition in partitions})
        end = time.monotonic() + BLOCK.total_seconds()
        found: Found = []
        while not found and (left := end - time.monotonic()) > 0:
            asked = {self._task(partition.stream_bytes, count): partition for partition in partitions}
            done, _ = await asyncio.wait(asked, timeout=left, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                del self._reads[asked[task].stream_bytes]
                if outcome := task.result():
                    found.append((asked[task], outcome))
        return found

    def _task(self, stream: bytes, count: int) -> asyncio.Task[Entries | BrokerError]:
        if stream not in self._reads:
            self._reads[stream] = asyncio.create_task(self._read(stream, count))
        return self._reads[stream]

    async def _read(self, stream: bytes, count: int) -> Entries | BrokerError:
        try:
            line = await self._line(stream, await self._cluster.node_of(stream))
            [reply] = await line.execute([_read(self._consumer, count, [stream])])
        except BrokerError as error:
            self._cluster.doubt()
            return error
        if isinstance(reply, AskError | TryAgainError | ClusterDownError):  # or MOVED: nothing was read
            self._cluster.doubt()
            await asyncio.sleep(_PAUSE)
            return []
        if isinstance(reply, Exception):
            return translate(reply)
        entries: Entries = reply[0][1] if reply else []
        return entries

    async def _line(self, stream: bytes, node: Address) -> Line:
        known, line = self._lines.get(stream, (None, None))
        if line is not None and known == node:
            return line
        if line is not None:
            await line.close()
        line = Line(self._cluster.pool(node).make_connection, BLOCK + TIMEOUT)
        self._lines[stream] = node, line
        return line

    def is_reading(self, partition: Partition) -> bool:
        task = self._reads.get(partition.stream_bytes)
        if task is not None and task.done():
            task = self._reads.pop(partition.stream_bytes, None) and None
        return task is not None

    async def finished(self, partitions: Sequence[Partition]) -> None:
        tasks = [task for p in partitions if (task := self._reads.get(p.stream_bytes))]
        if tasks:
            await asyncio.wait(tasks)

    async def _close_all_but(self, streams: set[bytes]) -> None:
        for stream in self._lines.keys() - streams:
            if stream not in self._reads or self._reads[stream].done():
                await self._lines.pop(stream)[1].close()

    async def close(self) -> None:
        for task in self._reads.values():
            task.cancel()
        await asyncio.gather(*self._reads.values(), return_exceptions=True)
        await self._close_all_but(set())
        self._reads.clear()


def open_reader(client: Client, consumer: str) -> Reader:
    """The reader of streams that fits the server."""
    if isinstance(client, Cluster):
        return ClusterReader(client, consumer)
    return StreamReader(client, consumer)


class DueReader(_ReadsWhileAsked):
    """Reads what has waited for `delay`; asks a few times within it."""

    def __init__(self, client: Client, consumer: str, delay: timedelta) -> None:
        self._client = client
        self._consumer = consumer
        self._delay_ms = int(delay / timedelta(milliseconds=1))
        self._pause = min(max(delay.total_seconds() / 10, 0.05), 1.0)

    async def read(self, partitions: Sequence[Partition], count: int) -> Found:
        calls = [
            Call(
                script("read_due"),
                partition.commit_keys[:2],
                (partition.lease.token, GROUP, self._consumer, self._delay_ms, count),
            )
            for partition in partitions
        ]
        replies = await run_all(self._client, calls)
        found: Found = [(p, reply) for p, reply in zip(partitions, replies, strict=True) if reply]
        if not found:
            await asyncio.sleep(self._pause)
        return found

    async def close(self) -> None:
        """Its client belongs to somebody else."""
