"""One attempt at a delivery: render, send, and what came of it, behind the channel's breaker."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Mapping
from datetime import timedelta

import structlog

from notifier import metrics
from notifier.breaker import Breaker
from notifier.broker.entries import Message, trace_of
from notifier.broker.partition import Partition, State
from notifier.channel import (
    Channel,
    ChannelUnavailable,
    Delivery,
    DeliveryError,
    PermanentFailure,
    Sent,
    TransientFailure,
)
from notifier.errors import InvalidInput, TemplateError
from notifier.event import EventBody, Recipient
from notifier.outcomes import usable_failure, usable_sent, words
from notifier.redaction import redacted, without_addresses

log = structlog.get_logger(__name__)

Render = Callable[[str, EventBody, Recipient], Mapping[str, str]]

ACTIVE = (State.LIVE, State.RECOVERING)
EXPIRED = Sent("expired")
_NOTHING: Mapping[str, str] = {}


class Unrenderable(PermanentFailure):
    """The template's fault, not the provider's: a mended template mends what waits in the DLQ."""


class Runner:
    """A task that sends one delivery after another, and since when it is at the present one."""

    __slots__ = ("began", "is_overdue", "task")

    def __init__(self, task: asyncio.Task[object]) -> None:
        self.task = task
        self.began = math.inf
        self.is_overdue = False


class Sender:
    """Sends for one queue. `run` must be running: it ends sends that take too long."""

    def __init__(self, queue: str, channel: Channel, render: Render, timeout: timedelta) -> None:
        self.breaker = Breaker(changed=self._breaker_changed)
        self.counts = metrics.ChannelCounts(queue, channel.name)
        self._observe_sent = self.counts.sent.observe
        self.ended = 0.0
        """When the last attempt ended, on the monotonic clock."""
        self._queue = queue
        self._name = channel.name
        self._send = channel.send
        self._blocks = bool(channel.blocks)
        self._render = render
        self._timeout = timeout.total_seconds()
        # One task looks at all sends that are under way, because a timer for each costs more than a send
        # that is quick.
        self._runners: list[Runner] = []
        self._stopped: dict[Partition, asyncio.Event] = {}

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(self._timeout / 20)
            late = time.monotonic() - self._timeout
            for runner in self._runners:
                if runner.began < late and not runner.is_overdue:
                    runner.is_overdue = True
                    runner.task.cancel()

    def runner(self) -> Runner:
        """To be asked for by each task that sends, once."""
        task = asyncio.current_task()
        assert task is not None
        runner = Runner(task)
        self._runners.append(runner)
        return runner

    async def stopped(self, partition: Partition) -> None:
        """Returns when nothing of this partition is being sent."""
        while partition.running:
            self._stopped[partition] = asyncio.Event()
            await self._stopped[partition].wait()
        self._stopped.pop(partition, None)

    async def attempt(
        self, runner: Runner, partition: Partition, message: Message
    ) -> Sent | DeliveryError | None:
        """What came of one attempt. EXPIRED: it was too late for one. None: there was none, because the
        partition went away while the channel was down."""
        entry = message.entry
        while True:
            is_probe = self.breaker.is_open and await self._admitted(partition)
            expired = entry.expires_ms and int(entry.expires_ms) <= partition.server_ms()
            if expired or partition.state not in ACTIVE:
                if is_probe:
                    self.breaker.abandoned()
                return EXPIRED if expired else None
            partition.running += 1
            runner.began = time.monotonic()
            try:
                delivery = Delivery(self._name, entry, message.attempts + 1)
                content = self._rendered(runner, delivery) if self._blocks else _NOTHING
                outcome: Sent | DeliveryError = usable_sent(await self._send(delivery, content))
            except (Exception, asyncio.CancelledError, SystemExit) as error:  # noqa: BLE001 - becomes an outcome
                outcome = self._outcome_of(error, runner, partition, message)
            finally:
                took = self._returned(runner, partition)
            if type(outcome) is not Unrenderable:
                self._observe_sent(took)
            if message.attempts:
                self.counts.retries.inc()
            if isinstance(outcome, ChannelUnavailable):
                self._unavailable(outcome)
                continue
            if self.breaker.is_open:
                self._answered(outcome, is_probe=is_probe)
            return outcome

    async def _admitted(self, partition: Partition) -> bool:
        """Waits while the breaker lets nobody through. Whether the caller sends as its probe."""
        while True:
            is_probe = await self.breaker.admitted()
            if partition.is_ours or partition.state not in ACTIVE:
                return is_probe
            if is_probe:  # while we wait for this lease, those for other partitions need not
                self.breaker.abandoned()
            if not await partition.wait_until_ours():
                return False

    def _rendered(self, runner: Runner, delivery: Delivery) -> Mapping[str, str]:
        content = self._render(self._name, delivery.event, delivery.recipient)
        now = time.monotonic()
        self.counts.rendered.observe(now - runner.began)
        runner.began = now
        return content

    def _returned(self, runner: Runner, partition: Partition) -> float:
        """How many seconds the channel took."""
        self.ended = now = time.monotonic()
        took = now - runner.began
        runner.began = math.inf
        if runner.is_overdue:  # the channel answered in the same moment, or swallowed it
            runner.is_overdue = False
            runner.task.uncancel()
        partition.running -= 1
        if not partition.running and partition in self._stopped:
            self._stopped[partition].set()
        return took

    def _outcome_of(
        self,
        error: Exception | asyncio.CancelledError | SystemExit,
        runner: Runner,
        partition: Partition,
        message: Message,
    ) -> DeliveryError:
        if isinstance(error, DeliveryError):
            return usable_failure(error)
        if isinstance(error, TemplateError):
            return Unrenderable(str(error))
        if isinstance(error, InvalidInput):
            return PermanentFailure(f"the entry does not hold an event: {error}")
        return self._raised(error, runner, partition, message)

    def _raised(
        self,
        error: Exception | asyncio.CancelledError | SystemExit,
        runner: Runner,
        partition: Partition,
        message: Message,
    ) -> TransientFailure:
        """A channel's bug is an outcome too: retried, then dead-lettered. A future of its own that was
        cancelled is such a bug; that somebody cancels us is not."""
        if isinstance(error, asyncio.CancelledError):
            if runner.is_overdue:
                runner.is_overdue = False
                if runner.task.uncancel() == 0:
                    return TransientFailure(f"no outcome within {self._timeout:g} s")
            if runner.task.cancelling():
                raise error
        log.error("channel_raised", exc_info=error, **self.about(partition, message))
        return TransientFailure(f"{type(error).__name__}: {words(error)}")

    def about(self, partition: Partition, message: Message) -> dict[str, str | int]:
        """What a log line says of a delivery: no address, no name, nothing of the recipient but a digest."""
        entry = message.entry
        return {
            "queue": self._queue,
            "partition": partition.number,
            "event_id": entry.id.decode(errors="replace"),
            "type": entry.type.decode(errors="replace"),
            "recipient": redacted(entry.recipient),
            "delivery": delivery_id(self._name, message),
            "attempt": message.attempts + 1,
            **trace_field(trace_of(message.fields)),
        }

    def _answered(self, outcome: Sent | DeliveryError, *, is_probe: bool) -> None:
        if not isinstance(outcome, Unrenderable):
            self.breaker.worked()
        elif is_probe:  # which says nothing of the provider
            self.breaker.abandoned()

    def _unavailable(self, outcome: ChannelUnavailable) -> None:
        metrics.FAILED.labels(self._name, "ChannelUnavailable").inc()
        reason, answer = without_addresses(outcome.reason), without_addresses(outcome.answer)
        log.warning("channel_unavailable", queue=self._queue, reason=reason, answer=answer)
        self.breaker.unavailable(outcome.retry_after)

    def _breaker_changed(self, is_open: bool) -> None:
        self.counts.breaker_open.set(int(is_open))
        log.warning("breaker_opened" if is_open else "breaker_closed", queue=self._queue)


def error_name(failure: DeliveryError) -> str:
    """What the failure is called in the DLQ and in metrics."""
    return "TemplateError" if isinstance(failure, Unrenderable) else type(failure).__name__


def delivery_id(channel: str, message: Message) -> str:
    """`Delivery.id`; empty for an entry that is not UTF-8."""
    try:
        return Delivery(channel, message.entry, 1).id
    except UnicodeDecodeError:
        return ""


def trace_field(traceparent: str) -> dict[str, str]:
    """What a log line says of the trace, if there is one."""
    return {"trace_id": traceparent[3:35]} if traceparent else {}
