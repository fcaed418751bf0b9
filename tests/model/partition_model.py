"""What the scripts ought to do to one partition: its queues, what is scheduled, the dead, the inboxes, and
what has come of everything that was ever accepted."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from notifier.keys import EVENTS
from notifier.operations.mending import Action, Result
from notifier.recipients import suppression_field
from tests.model.queue_model import Entry, QueueModel
from tests.model.things import (
    BASES,
    INVALID_ADDRESS,
    QUEUES,
    PartitionView,
    Row,
    base_of,
    delivery_thing,
    is_final,
    recipient_of,
)

_numbers = itertools.count(1)


class Letter(NamedTuple):
    """Effect of a change: the entry goes to the DLQ, or from there to the dead."""

    error: str
    attempts: int


class Park(NamedTuple):
    """Effect of a change: the entry goes to the end of its lane."""

    due: bool | None
    attempts: int


class Schedule(NamedTuple):
    """Effect of a change: the entry comes back when its time has come, at once or much later."""

    due: bool


class Deliver(NamedTuple):
    """Effect of a change: nothing, but that the entry is done with; in the inbox, if it is for one."""


Effect = Letter | Park | Schedule | Deliver


class Move(NamedTuple):
    entry: Entry
    effect: Effect


class Pop(NamedTuple):
    entry: Entry
    effect: Effect
    is_last: bool


class Keep(NamedTuple):
    entry: Entry
    attempts: int
    due: bool


class Back(NamedTuple):
    lane: str


Change = Move | Pop | Keep | Back


@dataclass(eq=False, slots=True)
class Scheduled:
    thing: str
    queue: str
    due: bool
    number: int = field(default_factory=lambda: next(_numbers))


class PartitionModel:
    def __init__(self) -> None:
        self.queues = {queue: QueueModel() for queue in QUEUES}
        self.dead: dict[str, list[Entry]] = {base: [] for base in BASES}
        self.scheduled: list[Scheduled] = []
        self.unalerted: Counter[str] = Counter()
        self.suppressed: set[str] = set()
        self.inbox: set[str] = set()
        self.seen: set[tuple[str, str]] = set()
        # What has come of what was accepted.
        self.accepted: set[str] = set()
        self.routed: dict[str, list[str]] = {}
        self.settled: dict[str, str] = {}
        self.died: Counter[str] = Counter()

    # Publishing, and what is due later.

    def publish(self, thing: str, event_id: str, *, due: bool) -> bool:
        """Whether it was new within the dedup window."""
        known = (event_id, recipient_of(thing))
        if known in self.seen:
            return False
        self.seen.add(known)
        self.accepted.add(thing)
        if due:
            self.queues[EVENTS].entries.append(Entry(thing))
        else:
            self.scheduled.append(Scheduled(thing, EVENTS, due=False))
        return True

    def promote(self, token: str, limit: int) -> int:
        self.queues[EVENTS].fence(token)
        due = sorted((s for s in self.scheduled if s.due), key=lambda s: s.number)[:limit]
        for one in due:
            self.scheduled.remove(one)
            self.queues[one.queue].entries.append(Entry(one.thing))
        return len(due)

    def unschedule(self, recipient: str) -> int:
        dropped = [one for one in self.scheduled if recipient_of(one.thing) == recipient]
        for one in dropped:
            self.scheduled.remove(one)
            self.settled[one.thing] = "unscheduled"
        return len(dropped)

    # The router.

    def route(
        self, queue: str, token: str, step: int, plan: Sequence[tuple[Entry, Sequence[tuple[str, str]]]]
    ) -> list[str]:
        """The deliveries that are passed over, because their address is suppressed."""
        model = self.queues[queue]
        model.fence(token)
        if model.lease.step >= step:
            return []
        model.lease.step = step
        skipped = []
        for entry, addresses in plan:
            things = [(channel, delivery_thing(entry.thing, channel, key), key) for channel, key in addresses]
            self.routed[entry.thing] = [thing for _, thing, _ in things]
            for channel, thing, key in things:
                if suppression_field(channel, recipient_of(thing), key) in self.suppressed:
                    skipped.append(thing)
                    self.settled[thing] = "suppressed"
                else:
                    self.queues[channel].entries.append(Entry(thing))
            model.entries.remove(entry)
        return skipped

    # The fenced commit.

    def commit(self, queue: str, token: str, acks: Sequence[Entry], changes: Sequence[Change]) -> None:
        model = self.queues[queue]
        model.fence(token)
        for entry in acks:
            if entry in model.entries:
                model.entries.remove(entry)
                self.settled[entry.thing] = "delivered"
        for change in changes:
            self._change(queue, change)

    def _change(self, queue: str, change: Change) -> None:
        model = self.queues[queue]
        match change:
            case Move(entry, effect):
                if entry in model.entries:
                    model.entries.remove(entry)
                    self._apply(queue, entry, effect)
            case Pop(entry, effect, is_last):
                if model.is_head(entry.lane, entry):
                    model.pop(entry.lane, is_last=is_last)
                    self._apply(queue, entry, effect)
            case Keep(entry, attempts, due):
                if model.is_head(entry.lane, entry):
                    model.keep(entry, attempts, due=due)
            case Back(lane):
                model.give_back(lane)

    def _apply(self, queue: str, entry: Entry, effect: Effect) -> None:
        match effect:
            case Letter(error, attempts):
                letter = Entry(entry.thing, error, attempts)
                if is_final(queue):
                    self.dead[base_of(queue)].append(letter)
                    self.unalerted[base_of(queue)] += 1
                    self.died[base_of(queue)] += 1
                else:
                    self.queues[f"{queue}:dlq"].entries.append(letter)
                if error == INVALID_ADDRESS:
                    self.suppressed.add(_address_of(entry))
            case Park(due, attempts):
                entry.attempts = attempts
                self.queues[queue].park(entry, due=due)
            case Schedule(due):
                self.scheduled.append(Scheduled(entry.thing, base_of(queue), due))
            case Deliver():
                self.settled[entry.thing] = "delivered"
                if base_of(queue) == "box":
                    self.inbox.add(entry.thing)

    # Operators.

    def mend(self, action: Action, base: str, state: str, letters: Sequence[Entry]) -> list[Result]:
        dlq = self.queues[f"{base}:dlq"]
        found = dlq.entries if state == "dlq" else self.dead[base]
        results = []
        for letter in letters:
            if letter not in found:
                results.append(Result.GONE)
            elif state == "dlq" and dlq.is_being_tried(letter):
                results.append(Result.BUSY)
            else:
                if state == "dlq":
                    dlq.take_off(letter)
                else:
                    found.remove(letter)
                if action == "redrive":
                    self.queues[base].entries.append(Entry(letter.thing))
                    if letter.error == INVALID_ADDRESS:  # who redrives it says that the address is good
                        self.suppressed.discard(_address_of(letter))
                else:
                    self.settled[letter.thing] = "discarded"
                results.append(Result.DONE)
        return results

    def view(self) -> PartitionView:
        return PartitionView(
            queues={queue: model.view() for queue, model in self.queues.items()},
            dead={
                base: [Row(e.thing, e.error, e.attempts) for e in dead] for base, dead in self.dead.items()
            },
            scheduled=[
                (s.thing, s.queue, s.due) for s in sorted(self.scheduled, key=lambda s: (not s.due, s.number))
            ],
            unalerted={base: count for base, count in self.unalerted.items() if count},
            suppressed=set(self.suppressed),
            inbox=set(self.inbox),
        )


def _address_of(entry: Entry) -> str:
    """As the suppressed addresses are known."""
    address = entry.thing.partition(">")[2]
    channel, _, key = address.partition("/")
    return suppression_field(channel, recipient_of(entry.thing), key)
