"""Which nodes of a cluster hang: they hold their connections and say nothing.

A call that goes to several nodes would wait for such a node until its timeout is over, and each call after it
would again. So a node that has not answered somebody for a while is asked for a PONG on a connection of its
own. One that is merely slow gives it. When none comes, whoever waits for the node is told at once, and others
are told without waiting, until it answers again.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Final

from notifier.broker.url import Address
from notifier.errors import BrokerUnavailable

SLOW: Final = 0.5
"""Seconds that somebody waits for a node before it is asked whether it is there."""

PATIENCE: Final = timedelta(milliseconds=500)
"""For a PONG, or another answer that costs a node nothing."""

PINGS: Final = 2
"""Unanswered ones that make a node hung: one may be due to a process that had no time to read its answer."""

_AGAIN = 0.2  # seconds between two questions to a node that hangs


def is_hung(node: Address) -> BrokerUnavailable:
    """What those are told who wait for it; what was sent to it may have run."""
    return BrokerUnavailable(f"the broker can't be reached: {node} does not answer")


class Pulse:
    """Of the nodes of one cluster, for all that one event loop sends to them."""

    def __init__(self, answers: Callable[[Address], Awaitable[bool]]) -> None:
        """`answers` sends a PING, and waits for `PATIENCE`."""
        self.hung: set[Address] = set()
        self._answers = answers
        self._limits: defaultdict[Address, set[asyncio.Timeout]] = defaultdict(set)
        self._watches: dict[Address, asyncio.Task[None]] = {}

    @asynccontextmanager
    async def watched(self, node: Address) -> AsyncIterator[None]:
        """Wait for the node inside; raises BrokerUnavailable as soon as it is known to hang."""
        if node in self.hung:
            raise is_hung(node)
        suspicion = asyncio.get_running_loop().call_later(SLOW, self._watch, node)
        limits = self._limits[node]
        limit = asyncio.timeout(None)
        try:
            async with limit:
                limits.add(limit)
                yield
        except TimeoutError:
            raise is_hung(node) from None
        finally:
            suspicion.cancel()
            limits.discard(limit)

    def _watch(self, node: Address) -> None:
        if node not in self._watches:
            self._watches[node] = asyncio.create_task(self._ask(node))

    async def _ask(self, node: Address) -> None:
        try:
            unanswered = 0
            while not await self._answers(node):
                unanswered += 1
                if unanswered >= PINGS:
                    self._tell(node)
                    await asyncio.sleep(_AGAIN)
        finally:
            self.hung.discard(node)
            del self._watches[node]

    def _tell(self, node: Address) -> None:
        self.hung.add(node)
        now = asyncio.get_running_loop().time()
        for limit in self._limits.pop(node, ()):
            limit.reschedule(now)

    async def forget(self, *nodes: Address) -> None:
        """They serve nothing any more."""
        watches = [self._watches[node] for node in nodes if node in self._watches]
        for watch in watches:
            watch.cancel()
        await asyncio.gather(*watches, return_exceptions=True)
        for node in nodes:
            self._limits.pop(node, None)

    async def close(self) -> None:
        await self.forget(*self._watches)
