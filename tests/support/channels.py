"""A channel whose outcomes a test decides, address by address. It needs no template."""

from __future__ import annotations

import asyncio
import os
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from notifier.channel import (
    Address,
    Block,
    ChannelUnavailable,
    Delivery,
    DeliveryError,
    InboxEntry,
    PermanentFailure,
    Sent,
    TransientFailure,
)
from notifier.event import FcmDevice, Recipient
from tests.support.ledger import Ledger


@dataclass(frozen=True, slots=True)
class Attempt:
    """One call of `send`."""

    event_id: str
    recipient: str
    address: str
    number: int
    delivery_id: str
    at: float


class ScriptedChannel:
    """Delivers, unless told otherwise.

    Addresses are the recipient's mail address, and the token of each FCM device. `answers[address]` are
    the outcomes of its next attempts, one after the other; `always[address]` is that of all further ones.
    A gate that `hold` made keeps attempts of an address waiting until it is set.
    """

    def __init__(self, name: str = "post") -> None:
        self.name = name
        self.blocks: Sequence[Block] = ()
        self.answers: dict[str, list[BaseException | object]] = defaultdict(list)
        self.always: dict[str, BaseException] = {}
        self.gates: dict[str, asyncio.Event] = {}
        self.attempts: list[Attempt] = []
        self.sent: list[Attempt] = []
        self.opened = 0
        self.closed = 0
        self.at_once = 0
        self.most_at_once = 0

    def hold(self, address: str) -> asyncio.Event:
        return self.gates.setdefault(address, asyncio.Event())

    def attempts_to(self, address: str) -> list[str]:
        return [attempt.event_id for attempt in self.attempts if attempt.address == address]

    def sent_to(self, address: str) -> list[str]:
        return [attempt.event_id for attempt in self.sent if attempt.address == address]

    def addresses(self, recipient: Recipient) -> Sequence[Address]:
        found = [Address("email", recipient.email)] if recipient.email else []
        return found + [Address(d.token[:16], d.token) for d in recipient.devices if isinstance(d, FcmDevice)]

    async def open(self) -> None:
        self.opened += 1

    async def close(self) -> None:
        self.closed += 1

    async def send(self, delivery: Delivery, content: Mapping[str, str]) -> Sent:
        address = delivery.address
        attempt = Attempt(
            delivery.event_id, delivery.recipient_id, address, delivery.attempt, delivery.id, time.monotonic()
        )
        self.attempts.append(attempt)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            if gate := self.gates.get(address):
                await gate.wait()
            answer = self.answers[address].pop(0) if self.answers[address] else self.always.get(address)
            if isinstance(answer, BaseException):
                raise answer
        finally:
            self.at_once -= 1
        self.sent.append(attempt)
        return Sent("250 taken") if answer is None else answer  # type: ignore[return-value]


_OUTCOMES: Mapping[str, Sequence[type[DeliveryError]]] = {
    "flaky": (TransientFailure,),
    "turns": (TransientFailure,),
    "stuck": (TransientFailure,),
    "twice": (TransientFailure, TransientFailure),
    "second": (PermanentFailure,),
    "sinks": (TransientFailure, PermanentFailure),
}
"""What the first attempts at an address end in, by the letters that it begins with."""


class LedgerChannel:
    """For processes of their own: notes every delivery in a file, before it says yes.

    What an address begins with decides, see `_OUTCOMES`; and `slow` takes 50 ms; `poison` ends the process
    at once, and `turns` does so at its second attempt; `stuck` finds the channel unavailable at its second
    one, unless it is `unstuck`; `bad` always fails for good, unless it is `mended`.
    """

    name = "post"
    blocks: Sequence[Block] = ()

    def __init__(self, ledger: Ledger, *, unstuck: bool = False, mended: bool = False) -> None:
        self._ledger = ledger
        self._unstuck = unstuck
        self._mended = mended

    def addresses(self, recipient: Recipient) -> Sequence[Address]:
        return [Address("email", recipient.email)] if recipient.email else []

    async def open(self) -> None:
        """Nothing to open."""

    async def close(self) -> None:
        """Nothing to close."""

    async def send(self, delivery: Delivery, content: Mapping[str, str]) -> Sent:
        address, attempt = delivery.address, delivery.attempt
        if address.startswith("poison") or (address.startswith("turns") and attempt > 1):
            self._ledger.note("poisoned", address, delivery.event_id)
            os._exit(99)
        if address.startswith("slow"):
            await asyncio.sleep(0.05)
        for beginning, outcomes in _OUTCOMES.items():
            if address.startswith(beginning) and attempt <= len(outcomes):
                raise outcomes[attempt - 1]("as was said")
        if address.startswith("bad") and not self._mended:
            raise PermanentFailure("always")
        if address.startswith("stuck") and not self._unstuck:
            self._ledger.note("stuck", address, delivery.event_id)
            raise ChannelUnavailable("away", retry_after=60)
        self._ledger.note("sent", delivery.address, delivery.event_id)
        return Sent()


class BoxChannel:
    """An inbox for everybody, without a template. Notes that it was asked for an entry; the entry itself is
    in the server, where no note could be wrong about it."""

    name = "box"
    blocks: Sequence[Block] = ()

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def addresses(self, recipient: Recipient) -> Sequence[Address]:
        return [Address("inbox", recipient.id)]

    async def open(self) -> None:
        """Nothing to open."""

    async def close(self) -> None:
        """Nothing to close."""

    async def send(self, delivery: Delivery, content: Mapping[str, str]) -> Sent:
        self._ledger.note("boxed", delivery.recipient_id, delivery.event_id)
        entry = InboxEntry(
            delivery.id, delivery.event_type, "", "", data={"event": delivery.event_id},
            created_ms=delivery.accepted_ms,
        )  # fmt: skip
        return Sent(inbox=entry)


def open_ledger_channel(environ: Mapping[str, str]) -> LedgerChannel:
    """The factory for `NOTIFIER_CHANNELS`; `LEDGER` is the file."""
    return LedgerChannel(Ledger(Path(environ["LEDGER"])), unstuck="UNSTUCK" in environ)
