"""Who may settle which partition of a queue.

Every worker that serves a queue says so in a sorted set of live workers, and holds leases for its fair
share of the partitions: P / workers, rounded up. It renews them ten times within their TTL, takes free
ones while it has less than its share, and gives up the surplus when others come.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol

import structlog

from notifier.broker.scripts import Call, Caller, execute, run, run_all, script
from notifier.errors import BrokerError, Fenced, PartitionsMoved
from notifier.keys import EVENTS, GROUP, Keys

log = structlog.get_logger(__name__)

BEATS_PER_TTL = 10


def fair_share(partitions: int, workers: int) -> int:
    """How many partitions one of so many workers may hold."""
    return -(-partitions // max(1, workers))


@dataclass(slots=True)
class Lease:
    """The right to settle one partition. `deadline` is on this process's monotonic clock, in seconds."""

    partition: int
    token: str
    deadline: float
    released: bool = False


@dataclass(frozen=True, slots=True)
class Renewal:
    """What a renewal saw: the server's clock, whether entries are pending elsewhere, what is due, and the
    oldest entry that is pending.

    `sent` is when it was asked, on this process's monotonic clock.
    """

    sent: float
    now_ms: int
    recover: bool
    waiting: int
    next_due_ms: int
    oldest_pending: bytes = b""


class Owner(Protocol):
    """Whoever the leases are for; told on the loop, in the middle of a beat."""

    def acquired(self, lease: Lease) -> None: ...

    def renewed(self, lease: Lease, renewal: Renewal) -> None: ...

    def lost(self, lease: Lease) -> None:
        """Another worker has it."""

    def surplus(self, leases: Sequence[Lease]) -> None:
        """More than the share: drain these, then release them."""


