"""Serves one queue: owns partitions, recovers what others left, reads, and hands over.

The consumer knows nothing of what the entries mean: a `Handler` does the work and asks the partition
for changes, which the committer brings to the server.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Sequence
from datetime import timedelta
from typing import Any

import structlog

from notifier.broker.cancelling import Tasks, cancel_until_done
from notifier.broker.committer import Committer
from notifier.broker.connection import Client, open_line
from notifier.broker.entries import Message
from notifier.broker.handler import Batch, Handler, Unwatched, Watch
from notifier.broker.leases import Lease, Leases, Renewal
from notifier.broker.line import TIMEOUT
from notifier.broker.partition import Partition, State
from notifier.broker.reader import Entries, Reader
from notifier.broker.scripts import Call, run, run_all, script
from notifier.errors import BrokerError, Fenced
from notifier.keys import GROUP, Keys

log = structlog.get_logger(__name__)

_LONGEST_TIMER = 0.25
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 1.0


class Consumer:
    """One worker's share of one queue. `in_hand_limit` counts entries over all partitions; `keep_traces` is
    0 for none."""

    def __init__(  # noqa: PLR0913 - each is a thing of its own
        self,
        client: Client,
        keys: Keys,
        queue: str,
        worker: str,
        *,
        lease_ttl: timedelta,
        in_hand_limit: int,
        reader: Reader,
        keep_traces: timedelta = timedelta(),
        watch: Watch | None = None,
    ) -> None:
        self.queue = queue
        self.keep_traces_ms = int(keep_traces / timedelta(milliseconds=1))
        self.partitions: dict[int, Partition] = {}
        self._keys = keys
        self._worker = worker
        self._watch = watch or Unwatched()
        self._limit = in_hand_limit
        self._reader = reader
        self._in_hand = 0
        self._handler: Handler | None = None
        self._changed = asyncio.Event()
        self._timer = asyncio.Event()
        self._reading = asyncio.Lock()
        self._closing = False
        self._tasks: Tasks | None = None
        self._drains: set[asyncio.Task[None]] = set()
        # A beat that waits for one node of a cluster must not cost the leases on the others.
        self._beats = open_line(client, min(TIMEOUT, max(lease_ttl / 3, timedelta(seconds=1))))
        self._commits = open_line(client)
        self.calls = open_line(client)
        """For the scripts of the handler, and our own."""
        self.committer = Committer(
            self._commits, lost=self._lost_partition, settled=self.let_go, keep_traces=keep_traces,
            took=self._watch.committed,
        )  # fmt: skip
        self._leases = Leases(self._beats, keys, queue, worker, lease_ttl, self, took=self._watch.renewed)

    # Called by the handler.

    def commit(self, partition: Partition) -> None:
        """What the handler asked of the partition goes with the next commit."""
        if not partition.is_dirty:
            self.committer.touch(partition)
        if partition.next_due_ms >= 0:
            self._timer.set()

    def take_in_hand(self, partition: Partition, message: Message) -> None:
        """Counts an entry of a parked lane, which did not come through `accept`."""
        partition.in_hand.add(message.id)
        partition.from_lists.add(message.id)
        self._in_hand += 1

    def put_back(self, partition: Partition, messages: Sequence[Message]) -> None:
        """These are not in hand any more, and nothing about them changes in the server."""
        self.let_go(partition.let_go([message.id for message in messages]))

    def recover(self, partition: Partition, messages: Sequence[Message]) -> None:
        """Nobody sees to these any more, though they are pending with us."""
        self.put_back(partition, messages)
        self._recover_again(partition)
        partition.recover_at = time.monotonic() + _FIRST_PAUSE

    async def mark(self, partition: Partition, message: Message) -> None:
        """Returns when the server knows that one more owner tries this message, or we are not to any more."""
        call = Call(
            script("mark"),
            (partition.commit_keys[0], partition.stream, partition.commit_keys[3]),
            (
                partition.lease.token,
                GROUP,
                self._worker,
                message.deliveries,
                message.id,
                message.lane if message.parked else "",
            ),
        )
        pause = 0.05
        while partition.state in {State.LIVE, State.RECOVERING}:
            try:
                await run(self.calls, call)
                return
            except Fenced:
                self.lose(partition)
            except BrokerError as error:
                log.warning("mark_failed", queue=self.queue, error=str(error))
                await asyncio.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Runs something beside the reading; `run` does not return before its end."""
        assert self._tasks is not None
        return self._tasks.create_task(work)

    def let_go(self, count: int) -> None:
        self._in_hand -= count
        self._changed.set()

    # The life of a worker.

    async def run(self, handler: Handler, stop: asyncio.Event) -> None:
        """Serves the queue until `stop` is set, then hands everything over.

        The order at the end: nothing new is read; what runs finishes; the server learns of it; only
        then do the leases go, so that the next owner never finds a message that we are still sending.
        """
        self._handler = handler
        try:
            await self._serve(stop)
        finally:
            for line in (self._reader, self._commits, self.calls, self._beats):
                await line.close()

    async def _serve(self, stop: asyncio.Event) -> None:
        async with Tasks() as tasks:
            self._tasks = tasks
            committing = tasks.create_task(self.committer.run())
            beating = tasks.create_task(self._leases.run())
            reading = tasks.create_task(self._read())
            timing = tasks.create_task(self._watch_timers())
            await stop.wait()
            self._closing = True
            self._leases.take_no_more()
            await cancel_until_done(reading, timing)
            await asyncio.gather(self._hand_over(list(self.partitions.values())), *self._drains)
            self._leases.stop()
            await cancel_until_done(committing)
            await beating
        try:
            await self._leases.release(list(self._leases.held.values()))  # taken while we were told to stop
            await self._leases.leave()
        except BrokerError as error:
            log.warning("worker_not_unregistered", queue=self.queue, error=str(error))

    async def _hand_over(self, partitions: Sequence[Partition]) -> None:
        partitions = [p for p in partitions if p.state is not State.DRAINING]
        for partition in partitions:
            partition.state = State.DRAINING
        async with self._reading:
            # A read that is under way may still bring entries; they stay pending.
            await self._reader.finished(partitions)
        await asyncio.gather(*(self._drain(partition) for partition in partitions))
        leases = [partition.lease for partition in partitions if partition.state is not State.LOST]
        for partition in partitions:
            partition.lose()
            self._remove(partition)
        self._watch.leases("released", len(leases), len(self.partitions))
        try:
            await self._leases.release(leases)
        except BrokerError as error:  # then the leases run out by themselves
            log.warning("leases_not_released", queue=self.queue, error=str(error))
        else:
            log.info("leases_released", queue=self.queue, partitions=[lease.partition for lease in leases])

    async def _drain(self, partition: Partition) -> None:
        assert self._handler is not None
        await self._handler.drain(partition)
        while not await self.committer.flushed(partition, until=partition.lease.deadline):
            if not partition.is_ours:  # no beat prolongs it: the broker is away; the next owner tries again
                log.error("left_unsettled", queue=self.queue, partition=partition.number)
                return

    # Leases.

    def acquired(self, lease: Lease) -> None:
        if self._closing:
            return
        self.partitions[lease.partition] = Partition(self._keys, self.queue, lease)
        self._watch.leases("acquired", 1, len(self.partitions))
        self._changed.set()

    def renewed(self, lease: Lease, renewal: Renewal) -> None:
        partition = self.partitions.get(lease.partition)
        if partition is None or partition.lease is not lease:
            return
        partition.renewed(renewal)
        self._changed.set()  # it may have run out before, and nobody read it since
        if renewal.recover or partition.lost_sight_of(renewal.oldest_pending):
            self._recover_again(partition)
        if partition.next_due_ms >= 0:
            self._timer.set()

    def lose(self, partition: Partition) -> None:
        """The server said that another worker owns this partition."""
        self._lost_partition(partition)

    def lost(self, lease: Lease) -> None:
        partition = self.partitions.get(lease.partition)
        if partition is not None and partition.lease is lease:
            self._lost_partition(partition)

    def _lost_partition(self, partition: Partition) -> None:
        assert self._handler is not None
        if partition.state is State.LOST:
            return
        self._leases.forget(partition.lease)
        partition.lose()
        self._remove(partition)
        self._watch.leases("lost", 1, len(self.partitions))
        self._handler.forget(partition)
        self.committer.touch(partition)  # wakes whoever waits for it to be flushed
        self._leases.beat_now()

    def _remove(self, partition: Partition) -> None:
        if self.partitions.get(partition.number) is partition:
            del self.partitions[partition.number]
        self.let_go(len(partition.in_hand))
        partition.in_hand = set()

    def surplus(self, leases: Sequence[Lease]) -> None:
        partitions = [
            p for lease in leases if (p := self.partitions.get(lease.partition)) and p.lease is lease
        ]
        if partitions and not self._closing and self._tasks is not None:
            drain = self._tasks.create_task(self._hand_over(partitions))
            self._drains.add(drain)
            drain.add_done_callback(self._drains.discard)

    # Reading.

    async def _read(self) -> None:
        pause = 0.0
        while True:
            await self._wait_for_room()
            try:
                async with self._reading:
                    await self._read_once()
                pause = 0.0
            except BrokerError as error:
                log.warning("read_failed", queue=self.queue, error=str(error))
                for partition in self.partitions.values():
                    self._recover_again(partition)
                if "NOGROUP" in str(error):
                    self._leases.beat_now()  # which makes the group anew
                pause = min(max(_FIRST_PAUSE, 2 * pause), _LONGEST_PAUSE)
                await asyncio.sleep(pause)

    async def _wait_for_room(self) -> None:
        # Not at the first free place: a read that brings one entry costs as much as one of a hundred.
        while self._in_hand > self._limit * 3 // 4 or not self._readable(State.LIVE, State.RECOVERING):
            self._changed.clear()
            await self._changed.wait()

    def _readable(self, *states: State) -> list[Partition]:
        partitions = self.partitions.values()
        return [p for p in partitions if p.state in states and p.is_ours and not p.is_held_up]

    async def _read_once(self) -> None:
        now = time.monotonic()
        recovering = [p for p in self._readable(State.RECOVERING) if p.recover_at <= now]
        if recovering := [p for p in recovering if not self._reader.is_reading(p)]:
            await self._recover(recovering)
            return
        live = self._readable(State.LIVE)
        if not live:
            await asyncio.sleep(0.01)  # the leases have run out, or a node is away; the next beat tells
            return
        for partition in live:
            partition.forget_settled_parking()
        count = max(1, (self._limit - self._in_hand) // len(live))
        batch = []
        for partition, entries in await self._reader.read(live, count):
            if partition.state is not State.LIVE:
                continue
            if isinstance(entries, BrokerError):
                self._not_read(partition, entries)
            else:
                batch.append((partition, self._in_hand_from(partition, entries)))
        await self._give(batch)

    def _not_read(self, partition: Partition, error: BrokerError) -> None:
        """The answer may have been lost on the way: what it held is pending with us."""
        log.warning("partition_not_read", queue=self.queue, partition=partition.number, error=str(error))
        if isinstance(error, Fenced):
            self._lost_partition(partition)
            return
        if "NOGROUP" in str(error):
            self._leases.beat_now()  # which makes the group anew
        self.recover(partition, ())

    async def _give(self, batch: Batch) -> None:
        assert self._handler is not None
        if not batch:
            return
        try:
            await self._handler.accept(batch)
        except BrokerError:
            # Pending with us and with nobody to see to them: recovering finds them again.
            for partition, messages in batch:
                self.put_back(partition, messages)
            raise

    def _in_hand_from(self, partition: Partition, entries: Entries) -> list[Message]:
        # Without a field list: deleted by hand while it was pending. Known: the group was made anew.
        in_hand = partition.in_hand
        messages = [Message(*entry) for entry in entries if entry[1] is not None and entry[0] not in in_hand]
        in_hand.update([message.id for message in messages])
        self._in_hand += len(messages)
        return messages

    def _recover_again(self, partition: Partition) -> None:
        if partition.state is State.LIVE:
            partition.state = State.RECOVERING
            partition.recover_from = "-"
            self._changed.set()

    async def _recover(self, partitions: Sequence[Partition]) -> None:
        """One page of pending entries for each; when there is no further page, the partition is live."""
        assert self._handler is not None
        page = max(1, (self._limit - self._in_hand) // len(partitions))
        # Some of these may be settled between the server's answer and our reading of it.
        before = {partition: frozenset(partition.in_hand) for partition in partitions}
        for partition in partitions:
            partition.forget_settled_parking()
        calls = [
            Call(
                script("recover"),
                partition.commit_keys[:2],
                (
                    partition.lease.token,
                    GROUP,
                    self._worker,
                    partition.recover_from,
                    page,
                    int(not self._handler.marks_owners),
                ),
            )
            for partition in partitions
        ]
        batch = []
        for partition, reply in zip(partitions, await run_all(self.calls, calls), strict=True):
            if partition.state is not State.RECOVERING:
                continue
            if isinstance(reply, Fenced):
                self._lost_partition(partition)
            elif isinstance(reply, BrokerError):
                log.warning("not_recovered", queue=self.queue, partition=partition.number, error=str(reply))
                partition.recover_at = time.monotonic() + _LONGEST_TIMER
            else:
                last, entries = reply
                if last:
                    partition.recover_from = f"({last.decode()}"
                else:
                    partition.state = State.LIVE
                unknown = [entry for entry in entries if entry[0] not in before[partition]]
                if messages := self._in_hand_from(partition, unknown):
                    log.info("recovered", queue=self.queue, partition=partition.number, entries=len(messages))
                    batch.append((partition, messages))
        await self._give(batch)

    # What is due.

    async def _watch_timers(self) -> None:
        assert self._handler is not None
        while True:
            self._timer.clear()
            due, wait = self._due()
            room = self._limit - self._in_hand
            if due and room > 0:
                try:
                    await self._handler.due(due, room)
                except BrokerError as error:
                    log.warning("timer_failed", queue=self.queue, error=str(error))
                    wait = _LONGEST_TIMER
                else:
                    wait = self._due()[1]
            try:
                async with asyncio.timeout(max(wait, 0.005)):
                    await self._timer.wait()
            except TimeoutError:
                pass

    def _due(self) -> tuple[list[Partition], float]:
        due, wait = [], _LONGEST_TIMER
        for partition in self._readable(State.LIVE):
            if partition.next_due_ms < 0:
                continue
            left = (partition.next_due_ms - partition.server_ms()) / 1000
            if left <= 0:
                due.append(partition)
            wait = min(wait, max(left, 0.0))
        return due, wait
