"""The worker of the events queue: parses, looks up the recipients, and fans out.

A step costs two round trips for all partitions together: one for the profiles, one for the scripts.
The same handler gives the events' DLQ its second try.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import structlog

from notifier import metrics, outcomes
from notifier.broker.cancelling import cancel_until_done
from notifier.broker.consumer import Consumer
from notifier.broker.entries import (
    EVENT_FIELDS,
    Checked,
    DeliveryEntry,
    MalformedEntry,
    Message,
    entry_ms,
    heads,
    pack,
    trace_of,
    values,
)
from notifier.broker.handler import Batch
from notifier.broker.line import Argument
from notifier.broker.partition import Partition, State
from notifier.broker.scripts import Call, run, run_all, script
from notifier.catalogue import Catalogue, EventKind
from notifier.channel import Channel
from notifier.dead_letters import ALERT_TYPE, Failure, Graveyard, is_dead_letter, split
from notifier.errors import (
    BrokerError,
    BrokerFull,
    BrokerUnavailable,
    Fenced,
    InvalidEvent,
    InvalidInput,
    InvalidRecipient,
)
from notifier.event import MAX_EVENT_BYTES, Recipient, parse_body, parse_recipient, parse_to
from notifier.event_traces import line, places, routed
from notifier.keys import EVENTS, GROUP, Keys
from notifier.policy import MAX_OWNERS
from notifier.recipients import Recipients
from notifier.redaction import redacted
from notifier.routing import Route, Skip, route, view
from notifier.sending import trace_field

if TYPE_CHECKING:
    from opentelemetry.trace import Span

    from notifier.tracing import Tracing

log = structlog.get_logger(__name__)

PROMOTE_AT_ONCE = 500
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 1.0
_NO_TRACES = ("", "", "", "")
_FIELDS = 2 * len(EVENT_FIELDS)
_REMEMBERED_BYTES = 2_000  # parsing a profile takes longer than all else that is done for a short event


class _Event(NamedTuple):
    """An entry that could be read. Times are Unix milliseconds, or 0. `trace` is a traceparent, or empty."""

    message: Message
    id: str
    type: str
    deliver_ms: int
    expires_ms: int
    inline: Recipient
    body: bytes
    trace: str = ""


@dataclass(slots=True)
class _Work:
    """One partition's part of a step: the messages, and what follows from them for the route script."""

    partition: Partition
    messages: list[Message] = field(default_factory=list)
    deliveries: list[Argument] = field(default_factory=list)
    traced: list[bytes] = field(default_factory=list)
    traces: tuple[Argument, ...] = _NO_TRACES
    step: int = 0
    spans: list[Span] = field(default_factory=list)


