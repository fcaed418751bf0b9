"""The lanes of one worker: messages for one address wait for each other, all others go ahead.

Pure bookkeeping. A lane is ready when it has a message and nobody works on it.
"""

from __future__ import annotations

import asyncio
from collections import deque

from notifier.broker.entries import Message
from notifier.broker.partition import Partition


class Lane:
    """The queue of one address while something for it is in hand.

    `parked` lanes are fed from their list in the server; what arrives meanwhile goes behind that list.
    `behind` counts the items of the list that are not in hand.
    """

    __slots__ = ("behind", "key", "parked", "partition", "waiting")

    def __init__(self, partition: Partition, key: bytes, waiting: list[Message]) -> None:
        self.partition = partition
        self.key = key
        self.waiting = waiting  # most lanes hold one message, for which a deque is large
        self.parked = False
        self.behind = 0


class Lanes:
    """All lanes in hand, and the ready ones in the order in which they became ready."""

    def __init__(self) -> None:
        self._lanes: dict[Partition, dict[bytes, Lane]] = {}
        self._ready: deque[Lane] = deque()
        self._idle: deque[asyncio.Future[None]] = deque()
        self._called = False  # a runner that has not come yet: until then, no other need be called

    def find(self, partition: Partition, key: bytes) -> Lane | None:
        lanes = self._lanes.get(partition)
        return lanes.get(key) if lanes else None

    def of(self, partition: Partition) -> dict[bytes, Lane]:
        """The lanes of a partition by their keys; for `open`, or to be read."""
        return self._lanes.setdefault(partition, {})

    def open(self, partition: Partition, lanes: dict[bytes, Lane], message: Message) -> None:
        """Adds a lane for a message from the stream, to what `of` gave and where it has none."""
        lane = lanes[message.lane] = Lane(partition, message.lane, [message])
        self._ready.append(lane)

    def append(self, partition: Partition, message: Message) -> None:
        """Puts a message from the stream at the end of its lane."""
        lanes = self.of(partition)
        lane = lanes.get(message.lane)
        if lane is None:
            self.open(partition, lanes, message)
        else:
            lane.waiting.append(message)

    def add_parked(self, partition: Partition, key: bytes, messages: list[Message], behind: int) -> None:
        """Adds a lane whose time has come, with the first items of its list."""
        lane = self._lanes.setdefault(partition, {})[key] = Lane(partition, key, list(messages))
        lane.parked = True
        lane.behind = behind
        self._ready.append(lane)

    def next(self, lane: Lane) -> None:
        """The lane's first message is dealt with: the lane is ready for the next, or gone."""
        del lane.waiting[0]
        if lane.waiting:
            self._ready.append(lane)
        else:
            self.remove(lane)

    def remove(self, lane: Lane) -> None:
        lanes = self._lanes.get(lane.partition)
        if lanes and lanes.get(lane.key) is lane:
            del lanes[lane.key]

    def drop(self, partition: Partition) -> list[Lane]:
        """Forgets all lanes of a partition, and returns them; ready ones are passed over when their turn
        comes."""
        lanes = list(self._lanes.pop(partition, {}).values())
        for lane in lanes:
            lane.waiting.clear()
        return lanes

    def wake(self) -> None:
        """Calls one idle runner, if a lane is ready. Each that takes a lane calls the next."""
        while self._ready and self._idle and not self._called:
            runner = self._idle.popleft()
            if not runner.done():
                runner.set_result(None)
                self._called = True

    def take(self) -> Lane | None:
        """The next ready lane, if there is one."""
        while self._ready:
            lane = self._ready.popleft()
            if lane.waiting:
                if self._ready and self._idle:
                    self.wake()
                return lane
        return None

    async def wait(self) -> None:
        """Until a lane may be ready."""
        runner = asyncio.get_running_loop().create_future()
        self._idle.append(runner)
        try:
            await runner
        except asyncio.CancelledError:
            if not runner.cancelled():  # it had been called, so somebody else must come
                self._called = False
                self.wake()
            raise
        self._called = False
