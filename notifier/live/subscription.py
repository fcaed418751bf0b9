"""One client that listens to one inbox."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Self

from notifier.live.changes import Update, order

if TYPE_CHECKING:
    from notifier.live.feed import Feed


class Ended(Exception):
    """The process stops, or the part of it that listens."""


class Subscription:
    """Holds one update at most: the next is read from the server when the client has taken this one, so a
    slow client costs no memory. To what it did not take in time a reset is the answer.

    Leave it as a context manager does.
    """

    __slots__ = (
        "_feed",
        "_left",
        "_look_again",
        "_update",
        "_waiter",
        "channel",
        "ended",
        "known_at",
        "position",
        "recipient_id",
    )

    def __init__(
        self,
        recipient_id: str,
        channel: bytes,
        position: str,
        feed: Feed,
        left: Callable[[Subscription], None],
    ) -> None:
        """`left` is called once, when the client has gone."""
        self.recipient_id = recipient_id
        self.channel = channel
        self.position = position
        """That of the latest update; empty at first when the client begins anew."""
        self.known_at: float | None = None
        """When this was the latest position there was, in monotonic seconds."""
        self.ended = False
        self._feed = feed
        self._left = left
        self._look_again = False
        self._update: Update | None = None
        self._waiter: asyncio.Future[None] | None = None

    async def next(self, timeout: float) -> Update | None:
        """The next update; the first comes at once and says at least the counts. None after `timeout`
        seconds without one. Raises Ended."""
        if self._update is None and not self.ended:
            loop = asyncio.get_running_loop()
            self._waiter = loop.create_future()
            timer = loop.call_later(timeout, self._wake)
            try:
                await self._waiter
            finally:
                timer.cancel()
                self._waiter = None
        if self.ended:
            raise Ended
        update, self._update = self._update, None
        if update is not None and (update.more or self._look_again):
            self._look_again = False
            self._feed.look(self)
        return update

    def end(self) -> None:
        """The client is to leave."""
        self.ended = True
        self._wake()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()
        self._feed.remove(self)
        self._left(self)

    # The feed's side.

    @property
    def is_ready(self) -> bool:
        """Whether the client has taken what was there."""
        return self._update is None and not self.ended

    def look_later(self) -> None:
        """When the client has taken what is there."""
        self._look_again = True

    def hear(self, position: str) -> None:
        """There is a change of this position."""
        if not self.position or order(position) > order(self.position):
            self._feed.look(self)

    def give(self, update: Update) -> None:
        self.position = update.position
        self._update = update
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
