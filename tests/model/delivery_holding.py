"""A channel worker's holding: one partition of a channel's queue, or of its DLQ.

It does what `notifier.delivering` does, one thing at a time and with outcomes that the machine chooses.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from notifier.broker.entries import DeliveryEntry, Message
from notifier.broker.line import Command
from notifier.broker.partition import State
from notifier.channel import InboxEntry
from notifier.dead_letters import Failure, is_dead_letter, split
from notifier.errors import Fenced
from notifier.inbox import encode_entry
from notifier.keys import GROUP
from notifier.lanes import Lane, Lanes
from notifier.policy import MAX_OWNERS
from notifier.recipients import encode_suppression, suppression_field
from tests.model.holding import FAR_OFF_MS, LONG_PAST_MS, TTL_MS, Found, Holding, agree
from tests.model.partition_model import Back, Deliver, Effect, Keep, Letter, Move, Park, Pop
from tests.model.queue_model import Entry, NoGroup
from tests.model.things import INVALID_ADDRESS, KEYS, base_of, is_final, recipient_of

Outcome = Literal["delivered", "retry at once", "retry later", "failed", "invalid address"]


class DeliveryHolding(Holding):
    """`ready` are the lanes that a runner has taken; any of them may be the next with an outcome."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.ready: list[Lane] = []
        self._lanes = Lanes()

    # What comes in.

    def take(self, found: Found) -> None:
        usable = []
        for message, entry in found:
            self.entries[message.id] = entry
            self.partition.in_hand.add(message.id)
            if is_dead_letter(message.fields):
                failure, message.fields = split(message.fields)
                message.attempts = failure.attempts
            message.entry = DeliveryEntry.of(message.fields)
            message.lane = message.entry.recipient + b"/" + message.entry.key
            if message.deliveries > MAX_OWNERS:
                self._take_off(None, message, Letter("Poison", message.attempts))
            else:
                usable.append(message)
        parked = self._parked([message.lane for message in usable])
        for message in usable:
            self._enlist(message, parked)
        self._take_lanes()

    def _parked(self, lanes: Sequence[bytes]) -> set[bytes]:
        if not self.partition.waiting_parked or not lanes:
            return set()
        scores = self.world.command("ZMSCORE", self.partition.parked, *lanes)
        return {lane for lane, due in zip(lanes, scores, strict=True) if due is not None}

    def _enlist(self, message: Message, parked: set[bytes]) -> None:
        lane = self._lanes.find(self.partition, message.lane)
        if lane is None:
            if message.lane in self.partition.parking or message.lane in parked:
                self._append_to_list(message)
            else:
                self._lanes.append(self.partition, message)
        elif lane.parked:
            lane.behind += 1
            self._append_to_list(message)
        else:
            lane.waiting.append(message)

    def _append_to_list(self, message: Message) -> None:
        self.partition.park(message.lane, message.id, message.parked_item(), None)
        self.changes.append(Move(self.entries[message.id], Park(None, message.attempts)))

    def _take_lanes(self) -> None:
        while lane := self._lanes.take():
            self.ready.append(lane)

    def lanes_due(self, limit: int, items: int, *, held: bool, lost: bool = False) -> None:
        partition, spec = self.partition, self.spec
        parks, before = partition.settled_parks(), frozenset(partition.from_lists)
        keys = partition.commit_keys[0], partition.commit_keys[2], partition.commit_keys[3]
        args = self.token, limit, items, TTL_MS if held else 0, partition.lane_prefix
        chosen: list[str] = []
        due = {lane for lane, is_due in spec.due.items() if is_due}

        def real() -> Any:
            reply = self.world.script("lanes_due", keys, *args)
            chosen.extend(row[0].decode() for row in reply[2])
            return reply

        try:
            (_, next_due, rows), want = agree(
                real, lambda: spec.lanes_due(self.token, chosen, items, held=held)
            )
        except Fenced:
            return  # the next beat says so too, and acts
        assert set(chosen) <= due
        assert len(set(chosen)) == len(chosen) == min(limit, len(due))
        assert (next_due >= 0) == bool(spec.due)
        partition.next_due(next_due, parks)
        for (lane, owners, waiting, *found), (want_owners, want_waiting, entries) in zip(
            rows, want, strict=True
        ):
            assert (owners, waiting, len(found)) == (want_owners, want_waiting, len(entries))
            assert owners > entries[0].deaths, f"{entries[0]} has outlived {entries[0].deaths}, not {owners}"
            if not lost and self._lanes.find(partition, lane) is None:
                self._take_lane(lane, owners, waiting, list(zip(found, entries, strict=True)), before)
        self._take_lanes()

    def _take_lane(
        self,
        key: bytes,
        owners: int,
        waiting: int,
        items: list[tuple[bytes, Entry]],
        before: frozenset[bytes],
    ) -> None:
        messages = []
        for i, (item, entry) in enumerate(items):
            message = Message.from_parked(item, key, owners if i == 0 else 1)
            message.entry = DeliveryEntry.of(message.fields)
            assert self.entries.setdefault(message.id, entry) is entry
            messages.append(message)
        if any(message.id in before for message in messages):
            return
        self.partition.in_hand.update(message.id for message in messages)
        self.partition.from_lists.update(message.id for message in messages)
        self._lanes.add_parked(self.partition, key, messages, waiting - len(items))

    # An attempt, and what follows.

    def attempt(self, lane: Lane, outcome: Outcome) -> None:
        message = lane.waiting[0]
        entry = self.entries[message.id]
        assert self.in_turn(entry), f"{entry} overtakes what is older in its lane"
        if message.deliveries > MAX_OWNERS:
            self.ready.remove(lane)
            self._take_off(lane, message, Letter("Poison", message.attempts))
            return
        if not self._mark(message):
            return
        self.ready.remove(lane)
        if outcome == "delivered":
            self._take_off(lane, message, Deliver())
            return
        message.attempts += 1
        if outcome.startswith("retry") and not is_final(self.queue):
            self._park(lane, message, due=outcome == "retry at once")
        else:
            error = INVALID_ADDRESS if outcome == "invalid address" else "Failed"
            self._take_off(lane, message, Letter(error, message.attempts))

    def die_over(self, lane: Lane) -> None:
        """The worker dies while it is trying the first message of this lane."""
        message = lane.waiting[0]
        entry = self.entries[message.id]
        tried = message.deliveries <= MAX_OWNERS and self._mark(message) and self.is_rightful
        # Behind an older one that is not settled, nobody can tell which of them it was.
        if tried and (entry in self.spec.entries or self.spec.is_head(entry.lane, entry)):
            entry.deaths += 1

    def _mark(self, message: Message) -> bool:
        """Whether the message may be tried."""
        if message.deliveries == 1:
            return True
        keys = self.partition.commit_keys
        lane, entry, owners = message.lane.decode(), self.entries[message.id], message.deliveries
        words = GROUP, self.worker, owners, message.id, lane if message.parked else ""
        try:
            agree(
                lambda: self.world.script("mark", (keys[0], keys[1], keys[3]), self.token, *words),
                lambda: (
                    self.spec.mark_lane(self.token, owners, lane)
                    if message.parked
                    else self.spec.mark_entry(self.token, self.worker, owners, entry)
                ),
            )
        except Fenced:
            self.lose()
            return False
        except NoGroup:
            return False
        return True

    def _take_off(self, lane: Lane | None, message: Message, effect: Letter | Deliver) -> None:
        entry, commands = self.entries[message.id], self._commands(message, effect)
        self.leaving.add(entry)
        if lane is not None and message.parked:
            is_last = len(lane.waiting) == 1
            self.partition.pop(lane.key, message.id, commands, is_last=is_last, behind=lane.behind)
            self.changes.append(Pop(entry, effect, is_last))
        elif commands:
            self.partition.move(message.id, commands)
            self.changes.append(Move(entry, effect))
        else:
            self.partition.ack(message.id)
            self.acks.append(entry)
        if lane is not None:
            self._lanes.next(lane)
            self._take_lanes()

    def _commands(self, message: Message, effect: Effect) -> list[Command]:
        thing = self.entries[message.id].thing
        if isinstance(effect, Letter):
            failure = Failure(effect.error, "because", "", effect.attempts, 1, 1)
            commands = self.graveyard.commands(self.number, message.entry.type, failure, message.fields)
            if effect.error == INVALID_ADDRESS:
                key = message.entry.key.decode()
                field = suppression_field(base_of(self.queue), recipient_of(thing), key)
                commands.append(("HSET", KEYS.suppressed(self.number), field, encode_suppression("", 1)))
            return commands
        if base_of(self.queue) == "box":
            stored = encode_entry(InboxEntry(thing, "ping", "title", "body", created_ms=1))
            return [("INBOX.ADD", KEYS.inbox(recipient_of(thing)), thing, 1, stored, 1_000)]
        return []

    def _park(self, lane: Lane, message: Message, *, due: bool) -> None:
        due_ms = LONG_PAST_MS if due else FAR_OFF_MS
        entry, waiting = self.entries[message.id], list(lane.waiting)
        if lane.parked:
            self.partition.keep(lane.key, message.id, message.parked_item(), due_ms)
            self.changes.append(Keep(entry, message.attempts, due))
            self.partition.let_go([later.id for later in waiting[1:]])
        else:
            self.partition.park(lane.key, message.id, message.parked_item(), due_ms)
            self.changes.append(Move(entry, Park(due, message.attempts)))
            for later in waiting[1:]:
                self._append_to_list(later)
        lane.waiting.clear()
        self._lanes.remove(lane)

    # Leaving.

    def drain(self) -> None:
        super().drain()
        for lane in self._lanes.drop(self.partition):
            if lane.parked:
                self.partition.give_back(lane.key)
                self.changes.append(Back(lane.key.decode()))
        self.ready.clear()

    @property
    def is_live(self) -> bool:
        return self.partition.state is State.LIVE
