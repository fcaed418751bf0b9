"""Who owns which partition: fair shares, hand-over, takeover."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Any

import pytest

from notifier.broker.leases import Lease, Leases, Renewal, fair_share
from notifier.broker.line import Command
from notifier.broker.scripts import Call, execute, run, script
from notifier.errors import Fenced
from notifier.keys import GROUP
from tests.support.channels import ScriptedChannel
from tests.support.service import Service, address_of, ping
from tests.support.waiting import until

LONG = timedelta(minutes=1)  # whoever waited for a lease to run out would be seen


async def shares(service: Service, queue: str = "post") -> list[int]:
    """How many partitions each owner has, the largest first."""
    owners = list((await service.owners(queue)).values())
    return sorted((owners.count(owner) for owner in set(owners)), reverse=True)


async def settles(service: Service, *wanted: list[int]) -> None:
    async def is_so() -> bool:
        return await shares(service) in wanted

    await until(is_so)


@pytest.mark.parametrize(
    ("partitions", "workers", "share"),
    [(16, 1, 16), (16, 2, 8), (16, 3, 6), (16, 16, 1), (16, 40, 1), (1, 0, 1)],
)
def test_the_fair_share(partitions: int, workers: int, share: int) -> None:
    assert fair_share(partitions, workers) == share


async def test_the_partitions_are_shared_fairly_as_workers_come_and_go(service: Service) -> None:
    async with AsyncExitStack() as stack:
        post = ScriptedChannel()
        workers = []
        for wanted in ([16],), ([8, 8],), ([6, 6, 4], [6, 5, 5]):
            workers.append(await stack.enter_async_context(service.worker([post], ["post"])))
            await settles(service, *wanted)
        for wanted in ([8, 8],), ([16],):
            await workers.pop().stop()
            await settles(service, *wanted)


async def test_a_worker_that_stops_leaves_no_lease_no_name_and_no_consumer(service: Service) -> None:
    for pause in range(20):
        async with service.worker([ScriptedChannel()], ["router", "post"]):
            await until(lambda: shares(service))
            for _ in range(pause):  # so that it is stopped at another moment each time
                await service.client.ping()
        for queue in ("events", "post"):
            assert await service.owners(queue) == {}
            assert await service.client.zcard(service.keys.workers(queue)) == 0
            for p in range(service.keys.partitions):
                stream = service.keys.queue(queue, p)
                if await service.client.exists(stream):  # else it was stopped before it came so far
                    assert await service.client.xinfo_consumers(stream, GROUP) == []


async def test_a_clean_stop_hands_over_at_once_with_what_was_in_hand(service: Service) -> None:
    post = ScriptedChannel()
    gate = post.hold(address_of("u0"))
    async with service.worker([post], ["router", "post"], lease_ttl=LONG, concurrency=1) as first:
        await service.publish(*(ping(f"e{i}", f"u{i % 5}") for i in range(50)))
        await until(lambda: post.at_once == 1)
        stopping = asyncio.create_task(first.stop())
        await until(lambda: _is_not_owned(service, "events"))
        assert post.sent_to(address_of("u0")) == []
        gate.set()  # what runs is finished, and nothing else is begun
        await stopping
    before = len(post.attempts)
    assert before < 50
    start = time.monotonic()
    async with service.worker([post], ["router", "post"], lease_ttl=LONG):
        await until(lambda: len(post.sent) == 50)
        assert time.monotonic() - start < LONG.total_seconds() / 4
    for u in range(5):
        assert post.sent_to(address_of(f"u{u}")) == [f"e{i}" for i in range(u, 50, 5)]


async def _is_not_owned(service: Service, queue: str) -> bool:
    return not await service.owners(queue)


async def test_surplus_partitions_are_drained_under_load_without_a_repetition(service: Service) -> None:
    post = ScriptedChannel()
    async with service.worker([post], ["router", "post"]):
        for portion in range(10):
            if portion == 3:
                other = service.worker([post], ["router", "post"])
                await other.__aenter__()
            await service.publish(*(ping(f"e{portion * 100 + i}", f"u{i % 40}") for i in range(100)))
        await until(lambda: len(post.sent) >= 1_000)
        await settles(service, [8, 8])
        await other.__aexit__(None, None, None)
        await until(lambda: service.nothing_left("events", "post"))
    assert len(post.attempts) == 1_000
    for u in range(40):
        assert post.sent_to(address_of(f"u{u}")) == [f"e{i}" for i in range(1_000) if i % 100 % 40 == u]


# The scripts.


async def acquire(service: Service, worker: str, ttl_ms: int = 60_000) -> str | None:
    keys = (service.keys.lease("post", 0), service.keys.queue("post", 0))
    token = await run(service.client, Call(script("lease_acquire"), keys, (worker, ttl_ms, GROUP)))
    return None if token is None else str(token.decode())


async def renew(service: Service, token: str) -> list[int]:
    keys = (service.keys.lease("post", 0), service.keys.queue("post", 0), service.keys.parked("post", 0))
    worker = token.partition("#")[0]
    found: list[int] = await run(
        service.client, Call(script("lease_renew"), keys, (token, 60_000, GROUP, worker))
    )
    return found


async def release(service: Service, token: str) -> int:
    keys = (service.keys.lease("post", 0), service.keys.queue("post", 0))
    worker = token.partition("#")[0]
    left: int = await run(service.client, Call(script("lease_release"), keys, (token, GROUP, worker)))
    return left


async def test_a_lease_has_one_owner_and_each_owner_a_higher_epoch(service: Service) -> None:
    first = await acquire(service, "w1")
    assert first == "w1#1"
    assert await acquire(service, "w2") is None
    await release(service, first)
    assert await acquire(service, "w2") == "w2#2"
    with pytest.raises(Fenced):
        await renew(service, first)
    with pytest.raises(Fenced):
        await release(service, first)


async def test_a_lease_that_ran_out_may_be_taken_or_prolonged_by_its_owner(service: Service) -> None:
    first = await acquire(service, "w1", ttl_ms=0)
    assert first
    await renew(service, first)
    assert await acquire(service, "w2") is None
    await service.client.hset(service.keys.lease("post", 0), "until", 0)
    assert await acquire(service, "w2") == "w2#2"


async def test_a_lease_whose_grant_was_lost_on_the_way_is_taken_again_under_another_epoch(
    service: Service,
) -> None:
    first = await acquire(service, "w1")
    assert first
    assert await acquire(service, "w1") == "w1#2"
    assert await acquire(service, "w") is None
    with pytest.raises(Fenced):
        await renew(service, first)


async def test_a_renewal_says_when_entries_are_pending_elsewhere_and_makes_a_lost_group_anew(
    service: Service,
) -> None:
    token = await acquire(service, "w1")
    assert token
    queue = service.keys.queue("post", 0)
    assert (await renew(service, token))[1:] == [0, 0, -1, b""]
    await service.client.xadd(queue, {"v": "1"})
    await service.client.xreadgroup(GROUP, "w1", {queue: ">"})
    assert (await renew(service, token))[1] == 0
    await service.client.xadd(queue, {"v": "1"})
    await service.client.xreadgroup(GROUP, "somebody", {queue: ">"})
    assert (await renew(service, token))[1] == 1
    await service.client.xgroup_destroy(queue, GROUP)
    assert (await renew(service, token))[1] == 1
    assert [group["name"] for group in await service.client.xinfo_groups(queue)] == [GROUP.encode()]


async def test_what_was_read_and_not_tried_is_not_counted_when_its_owner_stops(service: Service) -> None:
    token = await acquire(service, "w1")
    assert token
    queue = service.keys.queue("post", 0)
    await service.client.xadd(queue, {"v": "1"})
    for _ in range(5):
        await service.client.xreadgroup(GROUP, "w1", {queue: ">"})
        assert await release(service, token) == 1
        token = await acquire(service, "w1")
        assert token
        [_, [[_, _, owners]]] = await run(
            service.client,
            Call(
                script("recover"),
                (service.keys.lease("post", 0), queue),
                (token, GROUP, "w1", "-", 10, 0),
            ),
        )
        assert owners == 1


class _Held:
    """A caller whose answers to some script are held back until the gate is open."""

    def __init__(self, service: Service, name: str) -> None:
        self._client = service.client
        self._sha = script(name).sha
        self.gate = asyncio.Event()
        self.waiting = asyncio.Event()

    async def execute(self, commands: Sequence[Command], then: Command = ()) -> list[Any]:
        replies = await execute(self._client, commands, then)
        if commands[0][1:2] == (self._sha,):
            self.waiting.set()
            await self.gate.wait()
        return replies


class _Nobody:
    """Is told of leases and does nothing about them."""

    def acquired(self, lease: Lease) -> None: ...
    def renewed(self, lease: Lease, renewal: Renewal) -> None: ...
    def lost(self, lease: Lease) -> None: ...
    def surplus(self, leases: Sequence[Lease]) -> None: ...


async def test_what_was_taken_while_the_worker_was_told_to_stop_is_known_and_released(
    service: Service,
) -> None:
    held = _Held(service, "lease_acquire")
    await service.client.script_load(script("lease_acquire").source)
    leases = Leases(held, service.keys, "post", "w1", LONG, _Nobody())
    beating = asyncio.create_task(leases.run())
    await held.waiting.wait()
    assert await service.owners("post")  # the server has given them, and the answer is on its way
    leases.take_no_more()
    leases.stop()
    held.gate.set()
    await beating
    await leases.release(list(leases.held.values()))
    assert await service.owners("post") == {}
