"""Group commit: what was asked for while one commit is under way goes with the next."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Container, Iterable
from dataclasses import dataclass
from datetime import timedelta

import structlog

from notifier.broker.line import Argument
from notifier.broker.partition import Partition, State
from notifier.broker.scripts import Call, Caller, run_all, script
from notifier.errors import BrokerError, BrokerFull, BrokerUnavailable, Fenced
from notifier.keys import GROUP

log = structlog.get_logger(__name__)

MAX_ACKS = 4_000  # a Lua call takes no more than about 8,000 words
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 1.0


@dataclass(slots=True)
class _Batch:
    partition: Partition
    call: Call
    entries: list[bytes]
    asked: int


class Committer:
    """Sends the changes of all partitions of a queue, one script for each partition and round trip."""

    def __init__(
        self,
        caller: Caller,
        *,
        lost: Callable[[Partition], None],
        settled: Callable[[int], None],
        keep_traces: timedelta = timedelta(),
        took: Callable[[float], None] = lambda _: None,
    ) -> None:
        """`settled` is told how many entries are no longer in hand; `lost` which partition went away; `took`
        how many seconds a round trip took."""
        self._caller = caller
        self._keep_ms = int(keep_traces / timedelta(milliseconds=1))
        self._lost = lost
        self._settled = settled
        self._took = took
        self._dirty: set[Partition] = set()
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()

    def touch(self, partition: Partition) -> None:
        """Says that the partition has changes."""
        partition.is_dirty = True
        self._dirty.add(partition)
        self._idle.clear()
        self._wake.set()

    async def flushed(self, partition: Partition, until: float) -> bool:
        """True when the server has everything that was asked for until now, or the partition is lost; False
        when it has not `until` then, on the monotonic clock."""
        asked = partition.asked
        try:
            async with asyncio.timeout(until - time.monotonic()):
                while partition.settled < asked and partition.state is not State.LOST:
                    self._idle.clear()
                    await self._idle.wait()
        except TimeoutError:
            return False
        return True

    async def run(self) -> None:
        """Commits until cancelled. What the broker did not take is tried again, and until then further
        changes of that partition wait; others do not, since in a cluster their node may be well."""
        waiting: dict[Partition, _Batch] = {}
        retry_at, pause = 0.0, _FIRST_PAUSE
        while True:
            if waiting:
                await self._woken(retry_at)
            else:
                await self._wake.wait()
            self._wake.clear()
            batches = self._taken(waiting)
            if waiting and time.monotonic() >= retry_at:
                batches += waiting.values()
                waiting.clear()
            if again := await self._send(batches):
                waiting |= {batch.partition: batch for batch in again}
                retry_at = time.monotonic() + pause
                pause = min(2 * pause, _LONGEST_PAUSE)
            elif not waiting:
                pause = _FIRST_PAUSE
            if self._dirty - waiting.keys():  # they waited for what has been taken now
                self._wake.set()
            self._idle.set()

    async def _woken(self, until: float) -> None:
        """Returns when there are changes, or it is `until` on the monotonic clock."""
        try:
            async with asyncio.timeout(until - time.monotonic()):
                await self._wake.wait()
        except TimeoutError:
            pass

    def _taken(self, waiting: Container[Partition]) -> list[_Batch]:
        """The changes of all partitions but these."""
        ready = {partition for partition in self._dirty if partition not in waiting}
        self._dirty -= ready
        return [batch for partition in ready if (batch := self._take(partition))]

    async def _send(self, batches: list[_Batch]) -> list[_Batch]:
        """Those that must be sent again; each script passes over what it has done already."""
        batches = [batch for batch in batches if batch.partition.state is not State.LOST]
        if not batches:
            return []
        began = time.monotonic()
        try:
            replies = await run_all(self._caller, [batch.call for batch in batches])
        except BrokerError as error:
            log.warning("commit_failed", error=str(error), commits=len(batches))
            return batches
        self._took(time.monotonic() - began)
        again = []
        for batch, reply in zip(batches, replies, strict=True):
            if not isinstance(reply, BrokerError):
                self._done(batch)
            elif isinstance(reply, BrokerUnavailable | BrokerFull):
                log.warning("commit_refused", partition=batch.partition.number, error=str(reply))
                again.append(batch)
            else:
                level = log.info if isinstance(reply, Fenced) else log.error
                level("partition_lost", stream=batch.partition.stream, error=str(reply))
                self._lost(batch.partition)
        return again

    def _take(self, partition: Partition) -> _Batch | None:
        partition.is_dirty = False
        if partition.state is State.LOST or not (partition.acks or partition.operations):
            return None
        entries = partition.acks + partition.taken_off
        arguments: list[Argument] = [partition.lease.token, GROUP]
        for acks in _chunks(partition.acks):
            arguments += ("ack", len(acks), *acks)
        arguments += partition.operations
        if partition.traced:
            arguments += ("trace", *partition.traces_at(self._keep_ms, partition.traced))
        partition.acks, partition.operations, partition.taken_off, partition.traced = [], [], [], []
        return _Batch(
            partition, Call(script("commit"), partition.commit_keys, arguments), entries, partition.asked
        )

    def _done(self, batch: _Batch) -> None:
        partition = batch.partition
        partition.settled = batch.asked
        if partition.parking:
            partition.parks_settled_at = time.monotonic()
        self._settled(partition.let_go(batch.entries))


def _chunks(ids: list[bytes]) -> Iterable[list[bytes]]:
    return (ids[i : i + MAX_ACKS] for i in range(0, len(ids), MAX_ACKS))
