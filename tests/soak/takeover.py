"""How long after a SIGKILL until somebody else delivers: from the kill to the new owner's first delivery."""

from __future__ import annotations

import asyncio
import statistics
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from notifier.local.broker import EmbeddedBroker
from tests.support.ledger import Ledger
from tests.support.processes import worker_process
from tests.support.service import Service, open_service, ping
from tests.support.waiting import until

TTL = 1.0
_PEOPLE = 64  # some in every partition
_EVERY = 0.02


@dataclass(frozen=True)
class Takeovers:
    """Seconds; `latest` of a kill is when the last of the dead worker's partitions had been served again."""

    first: list[float]
    latest: list[float]

    @property
    def p99(self) -> float:
        return statistics.quantiles(self.latest, n=100, method="inclusive")[98]

    def lines(self) -> list[str]:
        middle = statistics.median
        latest = f"p99 {self.p99:.2f}, longest {max(self.latest):.2f}, allowed {TTL + 1:.2f}"
        return [
            f"take-over after SIGKILL, {len(self.latest)} kills, lease TTL {TTL:g} s, seconds from the kill",
            f"  first delivery by a new owner: median {middle(self.first):.2f}",
            f"  last partition served again: median {middle(self.latest):.2f}, {latest}",
        ]


async def measure(folder: Path, kills: int) -> Takeovers:
    """Two workers; one is killed, its partitions' deliveries are waited for, and a new one is started."""
    first: list[float] = []
    latest: list[float] = []
    with EmbeddedBroker(folder / "broker", persistent=False) as broker, ExitStack() as stack:
        async with open_service(broker.url, folder) as service:
            ledger = Ledger(folder / "ledger")
            options = {"NOTIFIER_LEASE_TTL": f"{TTL:g}s"}
            workers = [stack.enter_context(worker_process(broker.url, folder, **options)) for _ in range(2)]
            load = asyncio.create_task(_load(service))
            try:
                for _ in range(kills):
                    await until(lambda: _share(service, [w.pid for w in workers]), every=0.02)
                    victim = workers.pop(0)
                    dead = f"-{victim.pid}-"
                    owned = {p for p, owner in (await service.owners("post")).items() if dead in owner}
                    start = ledger.size
                    victim.kill()
                    killed_at = time.monotonic()
                    served = await _served(service, ledger, victim.pid, owned, start)
                    first.append(min(served.values()) - killed_at)
                    latest.append(max(served.values()) - killed_at)
                    workers.append(stack.enter_context(worker_process(broker.url, folder, **options)))
            finally:
                load.cancel()
                await asyncio.gather(load, return_exceptions=True)
                ledger.close()
    return Takeovers(first, latest)


async def _load(service: Service) -> None:
    number = 0
    while True:
        await service.publish(*(ping(f"e{number}-{i}", f"u{i}") for i in range(_PEOPLE)))
        number += 1
        await asyncio.sleep(_EVERY * 5)


async def _share(service: Service, pids: list[int]) -> bool:
    """Both own their half of both queues."""
    for queue in ("events", "post"):
        owners = list((await service.owners(queue)).values())
        for pid in pids:
            if sum(f"-{pid}-" in owner for owner in owners) != service.keys.partitions // 2:
                return False
    return True


async def _served(
    service: Service, ledger: Ledger, dead: int, owned: set[int], start: int
) -> dict[int, float]:
    """When each of these partitions was first served by somebody else."""
    served: dict[int, float] = {}

    def all_are() -> bool:
        for line in ledger.lines(start=start):
            if line.pid != dead and (p := service.keys.partition_of(line.address.partition("@")[0])) in owned:
                served[p] = min(line.at, served.get(p, line.at))
        return served.keys() == owned

    await until(all_are, every=_EVERY)
    return served
