"""The worker of a channel's queue, and of that queue's DLQ: from a delivery in hand to its outcome.

Messages go into lanes; runners take ready lanes, send, and ask the partition for what follows. An outcome
is only asked for here; the committer brings it to the server, and until then the entry stays pending.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Protocol

import structlog

from notifier import metrics
from notifier.broker.cancelling import Tasks
from notifier.broker.consumer import Consumer
from notifier.broker.entries import DeliveryEntry, MalformedEntry, Message
from notifier.broker.failures import translate
from notifier.broker.handler import Batch
from notifier.broker.line import Command
from notifier.broker.partition import Partition, State
from notifier.broker.scripts import Call, execute, run_all, script
from notifier.channel import (
    Channel,
    DeliveryError,
    InboxEntry,
    Sent,
    TransientFailure,
)
from notifier.dead_letters import Failure, Graveyard, is_dead_letter, split
from notifier.errors import BrokerError, Fenced
from notifier.event_traces import What, delivered, line, places
from notifier.inbox import encode_entry
from notifier.keys import Keys
from notifier.lanes import Lane, Lanes
from notifier.outcomes import words
from notifier.policy import MAX_OWNERS, DeadLetter, Retry
from notifier.recipients import encode_suppression, suppression_field
from notifier.redaction import without_addresses
from notifier.sending import ACTIVE, EXPIRED, Render, Runner, Sender, error_name
from notifier.sending_with_spans import TracedSender
from notifier.tracing import Tracing

log = structlog.get_logger(__name__)

_LOST = State.LOST  # of a class of enum to read a member takes longer than a call
_LANE_ITEMS = 16  # of a parked lane's list, how many come into hand at once


class Policy(Protocol):
    def decide(self, failure: DeliveryError, attempts: int) -> Retry | DeadLetter: ...


@dataclass(frozen=True, slots=True)
class Limits:
    """How many sends at once; how long one may take; after which time a parked lane that was handed out
    and not dealt with is handed out again; how many entries an inbox holds."""

    concurrency: int = 50
    send_timeout: timedelta = timedelta(seconds=60)
    lane_hold: timedelta = timedelta(seconds=5)
    inbox: int = 1_000


class Deliveries:
    """The handler of one queue; give it to a `Consumer`."""

    marks_owners = True

    def __init__(
        self,
        keys: Keys,
        consumer: Consumer,
        channel: Channel,
        *,
        render: Render,
        policy: Policy,
        graveyard: Graveyard,
        limits: Limits,
        tracing: Tracing | None = None,
    ) -> None:
        self._keys = keys
        self._consumer = consumer
        self._channel = channel
        self._policy = policy
        self._graveyard = graveyard
        self._concurrency = limits.concurrency
        sending = (consumer.queue, channel, render, limits.send_timeout)
        self._sender = TracedSender(*sending, tracing=tracing) if tracing else Sender(*sending)
        self._hold_ms = int(limits.lane_hold / timedelta(milliseconds=1))
        self._inbox_limit = limits.inbox
        self._lanes = Lanes()
        self._last_chance = asyncio.Lock()
        self._observe_delivered = self._sender.counts.delivered.observe
        self._tells_deliveries = _is_enabled_for_debug()
        self._traces = consumer.keep_traces_ms > 0
        self._channel_name = channel.name.encode()

    async def run(self) -> None:
        """Runs the runners until cancelled."""
        async with Tasks() as tasks:
            tasks.create_task(self._sender.run())
            for _ in range(self._concurrency):
                tasks.create_task(self._runner())

    # What comes in.

    async def accept(self, batch: Batch) -> None:
        usable = [(partition, self._usable(partition, messages)) for partition, messages in batch]
        parked = await self._parked_lanes(usable)
        for partition, messages in usable:
            if partition.state in ACTIVE:
                self._enlist(partition, messages, parked.get(partition, ()))
        self._lanes.wake()

    def _usable(self, partition: Partition, messages: list[Message]) -> list[Message]:
        """Reads the fields; what is unreadable, or has outlived too many owners, is dead-lettered."""
        usable = []
        for message in messages:
            try:
                if is_dead_letter(message.fields):
                    failure, message.fields = split(message.fields)
                    message.attempts, message.first_ms = failure.attempts, failure.first_ms
                message.entry = entry = DeliveryEntry.of(message.fields)
            except (MalformedEntry, ValueError) as error:
                failure = _failure("MalformedEntry", str(error), message, partition.server_ms())
                self._bury(partition, message, failure)
                continue
            message.lane = entry.recipient + b"/" + entry.key
            if message.deliveries > MAX_OWNERS:
                self._bury(partition, message, _poison(message, partition.server_ms()))
            else:
                usable.append(message)
        return usable

    async def _parked_lanes(
        self, batch: Sequence[tuple[Partition, list[Message]]]
    ) -> dict[Partition, set[bytes]]:
        """Which lanes of these messages are parked, of those that nothing here tells of."""
        asked: list[tuple[Partition, list[bytes]]] = []
        for partition, messages in batch:
            if partition.waiting_parked and messages:
                asked.append((partition, list({message.lane for message in messages})))
        if not asked:
            return {}
        commands: list[Command] = [("ZMSCORE", partition.parked, *lanes) for partition, lanes in asked]
        parked = {}
        for (partition, lanes), reply in zip(
            asked, await execute(self._consumer.calls, commands), strict=True
        ):
            if isinstance(reply, Exception):
                raise translate(reply)
            parked[partition] = {lane for lane, due in zip(lanes, reply, strict=True) if due is not None}
        return parked

    def _enlist(
        self, partition: Partition, messages: Sequence[Message], parked: set[bytes] | tuple[()]
    ) -> None:
        lanes = self._lanes.of(partition)
        for message in messages:
            lane = lanes.get(message.lane)
            if lane is None:
                if message.lane in partition.parking or message.lane in parked:
                    self._append_to_list(partition, message)
                else:
                    self._lanes.open(partition, lanes, message)
            elif lane.parked:
                lane.behind += 1
                self._append_to_list(partition, message)
            else:
                lane.waiting.append(message)

    def _append_to_list(self, partition: Partition, message: Message) -> None:
        partition.park(message.lane, message.id, message.parked_item(), None)
        self._consumer.commit(partition)

    async def due(self, partitions: Sequence[Partition], room: int) -> None:
        """Takes parked lanes whose time has come."""
        partitions = [partition for partition in partitions if partition.lists_are_settled]
        if not partitions:
            return  # after the next commit
        lanes = max(1, room // len(partitions) // _LANE_ITEMS)
        parks = [partition.settled_parks() for partition in partitions]
        # A lane that we have had for long is handed out again, perhaps just as we are done with it.
        in_hand = [frozenset(partition.from_lists) for partition in partitions]
        calls = [
            Call(
                script("lanes_due"),
                (partition.commit_keys[0], partition.commit_keys[2], partition.commit_keys[3]),
                (partition.lease.token, lanes, _LANE_ITEMS, self._hold_ms, partition.lane_prefix),
            )
            for partition in partitions
        ]
        replies = await run_all(self._consumer.calls, calls)
        failure: BrokerError | None = None
        for partition, seen, before, reply in zip(partitions, parks, in_hand, replies, strict=True):
            if isinstance(reply, Fenced):
                continue  # the next beat says so too, and acts
            if isinstance(reply, BrokerError):
                failure = reply  # told when what the others handed out is in hand
                continue
            _, next_due, rows = reply
            partition.next_due(next_due, seen)
            for lane, owners, waiting, *items in rows:
                if partition.state in ACTIVE and self._lanes.find(partition, lane) is None:
                    self._take_lane(partition, lane, owners, waiting, items, before)
        self._lanes.wake()
        if failure:
            raise failure

    def _take_lane(
        self,
        partition: Partition,
        key: bytes,
        owners: int,
        waiting: int,
        items: list[bytes],
        before: frozenset[bytes],
    ) -> None:
        # Whoever died over this lane died over its head.
        messages = [Message.from_parked(item, key, owners if i == 0 else 1) for i, item in enumerate(items)]
        # In hand still; to count it once more would take its place away for ever. Either we had the lane for
        # long and are just done with it, or it was just parked, and that the server knows it is not known
        # here: then it waits for the answer, and not until it is handed out anew.
        if any(message.id in before for message in messages):
            return
        if any(message.id in partition.in_hand for message in messages):
            partition.give_back(key)
            self._consumer.commit(partition)
            return
        for message in messages:
            message.entry = DeliveryEntry.of(message.fields)
            self._consumer.take_in_hand(partition, message)
        self._lanes.add_parked(partition, key, messages, waiting - len(items))

    # Leaving.

    async def drain(self, partition: Partition) -> None:
        await self._sender.stopped(partition)
        for lane in self._lanes.drop(partition):
            if lane.parked:
                partition.give_back(lane.key)
        self._consumer.commit(partition)

    def forget(self, partition: Partition) -> None:
        self._lanes.drop(partition)

    # Sending.

    async def _runner(self) -> None:
        runner = self._sender.runner()
        handled = 0
        while True:
            lane = self._lanes.take()
            if lane is None:
                await self._lanes.wait()
                continue
            partition = lane.partition
            if time.monotonic() >= partition.lease.deadline and not await partition.wait_until_ours():
                continue
            if partition.state in ACTIVE:
                message = lane.waiting[0]
                if message.deliveries == 1:
                    outcome = await self._sender.attempt(runner, partition, message)
                    self._tried(partition, lane, message, outcome)
                else:
                    await self._try_again(runner, partition, lane, message)
                handled += 1
                if handled % 64 == 0:  # a channel that never waits must not keep the loop to itself
                    await asyncio.sleep(0)

    async def _try_again(self, runner: Runner, partition: Partition, lane: Lane, message: Message) -> None:
        """What earlier owners may have died of."""
        if message.deliveries > MAX_OWNERS:  # of a parked lane; others were buried as they came in
            self._dead_letter(
                partition, lane, message, _poison(message, partition.server_ms()), suppress=False
            )
        elif message.deliveries < MAX_OWNERS:
            await self._consumer.mark(partition, message)
            await self._try(runner, partition, lane, message)
        else:
            # The last chance is one message's own: what was merely in hand beside the one that kills its
            # worker, or was done and not yet settled, would be taken for poison with it.
            async with self._last_chance:
                await self._consumer.mark(partition, message)
                await self._try(runner, partition, lane, message)
                await self._consumer.committer.flushed(partition, until=partition.lease.deadline)

    async def _try(self, runner: Runner, partition: Partition, lane: Lane, message: Message) -> None:
        self._tried(partition, lane, message, await self._sender.attempt(runner, partition, message))

    def _tried(
        self, partition: Partition, lane: Lane, message: Message, outcome: Sent | DeliveryError | None
    ) -> None:
        if outcome is None or partition.state is _LOST:
            return
        if not isinstance(outcome, Sent):
            self._failed(partition, lane, message, outcome)
            return
        stored: Sequence[Command] = ()
        if outcome.inbox is not None:
            try:
                stored = self._into_inbox(message, outcome.inbox)
            except (TypeError, ValueError, RecursionError) as error:  # the channel's bug
                reason = f"the inbox entry can't be stored: {words(error)}"
                self._failed(partition, lane, message, TransientFailure(reason))
                return
        if outcome is EXPIRED:
            metrics.SKIPPED.labels("expired").inc()
            log.info("delivery_expired", **self._sender.about(partition, message))
            self._trace(partition, message, "expired")
        else:
            self._tell_delivered(partition, message, outcome.answer, self._sender.ended)
        if stored or message.parked:
            self._take_off(partition, lane, message, stored)
            return
        partition.ack(message.id)
        self._lanes.next(lane)
        if not partition.is_dirty or partition.next_due_ms >= 0:
            self._consumer.commit(partition)

    def _tell_delivered(self, partition: Partition, message: Message, answer: str, at: float) -> None:
        entry, now_ms = message.entry, partition.server_ms(at)
        self._observe_delivered((now_ms - int(entry.accepted_ms)) / 1000)
        if self._tells_deliveries:
            log.debug("delivered", answer=without_addresses(answer), **self._sender.about(partition, message))
        if answer:
            self._trace(partition, message, "delivered", attempt=message.attempts + 1, answer=answer)
        elif self._traces:
            end = delivered(now_ms, self._channel_name, entry.key, message.attempts + 1)
            partition.traced += (entry.id, b"\t", entry.recipient, end)

    # What follows.

    def _into_inbox(self, message: Message, entry: InboxEntry) -> Sequence[Command]:
        prefix = self._keys.inbox(message.entry.recipient.decode())
        return (("INBOX.ADD", prefix, entry.id, entry.created_ms, encode_entry(entry), self._inbox_limit),)

    def _take_off(
        self, partition: Partition, lane: Lane, message: Message, commands: Sequence[Command]
    ) -> None:
        """Removes the message from where it lies in the server, with the commands, and goes on."""
        if message.parked:
            is_last = len(lane.waiting) == 1
            partition.pop(lane.key, message.id, commands, is_last=is_last, behind=lane.behind)
        elif commands:
            partition.move(message.id, commands)
        else:
            partition.ack(message.id)
        self._lanes.next(lane)
        self._consumer.commit(partition)

    def _failed(self, partition: Partition, lane: Lane, message: Message, failure: DeliveryError) -> None:
        about_it = self._sender.about(partition, message)
        message.attempts += 1
        now = partition.server_ms()
        message.first_ms = message.first_ms or now
        metrics.FAILED.labels(self._channel.name, error_name(failure)).inc()
        decision = self._policy.decide(failure, message.attempts)
        if isinstance(decision, Retry):
            delay_ms = int(decision.delay / timedelta(milliseconds=1))
            reason, answer = without_addresses(failure.reason), without_addresses(failure.answer)
            log.info("delivery_parked", reason=reason, answer=answer, delay_ms=delay_ms, **about_it)
            self._trace(
                partition, message, "parked",
                attempt=message.attempts, until_ms=now + delay_ms, reason=reason, answer=answer,
            )  # fmt: skip
            self._park(partition, lane, message, now + delay_ms)
        else:
            record = Failure(
                error_name(failure), failure.reason, failure.answer, message.attempts, message.first_ms, now
            )
            self._dead_letter(partition, lane, message, record, suppress=decision.suppress)

    def _park(self, partition: Partition, lane: Lane, message: Message, due_ms: int) -> None:
        """The failed message and all that wait behind it go to the lane's list, in one commit."""
        self._sender.counts.parked.inc()
        waiting = list(lane.waiting)
        if lane.parked:
            partition.keep(lane.key, message.id, message.parked_item(), due_ms)
            self._consumer.put_back(partition, waiting[1:])  # they lie in the list already
        else:
            partition.park(lane.key, message.id, message.parked_item(), due_ms)
            for later in waiting[1:]:
                partition.park(lane.key, later.id, later.parked_item(), None)
        lane.waiting.clear()
        self._lanes.remove(lane)
        self._consumer.commit(partition)

    def _dead_letter(
        self, partition: Partition, lane: Lane, message: Message, failure: Failure, *, suppress: bool
    ) -> None:
        commands = self._graveyard.commands(partition.number, message.entry.type, failure, message.fields)
        if suppress:
            rid, key = message.entry.recipient.decode(), message.entry.key.decode()
            field = suppression_field(self._channel.name, rid, key)
            reason = encode_suppression(failure.answer or failure.reason, failure.last_ms)
            commands.append(("HSET", self._keys.suppressed(partition.number), field, reason))
        about_it = self._sender.about(partition, message) | {"attempt": failure.attempts}
        self._graveyard.tell(failure, **about_it, suppressed=suppress)
        self._trace_failure(partition, message, failure)
        self._take_off(partition, lane, message, commands)

    def _bury(self, partition: Partition, message: Message, failure: Failure) -> None:
        """Dead-letters an entry that never got into a lane."""
        kind = message.entry.type
        partition.move(message.id, self._graveyard.commands(partition.number, kind, failure, message.fields))
        self._graveyard.tell(
            failure, queue=self._consumer.queue, partition=partition.number, entry=message.id.decode()
        )
        if kind:
            self._trace_failure(partition, message, failure)
        self._consumer.commit(partition)

    # What the trace of the event says.

    def _trace(self, partition: Partition, message: Message, what: What, **told: Any) -> None:
        if self._traces:
            entry = message.entry
            where = places([(self._channel.name, entry.key.decode())])
            words = line(
                entry.id.decode(), entry.recipient.decode(), partition.server_ms(), what, where, **told
            )
            partition.traced.append(words)

    def _trace_failure(self, partition: Partition, message: Message, failure: Failure) -> None:
        self._trace(
            partition, message, self._graveyard.trace_as,
            attempt=failure.attempts, reason=f"{failure.error}: {failure.reason}", answer=failure.answer,
        )  # fmt: skip


def _failure(error: str, reason: str, message: Message, now_ms: int) -> Failure:
    return Failure(error, reason, "", message.attempts, message.first_ms or now_ms, now_ms)


def _poison(message: Message, now_ms: int) -> Failure:
    return _failure("Poison", f"outlived {message.deliveries - 1} workers", message, now_ms)


def _is_enabled_for_debug() -> bool:
    # Asked once: even to build the line of each delivery and not write it would cost more than the rest.
    is_enabled_for = getattr(log.bind(), "is_enabled_for", None)
    return is_enabled_for is None or bool(is_enabled_for(logging.DEBUG))
