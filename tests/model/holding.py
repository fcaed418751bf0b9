"""What a worker believes to hold: one partition of one queue, with the real Partition and the real Committer.

Nothing here runs by itself: the machine says what is done when, so that anything may come between.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from notifier.broker.cancelling import cancel_until_done
from notifier.broker.committer import Committer
from notifier.broker.entries import Message
from notifier.broker.leases import Lease, Renewal
from notifier.broker.partition import Partition, State
from notifier.dead_letters import Graveyard
from notifier.errors import BrokerError, Fenced
from notifier.keys import EVENTS, GROUP
from tests.model.partition_model import Back, Change, PartitionModel
from tests.model.queue_model import Entry, NoGroup, QueueModel
from tests.model.things import KEYS, base_of, is_final, read_fields
from tests.model.world import Wire, World
from tests.support.waiting import until

T = TypeVar("T")
S = TypeVar("S")

TTL_MS = 3_600_000
"""Longer than any example runs: leases run out when the machine says so."""
LONG_PAST_MS, FAR_OFF_MS = 1, 4_102_444_800_000

Found = list[tuple[Message, Entry]]


def agree(real: Callable[[], T], spec: Callable[[], S]) -> tuple[T, S]:
    """What the server answered and what it ought to answer. Raises Fenced or NoGroup if both say so."""
    got, want = _answer(real), _answer(spec)
    if isinstance(got, Exception) or isinstance(want, Exception):
        assert type(got) is type(want), f"the server: {got!r}, the model: {want!r}"
        assert isinstance(want, Exception)
        raise want
    return got, want


def _answer(ask: Callable[[], T]) -> T | Exception:
    try:
        return ask()
    except (Fenced, NoGroup) as error:
        return error
    except BrokerError as error:
        if "NOGROUP" not in str(error):
            raise
        return NoGroup()


class Holding:
    """`acks` and `changes` were asked for and are not sent; `in_doubt` was sent, and no answer came."""

    counts_at_once = False
    """Whether a change of owner counts when entries are recovered, not only when one is marked."""

    def __init__(
        self, world: World, model: PartitionModel, worker: str, queue: str, number: int, token: str
    ) -> None:
        self.world = world
        self.model = model
        self.worker = worker
        self.queue = queue
        self.number = number
        self.token = token
        self.partition = Partition(KEYS, queue, Lease(number, token, time.monotonic() + TTL_MS / 1000))
        self.graveyard = Graveyard(KEYS, base_of(queue), final=is_final(queue))
        self.entries: dict[bytes, Entry] = {}
        self.leaving: set[Entry] = set()  # dealt with, and not yet settled in the server
        self.acks: list[Entry] = []
        self.changes: list[Change] = []
        self.in_doubt: tuple[list[Entry], list[Change], int] | None = None
        self.is_gone = False
        self._after = 0
        self._wire = Wire(world)
        self._committer = Committer(self._wire, lost=lambda _: self.lose(), settled=lambda _: None)
        self._committing = world.wait(self._start())

    async def _start(self) -> asyncio.Task[None]:
        return asyncio.create_task(self._committer.run())

    def __repr__(self) -> str:
        return f"{self.token} on {self.queue} {self.number} {self.partition.state.value}"

    @property
    def spec(self) -> QueueModel:
        return self.model.queues[self.queue]

    @property
    def is_rightful(self) -> bool:
        return self.spec.owns(self.token)

    @property
    def has_unsent(self) -> bool:
        return bool(self.acks or self.changes)

    # The lease.

    def lose(self) -> None:
        self.partition.lose()
        self.is_gone = True

    def close(self) -> None:
        self.lose()
        self.world.wait(cancel_until_done(self._committing))

    def renew(self) -> None:
        keys, sent = self.partition.commit_keys, time.monotonic()
        timer = keys[4] if self.queue == EVENTS else keys[2]
        try:
            got, (recover, lanes) = agree(
                lambda: self.world.script(
                    "lease_renew", (*keys[:2], timer), self.token, TTL_MS, GROUP, self.worker
                ),
                lambda: self.spec.renew(self.token, self.worker),
            )
        except Fenced:
            self.lose()
            return
        waiting = len(self.model.scheduled) if self.queue == EVENTS else lanes
        assert (bool(got[1]), got[2], got[3] >= 0) == (recover, waiting, waiting > 0)
        self.partition.renewed(Renewal(sent, got[0], recover, got[2], got[3]))
        if recover:
            self._recover_again()

    def drain(self) -> None:
        self.partition.state = State.DRAINING

    def release(self) -> None:
        try:
            left, want = agree(
                lambda: self.world.script(
                    "lease_release", self.partition.commit_keys[:2], self.token, GROUP, self.worker
                ),
                lambda: self.spec.release(self.token, self.worker),
            )
            assert left == want
        except Fenced:
            pass
        self.lose()

    # Reading.

    def _recover_again(self) -> None:
        if self.partition.state is State.LIVE:
            self.partition.state = State.RECOVERING
            self.partition.recover_from, self._after = "-", 0

    def recover(self, page: int, *, lost: bool = False) -> None:
        partition = self.partition
        before = frozenset(partition.in_hand)
        partition.forget_settled_parking()
        args = self.token, GROUP, self.worker, partition.recover_from, page, int(self.counts_at_once)
        try:
            (last, rows), (after, want) = agree(
                lambda: self.world.script("recover", partition.commit_keys[:2], *args),
                lambda: self.spec.recover(
                    self.token, self.worker, self._after, page, counts=self.counts_at_once
                ),
            )
        except Fenced:
            self.lose()
            return
        except NoGroup:  # the next renewal makes it anew
            return
        assert (last is None) == (after is None)
        assert [row[2] for row in rows] == [owners for _, owners in want]
        for entry, owners in want:
            assert owners > entry.deaths, f"{entry} has outlived {entry.deaths}; the server says {owners}"
        found = self._found(rows, [entry for entry, _ in want])
        if lost:
            return
        if last is None:
            partition.state = State.LIVE
        else:
            partition.recover_from, self._after = f"({last.decode()}", after or 0
        self.take([(m, entry) for m, entry in found if m.id not in before and m.id not in partition.in_hand])

    def read(self, count: int, *, waited: bool = True, lost: bool = False) -> None:
        self.partition.forget_settled_parking()
        ask = self._read_due if is_final(self.queue) else self._read_group
        try:
            rows, want = ask(count, waited=waited)
        except Fenced:
            self.lose()
            return
        except NoGroup:
            self._recover_again()
            return
        for entry in want:
            entry.strayed |= not self.is_rightful
        found = self._found(rows, want)
        if lost:
            self._recover_again()
        else:
            self.take([(m, entry) for m, entry in found if m.id not in self.partition.in_hand])

    def _read_group(self, count: int, *, waited: bool) -> tuple[Any, list[Entry]]:
        def real() -> Any:
            words = ("GROUP", GROUP, self.worker, "COUNT", count, "STREAMS", self.partition.stream, ">")
            [reply] = self.world.wait(self.world.line.execute([("XREADGROUP", *words)]))
            if isinstance(reply, Exception):
                raise BrokerError(str(reply))
            return reply[0][1] if reply else []

        return agree(real, lambda: self.spec.read(self.worker, count))

    def _read_due(self, count: int, *, waited: bool) -> tuple[Any, list[Entry]]:
        delay_ms = 0 if waited else TTL_MS
        args = self.token, GROUP, self.worker, delay_ms, count
        return agree(
            lambda: self.world.script("read_due", self.partition.commit_keys[:2], *args),
            lambda: self.spec.read_due(self.token, self.worker, count, waited=waited),
        )

    def _found(self, rows: Sequence[Any], want: Sequence[Entry]) -> Found:
        messages = [Message(row[0], row[1], row[2] if len(row) > 2 else 1) for row in rows]
        things = [read_fields(self.queue, message.fields).thing for message in messages]
        assert things == [entry.thing for entry in want]
        return list(zip(messages, want, strict=True))

    def take(self, found: Found) -> None:
        """These are in hand now."""
        raise NotImplementedError

    def in_turn(self, entry: Entry, done: Sequence[Entry] = ()) -> bool:
        """Whether everything older in the entry's lane is dealt with. Of a worker that lost the lease, or an
        entry that one has read, nothing is asked."""
        if not self.is_rightful or entry.strayed:
            return True
        lane = [*self.spec.lanes.get(entry.lane, ()), *self.spec.entries]
        older = lane[: lane.index(entry)] if entry in lane else []
        return not any(
            e.lane == entry.lane and not e.strayed and e not in self.leaving and e not in done for e in older
        )

    # The commit.

    def flush(self, *, lost: bool = False) -> None:
        """Sends what was asked for, or again what is in doubt: until that is settled nothing else is sent."""
        if self.in_doubt:
            lost = False
            self._wire.repair()
        else:
            self.in_doubt = self.acks, self.changes, self.partition.asked
            self.acks, self.changes = [], []
        acks, changes, asked = self.in_doubt
        try:
            self.model.commit(self.queue, self.token, acks, changes)
            fenced = False
        except Fenced:
            fenced = True
        self.world.wait(self._send(asked, lost=lost))
        if lost:
            return
        assert self.is_gone == fenced
        self.in_doubt = None
        self.leaving -= {*acks, *(change.entry for change in changes if not isinstance(change, Back))}

    async def _send(self, asked: int, *, lost: bool) -> None:
        if lost:
            self._wire.lose_next()
        if self.partition.asked == asked:
            self._committer.touch(self.partition)
        await until(
            lambda: self._wire.is_broken if lost else self.is_gone or self.partition.settled >= asked,
            every=0.0005,
        )
