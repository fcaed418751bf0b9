"""Many listen over a few connections, and each hears at once."""

from __future__ import annotations

import asyncio
import time
from contextlib import ExitStack
from typing import Any

import pytest

from notifier.broker.connection import connect
from notifier.broker.scripts import ask
from notifier.live import Added, Ended, Marked, TooManyStreams, feed
from notifier.metrics import STREAMS
from tests.live.client import KEYS, Browser, all_of, entry, following, opened
from tests.support.waiting import until


async def test_thousands_listen_over_two_connections(redis_url: str) -> None:
    async with opened(redis_url) as (live, inbox), connect(redis_url) as client:
        [before] = await ask(client, ("CLIENT", "LIST"))
        with ExitStack() as stack:
            subscriptions = [stack.enter_context(live.subscribe(f"u{n}")) for n in range(3_000)]
            for subscription in subscriptions:
                await following(subscription)
            [after] = await ask(client, ("CLIENT", "LIST"))
            assert len(_ids(after) - _ids(before)) == 2
            for number in (0, 1_500, 2_999):
                await inbox.add(f"u{number}", entry(number))
                update = await following(subscriptions[number])
                assert [change.stored.entry.id for change in update.changes if isinstance(change, Added)] == [
                    f"e{number}"
                ]


def _ids(clients: bytes) -> set[bytes]:
    return {line.split()[0] for line in clients.splitlines()}


async def test_nobody_hears_of_an_inbox_that_is_not_theirs(redis_url: str) -> None:
    async with opened(redis_url) as (live, inbox):
        with live.subscribe("ada") as ada, live.subscribe("bo") as bo:
            await following(ada)
            await following(bo)
            await inbox.add("bo", entry(1))
            await inbox.add("ada", entry(2))
            for subscription, entry_id in ((ada, "e2"), (bo, "e1")):
                [change] = (await following(subscription)).changes
                assert isinstance(change, Added)
                assert change.stored.entry.id == entry_id


async def test_all_tabs_of_one_person_get_the_same(redis_url: str) -> None:
    async with opened(redis_url) as (live, inbox):
        tabs = [Browser(live, inbox, "bo") for _ in range(5)]
        listening = asyncio.gather(*(tab.listen(until="e9") for tab in tabs))
        await until(lambda: all(tab.position for tab in tabs))
        for number in range(10):
            await inbox.add("bo", entry(number))
        await all_of(listening)
        assert [tab.added for tab in tabs] == [[f"e{number}" for number in range(10)]] * 5


async def test_a_slow_client_holds_one_update_and_takes_up_where_it_was(redis_url: str) -> None:
    async with opened(redis_url) as (live, inbox):
        with live.subscribe("bo") as slow:
            await following(slow)
            for number in range(120):
                await inbox.add("bo", entry(number))
            with live.subscribe("bo") as quick:  # whatever the feed had to do by now, it has done
                await following(quick)
            added: list[str] = []
            while len(added) < 120:
                update = await following(slow)
                added += [change.stored.entry.id for change in update.changes if isinstance(change, Added)]
            assert added == [f"e{number}" for number in range(120)]


async def test_what_is_asked_of_the_server_does_not_depend_on_how_long_somebody_is_slow(
    redis_url: str,
) -> None:
    async with opened(redis_url) as (live, inbox), connect(redis_url) as client:
        with live.subscribe("bo") as slow, live.subscribe("ada") as other:
            await following(slow)
            await following(other)
            await ask(client, ("CONFIG", "RESETSTAT"))
            for number in range(50):
                await inbox.add("bo", entry(number))
            await inbox.add("ada", entry(0))
            await following(other)
            [stats] = await ask(client, ("INFO", "commandstats"))
            calls = next(line for line in stats.splitlines() if line.startswith(b"cmdstat_xrevrange:"))
            assert int(calls.split(b"calls=")[1].split(b",")[0]) <= 6


async def test_one_recipient_and_one_process_have_limits(redis_url: str) -> None:
    async with opened(redis_url, limit=3, limit_of_recipient=2) as (live, _):
        streams = STREAMS._value.get()  # noqa: SLF001 - what /metrics shows
        with live.subscribe("bo"), live.subscribe("bo"):
            with pytest.raises(TooManyStreams) as caught:
                live.subscribe("bo")
            assert caught.value.of_recipient
            with live.subscribe("ada"):
                with pytest.raises(TooManyStreams) as caught:
                    live.subscribe("cleo")
                assert not caught.value.of_recipient
                assert STREAMS._value.get() - streams == 3  # noqa: SLF001
        with live.subscribe("bo"), live.subscribe("ada"), live.subscribe("bo"):
            pass
        assert STREAMS._value.get() == streams  # noqa: SLF001


