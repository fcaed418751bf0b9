"""Workers in processes of their own that die, are told to stop, or fall asleep in the middle of work."""

from __future__ import annotations

import re
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.support.ledger import Ledger, judge, leftovers
from tests.support.processes import worker_process
from tests.support.service import Service, address_of, ping
from tests.support.waiting import until

TTL = 2.0

LATER = {"NOTIFIER_RETRY_BASE": "1000h", "NOTIFIER_RETRY_MAX": "1000h", "NOTIFIER_LEASE_TTL": "1s"}
"""What is parked is not due by itself: the backoff is between no time and that."""


class Work:
    """So many events for so many people, `kind` of address each, and what must come of them."""

    def __init__(self, service: Service, ledger: Ledger, count: int, people: int, kind: str = "slow") -> None:
        self._service = service
        self._ledger = ledger
        self._recipients = [f"{kind}{i}" for i in range(people)]
        self.events = [ping(f"e{i}", self._recipients[i % people]) for i in range(count)]
        self.published = {
            address_of(u): [f"e{i}" for i in range(number, count, people)]
            for number, u in enumerate(self._recipients)
        }

    async def publish(self) -> None:
        await self._service.publish(*self.events)

    def done(self) -> int:
        return len({(line.address, line.event_id) for line in self._ledger.lines()})

    async def reaches(self, count: int) -> None:
        await until(lambda: self.done() >= count, every=0.005)

    async def is_finished(self) -> None:
        await self.reaches(len(self.events))
        await until(lambda: self._service.nothing_left("events", "post"))

    def assert_complete_and_in_order(self, *, duplicates: int) -> None:
        verdict = judge(self.published, self._ledger.lines())
        assert not verdict.missing
        assert not verdict.unexpected
        assert not verdict.out_of_order
        assert verdict.duplicates <= duplicates


async def is_serving(service: Service, workers: int = 1, queues: Sequence[str] = ("events", "post")) -> None:
    """Every partition of the queues has an owner, and there are so many of them.

    With one alone this says too that the names of those who died are gone.
    """

    async def everything_is_owned() -> bool:
        owners = [await service.owners(queue) for queue in queues]
        return all(
            len(found) == service.keys.partitions and len(set(found.values())) == workers for found in owners
        )

    await until(everything_is_owned)


def stopped(process: subprocess.Popen[bytes], timeout: float = 20.0) -> int:
    process.send_signal(signal.SIGTERM)
    return process.wait(timeout)


@pytest.mark.slow
async def test_a_worker_killed_in_the_middle_of_two_thousand_events_costs_only_repetitions(
    service: Service, ledger: Ledger, tmp_path: Path
) -> None:
    work = Work(service, ledger, 2_000, people=100)
    limits = {"NOTIFIER_IN_HAND": "200"}
    with worker_process(service.url, tmp_path, **limits) as first:
        await is_serving(service)
        with worker_process(service.url, tmp_path, **limits) as second:
            await is_serving(service, workers=2)
            await work.publish()
            await work.reaches(400)
            owned_by_first = {
                p for p, owner in (await service.owners("post")).items() if str(first.pid) in owner
            }
            first.kill()
            killed_at = time.monotonic()
            await work.is_finished()
            await is_serving(service)
            assert stopped(second) == 0
    work.assert_complete_and_in_order(duplicates=200)
    await service.assert_at_baseline()
    takeovers = {
        service.keys.partition_of(line.address.partition("@")[0]): line.at
        for line in reversed(ledger.lines())
        if line.pid == second.pid and line.at > killed_at
    }
    taken_over = owned_by_first & takeovers.keys()
    assert taken_over
    # Within a second on a machine that does nothing else, which `make soak` shows with a hundred kills.
    assert all(takeovers[p] - killed_at < TTL + 8 for p in taken_over)


@pytest.mark.slow
async def test_the_only_worker_killed_again_and_again_loses_nothing(
    service: Service, ledger: Ledger, tmp_path: Path
) -> None:
    work = Work(service, ledger, 600, people=30, kind="flaky")
    await work.publish()
    for portion in (100, 300):
        with worker_process(service.url, tmp_path, NOTIFIER_IN_HAND="100", NOTIFIER_LEASE_TTL="1s") as worker:
            await work.reaches(portion)
            worker.kill()
    with worker_process(service.url, tmp_path, NOTIFIER_IN_HAND="100", NOTIFIER_LEASE_TTL="1s") as worker:
        await work.is_finished()
        await is_serving(service)
        assert stopped(worker) == 0
    work.assert_complete_and_in_order(duplicates=2 * 100)
    await service.assert_at_baseline()


