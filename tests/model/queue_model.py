"""What the scripts ought to do to one queue of one partition, in plain lists.

Written from `DESIGN.md` §4 and §5 and the heads of the scripts, not from their bodies. Each method raises
Fenced or NoGroup where the server answers so.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field

from notifier.errors import Fenced
from tests.model.things import QueueView, Row, lane_of

_serials = itertools.count(1)


class NoGroup(Exception):
    """Somebody destroyed the consumer group."""


@dataclass(eq=False, slots=True)
class Entry:
    """One entry of a stream, and later the same as an item of a lane's list.

    `owners` is the count that the server keeps of who has had it, `holder` who has it in hand. `deaths`
    counts those who died while they were trying it, since its last outcome. It `strayed` when a worker
    read it that did not own the queue any more: then it may be overtaken.
    """

    thing: str
    error: str = ""
    attempts: int = 0
    holder: str = ""
    owners: int = 0
    deaths: int = 0
    strayed: bool = False
    serial: int = field(default_factory=lambda: next(_serials))

    @property
    def lane(self) -> str:
        return lane_of(self.thing)


@dataclass(slots=True)
class Lease:
    epoch: int = 0
    token: str = ""
    live: bool = False
    step: int = 0
    claimed: int = 0


class QueueModel:
    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.has_group = False
        self.lanes: dict[str, list[Entry]] = {}
        self.due: dict[str, bool] = {}
        self.retries: dict[str, tuple[int, str]] = {}
        self.lease = Lease()

    def owns(self, token: str) -> bool:
        return self.lease.token == token

    def fence(self, token: str) -> None:
        if not self.owns(token):
            raise Fenced

    def _need_group(self) -> None:
        if not self.has_group:
            raise NoGroup

    @property
    def unread(self) -> list[Entry]:
        return [entry for entry in self.entries if not entry.holder]

    # The lease.

    def acquire(self, worker: str) -> str | None:
        """Also a worker's own, when it does not know of it."""
        lease = self.lease
        if lease.live and lease.token.rpartition("#")[0] != worker:
            return None
        lease.epoch += 1
        lease.token, lease.live, lease.step = f"{worker}#{lease.epoch}", True, 0
        self.has_group = True
        return lease.token

    def renew(self, token: str, worker: str) -> tuple[bool, int]:
        """Whether there is something to recover, and how many lanes are parked."""
        self.fence(token)
        self.lease.live = True
        recover = not self.has_group or any(entry.holder not in {"", worker} for entry in self.entries)
        self.has_group = True
        return recover, len(self.due)

    def release(self, token: str, worker: str) -> int:
        """What the worker read and did not try does not count as had; what others died of does."""
        self.fence(token)
        self.lease.token, self.lease.live = "", False
        left = [entry for entry in self.entries if entry.holder == worker]
        for entry in left:
            if entry.owners == 1 and entry.serial > self.lease.claimed:
                entry.owners = 0
        return len(left)

    # Reading.

    def read(self, worker: str, count: int) -> list[Entry]:
        self._need_group()
        found = self.unread[:count]
        for entry in found:
            entry.holder, entry.owners = worker, 1
        return found

    def read_due(self, token: str, worker: str, count: int, *, waited: bool) -> list[Entry]:
        self.fence(token)
        return self.read(worker, count) if waited and self.unread else []

    def recover(
        self, token: str, worker: str, after: int, page: int, *, counts: bool
    ) -> tuple[int | None, list[tuple[Entry, int]]]:
        """The serial after which the next page begins, and who has had each entry, this one included."""
        self.fence(token)
        self._need_group()
        pending = [entry for entry in self.entries if entry.holder and entry.serial > after][:page]
        if any(entry.holder != worker for entry in pending):
            self.lease.claimed = max(entry.serial for entry in self.entries if entry.holder)
        found = []
        for entry in pending:
            owners = max(1, entry.owners + (entry.holder != worker))
            if counts or not entry.owners:
                entry.owners = owners
            entry.holder = worker
            found.append((entry, owners))
        return pending[-1].serial if len(pending) == page else None, found

    def mark_entry(self, token: str, worker: str, owners: int, entry: Entry) -> None:
        self.fence(token)
        self._need_group()
        if entry in self.entries and entry.holder:
            entry.holder, entry.owners = worker, owners

    def mark_lane(self, token: str, owners: int, lane: str) -> None:
        self.fence(token)
        self.retries[lane] = (owners, token)

    # Parked lanes.

    def lanes_due(
        self, token: str, chosen: Sequence[str], items: int, *, held: bool
    ) -> list[tuple[int, int, list[Entry]]]:
        """For each chosen lane how many owners have had its head, how many items wait, and the first."""
        self.fence(token)
        rows = []
        for lane in chosen:
            before, by = self.retries.setdefault(lane, (1, token))
            self.due[lane] = not held
            rows.append((before + (by != token), len(self.lanes[lane]), self.lanes[lane][:items]))
        return rows

    def is_head(self, lane: str, entry: Entry) -> bool:
        return self.lanes.get(lane, [None])[0] is entry

    def park(self, entry: Entry, *, due: bool | None) -> None:
        """Appends to the lane. Without `due` the lane keeps its time; if it is not parked, it is due."""
        entry.deaths = entry.owners = 0
        entry.holder = ""
        self.lanes.setdefault(entry.lane, []).append(entry)
        self.due[entry.lane] = self.due.get(entry.lane, True) if due is None else due

    def pop(self, lane: str, *, is_last: bool) -> None:
        """After the last that is in hand the lane is due; else its owner tries the next one."""
        token = self.lease.token
        del self.lanes[lane][0]
        self.retries.pop(lane, None)
        if not self.lanes[lane]:
            del self.lanes[lane], self.due[lane]
        elif is_last:
            self.due[lane] = True
        else:
            self.retries[lane] = (1, token)

    def keep(self, entry: Entry, attempts: int, *, due: bool) -> None:
        self.retries.pop(entry.lane, None)
        self.due[entry.lane] = due
        entry.attempts, entry.deaths = attempts, 0

    def give_back(self, lane: str) -> None:
        if lane in self.due:
            self.due[lane] = True
        if self.retries.get(lane) == (1, self.lease.token):
            del self.retries[lane]

    # By hand, and by operators.

    def destroy_group(self) -> None:
        self.has_group = False
        for entry in self.entries:
            entry.holder, entry.owners, entry.deaths = "", 0, 0

    def is_being_tried(self, entry: Entry) -> bool:
        return self.lease.live and bool(entry.holder)

    def take_off(self, entry: Entry) -> None:
        """A holder whose lease has run out loses the entry, and with it the lease."""
        self.entries.remove(entry)
        if entry.holder:
            self.lease.token = ""

    def view(self) -> QueueView:
        return QueueView(
            stream=[Row(e.thing, e.error, e.attempts, e.holder, e.owners) for e in self.entries],
            lanes={lane: [(e.thing, e.attempts) for e in items] for lane, items in self.lanes.items()},
            due=dict(self.due),
            retries={lane: f"{owners} {token}" for lane, (owners, token) in self.retries.items()},
            token=self.lease.token,
            live=self.lease.live,
            step=self.lease.step,
        )
