"""Workers that come, go and die while others work: one event after the other is still delivered in order."""

from __future__ import annotations

import random
import signal
from contextlib import ExitStack
from pathlib import Path

import pytest

from notifier.errors import BrokerError
from notifier.local.broker import EmbeddedBroker
from tests.faults.test_worker_faults import Work, is_serving, stopped
from tests.support.ledger import Ledger
from tests.support.processes import worker_process
from tests.support.service import Service, open_service
from tests.support.waiting import until

LONG = {"NOTIFIER_LEASE_TTL": "60s"}  # whoever waited for one to run out would be seen


@pytest.mark.slow
async def test_from_one_worker_to_four_to_two_under_load_nothing_comes_twice(
    service: Service, ledger: Ledger, tmp_path: Path
) -> None:
    work = Work(service, ledger, 4_000, people=100)
    limits = {"NOTIFIER_LEASE_TTL": "5s"}  # or a machine that stands still for two hands leases over
    with ExitStack() as stack:
        # Not so quick that it is done with everything before the others have started.
        slowly = limits | {"NOTIFIER_CONCURRENCY": "20"}
        workers = [stack.enter_context(worker_process(service.url, tmp_path, **slowly))]
        await is_serving(service)
        await work.publish()
        await work.reaches(100)
        workers += [stack.enter_context(worker_process(service.url, tmp_path, **limits)) for _ in range(3)]
        await is_serving(service, workers=4)
        assert work.done() < 4_000
        for worker in workers[:2]:
            assert stopped(worker) == 0
        await is_serving(service, workers=2)
        await work.is_finished()
        for worker in workers[2:]:
            assert stopped(worker) == 0
    work.assert_complete_and_in_order(duplicates=0)
    await service.assert_at_baseline()


@pytest.mark.slow
async def test_a_rolling_restart_under_load_repeats_nothing(
    service: Service, ledger: Ledger, tmp_path: Path
) -> None:
    work = Work(service, ledger, 4_000, people=100)
    # Not so quick that a half is done before somebody is stopped.
    slowly = LONG | {"NOTIFIER_CONCURRENCY": "20"}
    with ExitStack() as stack:
        workers = [stack.enter_context(worker_process(service.url, tmp_path, **slowly)) for _ in range(2)]
        await is_serving(service, workers=2)
        for number in range(2):
            published = 2_000 * (number + 1)
            await service.publish(*work.events[published - 2_000 : published])
            await work.reaches(published - 1_800)
            assert stopped(workers[number]) == 0
            workers.append(stack.enter_context(worker_process(service.url, tmp_path, **slowly)))
            await is_serving(service, workers=2)
        await work.is_finished()
        for worker in workers[2:]:
            assert stopped(worker) == 0
    work.assert_complete_and_in_order(duplicates=0)
    await service.assert_at_baseline()


@pytest.mark.slow
async def test_workers_killed_at_random_cost_only_repetitions(
    service: Service, ledger: Ledger, tmp_path: Path
) -> None:
    work = Work(service, ledger, 1_500, people=60, kind="flaky")
    limits = {"NOTIFIER_IN_HAND": "50", "NOTIFIER_LEASE_TTL": "2s"}
    kills = 4
    with ExitStack() as stack:
        workers = [stack.enter_context(worker_process(service.url, tmp_path, **limits)) for _ in range(2)]
        await is_serving(service, workers=2)
        await work.publish()
        for number in range(kills):
            await work.reaches(1_500 * (number + 1) // (kills + 2))
            workers.pop(random.randrange(2)).kill()
            workers.append(stack.enter_context(worker_process(service.url, tmp_path, **limits)))
        await work.is_finished()
        await is_serving(service, workers=2)
        for worker in workers:
            assert stopped(worker) == 0
    work.assert_complete_and_in_order(duplicates=kills * 50)
    await service.assert_at_baseline()


class _Debuggable(EmbeddedBroker):
    def _command(self) -> list[str]:
        return [*super()._command(), "--enable-debug-command", "yes"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [("CLIENT", "PAUSE", 1_500, "ALL"), ("CLIENT", "PAUSE", 1_500, "WRITE"), ("DEBUG", "SLEEP", 1.5)],
    ids=["client pause", "client pause write", "debug sleep"],
)
async def test_a_server_that_answers_nobody_for_longer_than_a_lease_costs_only_repetitions(
    tmp_path: Path, command: tuple[object, ...]
) -> None:
    with _Debuggable(tmp_path / "broker", persistent=False) as broker:
        async with open_service(broker.url, tmp_path) as service:
            ledger = Ledger(tmp_path / "ledger")
            work = Work(service, ledger, 600, people=30)
            limits = {"NOTIFIER_IN_HAND": "50", "NOTIFIER_LEASE_TTL": "1s"}
            with (
                worker_process(service.url, tmp_path, **limits) as one,
                worker_process(service.url, tmp_path, **limits) as other,
            ):
                await is_serving(service, workers=2)
                await work.publish()
                for portion in (100, 300):
                    await work.reaches(portion)
                    await service.client.execute_command(*command)
                await work.is_finished()
                await is_serving(service, workers=2)
                assert stopped(one) == 0
                assert stopped(other) == 0
            work.assert_complete_and_in_order(duplicates=2 * 2 * 50)
            await service.assert_at_baseline()


@pytest.mark.slow
async def test_a_server_that_is_full_refuses_events_and_loses_none(
    service: Service, ledger: Ledger, tmp_path: Path
) -> None:
    work = Work(service, ledger, 900, people=30, kind="flaky")
    with (
        worker_process(service.url, tmp_path, ["router"]) as router,
        worker_process(service.url, tmp_path, ["post"]) as worker,
    ):
        await is_serving(service, queues=["events"])
        await is_serving(service, queues=["post"])
        for number in range(100, 1_000, 100):
            fills = number in (300, 600)
            if fills:  # what is published now is still to be delivered when the server is full
                worker.send_signal(signal.SIGSTOP)
            await service.publish(*work.events[number - 100 : number])
            if fills:
                await until(lambda: _is_routed(service))
                used = (await service.client.info("memory"))["used_memory"]
                await service.client.config_set("maxmemory", used // 2)
                with pytest.raises(BrokerError):
                    await service.publish(*work.events[number : number + 100])
                assert work.done() < number
                worker.send_signal(signal.SIGCONT)
                await work.reaches(number)
                await service.client.config_set("maxmemory", 0)
        await work.is_finished()
        assert stopped(router) == 0
        assert stopped(worker) == 0
    work.assert_complete_and_in_order(duplicates=0)
    await service.assert_at_baseline()


async def _is_routed(service: Service) -> bool:
    return not await service.waiting("events")
