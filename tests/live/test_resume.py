"""Who was away gets what was missed: all of it, once, in order, and nothing else."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from notifier.broker.connection import connect
from notifier.broker.scripts import ask
from notifier.errors import InvalidInput
from notifier.inbox import Inbox
from notifier.live import Added, Marked, Reset, Update, changes
from tests.live.client import KEYS, Browser, content, entry, following, opened
from tests.support.waiting import until

_numbers = itertools.count()

entries = st.integers(0, 12)
marks = st.sampled_from(["seen", "read", "unread", "archived", "unarchived"])
statuses = st.sampled_from(["all", "unseen", "unread", "read"])
operations = st.one_of(
    st.tuples(st.just("add"), entries),
    st.tuples(st.just("mark"), entries, marks),
    st.tuples(st.just("mark_all"), marks, statuses),
    st.tuples(st.just("take")),
    st.tuples(st.just("cut"), st.integers(0, 3)),
)


async def _do(inbox: Inbox, recipient: str, operation: Sequence[Any]) -> list[str]:
    """Changes the inbox; the ids that are new."""
    match operation:
        case ("add", number):
            return [f"e{number}"] if await inbox.add(recipient, entry(number)) else []
        case ("mark", number, mark):
            await inbox.mark(recipient, f"e{number}", mark)
        case ("mark_all", mark, status):
            await inbox.mark_all(recipient, mark, status=status)
    return []


@settings(
    max_examples=100,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(history=st.lists(operations, max_size=40), at_once=st.integers(1, 4))
def test_wherever_the_connection_is_cut_nothing_is_missed_or_comes_twice(
    redis_url: str, history: list[tuple[Any, ...]], at_once: int
) -> None:
    async def work() -> None:
        recipient, added = f"r{next(_numbers)}", []
        async with opened(redis_url) as (live, inbox):
            browser = Browser(live, inbox, recipient)
            steps = iter([*history, ("add", 99)])
            for _ in range(len(history) + 1):  # once for each connection
                with live.subscribe(recipient, browser.position) as subscription:
                    update: Update | None = await following(subscription)
                    if browser.position is None and update:
                        await browser.process(update)
                    for step in steps:
                        added += await _do(inbox, recipient, step)
                        if step[0] == "cut":
                            if update:
                                await browser.process(update, at_most=step[1])
                            break
                        if step[0] == "take":
                            if update:
                                await browser.process(update)
                            update = await subscription.next(0.01)
                    else:
                        break
            await browser.listen(until="e99")
            assert browser.resets == 0
            assert browser.added == added
            assert browser.entries == await content(inbox, recipient)
            assert browser.unread == (await inbox.counts(recipient)).unread

    before, changes.MOST_CHANGES = changes.MOST_CHANGES, at_once  # type: ignore[misc]
    try:
        asyncio.run(work())
    finally:
        changes.MOST_CHANGES = before  # type: ignore[misc]


async def _after(url: str, recipient: str, position: str | None, **options: Any) -> Update:
    """The first update of a client that was at this position."""
    async with opened(url, **options) as (live, _):
        with live.subscribe(recipient, position) as subscription:
            return await following(subscription)


async def _now(url: str, recipient: str = "bo") -> str:
    return (await _after(url, recipient, None)).position


def _reset(update: Update) -> bool:
    return bool(update.changes) and isinstance(update.changes[0], Reset)


async def test_who_begins_is_told_the_counts_and_nothing_else(redis_url: str) -> None:
    async with opened(redis_url) as (_, inbox):
        for number in range(3):
            await inbox.add("bo", entry(number))
    update = await _after(redis_url, "bo", None)
    assert (update.changes, update.counts.total, update.more) == ((), 3, False)


async def test_who_missed_nothing_is_told_the_counts_again(redis_url: str) -> None:
    async with opened(redis_url) as (_, inbox):
        empty = await _now(redis_url)
        assert (await _after(redis_url, "bo", empty)).changes == ()
        await inbox.add("bo", entry(1))
        position = await _now(redis_url)
        assert (await _after(redis_url, "bo", position)).changes == ()


async def test_who_was_there_before_the_first_entry_gets_it(redis_url: str) -> None:
    async with opened(redis_url) as (_, inbox):
        empty = await _now(redis_url)
        await inbox.add("bo", entry(1))
        [change] = (await _after(redis_url, "bo", empty)).changes
    assert isinstance(change, Added)
    assert change.stored.entry == entry(1)


async def test_who_was_away_for_longer_than_is_remembered_is_told_to_load_again(redis_url: str) -> None:
    async with opened(redis_url) as (_, inbox):
        empty = await _now(redis_url)
        await inbox.add("bo", entry(0))
        first = await _now(redis_url)
        for number in range(1, 101):
            await inbox.add("bo", entry(number))
        last_kept = await _now(redis_url)
        for number in range(101, 302):
            await inbox.add("bo", entry(number))
        for position in (empty, first):
            update = await _after(redis_url, "bo", position)
            assert _reset(update)
            assert len(update.changes) == 1
            assert update.counts.total == 302
        assert not _reset(await _after(redis_url, "bo", last_kept))


@pytest.mark.parametrize("position", ["1-0", "0-0", "0-1", "99999999999999-0", "18446744073709551615-0"])
async def test_a_position_that_the_server_never_gave_or_has_lost_is_a_reset(
    redis_url: str, position: str
) -> None:
    assert _reset(await _after(redis_url, "bo", position))
    async with opened(redis_url) as (_, inbox):
        await inbox.add("bo", entry(0))
        await inbox.add("bo", entry(1))
    update = await _after(redis_url, "bo", position)
    assert _reset(update)
    assert update.position == await _now(redis_url)


async def test_an_inbox_that_was_deleted_is_a_reset_for_who_is_there_and_who_is_away(redis_url: str) -> None:
    async with opened(redis_url) as (live, inbox):
        empty = await _now(redis_url)
        await inbox.add("bo", entry(0))
        before = await _now(redis_url)
        with live.subscribe("bo") as subscription:
            await following(subscription)
            await inbox.delete("bo")
            assert _reset(await following(subscription))
            await inbox.add("bo", entry(1))
            [change] = (await following(subscription)).changes
            assert isinstance(change, Added)
        for position in (empty, before):
            update = await _after(redis_url, "bo", position)
            assert _reset(update)
            assert update.counts.total == 1


async def test_changes_that_have_expired_are_no_reset_for_who_was_there(redis_url: str) -> None:
    key = f"{KEYS.inbox('bo')}:changes"
    async with opened(redis_url, compare_every=0.02) as (live, inbox), connect(redis_url) as client:
        await ask(client, ("XADD", key, "1000-0", "mark", "e0"))  # more than a day ago
        with live.subscribe("bo") as subscription:
            assert (await following(subscription)).position == "1000-0"
            await ask(client, ("DEL", key))
            await until(lambda: subscription.position.startswith("0-"))
            await inbox.add("bo", entry(0))
            [change] = (await following(subscription)).changes
            assert isinstance(change, Added)
        # Who was away can't know whether there were others after it.
        assert _reset(await _after(redis_url, "bo", "1000-0"))


async def test_changes_that_are_lost_are_a_reset_for_who_was_there_too(redis_url: str) -> None:
    async with opened(redis_url, compare_every=0.02) as (live, inbox), connect(redis_url) as client:
        await inbox.add("bo", entry(0))
        with live.subscribe("bo") as subscription:
            await following(subscription)
            await ask(client, ("FLUSHALL",))
            update = await following(subscription)
    assert _reset(update)
    assert update.counts.total == 0


async def test_marks_that_follow_each_other_are_told_together_and_those_of_a_new_entry_with_it(
    redis_url: str,
) -> None:
    async with opened(redis_url) as (_, inbox):
        for number in range(3):
            await inbox.add("bo", entry(number))
        position = await _now(redis_url)
        await inbox.mark("bo", "e0", "read")
        await inbox.mark("bo", "e1", "seen")
        await inbox.mark("bo", "e0", "archived")
        await inbox.add("bo", entry(3))
        await inbox.mark("bo", "e3", "read")
        await inbox.mark("bo", "e2", "seen")
        update = await _after(redis_url, "bo", position)
    marked, added, marked_later = update.changes
    assert isinstance(marked, Marked)
    assert isinstance(added, Added)
    assert isinstance(marked_later, Marked)
    assert [(one.id, one.archived_ms is not None) for one in marked.states or ()] == [
        ("e1", False),
        ("e0", True),
    ]
    assert added.stored.read_ms is not None
    assert [one.id for one in marked_later.states or ()] == ["e2"]
    assert changes.order(marked.position) < changes.order(added.position)
    assert marked_later.position == update.position


async def test_of_entries_that_have_fallen_out_nothing_is_told(redis_url: str) -> None:
    async with opened(redis_url) as (_, _), connect(redis_url) as client:
        small = Inbox(client, KEYS, limit=2)
        position = await _now(redis_url)
        for number in range(5):
            await small.add("bo", entry(number))
        update = await _after(redis_url, "bo", position)
    assert [change.stored.entry.id for change in update.changes if isinstance(change, Added)] == ["e3", "e4"]
    assert update.counts.total == 2


async def test_a_bulk_mark_of_many_is_told_without_names(redis_url: str) -> None:
    async with opened(redis_url) as (_, inbox):
        for number in range(51):
            await inbox.add("bo", entry(number))
        position = await _now(redis_url)
        await inbox.mark("bo", "e7", "seen")
        await inbox.mark_all("bo", "read")
        [change] = (await _after(redis_url, "bo", position)).changes
    assert isinstance(change, Marked)
    assert change.states is None


async def test_an_update_is_bounded_by_bytes_as_well(redis_url: str) -> None:
    async with opened(redis_url) as (live, inbox):
        position = await _now(redis_url)
        for number in range(10):
            await inbox.add("bo", replace(entry(number), body="x" * 100_000))
        found = []
        with live.subscribe("bo", position) as subscription:
            while len(found) < 10:
                update = await following(subscription)
                assert len(update.changes) <= 3
                assert update.more == (len(found) + len(update.changes) < 10)
                found += [one.stored.entry.id for one in update.changes if isinstance(one, Added)]
    assert found == [f"e{number}" for number in range(10)]


@pytest.mark.parametrize(
    "position", ["", "1", "-", "1-", "a-0", "1-0\n", "1-0-0", "18446744073709551616-0", "²-0"]
)
async def test_what_is_no_position_is_refused_and_named(redis_url: str, position: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        await _after(redis_url, "bo", position)
    assert caught.value.field == "Last-Event-ID"
