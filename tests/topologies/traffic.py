"""Events that go on being published while something happens to the broker, and what became of them."""

from __future__ import annotations

import asyncio
import itertools
import sys
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager

import redis.asyncio

from notifier.errors import BrokerError
from notifier.publisher import AsyncPublisher
from tests.support.channels import ScriptedChannel
from tests.support.ledger import Line, Verdict, judge
from tests.support.service import address_of, ping
from tests.support.topologies import Server
from tests.support.waiting import until

PEOPLE = [f"u{i}" for i in range(60)]  # spread over all partitions, and so over all nodes


class Pulse:
    """Tells how long this machine stood still, for which the service is not to blame: on this event loop a
    server that is well is asked for one answer after the other."""

    def __init__(self) -> None:
        self._answered = [time.monotonic()]

    @asynccontextmanager
    async def beating(self, server: Server) -> AsyncIterator[None]:
        """While the block runs."""
        stop = asyncio.Event()

        async def beat(client: redis.asyncio.Redis) -> None:
            while not stop.is_set():
                await client.ping()
                self._answered.append(time.monotonic())
                try:
                    async with asyncio.timeout(0.01):
                        await stop.wait()
                except TimeoutError:
                    pass

        async with (
            redis.asyncio.Redis(port=server.port, password=server.password) as client,
            asyncio.TaskGroup() as tasks,
        ):
            tasks.create_task(beat(client))
            try:
                yield
            finally:
                stop.set()

    def longest_pause(self, since: float) -> float:
        """Seconds without an answer, after `since` on the monotonic clock, until now."""
        return _longest_gap(since, self._answered)


def _longest_gap(since: float, times: Iterable[float]) -> float:
    found = [since, *(at for at in times if at > since), time.monotonic()]
    return max(later - earlier for earlier, later in itertools.pairwise(found))


class Traffic:
    """A publisher that repeats what was not accepted, as its documentation says, until it is."""

    def __init__(
        self, publisher: AsyncPublisher, post: ScriptedChannel, people: Sequence[str] = PEOPLE
    ) -> None:
        self.people = people
        self.accepted: dict[str, list[str]] = defaultdict(list)
        self.refused = 0
        self._publisher = publisher
        self._post = post
        self._number = 0

    @property
    def count(self) -> int:
        return sum(map(len, self.accepted.values()))

    async def publish(self, people: Sequence[str]) -> None:
        """One event for each."""
        self._number += 1
        events = [ping(f"{person}-{self._number}", person) for person in people]
        while True:
            try:
                await self._publisher.publish_many(events)
                break
            except BrokerError:
                self.refused += 1
                await asyncio.sleep(0.05)
        for event, person in zip(events, people, strict=True):
            self.accepted[address_of(person)].append(event["id"])

    @asynccontextmanager
    async def flowing(self, pause: float = 0.01) -> AsyncIterator[None]:
        """Publishes for ten people at a time, again and again, while the block runs."""
        stop = asyncio.Event()

        async def flow() -> None:
            at = 0
            while not stop.is_set():
                await self.publish([self.people[(at + i) % len(self.people)] for i in range(10)])
                at += 10
                await asyncio.sleep(pause)

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(flow())
            try:
                yield
            finally:
                stop.set()

    async def some_more(self, events: int = 200) -> None:
        """Returns when so many more have been accepted and delivered."""
        accepted, sent = self.count + events, len(self._sent()) + events
        await until(lambda: self.count >= accepted and len(self._sent()) >= sent, deadline=30)

    def _sent(self) -> list[Line]:
        people = {address_of(person) for person in self.people}
        return [
            Line("sent", one.address, one.event_id, 0, one.at)
            for one in self._post.sent
            if one.address in people
        ]

    def verdict(self) -> Verdict:
        return judge(self.accepted, self._sent())

    def longest_silence(self, since: float) -> float:
        """Seconds without any delivery, after `since` on the monotonic clock, until now."""
        return _longest_gap(since, (line.at for line in self._sent()))

    def report(self, what: str, since: float) -> None:
        verdict = self.verdict()
        sys.stdout.write(
            f"{what}: {self.count} accepted, {len(verdict.missing)} lost, {verdict.duplicates} twice, "
            f"{self.refused} publishes repeated, no delivery for {self.longest_silence(since):.1f} s\n"
        )
