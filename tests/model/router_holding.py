"""A router's holding: the events queue of one partition, or its DLQ."""

from __future__ import annotations

from typing import Any

from notifier.broker.entries import DeliveryEntry, Message, entry_ms, heads, pack
from notifier.broker.line import Argument, Command
from notifier.dead_letters import Failure, is_dead_letter, split
from notifier.errors import Fenced
from notifier.keys import EVENTS, GROUP
from notifier.policy import MAX_OWNERS
from tests.model.holding import FAR_OFF_MS, LONG_PAST_MS, Found, Holding, agree
from tests.model.partition_model import Letter, Move, Schedule
from tests.model.queue_model import Entry
from tests.model.things import ADDRESSES, CHANNELS, KEYS, delivery_thing, event_thing, recipient_of


class RouterHolding(Holding):
    """`waiting` is in hand, oldest first. While the answer to a step is missing, nothing but that step may
    be sent; `unanswered` is how many it routes."""

    counts_at_once = True

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.waiting: Found = []
        self.unanswered = 0

    def take(self, found: Found) -> None:
        for message, entry in found:
            self.entries[message.id] = entry
            self.partition.in_hand.add(message.id)
            if is_dead_letter(message.fields):
                failure, message.fields = split(message.fields)
                message.attempts = failure.attempts
            if message.deliveries > MAX_OWNERS:
                self._bury(message, entry, "Poison")
            else:
                self.waiting.append((message, entry))

    # Fanning out.

    def route(self, count: int, *, lost: bool = False, twice: bool = False) -> None:
        if self.unanswered:
            count = self.unanswered
        else:
            self.partition.steps += 1
        chosen = self.waiting[:count]
        for i, (_, entry) in enumerate(chosen):
            assert self.in_turn(entry, [e for _, e in chosen[:i]]), f"{entry} overtakes an older event"
        try:
            for _ in range(1 + twice):
                self._step(chosen)
        except Fenced:
            if lost:
                self.unanswered = len(chosen)
            else:
                self.lose()
            return
        if lost:
            self.unanswered = len(chosen)
            return
        self.unanswered = 0
        self.waiting = self.waiting[len(chosen) :]
        self.partition.let_go([message.id for message, _ in chosen])

    def _step(self, chosen: Found) -> None:
        plan = [(entry, ADDRESSES[recipient_of(entry.thing)]) for _, entry in chosen]
        reply, skipped = agree(
            lambda: self.world.script("route", self._route_keys(), *self._route_args(chosen)),
            lambda: self.model.route(self.queue, self.token, self.partition.steps, plan),
        )
        told = []
        for channel, head in zip(reply[::2], reply[1::2], strict=True):
            entry = DeliveryEntry.of((b"head", head, b"event", b""))
            event = event_thing(int(entry.id), entry.recipient.decode())
            told.append(delivery_thing(event, channel.decode(), entry.key.decode()))
        assert told == skipped

    def _route_keys(self) -> tuple[str, ...]:
        keys = self.partition.commit_keys
        channels = (KEYS.queue(channel, self.number) for channel in CHANNELS)
        return keys[0], self.partition.stream, KEYS.suppressed(self.number), *channels

    def _route_args(self, chosen: Found) -> list[Argument]:
        words: list[Argument] = [self.token, GROUP, self.partition.steps, len(CHANNELS), *CHANNELS]
        words += (len(chosen), *(message.id for message, _ in chosen))
        words += [""] * 4  # no traces
        for message, entry in chosen:
            addresses = ADDRESSES[recipient_of(entry.thing)]
            recipient = recipient_of(entry.thing)
            found = heads(
                (_event_id(entry), "ping", recipient, recipient),
                entry_ms(message.id),
                "",
                [(key, f"{key}@example.com") for _, key in addresses],
            )
            words += (message.fields[5], " ".join(str(CHANNELS.index(c) + 1) for c, _ in addresses), *found)
        return words

    # What else becomes of an event.

    def fail(self) -> None:
        """The oldest one can't be routed."""
        message, entry = self.waiting.pop(0)
        self._bury(message, entry, "UnknownType")

    def _bury(self, message: Message, entry: Entry, error: str) -> None:
        failure = Failure(error, "because", "", message.attempts + 1, 1, 1)
        commands = self.graveyard.commands(self.number, b"ping", failure, message.fields)
        self._move(message, Move(entry, Letter(error, message.attempts + 1)), commands)

    def postpone(self, *, due: bool) -> None:
        """The oldest one is for later, or for a later that is past already."""
        message, entry = self.waiting.pop(0)
        due_ms = LONG_PAST_MS if due else FAR_OFF_MS
        item = pack((EVENTS.encode(), *message.fields))
        self._move(message, Move(entry, Schedule(due)), [("SCHEDULE", due_ms, item)])

    def _move(self, message: Message, change: Move, commands: list[Command]) -> None:
        self.partition.move(message.id, commands)
        self.changes.append(change)
        self.leaving.add(change.entry)

    def drain(self) -> None:
        super().drain()
        self.waiting = []

    # What is due.

    def promote(self, limit: int) -> None:
        keys = self.partition.commit_keys
        try:
            (_, promoted, next_due), want = agree(
                lambda: self.world.script(
                    "promote", (keys[0], *keys[4:6]), self.token, limit, KEYS.tag(self.number) + ":"
                ),
                lambda: self.model.promote(self.token, limit),
            )
        except Fenced:
            return  # the next beat says so too, and acts
        assert (promoted, next_due >= 0) == (want, bool(self.model.scheduled))


def _event_id(entry: Entry) -> str:
    """Of a head: its number, by which the answers of the script are known."""
    return entry.thing.partition("@")[0]
