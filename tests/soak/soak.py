"""All faults at once under a steady load, and the verdict."""

from __future__ import annotations

import asyncio
import random
import signal
import statistics
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from notifier.inbox import decode_entry, inbox_keys
from tests.soak.faults import Faults
from tests.soak.service import CONNECTIONS, PEOPLE, QUEUES, TTL, WORKERS, Service, ended, open_service
from tests.support.ledger import Line, Verdict, judge, leftovers
from tests.support.waiting import until

RATE = 50
"""Events a second. Each is a mail and an inbox entry."""

DRAINED_WITHIN = 60.0
_BATCH = 10


@dataclass(frozen=True)
class Outcome:
    """What came of it; `problems` is empty when the ledger is clean."""

    lines: list[str]
    problems: list[str]


async def soak(
    folder: Path, seconds: float, seed: int, tell: Callable[[str], None] = lambda _: None
) -> Outcome:
    """Publishes and disturbs for so long, then lets it all come to rest, and judges."""
    async with open_service(folder) as service:
        faults = Faults(service, random.Random(seed))
        started = time.monotonic()
        for _ in range(WORKERS):
            service.start_worker()
        stop = asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            for pause, loop in faults.loops():
                tasks.create_task(faults.run(pause, loop, stop))
            tasks.create_task(_load(service, stop, tell))
            await asyncio.sleep(seconds)
            stop.set()
        disturbed = time.monotonic() - started
        service.supervise()
        with suppress(TimeoutError):  # the verdict says what is left
            await until(service.is_drained, deadline=DRAINED_WITHIN, every=0.2)
        drained = time.monotonic() - started - disturbed
        crowded = await _crowded(service)
        for worker in service.workers:
            worker.terminate()
        codes = [await ended(worker, 30) for worker in service.workers]
        times = f"disturbed for {disturbed:.0f} s, at rest {drained:.1f} s after that"
        return await _judged(service, faults, codes, crowded, times)


async def _crowded(service: Service) -> list[str]:
    """What is wrong with the connections of workers that are at rest, and still run."""
    found = [""]

    async def is_in_order() -> bool:  # one that follows another may come before that one has gone
        found[:] = await service.too_many_connections()
        return not found

    with suppress(TimeoutError):
        await until(is_in_order, deadline=10, every=0.2)
    return found


async def _load(service: Service, stop: asyncio.Event, tell: Callable[[str], None]) -> None:
    began, number = time.monotonic(), 0
    while not stop.is_set():
        await service.publish(number)
        number += 1
        service.supervise()
        if number % 6 == 0:
            service.look_at_memory()
        if number % (60 * RATE // _BATCH) == 0:
            mails = len(service.mailbox.taken)
            tell(f"{time.monotonic() - began:.0f} s: {service.events} events, {mails} mails")
        await asyncio.sleep(max(0.0, began + number * _BATCH / RATE - time.monotonic()))


async def _judged(
    service: Service, faults: Faults, codes: list[int | None], crowded: list[str], times: str
) -> Outcome:
    mails = _mails(service)
    wrong = await _wrong_inboxes(service)
    problems = [*mails.breaches, *wrong, *crowded]
    if mails.duplicates > faults.allowed:
        problems.append(f"{mails.duplicates} duplicates, {faults.allowed} allowed")
    if set(codes) - {0, -signal.SIGTERM}:  # it had not come so far as to listen for the signal
        problems.append(f"workers ended with {codes}")
    if "Traceback" in service.said() or service.refused_to_start() < service.failed_starts:
        problems.append(f"workers crashed: {service.failed_starts} ended, see workers.log")
    problems += await leftovers(service.client, service.keys, QUEUES)
    takeovers = sorted(faults.takeovers)
    did = service.mailbox.did
    lines = [
        times,
        f"events {service.events}, to {len(PEOPLE)} people by mail and in app",
        f"mails {len(service.mailbox.taken)}: missing {len(mails.missing)}, twice {mails.duplicates}",
        f"mails that may come twice after so many crashes: {faults.allowed}",
        f"mailboxes in which the order was broken: {len(mails.out_of_order)}",
        f"inbox entries missing or twice: {len(wrong)}",
        f"mails that went by way of the DLQ: {len(service.dead_lettered())}",
        f"publishes refused and made again: {service.refused}",
        f"workers that found no server as they started: {service.failed_starts}",
        f"faults {sum(faults.done.values())}",
        *(f"  {count:4}  {kind}" for kind, count in sorted(faults.done.items())),
        f"connections cut {service.proxy.cuts}",
        f"mails put off {did['refused']}, taken without an answer {did['hung up after DATA']}",
        f"mails to which the server was slow {did['slow']}",
        f"all of a killed worker owned again, TTL {TTL:g} s, amid other faults: {_spread(takeovers)}",
        f"connections of a worker at rest: {service.most_connections}, {CONNECTIONS} allowed",
        f"largest worker {service.peak_kib / 1024:.0f} MiB",
        "ledger clean" if not problems else "LEDGER NOT CLEAN",
    ]
    return Outcome(lines, problems)


def _mails(service: Service) -> Verdict:
    """Nothing is missing; and what never left its lane is in order."""
    published = {f"{u}@example.com": ids for u, ids in service.published.items()}
    lines = [Line("sent", to, event_id, 0, 0.0) for to, event_id in service.mailbox.taken]
    everything, left = judge(published, lines), service.dead_lettered()
    in_lanes = {to: [e for e in ids if e not in left] for to, ids in published.items()}
    lanes = judge(in_lanes, [line for line in lines if line.event_id not in left])
    return replace(everything, out_of_order=lanes.out_of_order)


async def _wrong_inboxes(service: Service) -> list[str]:
    problems = []
    for recipient, ids in service.published.items():
        titles = await _titles(service, recipient)
        if sorted(titles) != sorted(ids):
            problems.append(f"inbox of {recipient}: {len(titles)} entries, {len(ids)} events")
    return problems


async def _titles(service: Service, recipient: str) -> list[str]:
    entries = next(key for key in inbox_keys(service.keys, recipient) if key.endswith(":entries"))
    return [decode_entry(entry).title for entry in await service.client.hvals(entries)]


def _spread(times: list[float]) -> str:
    if not times:
        return "none"
    return f"{len(times)} times, median {statistics.median(times):.2f} s, longest {times[-1]:.2f} s"
