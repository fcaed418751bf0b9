"""A wake-up that is lost loses no change: connections cut, servers stopped and hung, rights denied."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from notifier.broker.connection import connect
from notifier.broker.scripts import ask
from notifier.inbox import Inbox
from notifier.live import Live, feed, wake_ups
from tests.live.client import KEYS, Browser, all_of, content, entry, following, opened
from tests.support.brokers import DurableBroker
from tests.support.proxy import open_proxy
from tests.support.topologies import Server
from tests.support.waiting import until

PEOPLE = 40


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reconnects soon, so that the tests are quick."""
    for module in (wake_ups, feed):
        monkeypatch.setattr(module, "_LONGEST_PAUSE", 0.1)


@asynccontextmanager
async def browsing(live: Live, inbox: Inbox, count: int = PEOPLE) -> AsyncIterator[Sequence[Browser]]:
    """So many people look at their inboxes until the entry e999 comes, which is added at the end."""
    browsers = [Browser(live, inbox, f"u{number}") for number in range(count)]
    listening = [asyncio.create_task(browser.listen(until="e999")) for browser in browsers]
    await until(lambda: all(browser.position for browser in browsers))
    yield browsers
    for number in range(count):
        await inbox.add(f"u{number}", entry(999))
    await all_of(*listening)


async def _check(browsers: Sequence[Browser], inbox: Inbox, added: Sequence[Sequence[str]]) -> None:
    for number, browser in enumerate(browsers):
        assert browser.resets == 0
        assert browser.added == [*added[number], "e999"]
        assert browser.entries == await content(inbox, f"u{number}")


async def _add(inbox: Inbox, added: Sequence[list[str]], number: int) -> None:
    person = random.randrange(PEOPLE)
    await inbox.add(f"u{person}", entry(number))
    added[person].append(f"e{number}")


async def test_connections_that_are_cut_while_entries_come(redis_url: str) -> None:
    added: list[list[str]] = [[] for _ in range(PEOPLE)]
    async with open_proxy(redis_url) as proxy, opened(proxy.url) as (live, _), connect(redis_url) as straight:
        inbox = Inbox(straight, KEYS)
        async with browsing(live, inbox) as browsers:
            for number in range(300):
                await _add(inbox, added, number)
                if number % 30 == 0:
                    before = proxy.accepted
                    proxy.cut_all()
                    await until(lambda n=before: proxy.accepted > n)
        assert proxy.cuts >= 10
        await _check(browsers, inbox, added)


async def test_only_the_listening_connection_is_cut(redis_url: str) -> None:
    added: list[list[str]] = [[] for _ in range(PEOPLE)]
    async with opened(redis_url) as (live, inbox), connect(redis_url) as client:
        async with browsing(live, inbox) as browsers:
            for number in range(300):
                await _add(inbox, added, number)
                if number % 30 == 0:
                    await ask(client, ("CLIENT", "KILL", "TYPE", "pubsub"))
        await _check(browsers, inbox, added)


async def test_answers_that_are_lost_on_the_way(redis_url: str) -> None:
    """The read is made again: nothing was lost with the answer."""
    async with open_proxy(redis_url) as proxy, opened(proxy.url) as (live, _), connect(redis_url) as straight:
        inbox = Inbox(straight, KEYS)
        async with browsing(live, inbox) as browsers:
            for number in range(5):
                proxy.cut(b"EVALSHA", after=True)
                await inbox.add("u0", entry(number))
                await until(lambda n=number: f"e{n}" in browsers[0].added)
        assert proxy.cuts == 5
        await _check(browsers, inbox, [[f"e{n}" for n in range(5)], *([[]] * (PEOPLE - 1))])


async def test_a_server_that_is_away_for_a_while(redis_url: str) -> None:
    added: list[list[str]] = [[] for _ in range(PEOPLE)]
    async with open_proxy(redis_url) as proxy, opened(proxy.url) as (live, _), connect(redis_url) as straight:
        inbox = Inbox(straight, KEYS)
        async with browsing(live, inbox) as browsers:
            port = proxy.port
            await proxy.stop()
            for number in range(50):
                await _add(inbox, added, number)
            await proxy.start(port)
            await until(lambda: sum(len(browser.added) for browser in browsers) == 50)
        await _check(browsers, inbox, added)


async def test_a_server_that_is_killed_and_comes_back_with_its_data(tmp_path: Path) -> None:
    with DurableBroker(tmp_path, persistent=True) as broker:
        added: list[list[str]] = [[] for _ in range(PEOPLE)]
        async with opened(broker.url) as (live, inbox):
            async with browsing(live, inbox) as browsers:
                for restart in range(2):
                    for number in range(restart * 50, restart * 50 + 50):
                        await _add(inbox, added, number)
                    await asyncio.to_thread(broker.kill)
                    await asyncio.to_thread(broker.start)
            await _check(browsers, inbox, added)


async def test_a_server_that_hangs_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wake_ups, "PING_EVERY", 0.1)
    with Server(tmp_path, None) as server:
        async with open_proxy(server.url) as proxy, opened(proxy.url) as (live, _):
            with live.subscribe("bo") as subscription:
                await following(subscription)
                before = proxy.accepted
                server.freeze()
                await until(lambda: proxy.accepted > before)  # so it was left
                server.thaw()
                async with connect(server.url) as straight:
                    await Inbox(straight, KEYS).add("bo", entry(1))
                assert len((await following(subscription)).changes) == 1


async def test_who_may_not_listen_to_channels_looks_from_time_to_time(redis_url: str) -> None:
    async with connect(redis_url) as client:
        await ask(
            client,
            ("ACL", "SETUSER", "deaf", "reset", "on", ">geheim", "~*", "+@all", "resetchannels"),
        )
        try:
            async with opened(redis_url.replace("://", "://deaf:geheim@")) as (live, inbox):
                with live.subscribe("bo") as subscription:
                    await following(subscription)
                    await inbox.add("bo", entry(1))
                    assert len((await following(subscription)).changes) == 1
        finally:
            await ask(client, ("ACL", "DELUSER", "deaf"))


async def test_nothing_is_left_open_at_the_end(redis_url: str) -> None:
    async with connect(redis_url) as client:
        async with opened(redis_url) as (live, _):
            with live.subscribe("bo") as subscription:
                await following(subscription)
        await until(lambda: _alone(client))
    assert not [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]


async def _alone(client: object) -> bool:
    [clients] = await ask(client, ("CLIENT", "LIST"))  # type: ignore[arg-type]
    return len(clients.splitlines()) == 1
