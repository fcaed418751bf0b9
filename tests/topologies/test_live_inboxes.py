"""Who listens to an inbox hears on every shape of broker, and misses nothing when servers change."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from notifier.broker.connection import connect
from notifier.broker.slots import slot_of
from notifier.errors import BrokerError
from notifier.inbox import Inbox
from notifier.live import open_live
from tests.live.client import KEYS, Browser, all_of, content, entry, following, opened
from tests.support.topologies import Clustered, Server, Topology, binary_of, clustered, watched
from tests.support.waiting import until
from tests.topologies.traffic import Pulse

PEOPLE = [f"u{number}" for number in range(32)]
LAST = "e9999"


async def _insist(change: Callable[[], Awaitable[object]]) -> None:
    """A change that may be made twice is, until the broker takes it."""

    async def done() -> bool:
        try:
            await change()
        except BrokerError:
            return False
        return True

    await until(done, deadline=40)


class Scene:
    """All people look at their inboxes, and entries come."""

    def __init__(self, browsers: Sequence[Browser], inbox: Inbox) -> None:
        self.browsers = browsers
        self.inbox = inbox
        self.added: list[int] = []

    async def some_more(self, people: Sequence[str] = PEOPLE) -> None:
        """An entry for each."""
        number = len(self.added)
        self.added.append(number)
        await asyncio.gather(
            *(_insist(lambda who=person: self.inbox.add(who, entry(number))) for person in people)
        )

    @property
    def resets(self) -> int:
        return sum(browser.resets for browser in self.browsers)


@asynccontextmanager
async def scene(url: str) -> AsyncIterator[Scene]:
    """At the end everybody gets one entry more; then all show what is there."""
    async with (
        connect(url) as listening,
        connect(url) as changing,
        open_live(listening, KEYS, limit=100, limit_of_recipient=9, compare_every=3_600.0) as live,
    ):
        inbox = Inbox(changing, KEYS)
        browsers = [Browser(live, inbox, person) for person in PEOPLE]
        tasks = [asyncio.create_task(browser.listen(until=LAST)) for browser in browsers]
        await until(lambda: all(browser.position for browser in browsers))
        yield Scene(browsers, inbox)

        async def have_all_ended() -> bool:
            # Again and again: a primary that hung takes things to itself for a while, and then loses them.
            for person, task in zip(PEOPLE, tasks, strict=True):
                if not task.done():
                    await _insist(lambda who=person: inbox.add(who, entry(9999)))
            return all(task.done() for task in tasks)

        await until(have_all_ended, deadline=40, every=0.5)
        await all_of(*tasks)
        for person, browser in zip(PEOPLE, browsers, strict=True):
            assert browser.entries == await content(inbox, person)


@pytest.mark.slow
async def test_everybody_hears_and_can_resume(topology: Topology) -> None:
    async with opened(topology.url) as (live, inbox):
        for person in PEOPLE:
            with live.subscribe(person) as subscription:
                position = (await following(subscription)).position
                await inbox.add(person, entry(1))
                assert len((await following(subscription)).changes) == 1
            await inbox.add(person, entry(2))
            with live.subscribe(person, position) as subscription:
                assert len((await following(subscription)).changes) == 2


@pytest.mark.slow
async def test_a_primary_is_killed_and_the_sentinels_name_another(tmp_path: Path) -> None:
    with watched(tmp_path, down_after_ms=500) as topology:
        async with scene(topology.url) as played:
            for _ in range(5):
                await played.some_more()
            await asyncio.to_thread(topology.fail_over)
            for _ in range(5):
                await played.some_more()
        for browser in played.browsers:
            if not browser.resets:  # the replica had not heard of all that the primary had told
                assert browser.added == [f"e{number}" for number in (*played.added, 9999)]


@pytest.mark.slow
async def test_a_primary_that_hung_is_left_for_the_one_that_took_its_place(tmp_path: Path) -> None:
    """It wakes up and says nothing about it, until the sentinels make it a replica."""
    with watched(tmp_path, down_after_ms=500) as topology:
        async with scene(topology.url) as played:
            await played.some_more()
            hung = topology.primary()
            hung.freeze()
            try:
                await until(lambda: asyncio.to_thread(lambda: topology.primary() is not hung), deadline=30)
            finally:
                hung.thaw()
            for _ in range(5):
                await played.some_more()


@pytest.mark.slow
async def test_a_node_of_a_cluster_is_killed(tmp_path: Path) -> None:
    options = {"cluster-require-full-coverage": "no"}
    with clustered(tmp_path, replicas=True, node_timeout_ms=1_500, options=options) as cluster:
        doomed = cluster.owner_of(KEYS.inbox("u0"))
        elsewhere = [person for person in PEOPLE if cluster.owner_of(KEYS.inbox(person)) is not doomed]
        async with scene(cluster.url) as played:
            for _ in range(5):
                await played.some_more()
            await asyncio.to_thread(doomed.kill)
            machine, killed = Pulse(), time.monotonic()
            async with machine.beating(next(node for node in cluster.primaries() if node is not doomed)):
                await played.some_more(elsewhere)
                took = time.monotonic() - killed - machine.longest_pause(killed)
            assert took < 2  # the others do not wait for it
            await until(lambda: asyncio.to_thread(lambda: len(cluster.primaries()) == 3), deadline=30)
            for _ in range(5):
                await played.some_more()


@pytest.mark.slow
@pytest.mark.parametrize("server", ["valkey-9.1", "redis-7.0", "redis-8.2"])
async def test_slots_move_from_one_node_to_another(tmp_path: Path, server: str) -> None:
    with clustered(tmp_path, binary_of(server)) as cluster:
        async with scene(cluster.url) as played:
            await played.some_more()
            for partition in range(0, KEYS.partitions, 4):
                slot = slot_of(KEYS.tag(partition))
                await asyncio.to_thread(lambda s=slot: list(cluster.move(s, _other(cluster, s))))
                await played.some_more()
        assert played.resets == 0
        for browser in played.browsers:
            assert browser.added == [f"e{number}" for number in (*played.added, 9999)]


def _other(cluster: Clustered, slot: int) -> Server:
    owner = cluster.owner_of_slot(slot)
    return next(node for node in cluster.nodes if node is not owner)
