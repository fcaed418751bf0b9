"""How long after a SIGKILL until somebody else does all that the dead worker did.

That is from the kill until, in each partition that it had of either queue, an event is delivered that was
published after the kill. Somebody who lives has to route such an event, and to deliver it.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from notifier.errors import BrokerError
from notifier.local.broker import EmbeddedBroker
from tests.support.ledger import Ledger, judge
from tests.support.processes import worker_process
from tests.support.service import Service, address_of, open_service, ping
from tests.support.waiting import until

TTL = 1.0
QUEUES = ("events", "post")
_PEOPLE = tuple(f"u{i}" for i in range(64))  # some in every partition
_EVERY = 0.02


@dataclass(frozen=True)
class Takeovers:
    """Seconds; `latest` of a kill is when the last of the dead worker's partitions had been served again.
    `problems` is empty when nothing was lost and all came in order."""

    first: list[float]
    latest: list[float]
    problems: list[str]

    @property
    def p99(self) -> float:
        return statistics.quantiles(self.latest, n=100, method="inclusive")[98]

    def lines(self) -> list[str]:
        middle = statistics.median
        latest = f"p99 {self.p99:.2f}, longest {max(self.latest):.2f}, allowed {TTL + 1:.2f}"
        return [
            f"take-over after SIGKILL, {len(self.latest)} kills, lease TTL {TTL:g} s, seconds from the kill",
            f"  first partition served again: median {middle(self.first):.2f}",
            f"  last partition served again: median {middle(self.latest):.2f}, {latest}",
            *(self.problems or ["  ledger clean"]),
        ]


async def measure(folder: Path, kills: int) -> Takeovers:
    """Two workers; one is killed, its partitions' deliveries are waited for, and a new one is started."""
    first: list[float] = []
    latest: list[float] = []
    with EmbeddedBroker(folder / "broker", persistent=False) as broker, ExitStack() as stack:
        async with open_service(broker.url, folder) as service:
            ledger = Ledger(folder / "ledger")
            stack.callback(ledger.close)
            options = {"NOTIFIER_LEASE_TTL": f"{TTL:g}s"}
            workers = [stack.enter_context(worker_process(broker.url, folder, **options)) for _ in range(2)]
            load = _Load(service)
            async with load.flowing():
                for _ in range(kills):
                    await until(lambda: _share(service, [w.pid for w in workers]), every=0.02)
                    victim = workers.pop(0)
                    owned = await _owned_by(service, victim.pid)
                    start = ledger.size
                    victim.kill()
                    killed_at = time.monotonic()
                    victim.wait()
                    served = await _served(service, ledger, owned, start, load.batches)
                    first.append(min(served.values()) - killed_at)
                    latest.append(max(served.values()) - killed_at)
                    workers.append(stack.enter_context(worker_process(broker.url, folder, **options)))
            with suppress(TimeoutError):  # the verdict says what is missing
                await until(lambda: service.nothing_left(*QUEUES), deadline=60)
            problems = judge(load.published, ledger.lines()).breaches
    return Takeovers(first, latest, problems)


class _Load:
    """One event for everybody, ten times a second. `batches` is how many were begun."""

    def __init__(self, service: Service) -> None:
        self.batches = 0
        self.published: dict[str, list[str]] = defaultdict(list)
        self._service = service

    @asynccontextmanager
    async def flowing(self) -> AsyncIterator[None]:
        """While the block runs; at its end everything has been accepted."""
        stop = asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._flow(stop))
            try:
                yield
            finally:
                stop.set()

    async def _flow(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            number = self.batches
            self.batches += 1
            events = [ping(f"{number}-{person}", person) for person in _PEOPLE]
            for person, event in zip(_PEOPLE, events, strict=True):
                self.published[address_of(person)].append(event["id"])
            while True:
                try:
                    await self._service.publish(*events)
                    break
                except BrokerError:  # the machine stood still
                    await asyncio.sleep(_EVERY)
            await asyncio.sleep(_EVERY * 5)


async def _share(service: Service, pids: list[int]) -> bool:
    """Both own their half of both queues."""
    for queue in QUEUES:
        owners = list((await service.owners(queue)).values())
        for pid in pids:
            if sum(f"-{pid}-" in owner for owner in owners) != service.keys.partitions // 2:
                return False
    return True


async def _owned_by(service: Service, pid: int) -> set[int]:
    """The partitions that this worker has of either queue."""
    owners = [await service.owners(queue) for queue in QUEUES]
    return {p for of in owners for p, owner in of.items() if f"-{pid}-" in owner}


async def _served(
    service: Service, ledger: Ledger, owned: set[int], start: int, batch: int
) -> dict[int, float]:
    """When an event of this batch or a later one was first delivered in each of these partitions."""
    served: dict[int, float] = {}

    def all_are() -> bool:
        for line in ledger.lines(start=start):
            p = service.keys.partition_of(line.address.partition("@")[0])
            if p in owned and int(line.event_id.partition("-")[0]) >= batch:
                served[p] = min(line.at, served.get(p, line.at))
        return served.keys() == owned

    await until(all_are, every=_EVERY)
    return served
