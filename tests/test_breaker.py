"""The circuit breaker of a channel."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta
from types import SimpleNamespace

import pytest

from notifier.breaker import Breaker
from tests.support.waiting import DEADLINE, until

PAUSE = timedelta(milliseconds=50)


@pytest.fixture
def changes() -> list[bool]:
    return []


@pytest.fixture
def breaker(changes: list[bool]) -> Breaker:
    return Breaker(first_pause=PAUSE, longest_pause=4 * PAUSE, changed=changes.append)


async def test_while_it_is_closed_everybody_may_send(breaker: Breaker) -> None:
    assert await breaker.admitted() is False
    breaker.worked()
    assert not breaker.is_open


async def test_it_opens_at_once_and_one_probe_goes_out_after_the_pause(
    breaker: Breaker, changes: list[bool]
) -> None:
    start = time.monotonic()
    breaker.unavailable(None)
    assert breaker.is_open
    waiting = [asyncio.create_task(breaker.admitted()) for _ in range(5)]
    await until(lambda: any(task.done() for task in waiting))
    assert time.monotonic() - start >= 0.8 * PAUSE.total_seconds()
    assert [task.result() for task in waiting if task.done()] == [True]
    breaker.worked()
    assert sorted(await asyncio.gather(*waiting)) == [False] * 4 + [True]
    assert changes == [True, False]


async def test_a_probe_that_fails_lets_the_next_one_out_after_a_longer_pause(
    breaker: Breaker, changes: list[bool]
) -> None:
    waits = []
    start = time.monotonic()  # before the pause begins: this process may stand still in between
    breaker.unavailable(None)
    for _ in range(4):
        assert await breaker.admitted() is True
        waits.append(time.monotonic() - start)
        start = time.monotonic()
        breaker.unavailable(None)
    least = [0.8 * PAUSE.total_seconds() * factor for factor in (1, 2, 4, 4)]
    assert all(wait >= bound - 0.005 for wait, bound in zip(waits, least, strict=True))
    assert changes == [True]


async def test_those_that_wait_while_a_probe_is_out_get_their_turn_when_it_fails(breaker: Breaker) -> None:
    breaker.unavailable(None)
    assert await breaker.admitted() is True
    waiting = [asyncio.create_task(breaker.admitted()) for _ in range(3)]
    await asyncio.sleep(0)
    breaker.unavailable(None)
    await until(lambda: any(task.done() for task in waiting))
    assert [task.result() for task in waiting if task.done()] == [True]
    breaker.worked()
    await asyncio.gather(*waiting)


async def test_a_probe_that_was_not_sent_leaves_its_turn_to_another(breaker: Breaker) -> None:
    breaker.unavailable(None)
    assert await breaker.admitted() is True
    waiting = asyncio.create_task(breaker.admitted())
    await asyncio.sleep(0)
    breaker.abandoned()
    assert await waiting is True


async def test_those_under_way_when_it_opened_do_not_make_the_pause_longer() -> None:
    breaker = Breaker(first_pause=PAUSE, longest_pause=timedelta(hours=1))
    for _ in range(50):
        breaker.unavailable(None)
    async with asyncio.timeout(DEADLINE):
        assert await breaker.admitted() is True
    assert breaker.is_open


async def test_one_that_was_under_way_and_worked_closes_it(breaker: Breaker) -> None:
    breaker.unavailable(60.0)
    waiting = asyncio.create_task(breaker.admitted())
    await asyncio.sleep(0)
    breaker.worked()
    assert await waiting is False


async def test_the_provider_may_ask_for_a_longer_pause(breaker: Breaker) -> None:
    start = time.monotonic()
    breaker.unavailable(0.3)
    await breaker.admitted()
    assert time.monotonic() - start >= 0.3


async def test_after_it_closed_the_pause_begins_anew(
    breaker: Breaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = SimpleNamespace(now=0.0, monotonic=lambda: clock.now)
    monkeypatch.setattr("notifier.breaker.time", clock)
    for _ in range(3):
        breaker.unavailable(None)
        clock.now += 60
        assert await breaker.admitted() is True
    breaker.worked()
    breaker.unavailable(None)
    clock.now += 1.2 * PAUSE.total_seconds()  # the first pause and its jitter
    async with asyncio.timeout(DEADLINE):  # a longer pause would not end: this clock stands still
        assert await breaker.admitted() is True
