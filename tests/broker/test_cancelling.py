from __future__ import annotations

import asyncio

import pytest

from notifier.broker.cancelling import Tasks, cancel_until_done


class Deaf:
    """Swallows the first cancellations."""

    def __init__(self, times: int = 2) -> None:
        self.swallowed = 0
        self.started = asyncio.Event()
        self._times = times

    async def run(self) -> None:
        self.started.set()
        while self.swallowed < self._times:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                self.swallowed += 1
        await asyncio.Event().wait()


async def test_a_task_that_swallows_a_cancellation_is_cancelled_until_it_is_done() -> None:
    deaf = Deaf()
    task = asyncio.create_task(deaf.run())
    await deaf.started.wait()
    await cancel_until_done(task)
    assert task.cancelled()
    assert deaf.swallowed == 2


@pytest.mark.parametrize("where", ["at the end of the group", "within the group"])
async def test_a_group_that_is_cancelled_ends_those_who_swallow_that(where: str) -> None:
    deaf = Deaf()

    async def run() -> None:
        async with Tasks() as tasks:
            tasks.create_task(deaf.run())
            if where == "within the group":
                await asyncio.Event().wait()

    running = asyncio.create_task(run())
    await deaf.started.wait()
    running.cancel()
    async with asyncio.timeout(10):
        await asyncio.wait([running])
    assert running.cancelled()
    assert deaf.swallowed == 2


async def test_a_failure_in_a_group_ends_those_who_swallow_a_cancellation() -> None:
    deaf = Deaf()

    async def fail() -> None:
        await deaf.started.wait()
        raise ValueError("seen")

    async def run() -> None:
        async with Tasks() as tasks:
            tasks.create_task(deaf.run())
            tasks.create_task(fail())

    async with asyncio.timeout(10):
        with pytest.raises(ExceptionGroup) as raised:
            await run()
    assert [str(error) for error in raised.value.exceptions] == ["seen"]
    assert deaf.swallowed == 2
    current = asyncio.current_task()
    assert current is not None
    assert current.cancelling() == 0


async def test_a_failure_within_the_body_ends_the_group_and_is_raised() -> None:
    deaf = Deaf()

    async def run() -> None:
        async with Tasks() as tasks:
            tasks.create_task(deaf.run())
            await deaf.started.wait()
            raise ValueError("seen")

    async with asyncio.timeout(10):
        with pytest.raises(ExceptionGroup) as raised:
            await run()
    assert [str(error) for error in raised.value.exceptions] == ["seen"]


async def test_a_group_waits_for_what_is_made_while_it_waits() -> None:
    done = []

    async def second() -> None:
        done.append("second")

    async with Tasks() as tasks:

        async def first() -> None:
            await asyncio.sleep(0)
            tasks.create_task(second())

        tasks.create_task(first())
    assert done == ["second"]