class Router:
    """The handler of the events queue, or of its DLQ; give it to a `Consumer`."""

    marks_owners = False

    def __init__(
        self,
        keys: Keys,
        consumer: Consumer,
        channels: Mapping[str, Channel],
        *,
        catalogue: Callable[[], Catalogue],
        recipients: Recipients,
        graveyard: Graveyard,
        tracing: Tracing | None = None,
    ) -> None:
        self._keys = keys
        self._consumer = consumer
        self._tracing = tracing
        self._channels = channels
        self._numbers = {name: str(number) for number, name in enumerate(channels, start=1)}
        self._catalogue = catalogue
        self._recipients = recipients
        self._graveyard = graveyard
        self._insisting: dict[Partition, asyncio.Task[None]] = {}

    async def accept(self, batch: Batch) -> None:
        kinds = self._catalogue().kinds
        events = {partition: self._readable(partition, messages, kinds) for partition, messages in batch}
        profiles = await self._recipients.profiles(
            {partition.number: [e.inline.id for e in found] for partition, found in events.items() if found}
        )
        works = []
        for partition, found in events.items():
            work = _Work(partition)
            now_ms = partition.server_ms()
            for event, profile in zip(found, profiles.get(partition.number, ()), strict=True):
                self._plan(work, event, profile, kinds[event.type], now_ms)
            if work.messages:
                partition.steps += 1
                work.step = partition.steps
                if work.traced:
                    work.traces = partition.traces_at(self._consumer.keep_traces_ms, work.traced)
                works.append(work)
        await self._send(works)

    # Reading.

    def _readable(
        self, partition: Partition, messages: Sequence[Message], kinds: Mapping[str, EventKind]
    ) -> list[_Event]:
        """The events that can be routed now; the others are dead-lettered or put off."""
        now_ms = partition.server_ms()
        events = []
        for message in messages:
            try:
                event = _parse(message)
            except (MalformedEntry, InvalidInput) as error:
                self._bury(partition, message, type(error).__name__, str(error))
                continue
            if message.deliveries > MAX_OWNERS:
                self._bury(partition, message, "Poison", f"outlived {message.deliveries - 1} workers", event)
            elif event.type not in kinds:
                self._bury(partition, message, "UnknownType", f"type: no templates for {event.type}", event)
            elif event.deliver_ms > now_ms:
                item = pack((EVENTS.encode(), *message.fields))
                partition.move(message.id, [("SCHEDULE", event.deliver_ms, item)])
                self._consumer.commit(partition)
            else:
                events.append(event)
        return events

    def _bury(
        self, partition: Partition, message: Message, error: str, reason: str, event: _Event | None = None
    ) -> None:
        now_ms = partition.server_ms()
        failure = Failure(error, reason, "", message.attempts + 1, message.first_ms or now_ms, now_ms)
        event_type = event.type.encode() if event else b""
        commands = self._graveyard.commands(partition.number, event_type, failure, message.fields)
        partition.move(message.id, commands)
        if event and self._consumer.keep_traces_ms:
            words = line(
                event.id, event.inline.id, now_ms, self._graveyard.trace_as, "",
                attempt=failure.attempts, reason=f"{error}: {reason}",
            )  # fmt: skip
            partition.traced.append(words)
        about = _about(partition, event) if event else {"partition": partition.number}
        self._graveyard.tell(failure, queue=self._consumer.queue, entry=message.id.decode(), **about)
        self._consumer.commit(partition)

    # Fanning out.

    def _plan(self, work: _Work, event: _Event, profile: bytes | None, kind: EventKind, now_ms: int) -> None:
        message = event.message
        try:
            recipient = _profile(profile).with_inline(event.inline) if profile else event.inline
        except InvalidRecipient as error:
            self._bury(work.partition, message, "InvalidRecipient", f"stored profile: {error}", event)
            return
        try:
            plan = route(recipient, kind, self._channels, expired=0 < event.expires_ms <= now_ms)
            found = heads(
                (event.id, event.type, recipient.id, view(recipient)),
                entry_ms(message.id),
                event.expires_ms or "",
                plan.addresses,
            )
        except Exception as error:  # a channel's `addresses` has a bug; its neighbours have none
            log.exception("routing_raised", **_about(work.partition, event))
            self._bury(work.partition, message, type(error).__name__, outcomes.words(error), event)
            return
        for skip in plan.skips:
            self._tell_skip(work.partition, skip, event)
        if self._consumer.keep_traces_ms:
            self._trace(work, event, recipient.id, plan, now_ms)
        if found:
            where = " ".join([self._numbers[channel] for channel in plan.channels])
            if event.trace or self._tracing is not None:
                where = f"{where};{self._trace_on(work, event)}"
            work.deliveries += (event.body, where)
            work.deliveries += found
        elif event.type == ALERT_TYPE:
            log.warning("alerts_reach_nobody", setting="NOTIFIER_ADMINS", **_about(work.partition, event))
        work.messages.append(message)

    def _trace_on(self, work: _Work, event: _Event) -> str:
        """The trace that goes on in the deliveries: that of our span, if we make any, or the event's own."""
        trace = event.trace
        if self._tracing is not None:
            span = self._tracing.routing(
                self._consumer.queue, work.partition.number, (event.id, event.type), event.inline.id, trace
            )
            work.spans.append(span)
            trace = self._tracing.traceparent(span)
        return trace

    def _trace(self, work: _Work, event: _Event, recipient_id: str, plan: Route, now_ms: int) -> None:
        where = places(zip(plan.channels, [address.key for address in plan.addresses], strict=True))
        work.traced.append(routed(event.id, recipient_id, now_ms, where, event.type))
        for skip in plan.skips:
            where = places([(skip.channel, "")])
            work.traced.append(line(event.id, recipient_id, now_ms, "skipped", where, reason=skip.reason))

    def _tell_skip(self, partition: Partition, skip: Skip, event: _Event) -> None:
        metrics.SKIPPED.labels(skip.reason).inc()
        log.debug("delivery_skipped", reason=skip.reason, channel=skip.channel, **_about(partition, event))

    async def _send(self, works: list[_Work]) -> None:
        """Sends until every script has run. The scripts pass over what an earlier try has done."""
        pause = _FIRST_PAUSE
        while works := [work for work in works if work.partition.state is not State.LOST]:
            try:
                replies = await run_all(self._consumer.calls, [self._call(work) for work in works])
            except BrokerUnavailable as error:
                log.warning("routing_waits", error=str(error))
                await asyncio.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)
                continue
            for work, reply in zip(works, replies, strict=True):
                if isinstance(reply, BrokerFull | BrokerUnavailable):
                    self._hold_up(work, reply)
                else:
                    self._settle(work, reply)
            return

    def _hold_up(self, work: _Work, error: BrokerError) -> None:
        """Nothing more of the partition is read until the script has run; the others go on, since in a
        cluster their node may be well."""
        log.warning("routing_waits", partition=work.partition.number, error=str(error))
        work.partition.is_held_up = True
        self._insisting[work.partition] = self._consumer.spawn(self._insist(work))

    async def _insist(self, work: _Work) -> None:
        partition, pause = work.partition, _FIRST_PAUSE
        while True:
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)
            try:
                reply = await run(self._consumer.calls, self._call(work, "route_full"))
            except (BrokerFull, BrokerUnavailable) as error:
                log.warning("routing_waits", partition=partition.number, error=str(error))
                continue
            except BrokerError as error:
                reply = error
            break
        self._insisting.pop(partition, None)
        partition.is_held_up = False
        try:
            self._settle(work, reply)
        except BrokerError as error:
            log.warning("routing_failed", partition=partition.number, error=str(error))
            self._consumer.recover(partition, work.messages)

    def _call(self, work: _Work, name: str = "route") -> Call:
        partition = work.partition
        keys = (
            partition.commit_keys[0],
            partition.stream,
            self._keys.suppressed(partition.number),
            *(self._keys.queue(name, partition.number) for name in self._channels),
        )
        arguments: list[Argument] = [partition.lease.token, GROUP, work.step, len(self._channels)]
        arguments += self._channels
        arguments += (len(work.messages), *(message.id for message in work.messages))
        arguments += work.traces
        arguments += work.deliveries
        return Call(script(name), keys, arguments)

    def _settle(self, work: _Work, reply: list[bytes] | BrokerError) -> None:
        for span in work.spans:
            span.end()
        if isinstance(reply, Fenced):
            self._consumer.lose(work.partition)
            return
        if isinstance(reply, BrokerError):
            raise reply
        self._consumer.put_back(work.partition, work.messages)
        metrics.ROUTED.inc(len(work.messages))
        for channel, head in zip(reply[::2], reply[1::2], strict=True):
            entry = DeliveryEntry.of((b"head", head, b"event", b""))
            metrics.SKIPPED.labels("suppressed").inc()
            log.debug(
                "delivery_skipped", reason="suppressed", channel=channel.decode(),
                partition=work.partition.number, event_id=entry.id.decode(), type=entry.type.decode(),
                recipient=redacted(entry.recipient),
            )  # fmt: skip

    # What is due.

    async def due(self, partitions: Sequence[Partition], room: int) -> None:
        """Promotes scheduled entries whose time has come."""
        if self._consumer.queue != EVENTS:
            for partition in partitions:
                partition.next_due_ms = -1
            return
        calls = [
            Call(
                script("promote"),
                (partition.commit_keys[0], *partition.commit_keys[4:6]),
                (partition.lease.token, PROMOTE_AT_ONCE, self._keys.tag(partition.number) + ":"),
            )
            for partition in partitions
        ]
        failure: BrokerError | None = None
        for partition, reply in zip(partitions, await run_all(self._consumer.calls, calls), strict=True):
            if isinstance(reply, Fenced):
                continue  # the next beat says so too, and acts
            if isinstance(reply, BrokerError):
                failure = reply  # told when the others know what is due next
                continue
            _, promoted, next_due = reply
            partition.next_due_ms = next_due
            if promoted:
                metrics.PROMOTED.inc(promoted)
                log.debug("promoted", partition=partition.number, entries=promoted)
        if failure:
            raise failure

    # Leaving. The consumer waits for `accept`; what is sent again behind it comes to nothing, and the next
    # owner finds it pending.

    async def drain(self, partition: Partition) -> None:
        if task := self._insisting.pop(partition, None):
            await cancel_until_done(task)

    def forget(self, partition: Partition) -> None:
        if task := self._insisting.pop(partition, None):
            task.cancel()


