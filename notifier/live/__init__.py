"""Who listens to an inbox is told what changes in it: at once, in order, and after an absence too.

Thousands of clients share a few connections: one that hears which inboxes have changed, and one that reads
what has changed; in a cluster one of the first kind for each partition. A client has a position in the
changes of its inbox (see `notifier.inbox`), and takes one update at a time.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any, Final

import structlog

from notifier.broker.cancelling import cancel_until_done
from notifier.broker.cluster import Cluster
from notifier.broker.connection import Client, open_line
from notifier.errors import NotifierError
from notifier.keys import Keys
from notifier.live.changes import Added, EntryState, Marked, Reset, Update, check_position
from notifier.live.feed import Feed
from notifier.live.subscription import Ended, Subscription
from notifier.metrics import STREAMS

__all__ = (
    "Added", "Ended", "EntryState", "Live", "Marked", "Reset", "Subscription", "TooManyStreams", "Update",
    "open_live",
)  # fmt: skip

log = structlog.get_logger(__name__)

COMPARE_EVERY: Final = 60.0
"""Seconds within which each position is compared once, whatever was heard."""

_PATIENCE: Final = timedelta(seconds=2)


class TooManyStreams(NotifierError):
    """`of_recipient`: the recipient has too many; otherwise the process has."""

    def __init__(self, *, of_recipient: bool, limit: int) -> None:
        self.of_recipient = of_recipient
        self.limit = limit
        super().__init__(f"there are {limit} streams already")


class Live:
    """All who listen in this process."""

    def __init__(
        self, client: Client, keys: Keys, *, limit: int, limit_of_recipient: int, compare_every: float
    ) -> None:
        self._client = client
        self._keys = keys
        self._limit = limit
        self._limit_of_recipient = limit_of_recipient
        self._compare_every = compare_every
        self._line = open_line(client, _PATIENCE)
        self._feeds: dict[int, tuple[Feed, asyncio.Task[None]]] = {}
        self._of: Counter[str] = Counter()
        self._streams = 0
        self._stopping = False

    def subscribe(self, recipient_id: str, position: str | None = None) -> Subscription:
        """Listens to an inbox: from now on, or from the position of an earlier update.

        Raises InvalidInput for what is no position, TooManyStreams, and Ended.
        """
        position = "" if position is None else check_position(position)
        if self._stopping:
            raise Ended
        if self._streams >= self._limit:
            raise TooManyStreams(of_recipient=False, limit=self._limit)
        if self._of[recipient_id] >= self._limit_of_recipient:
            raise TooManyStreams(of_recipient=True, limit=self._limit_of_recipient)
        channel = f"{self._keys.inbox(recipient_id)}:changes".encode()
        feed = self._feed(self._keys.partition_of(recipient_id))
        subscription = Subscription(recipient_id, channel, position, feed, self._left)
        feed.add(subscription)
        self._of[recipient_id] += 1
        self._count(1)
        return subscription

    def _left(self, subscription: Subscription) -> None:
        self._of[subscription.recipient_id] -= 1
        if not self._of[subscription.recipient_id]:
            del self._of[subscription.recipient_id]
        self._count(-1)

    def _count(self, change: int) -> None:
        self._streams += change
        STREAMS.inc(change)

    def stop(self) -> None:
        """Tells all clients to leave, and takes no more."""
        self._stopping = True
        for feed, _ in self._feeds.values():
            feed.end_all()

    async def aclose(self) -> None:
        """Stops, and closes what it has opened."""
        self.stop()
        if tasks := [task for _, task in self._feeds.values()]:
            await cancel_until_done(*tasks)
        await self._line.close()

    def _feed(self, partition: int) -> Feed:
        if not isinstance(self._client, Cluster):
            partition = 0  # one server has them all
        if partition not in self._feeds:
            feed = Feed(self._line, self._connector(partition), self._compare_every)
            self._feeds[partition] = feed, asyncio.create_task(self._serve(partition, feed))
        return self._feeds[partition][0]

    async def _serve(self, partition: int, feed: Feed) -> None:
        try:
            await feed.run()
        except Exception:
            # A bug; the API goes on, and its clients come again, to another feed.
            log.exception("feed_crashed", partition=partition)
        finally:
            del self._feeds[partition]
            feed.end_all()

    def _connector(self, partition: int) -> Callable[[], Awaitable[Any]]:
        client, tag = self._client, self._keys.tag(partition)
        if not isinstance(client, Cluster):
            return lambda: _connected(client.connection_pool)
        first = True

        async def connect_to_node() -> Any:
            nonlocal first
            if not first:  # the last connection did not last, and the reason may be that the slot moved
                client.doubt()
            first = False
            return await _connected(client.pool(await client.node_of(tag)))

        return connect_to_node


async def _connected(pool: Any) -> Any:
    connection = pool.make_connection()
    await connection.connect()
    return connection


@asynccontextmanager
async def open_live(
    client: Client,
    keys: Keys,
    *,
    limit: int,
    limit_of_recipient: int,
    compare_every: float = COMPARE_EVERY,
) -> AsyncIterator[Live]:
    """`limit` and `limit_of_recipient` count streams."""
    live = Live(client, keys, limit=limit, limit_of_recipient=limit_of_recipient, compare_every=compare_every)
    try:
        yield live
    finally:
        await live.aclose()
