"""Reads what has become of inboxes for those who listen to them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from itertools import islice
from typing import Any, Final

import structlog

from notifier.broker.cancelling import Tasks
from notifier.broker.scripts import Call, Caller, run_all
from notifier.errors import BrokerError
from notifier.live.changes import Update, ask_since, read_answer
from notifier.live.subscription import Subscription
from notifier.live.wake_ups import WakeUps

log = structlog.get_logger(__name__)

READ_AT_ONCE: Final = 200
"""Inboxes in one round trip."""

KNOWN_FOR: Final = 12 * 3600.0
"""Seconds: half of what `inbox_changed.lua` keeps changes for."""

_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 1.0


class Feed:
    """The subscriptions that share a connection: all of them, or in a cluster those of one partition.

    A subscription is looked at when a wake-up says so; when its channel begins to be heard, and so after each
    reconnect; and every `compare_every` seconds in any case. Looking compares its position with the server's:
    so nothing hangs on any one wake-up.
    """

    def __init__(self, caller: Caller, connect: Callable[[], Awaitable[Any]], compare_every: float) -> None:
        """`connect` opens a connection to the server that has these inboxes."""
        self._caller = caller
        self._compare_every = compare_every
        self._wake_ups = WakeUps(connect, self)
        self._inboxes: dict[bytes, list[Subscription]] = {}
        self._due: dict[Subscription, None] = {}
        self._wake = asyncio.Event()

    def add(self, subscription: Subscription) -> None:
        channel = subscription.channel
        self._inboxes.setdefault(channel, []).append(subscription)
        if self._wake_ups.listen(channel):  # otherwise later, when nothing can be missed any more
            self.look(subscription)

    def remove(self, subscription: Subscription) -> None:
        self._due.pop(subscription, None)
        subscriptions = self._inboxes.get(subscription.channel, [])
        if subscription in subscriptions:
            subscriptions.remove(subscription)
            if not subscriptions:
                del self._inboxes[subscription.channel]
                self._wake_ups.leave(subscription.channel)

    def look(self, subscription: Subscription) -> None:
        """Read what has become of its inbox, soon."""
        self._due[subscription] = None
        self._wake.set()

    def end_all(self) -> None:
        """Every client is to leave."""
        for subscriptions in self._inboxes.values():
            for subscription in subscriptions:
                subscription.end()

    # What wake-ups tell.

    def heard(self, channel: bytes, position: bytes) -> None:
        for subscription in self._inboxes.get(channel, ()):
            subscription.hear(position.decode())

    def listening(self, channel: bytes) -> None:
        for subscription in self._inboxes.get(channel, ()):
            self.look(subscription)

    def deaf(self) -> None:
        for subscriptions in self._inboxes.values():
            for subscription in subscriptions:
                self.look(subscription)

    # Reading.

    async def run(self) -> None:
        """Serves the subscriptions until it is cancelled."""
        async with Tasks() as tasks:
            tasks.create_task(self._wake_ups.run())
            tasks.create_task(self._read())
            tasks.create_task(self._compare())

    async def _compare(self) -> None:
        while True:
            channels = list(self._inboxes)
            steps = range(0, len(channels), READ_AT_ONCE)
            for start in steps:
                for channel in channels[start : start + READ_AT_ONCE]:
                    self.listening(channel)
                await asyncio.sleep(self._compare_every / len(steps))
            if not channels:
                await asyncio.sleep(self._compare_every)

    async def _read(self) -> None:
        pause = 0.0
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._due:
                failure = await self._read_some(self._take_due())
                if failure is None:
                    pause = 0.0
                    continue
                if not pause:
                    log.warning("inboxes_not_read", error=str(failure), inboxes=len(self._inboxes))
                pause = min(max(2 * pause, _FIRST_PAUSE), _LONGEST_PAUSE)
                await asyncio.sleep(pause)

    def _take_due(self) -> Sequence[Subscription]:
        due = list(islice(self._due, READ_AT_ONCE))
        for subscription in due:
            del self._due[subscription]
            if not subscription.is_ready:
                subscription.look_later()
        return [one for one in due if one.is_ready]

    async def _read_some(self, subscriptions: Iterable[Subscription]) -> BrokerError | None:
        """Whoever asks the same shares the answer. What failed is looked at again."""
        asked: dict[tuple[bytes, str, bool], list[Subscription]] = {}
        now = time.monotonic()
        for one in subscriptions:
            knew = one.known_at is not None and now - one.known_at < KNOWN_FOR
            asked.setdefault((one.channel, one.position, knew), []).append(one)
        try:
            replies = await run_all(self._caller, [_call(*question) for question in asked])
        except BrokerError as error:
            replies = [error] * len(asked)
        failure = None
        for same, reply in zip(asked.values(), replies, strict=True):
            if isinstance(reply, BrokerError):
                failure = reply
                for one in same:
                    if not one.ended:
                        self.look(one)
            else:
                _give(same, read_answer(reply), now)
        return failure


def _call(channel: bytes, position: str, knew: bool) -> Call:
    return ask_since(channel.decode().removesuffix(":changes"), position, knew=knew)


def _give(subscriptions: Iterable[Subscription], answer: Update | str, now: float) -> None:
    for one in subscriptions:
        if isinstance(answer, str):
            one.position, one.known_at = answer, now
        else:
            if not answer.more:
                one.known_at = now
            one.give(answer)