def _about(partition: Partition, event: _Event) -> dict[str, str | int]:
    """What a log line says of an event: nothing of the recipient but a digest."""
    return {
        "partition": partition.number,
        "event_id": event.id,
        "type": event.type,
        "recipient": redacted(event.inline.id),
        **trace_field(event.trace),
    }


def _profile(stored: bytes) -> Recipient:
    """Raises InvalidRecipient."""
    return _remembered(stored) if len(stored) <= _REMEMBERED_BYTES else parse_recipient(stored)


@lru_cache(maxsize=4_096)
def _remembered(stored: bytes) -> Recipient:
    return parse_recipient(stored)


def _parse(message: Message) -> _Event:
    """Raises MalformedEntry or InvalidInput."""
    if is_dead_letter(message.fields):
        failure, message.fields = split(message.fields)
        message.attempts, message.first_ms = failure.attempts, failure.first_ms
    version, to, event = values(message.fields, EVENT_FIELDS)
    trace = trace_of(message.fields) if len(message.fields) > _FIELDS else ""
    if checked := Checked.of(version, event):
        event_id, event_type, expires_ms = checked
        found = (message, event_id, event_type, 0, int(expires_ms or 0), parse_to(to), event, trace)
        return tuple.__new__(_Event, found)  # in half the time
    if len(event) > MAX_EVENT_BYTES:
        raise InvalidEvent("event", f"has {len(event)} bytes as JSON; the limit is {MAX_EVENT_BYTES}")
    body = parse_body(event)
    for name in ("id", "occurred_at"):  # a default would be another one at the next parsing
        if name not in body.model_fields_set:
            raise InvalidEvent(name, "is missing")
    return _Event(
        message, body.id, body.type, _ms(body.deliver_at), _ms(body.expires_at), parse_to(to), event, trace
    )


def _ms(time: datetime | None) -> int:
    return int(time.timestamp() * 1000) if time else 0