class Leases:
    """The leases of one worker on one queue."""

    def __init__(
        self,
        caller: Caller,
        keys: Keys,
        queue: str,
        worker: str,
        ttl: timedelta,
        owner: Owner,
        *,
        took: Callable[[float], None] = lambda _: None,
    ) -> None:
        """`took` is told how many seconds a renewal took."""
        self.held: dict[int, Lease] = {}
        self._caller = caller
        self._keys = keys
        self._queue = queue
        self._worker = worker
        self._ttl_ms = int(ttl / timedelta(milliseconds=1))
        self._owner = owner
        self._took = took
        self._leaving: set[int] = set()
        self._epochs: dict[int, int] = {}
        self._takes_more = True
        self._stops = False
        self._beat_now = asyncio.Event()

    async def run(self) -> None:
        """Beats until `stop` is called. A broker that is away is waited for; the leases may run out
        meanwhile."""
        failing_since: float | None = None
        while not self._stops:
            began = time.monotonic()
            try:
                await self._beat()
            except PartitionsMoved:
                raise
            except BrokerError as error:
                failing_since = failing_since or began
                log.warning("lease_beat_failed", queue=self._queue, error=str(error))
            else:
                if failing_since is not None:
                    seconds = round(time.monotonic() - failing_since, 1)
                    log.info("lease_beat_works_again", queue=self._queue, after_seconds=seconds)
                failing_since = None
            pause = self._ttl_ms / 1000 / BEATS_PER_TTL * random.uniform(0.9, 1.0)  # noqa: S311 - jitter
            try:
                async with asyncio.timeout(pause):
                    await self._beat_now.wait()
            except TimeoutError:
                pass
            self._beat_now.clear()

    def take_no_more(self) -> None:
        """From now on leases are only renewed, until they are released."""
        self._takes_more = False

    def stop(self) -> None:
        """`run` ends after the beat that is under way. A beat that was cancelled might have taken leases that
        nobody here knew of, and nobody else could have until they ran out."""
        self._stops = True
        self._beat_now.set()

    def beat_now(self) -> None:
        """Asks for a beat at once: the group is gone, or the share has changed."""
        self._beat_now.set()

    async def _beat(self) -> None:
        # What we hold comes first: in a cluster the list of workers may lie on a node that is away.
        await self._renew()
        workers = await self._say_alive()
        share = fair_share(self._keys.partitions, workers)
        staying = [lease for p, lease in self.held.items() if p not in self._leaving]
        if surplus := staying[share:]:
            self._leaving.update(lease.partition for lease in surplus)
            self._owner.surplus(surplus)
        if len(staying) < share and self._takes_more:
            await self._acquire(share - len(staying))

    async def _say_alive(self) -> int:
        """How many workers serve the queue, this one included."""
        names = (self._keys.workers(self._queue),)
        count = await run(self._caller, Call(script("worker_alive"), names, (self._worker, self._ttl_ms)))
        return int(count)

    async def _renew(self) -> None:
        leases = list(self.held.values())
        if not leases:
            return
        sent = time.monotonic()
        calls = [
            Call(script("lease_renew"), self._renew_keys(lease.partition), self._renew_args(lease))
            for lease in leases
        ]
        replies = await run_all(self._caller, calls)
        self._took(time.monotonic() - sent)
        lost = []
        for lease, reply in zip(leases, replies, strict=True):
            if lease.released or self.held.get(lease.partition) is not lease:
                continue
            if isinstance(reply, Fenced):
                self.forget(lease)
                self._owner.lost(lease)
                lost.append(lease.partition)
            elif isinstance(reply, BrokerError):
                log.warning(
                    "lease_not_renewed", queue=self._queue, partition=lease.partition, error=str(reply)
                )
            else:
                lease.deadline = sent + self._ttl_ms / 1000
                now, recover, waiting, next_due, oldest = reply
                self._owner.renewed(lease, Renewal(sent, now, bool(recover), waiting, next_due, oldest))
        if lost:
            log.warning("lease_lost", queue=self._queue, worker=self._worker, partitions=lost)

    def _renew_keys(self, partition: int) -> tuple[str, str, str]:
        keys = self._keys
        timer = keys.scheduled(partition) if self._queue == EVENTS else keys.parked(self._queue, partition)
        return keys.lease(self._queue, partition), keys.queue(self._queue, partition), timer

    def _renew_args(self, lease: Lease) -> tuple[str | int, ...]:
        return lease.token, self._ttl_ms, GROUP, self._worker

    async def _acquire(self, wanted: int) -> None:
        free = [p for p in range(self._keys.partitions) if p not in self.held]
        before = set(self.held)
        random.shuffle(free)  # so that workers that start together ask for different ones first
        while free and wanted > 0 and self._takes_more:
            asked, free = free[:wanted], free[wanted:]
            sent = time.monotonic()
            calls = [
                Call(
                    script("lease_acquire"),
                    (self._keys.lease(self._queue, p), self._keys.queue(self._queue, p)),
                    (self._worker, self._ttl_ms, GROUP),
                )
                for p in asked
            ]
            for partition, token in zip(asked, await run_all(self._caller, calls), strict=True):
                if isinstance(token, PartitionsMoved):
                    raise token  # nothing will ever come to these partitions again
                if isinstance(token, BrokerError):
                    log.warning("lease_not_taken", queue=self._queue, partition=partition, error=str(token))
                elif token is not None and not self._is_new(partition, token):
                    free.append(partition)
                elif token is not None:
                    lease = Lease(partition, token.decode(), sent + self._ttl_ms / 1000)
                    self.held[partition] = lease
                    wanted -= 1
                    self._owner.acquired(lease)
        if taken := sorted(set(self.held) - before):
            log.info("leases_acquired", queue=self._queue, worker=self._worker, partitions=taken)

    def _is_new(self, partition: int, token: bytes) -> bool:
        # A failover may forget that it gave us this epoch. What we asked for under it may still be on its
        # way, and must not pass for the new owner's.
        epoch = int(token.rpartition(b"#")[2])
        if epoch <= self._epochs.get(partition, 0):
            return False
        self._epochs[partition] = epoch
        return True

    def forget(self, lease: Lease) -> None:
        """Drops a lease that was lost, without a word to the server."""
        if self.held.get(lease.partition) is lease:
            del self.held[lease.partition]
        self._leaving.discard(lease.partition)

    async def release(self, leases: Iterable[Lease]) -> None:
        """Hands leases over at once. Nothing of these partitions may be in the works any more."""
        leases = list(leases)
        for lease in leases:
            lease.released = True
            self.forget(lease)
        calls = [
            Call(
                script("lease_release"),
                (
                    self._keys.lease(self._queue, lease.partition),
                    self._keys.queue(self._queue, lease.partition),
                ),
                (lease.token, GROUP, self._worker),
            )
            for lease in leases
        ]
        if calls:
            await run_all(self._caller, calls)

    async def leave(self) -> None:
        """Takes this worker off the list, so that the others' share grows at once."""
        await execute(self._caller, [("ZREM", self._keys.workers(self._queue), self._worker)])