async def test_a_worker_told_to_stop_under_load_hands_over_at_once_and_repeats_nothing(
    service: Service, ledger: Ledger, tmp_path: Path
) -> None:
    work = Work(service, ledger, 1_000, people=100)
    long = {"NOTIFIER_LEASE_TTL": "60s"}  # whoever waited for it to run out would be seen
    with worker_process(service.url, tmp_path, **long) as first:
        await is_serving(service)
        await work.publish()
        await work.reaches(200)
        assert stopped(first) == 0
        assert await service.owners("post") == {}
        assert await service.owners("events") == {}
        with worker_process(service.url, tmp_path, **long) as second:
            await work.is_finished()
            assert stopped(second) == 0
    work.assert_complete_and_in_order(duplicates=0)
    await service.assert_at_baseline()


async def test_a_worker_that_slept_longer_than_its_lease_is_fenced_and_the_order_holds(
    service: Service, ledger: Ledger, tmp_path: Path
) -> None:
    work = Work(service, ledger, 800, people=40)
    limits = {"NOTIFIER_IN_HAND": "100", "NOTIFIER_LEASE_TTL": "1s"}
    with worker_process(service.url, tmp_path, log="sleeper.log", **limits) as sleeper:
        await is_serving(service)
        await service.publish(*work.events[:500])
        await work.reaches(150)  # more than it may have in hand: some of it is settled
        sleeper.send_signal(signal.SIGSTOP)
        asleep = work.done()
        tokens = await _tokens(service)
        await service.publish(*work.events[500:])  # enough for the other one, however late that was
        with worker_process(service.url, tmp_path, **limits) as other:
            await work.reaches(asleep + 200)
            await until(lambda: _owns_all(service, other.pid))
            settled = await _settled(service, tokens)
            assert settled
            sleeper.send_signal(signal.SIGCONT)
            await until(lambda: _says_it_lost_all(service, tmp_path / "sleeper.log"))
            await work.is_finished()
            assert stopped(other) == 0
        assert stopped(sleeper) == 0
    assert await _settled(service, tokens) == settled
    work.assert_complete_and_in_order(duplicates=100)
    await service.assert_at_baseline()


async def _tokens(service: Service) -> list[bytes]:
    leases = [service.keys.lease("post", p) for p in range(service.keys.partitions)]
    return [await service.client.hget(lease, "token") for lease in leases]


async def _owns_all(service: Service, pid: int) -> bool:
    owners = await service.owners("post")
    return len(owners) == service.keys.partitions and all(f"-{pid}-" in name for name in owners.values())


async def _settled(service: Service, tokens: Sequence[bytes]) -> set[bytes]:
    """The commits that were made under these tokens: each leaves a field in the traces of events."""
    traces = [name async for name in service.client.scan_iter("*:trace:*", count=1_000)]
    fields = [field for name in traces for field in await service.client.hkeys(name)]
    return {field for field in fields if any(field.startswith(b"post." + token + b".") for token in tokens)}


def _says_it_lost_all(service: Service, log: Path) -> bool:
    """Of each partition of `post` it has said that it is lost, at a commit or at a beat."""
    said = log.read_text(errors="replace")
    beats = re.findall(r"lease_lost.*partitions=\[([\d, ]+)\].*queue=post", said)
    lost = {int(number) for numbers in beats for number in numbers.split(",")}
    lost |= {int(number) for number in re.findall(r"partition_lost.*\{ntf:(\d+)\}:post", said)}
    return len(lost) == service.keys.partitions


async def test_a_parked_lane_survives_its_worker_and_the_next_one_goes_on_in_order(
    service: Service, ledger: Ledger, tmp_path: Path
) -> None:
    events = [ping(f"e{i}", "flaky") for i in range(30)]
    with worker_process(service.url, tmp_path, **LATER) as first:
        await service.publish(*events[:20])
        await until(lambda: _has_parked(service, 20))
        first.kill()
    await service.publish(*events[20:])
    partition = service.keys.partition_of("flaky")
    await service.client.zadd(service.keys.parked("post", partition), {b"flaky/email": 0})
    with worker_process(service.url, tmp_path) as second:
        await until(lambda: len(ledger.lines()) == 30)
        await until(lambda: service.nothing_left("events", "post"))
        await is_serving(service)
        assert stopped(second) == 0
    assert [line.event_id for line in ledger.lines()] == [f"e{i}" for i in range(30)]
    await service.assert_at_baseline()


async def _has_parked(service: Service, count: int) -> bool:
    return await service.parked() == count


