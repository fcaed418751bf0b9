"""What a worker keeps in memory of one partition that it owns; all of it can be read again."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Sequence
from enum import Enum

from notifier.broker.leases import Lease, Renewal
from notifier.broker.line import Argument, Command
from notifier.keys import Keys

HOUR_MS = 3_600_000


class State(Enum):
    """Where a partition stands with its owner."""

    RECOVERING = "recovering"  # pending entries of others, or our own, come first
    LIVE = "live"
    DRAINING = "draining"  # on its way to another worker
    LOST = "lost"  # another worker's, or handed over


class Partition:
    """One partition of one queue, while we hold its lease.

    Changes are collected here and go to the server in one commit, in the order in which they were asked
    for; only plain acknowledgements may overtake, which depend on nothing.
    """

    def __init__(self, keys: Keys, queue: str, lease: Lease) -> None:
        number = lease.partition
        self._keys = keys
        self._queue = queue
        self.number = number
        self.lease = lease
        self.state = State.RECOVERING
        self.recover_from = "-"
        self.recover_at = 0.0  # not before, on the monotonic clock
        self.in_hand: set[bytes] = set()
        self.from_lists: set[bytes] = set()  # those of them that came out of the lists of parked lanes
        self.running = 0
        self.is_held_up = False  # its handler wants no more of it for a while
        self.stream = keys.queue(queue, number)
        self.stream_bytes = self.stream.encode()
        self.dlq = keys.dlq(queue, number)
        self.lane_prefix = keys.lane_prefix(queue, number)
        self.parked = keys.parked(queue, number)
        self.commit_keys = (
            keys.lease(queue, number),
            self.stream,
            self.parked,
            keys.retries(queue, number),
            keys.scheduled(number),
            keys.scheduled_items(number),
        )
        self.traces = 0  # how often something was added to them
        self.steps = 0  # of the router's, each told apart from the one before
        # Asked for, not yet in a commit.
        self.acks: list[bytes] = []
        self.operations: list[Argument] = []
        self.taken_off: list[bytes] = []
        self.traced: list[bytes] = []  # lines for the traces of events, some of them in pieces
        self.is_dirty = False
        # How many changes were asked for, and how many of them the server has.
        self.asked = 0
        self.settled = 0
        # Lanes that this worker parked, with the count of changes after which the server knows it.
        self.parking: dict[bytes, int] = {}
        self.parks = 0
        self._last_park = 0
        self._last_of_lists = 0
        self.parks_settled_at = 0.0
        # Until the server says otherwise, some lane may be parked, and due.
        self.waiting_parked = 1
        self.next_due_ms = 0
        self._unseen = b""  # what was pending at the last renewal, and not in hand
        # How far the server's clock is ahead of our monotonic one.
        self._ahead_ms = (time.time() - time.monotonic()) * 1000
        self._renewed = asyncio.Event()

    # The lease.

    def renewed(self, renewal: Renewal) -> None:
        # Taken as the time of the question: a clock that is slow would put off what was just promoted.
        self._ahead_ms = renewal.now_ms - renewal.sent * 1000
        if not self.parking and self.parks_settled_at < renewal.sent:
            self.waiting_parked = renewal.waiting
            self.next_due_ms = renewal.next_due_ms
        self._renewed.set()

    def lost_sight_of(self, oldest_pending: bytes) -> bool:
        """Whether an entry is pending that we do not have, now and at the renewal before.

        Once only, its answer is on the way to us. Twice, we have settled it and the server does not know of
        it any more: a replica that had not heard of it took over, or a crash cost the last second.
        """
        unseen = oldest_pending if oldest_pending not in self.in_hand else b""
        before, self._unseen = self._unseen, unseen
        return bool(unseen) and unseen == before

    @property
    def is_ours(self) -> bool:
        """By our own clock; the scripts ask the server's."""
        return self.state is not State.LOST and time.monotonic() < self.lease.deadline

    async def wait_until_ours(self) -> bool:
        """Waits while the lease has run out but may be prolonged. False: it is lost."""
        while not self.is_ours:
            if self.state is State.LOST:
                return False
            self._renewed.clear()
            await self._renewed.wait()
        return True

    def lose(self) -> None:
        """It is ours no more: whoever waits for that goes on."""
        self.state = State.LOST
        self._renewed.set()

    def server_ms(self, at: float = 0.0) -> int:
        """The server's clock, as far as the last renewal told us; before the first one, our own. `at` is a
        time on the monotonic clock, which is now if it is left out."""
        return int(self._ahead_ms + (at or time.monotonic()) * 1000)

    def let_go(self, entry_ids: Iterable[bytes]) -> int:
        """These are not in hand any more. Returns how many of them were."""
        before = len(self.in_hand)
        self.in_hand.difference_update(entry_ids)
        if self.from_lists:
            self.from_lists &= self.in_hand
        return before - len(self.in_hand)

    # Changes; nothing is sent here.

    def traces_at(self, keep_ms: int, lines: Sequence[bytes]) -> tuple[Argument, ...]:
        """The four words that includes/trace.lua takes: key, field, lines, when the key goes."""
        self.traces += 1
        hour = self.server_ms() // HOUR_MS
        field = f"{self._queue}.{self.lease.token}.{self.traces}"
        return (
            self._keys.traces(self.number, hour), field, b"".join(lines), (hour + 1) * HOUR_MS + keep_ms,
        )  # fmt: skip

    def ack(self, entry_id: bytes) -> None:
        self.acks.append(entry_id)
        self.asked += 1

    def move(self, entry_id: bytes, commands: Sequence[Command]) -> None:
        """Takes an entry off the stream and runs the commands with it."""
        self.operations += ("move", entry_id, len(commands))
        self._add(commands)
        self.taken_off.append(entry_id)

    def pop(
        self, lane: bytes, entry_id: bytes, commands: Sequence[Command], *, is_last: bool, behind: int
    ) -> None:
        """Takes the head off a parked lane. After the last that we have in hand, what is behind it in the
        list is due at once: `behind` items that we know of, and perhaps one that arrived meanwhile."""
        due = 0 if is_last else ""
        self.operations += ("pop", lane, self._lane_key(lane), entry_id, due, len(commands))
        self._add(commands)
        self.taken_off.append(entry_id)
        self._last_of_lists = self.asked
        if is_last and behind:
            self._parked(lane, 0)

    def keep(self, lane: bytes, entry_id: bytes, item: bytes, due_ms: int) -> None:
        """Puts the head of a parked lane off until `due_ms`, with `item` in its place."""
        key = self._lane_key(lane)
        commands = (("LSET", key, 0, item), ("ZADD", self.parked, due_ms, lane))
        self.operations += ("keep", lane, key, entry_id, len(commands))
        self._add(commands)
        self._last_of_lists = self.asked
        self.taken_off.append(entry_id)
        self._parked(lane, due_ms)

    def give_back(self, lane: bytes) -> None:
        """A parked lane that was handed out to us was not tried; whoever asks next may at once."""
        self.operations += ("back", lane)
        self.asked += 1
        self._last_of_lists = self.asked
        self._parked(lane, 0)

    def park(self, lane: bytes, entry_id: bytes, item: bytes, due_ms: int | None) -> None:
        """Moves an entry to the end of its lane's list. Without `due_ms` the lane is parked already."""
        append = ("RPUSH", self._lane_key(lane), item)
        # NX: should the lane have been emptied meanwhile, then it is due at once.
        due = ("ZADD", self.parked, "NX", 0, lane) if due_ms is None else ("ZADD", self.parked, due_ms, lane)
        self.move(entry_id, (append, due))
        self._parked(lane, due_ms)

    @property
    def lists_are_settled(self) -> bool:
        """The server knows of everything that was taken off a list or put off; else it might hand out again
        what is dealt with."""
        return self._last_of_lists <= self.settled

    def settled_parks(self) -> int:
        """Our count of parks, if the server knows of all of them; else -1, which is no count."""
        return self.parks if self._last_park <= self.settled else -1

    def next_due(self, due_ms: int, parks: int) -> None:
        """What the server said is due next; `parks` is `settled_parks` of when it was asked."""
        if parks == self.parks or 0 <= due_ms < self.next_due_ms:
            self.next_due_ms = due_ms

    def _parked(self, lane: bytes, due_ms: int | None) -> None:
        self.parking[lane] = self._last_park = self.asked
        self.parks += 1
        self.waiting_parked = max(1, self.waiting_parked)
        if due_ms is not None and (self.next_due_ms < 0 or due_ms < self.next_due_ms):
            self.next_due_ms = due_ms

    def forget_settled_parking(self) -> None:
        """Only the reader calls this, before it reads: so whatever it is about to read is either known
        here to be parked, or the server knows it."""
        if self.parking:
            self.parking = {lane: asked for lane, asked in self.parking.items() if asked > self.settled}

    def _lane_key(self, lane: bytes) -> bytes:
        return self.lane_prefix.encode() + lane

    def _add(self, commands: Sequence[Command]) -> None:
        for command in commands:
            self.operations.append(len(command))
            self.operations += command
        self.asked += 1
