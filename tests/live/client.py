"""What a browser does with updates: keeps a list of its own, and resumes from the last event it processed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

from notifier.broker.connection import connect
from notifier.channel import InboxEntry
from notifier.inbox import Inbox, StoredEntry
from notifier.keys import Keys
from notifier.live import Added, Live, Marked, Reset, Subscription, Update, open_live
from notifier.live.changes import Change, order
from tests.support.waiting import DEADLINE

KEYS = Keys()


def entry(number: int) -> InboxEntry:
    return InboxEntry(f"e{number}", "like", f"Title {number}", "A body", created_ms=1_000 + number)


@asynccontextmanager
async def opened(url: str, **options: Any) -> AsyncIterator[tuple[Live, Inbox]]:
    """Listens over one client, and changes over another."""
    given = {"limit": 10_000, "limit_of_recipient": 100, "compare_every": 3_600.0} | options
    async with (
        connect(url) as listening,
        connect(url) as changing,
        open_live(listening, KEYS, **given) as live,
    ):
        yield live, Inbox(changing, KEYS)


async def following(subscription: Subscription) -> Update:
    """The next update; fails when none comes."""
    update = await subscription.next(DEADLINE)
    assert update is not None, f"nothing came for {subscription.recipient_id}"
    return update


class Browser:
    """Looks at one inbox. `added` are the ids of all entry events, in the order in which they came."""

    def __init__(self, live: Live, inbox: Inbox, recipient_id: str) -> None:
        self.position: str | None = None
        self.added: list[str] = []
        self.resets = 0
        self.entries: dict[str, tuple[int | None, ...]] = {}
        self.unread = -1
        self._live = live
        self._inbox = inbox
        self._recipient_id = recipient_id

    async def listen(self, until: str) -> None:
        """Until the entry of this id is shown."""
        with self._live.subscribe(self._recipient_id, self.position) as subscription:
            while until not in self.entries:
                await self.process(await following(subscription))

    async def process(self, update: Update, at_most: int = 1_000) -> None:
        """The first events of an update, and nothing of the rest."""
        for change in update.changes[:at_most]:
            await self._process(change)
        if len(update.changes) < at_most:
            self._move_to(update.position)
            self.unread = update.counts.unread

    async def _process(self, change: Change) -> None:
        self._move_to(change.position)
        match change:
            case Added(stored=stored):
                self.added.append(stored.entry.id)
                self._put([stored])
            case Marked(states=None):
                await self._load()
            case Marked(states=states):
                for one in states or ():
                    self.entries[one.id] = (one.seen_ms, one.read_ms, one.archived_ms)
            case Reset():
                self.resets += 1
                await self._load()

    def _move_to(self, position: str) -> None:
        if self.position is not None:
            assert order(position) >= order(self.position) or self.resets
        self.position = position

    def _put(self, found: Iterable[StoredEntry]) -> None:
        for one in found:
            self.entries[one.entry.id] = (one.seen_ms, one.read_ms, one.archived_ms)

    async def _load(self) -> None:
        self.entries = await content(self._inbox, self._recipient_id)


async def content(inbox: Inbox, recipient_id: str) -> dict[str, tuple[int | None, ...]]:
    """Of every entry when it was seen, read and archived."""
    found: dict[str, tuple[int | None, ...]] = {}
    after = None
    while True:
        page = await inbox.list(recipient_id, archived="include", page_size=100, after=after)
        found |= {one.entry.id: (one.seen_ms, one.read_ms, one.archived_ms) for one in page.entries}
        after = page.after
        if after is None:
            return found


async def all_of(*work: Any) -> None:
    async with asyncio.timeout(DEADLINE):
        await asyncio.gather(*work)