# Poison.


async def outlive(service: Service, folder: Path, deaths: int) -> None:
    """Starts one worker after the other, until so many have died of what they were given."""
    for _ in range(deaths):
        with worker_process(service.url, folder, ["post"], NOTIFIER_LEASE_TTL="1s") as worker:
            await until(lambda worker=worker: worker.poll() is not None)  # type: ignore[misc]
            assert worker.returncode == 99


async def routed(service: Service, folder: Path, *events: dict[str, object]) -> None:
    with worker_process(service.url, folder, ["router"]) as router:
        await service.publish(*events)
        await until(lambda: service.nothing_left("events"))
        assert stopped(router) == 0


@pytest.mark.slow
async def test_a_message_that_kills_its_worker_is_dead_lettered_and_its_neighbours_are_delivered(
    service: Service, ledger: Ledger, tmp_path: Path
) -> None:
    neighbours = [ping(f"n{i}", f"u{i}") for i in range(100)]
    await routed(service, tmp_path, ping("bad", "poison"), *neighbours)
    await outlive(service, tmp_path, 3)
    with worker_process(service.url, tmp_path, ["post"], NOTIFIER_LEASE_TTL="1s") as worker:
        letters = await until(lambda: service.entries("post", "dlq"))
        await until(lambda: {line.event_id for line in ledger.lines()} >= {f"n{i}" for i in range(100)})
        await is_serving(service, queues=["post"])
        assert stopped(worker) == 0
    assert [letter[b"error"] for letter in letters] == [b"Poison"]
    assert b"outlived 3 workers" in letters[0][b"reason"]
    assert [line.event_id for line in ledger.lines("poisoned")] == ["bad"] * 3
    await _assert_that_only_a_letter_is_left(service, "poison")


@pytest.mark.slow
async def test_a_parked_message_that_kills_its_worker_is_dead_lettered_and_the_other_lanes_go_on(
    service: Service, ledger: Ledger, tmp_path: Path
) -> None:
    # Five lanes that failed once, of which one kills at its second try.
    lanes = [f"flaky{i}" for i in range(4)]
    await routed(service, tmp_path, ping("bad", "turns"), *(ping(f"n-{u}", u) for u in lanes))
    with worker_process(service.url, tmp_path, ["post"], **LATER):
        await until(lambda: _has_parked(service, 5))
    for p in range(service.keys.partitions):
        parked = service.keys.parked("post", p)
        for lane in await service.client.zrange(parked, 0, -1):
            await service.client.zadd(parked, {lane: 0})
    await outlive(service, tmp_path, 3)
    with worker_process(service.url, tmp_path, ["post"], NOTIFIER_LEASE_TTL="1s") as worker:
        letters = await until(lambda: service.entries("post", "dlq"))
        await until(lambda: {line.event_id for line in ledger.lines()} >= {f"n-{u}" for u in lanes})
        await until(lambda: service.nothing_left("post"))
        await is_serving(service, queues=["post"])
        assert stopped(worker) == 0
    assert [letter[b"error"] for letter in letters] == [b"Poison"]
    assert [line.event_id for line in ledger.lines("poisoned")] == ["bad"] * 3
    await _assert_that_only_a_letter_is_left(service, "turns")


async def _assert_that_only_a_letter_is_left(service: Service, recipient: str) -> None:
    """A stream of dead letters that nobody has served yet has no group."""
    letters = service.keys.dlq("post", service.keys.partition_of(recipient))
    left = await leftovers(service.client, service.keys, ["events", "post"])
    assert left == [f"{letters} holds 1"]


@pytest.mark.slow
async def test_workers_that_stop_cleanly_are_not_held_against_a_message(
    service: Service, ledger: Ledger, tmp_path: Path
) -> None:
    """A parked lane that was handed out to five workers, none of which came to try it, is no poison."""
    await routed(service, tmp_path, *(ping(f"e{i}", "stuck") for i in range(3)))
    long = {"NOTIFIER_LEASE_TTL": "60s"}  # for so long a lane is held back that is not given back
    for _ in range(5):
        with worker_process(service.url, tmp_path, ["post"], **long) as worker:
            await until(lambda worker=worker: worker.pid in {line.pid for line in ledger.lines("stuck")})  # type: ignore[misc]
            assert stopped(worker) == 0
    with worker_process(service.url, tmp_path, ["post"], UNSTUCK="yes", **long) as worker:
        await until(lambda: [line.event_id for line in ledger.lines()] == ["e0", "e1", "e2"])
        assert stopped(worker) == 0
    await service.assert_at_baseline()
