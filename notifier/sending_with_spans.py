"""Sending with spans: one for the attempt, below it one for rendering and one for what the provider took."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta

from notifier.broker.entries import Message
from notifier.broker.partition import Partition
from notifier.channel import Address, Block, Channel, Delivery, DeliveryError, Sent
from notifier.event import EventBody, Recipient
from notifier.sending import EXPIRED, Render, Runner, Sender, delivery_id, error_name
from notifier.tracing import Tracing


class TracedSender(Sender):
    """A `Sender` whose attempts are spans."""

    def __init__(
        self, queue: str, channel: Channel, render: Render, timeout: timedelta, *, tracing: Tracing
    ) -> None:
        def rendered(name: str, event: EventBody, recipient: Recipient) -> Mapping[str, str]:
            with tracing.step(f"render {name}", calls_out=False):
                return render(name, event, recipient)

        super().__init__(queue, _TracedChannel(channel, tracing), rendered, timeout)
        self._tracing = tracing

    async def attempt(
        self, runner: Runner, partition: Partition, message: Message
    ) -> Sent | DeliveryError | None:
        name = delivery_id(self._name, message)
        with self._tracing.delivering(self._queue, message, partition.number, name) as span:
            outcome = await super().attempt(runner, partition, message)
            if isinstance(outcome, DeliveryError):
                span.set_attribute("notifier.outcome", error_name(outcome))
                self._tracing.failed(span, outcome)
            else:
                untried = "handed over" if outcome is None else "expired" if outcome is EXPIRED else ""
                span.set_attribute("notifier.outcome", untried or "delivered")
            return outcome


class _TracedChannel:
    """The channel, whose sends are spans."""

    def __init__(self, channel: Channel, tracing: Tracing) -> None:
        self.name: str = channel.name
        self.blocks: Sequence[Block] = channel.blocks
        self._channel = channel
        self._tracing = tracing

    def addresses(self, recipient: Recipient) -> Sequence[Address]:
        return self._channel.addresses(recipient)

    async def open(self) -> None:
        await self._channel.open()

    async def close(self) -> None:
        await self._channel.close()

    async def send(self, delivery: Delivery, content: Mapping[str, str]) -> Sent:
        with self._tracing.step(f"send {self.name}", calls_out=True):
            return await self._channel.send(delivery, content)