async def test_who_comes_and_goes_quickly_costs_no_connection(redis_url: str) -> None:
    async with opened(redis_url) as (live, inbox), connect(redis_url) as client:
        with live.subscribe("ada") as ada:
            await following(ada)
            [before] = await ask(client, ("CLIENT", "LIST", "TYPE", "pubsub"))
            for number in range(200):
                with live.subscribe("bo") as bo:
                    if number % 2:
                        await following(bo)
                    if number % 3:
                        await asyncio.sleep(0)
            with live.subscribe("bo") as bo:
                await following(bo)
                await inbox.add("bo", entry(1))
                assert len((await following(bo)).changes) == 1
            [after] = await ask(client, ("CLIENT", "LIST", "TYPE", "pubsub"))
            assert _ids(before) == _ids(after)
            assert len(_ids(after)) == 1
            await until(lambda: _channels(client, 1))


async def _channels(client: Any, count: int) -> bool:
    """Whether the server knows so many channels: those who left are forgotten there too."""
    [channels] = await ask(client, ("PUBSUB", "SHARDCHANNELS"))
    return len(channels) == count


async def test_when_it_stops_everybody_is_told_to_leave_and_nobody_let_in(redis_url: str) -> None:
    async with opened(redis_url) as (live, _):
        with live.subscribe("bo") as idle, live.subscribe("ada") as unread:
            await following(idle)
            waiting = asyncio.create_task(idle.next(60))
            await asyncio.sleep(0)
            live.stop()
            with pytest.raises(Ended):
                await waiting
            with pytest.raises(Ended):
                await unread.next(60)
            with pytest.raises(Ended):
                live.subscribe("cleo")


async def test_a_bug_ends_the_streams_that_it_met_and_no_more(
    redis_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async with opened(redis_url) as (live, inbox):
        browser = Browser(live, inbox, "bo")
        with live.subscribe("bo") as subscription:
            await following(subscription)
            browser.position = subscription.position
            with monkeypatch.context() as patched:
                patched.setattr(feed, "read_answer", lambda _: 1 / 0)
                await inbox.add("bo", entry(1))
                with pytest.raises(Ended):
                    await subscription.next(20)
        await all_of(browser.listen(until="e1"))
    assert browser.added == ["e1"]
    assert "feed_crashed" in capsys.readouterr().out


async def test_every_position_is_compared_in_its_turn_though_nothing_was_heard(redis_url: str) -> None:
    async with opened(redis_url, compare_every=0.05) as (live, _), connect(redis_url) as client:
        with ExitStack() as stack:
            subscriptions = [stack.enter_context(live.subscribe(f"u{n}")) for n in range(450)]
            for subscription in subscriptions:
                await following(subscription)
            # As a change would, whose wake-up is lost.
            keys = [f"{KEYS.inbox(f'u{n}')}:changes" for n in range(450)]
            await ask(client, *(("XADD", key, "*", "many", "") for key in keys))
            for subscription in subscriptions:
                assert len((await following(subscription)).changes) == 1


async def test_a_slow_client_loses_no_look_at_what_was_not_heard(redis_url: str) -> None:
    async with opened(redis_url) as (live, inbox), connect(redis_url) as client:
        with live.subscribe("bo") as slow, live.subscribe("ada") as other:
            await following(slow)
            await following(other)
            await inbox.add("bo", entry(1))
            await until(lambda: not slow.is_ready)
            for name in ("bo", "ada"):  # as changes whose wake-ups are lost
                await ask(client, ("XADD", f"{KEYS.inbox(name)}:changes", "*", "many", ""))
            for name in ("ada", "ada"):
                await ask(client, ("CLIENT", "KILL", "TYPE", "pubsub"))
                await following(other)
                await ask(client, ("XADD", f"{KEYS.inbox(name)}:changes", "*", "many", ""))
            assert len((await following(slow)).changes) == 1
            [change] = (await following(slow)).changes
            assert isinstance(change, Marked)


async def test_an_update_comes_within_milliseconds(redis_url: str) -> None:
    async with opened(redis_url) as (live, inbox):
        with live.subscribe("bo") as subscription:
            await following(subscription)
            times = []
            for number in range(50):
                began = time.perf_counter()
                await inbox.add("bo", entry(number))
                await following(subscription)
                times.append(time.perf_counter() - began)
    assert sorted(times)[25] < 0.1
