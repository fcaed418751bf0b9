"""2,000 clients listen to one process."""

from __future__ import annotations

import asyncio

import pytest

from benchmarks.streams import WARM_UP, allow_files, running_api
from notifier.broker.connection import connect
from notifier.broker.scripts import ask
from notifier.inbox import Inbox
from notifier.keys import Keys
from tests.api.test_inbox import entry

CLIENTS = 2_000


@pytest.mark.slow
async def test_two_thousand_clients_are_told_each_of_their_own_and_cost_little(redis_url: str) -> None:
    allow_files(CLIENTS + WARM_UP)
    people = [f"u{number}" for number in range(CLIENTS)]
    async with running_api(redis_url) as api, connect(redis_url) as client:
        await api.listen([f"warm{number}" for number in range(WARM_UP)])
        before = api.memory()
        clients = await api.listen(people)
        assert (api.memory() - before) / CLIENTS < 64 * 1024

        [connections] = await ask(client, ("CLIENT", "LIST"))
        assert len(connections.splitlines()) <= 8  # of the API, and ours

        inbox = Inbox(client, Keys())
        told = [one.expect() for one in clients]
        for number in range(0, CLIENTS, 2):
            await inbox.add(people[number], entry(number))
        async with asyncio.timeout(20):
            await asyncio.gather(*told[::2])
        assert not any(one.done() for one in told[1::2])

        api.process.terminate()
        async with asyncio.timeout(20):
            await asyncio.gather(*told[1::2], return_exceptions=True)
        assert await asyncio.to_thread(api.process.wait, 20) == 0
