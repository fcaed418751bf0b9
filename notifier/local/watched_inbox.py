"""Tells of new inbox entries: nothing sends them anywhere, so there is no far side that would see them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from notifier.channel import Address, Block, Channel, Delivery, InboxEntry, Sent
from notifier.errors import BrokerError
from notifier.event import Recipient
from notifier.inbox import Inbox

_PAGE: Final = 100
_LOOK_AGAIN: Final = 0.01
_LOOKS: Final = 200


class WatchedInbox:
    """A channel in front of the one that makes inbox entries. `arrived` is told once an entry is stored."""

    def __init__(self, channel: Channel, arrived: Callable[[str, InboxEntry], None]) -> None:
        self._channel = channel
        self._arrived = arrived
        self._made: asyncio.Queue[tuple[str, InboxEntry]] = asyncio.Queue()
        self._stored: set[tuple[str, str]] = set()  # recipient and entry: what the last look found

    @property
    def name(self) -> str:
        return self._channel.name

    @property
    def blocks(self) -> Sequence[Block]:
        return self._channel.blocks

    def addresses(self, recipient: Recipient) -> Sequence[Address]:
        return self._channel.addresses(recipient)

    async def open(self) -> None:
        await self._channel.open()

    async def close(self) -> None:
        await self._channel.close()

    async def send(self, delivery: Delivery, content: Mapping[str, str]) -> Sent:
        sent = await self._channel.send(delivery, content)
        if sent.inbox is not None:
            self._made.put_nowait((delivery.recipient_id, sent.inbox))
        return sent

    async def watch(self, inbox: Inbox) -> None:
        """Until cancelled: waits for each entry that was made to be stored with its acknowledgement."""
        while True:
            recipient_id, entry = await self._made.get()
            for _ in range(_LOOKS):
                if await self._is_stored(inbox, recipient_id, entry):
                    self._arrived(recipient_id, entry)
                    break
                await asyncio.sleep(_LOOK_AGAIN)

    async def _is_stored(self, inbox: Inbox, recipient_id: str, entry: InboxEntry) -> bool:
        """A look remembers all that it saw: of many entries that came at once, most need none of theirs."""
        wanted = (recipient_id, entry.id)
        if wanted in self._stored:
            return True
        self._stored.clear()
        after = None
        while True:
            try:
                page = await inbox.list(recipient_id, archived="include", page_size=_PAGE, after=after)
            except BrokerError:
                return False
            self._stored.update((recipient_id, one.entry.id) for one in page.entries)
            oldest = page.entries[-1].entry.created_ms if page.entries else 0
            if wanted in self._stored or oldest < entry.created_ms:
                return wanted in self._stored
            if page.after is None:
                return oldest > entry.created_ms  # younger ones have pushed it out of a full inbox
            after = page.after
