"""What the soak does to the service. Each fault says how many deliveries it may cause to be made twice."""

from __future__ import annotations

import asyncio
import random
import signal
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress

import redis

from notifier.broker.scripts import script
from notifier.keys import GROUP
from tests.soak.service import IN_HAND, QUEUES, TTL, WORKERS, Service, ended

Fault = Callable[[], Awaitable[int]]


class Faults:
    """`done` counts them by kind; `takeovers` are seconds from a SIGKILL until all has a new owner."""

    def __init__(self, service: Service, chance: random.Random) -> None:
        self._service = service
        self._random = chance
        self.done: Counter[str] = Counter()
        self.allowed = 0
        self.takeovers: list[float] = []

    def loops(self) -> list[tuple[float, list[Fault]]]:
        """The faults of a list come one after the other, about so many seconds apart; the lists run at the
        same time."""
        return [
            (4.0, [self.worker_killed, self.worker_asleep, self.worker_told_to_stop]),
            (2.0, [
                self.server_killed, self.server_paused, self.server_asleep, self.server_full,
                self.clients_killed, self.connections_cut, self.command_cut, self.publish_cut,
                self.reads_unblocked, self.scripts_forgotten, self.lease_deleted, self.group_deleted,
            ]),
            (3.0, [
                self.provider_down, self.provider_flapping, self.half_refused, self.all_greylisted,
                self.hung_up, self.provider_slow,
            ]),
        ]  # fmt: skip

    async def run(self, pause: float, faults: list[Fault], stop: asyncio.Event) -> None:
        """In random order, each as often as the others."""
        while True:
            for fault in self._random.sample(faults, len(faults)):
                try:
                    async with asyncio.timeout(self._random.uniform(0.3, 1.7) * pause):
                        await stop.wait()
                    return
                except TimeoutError:
                    pass
                allowed = await fault()  # first: others add theirs meanwhile
                self.allowed += allowed
                self.done[getattr(fault, "__name__", "?").replace("_", " ")] += 1

    # Workers.

    async def worker_killed(self) -> int:
        service = self._service
        worker = self._random.choice(service.workers)
        try:
            owned = await service.owned_by(worker)
        except redis.RedisError:
            owned = set()
        if worker not in service.workers:  # it had found no server as it started, and was replaced meanwhile
            return 0
        worker.kill()
        worker.wait()
        killed_at = time.monotonic()
        service.replace(worker)
        if owned:
            await self._taken_over(owned, f"-{worker.pid}-".encode(), killed_at)
        return IN_HAND

    async def _taken_over(self, places: set[tuple[str, int]], dead: bytes, since: float) -> None:
        while time.monotonic() - since < 30:
            try:
                tokens = await self._service.tokens()
            except redis.RedisError:
                await asyncio.sleep(0.05)
                continue
            if all(tokens[place] and dead not in tokens[place] for place in places):
                self.takeovers.append(time.monotonic() - since)
                return
            await asyncio.sleep(0.02)
        raise AssertionError(f"{places} of {dead!r} have no new owner after 30 s")

    async def worker_asleep(self) -> int:
        worker = self._random.choice(self._service.workers)
        worker.send_signal(signal.SIGSTOP)
        await asyncio.sleep(1.5 * TTL)
        worker.send_signal(signal.SIGCONT)
        return IN_HAND

    async def worker_told_to_stop(self) -> int:
        worker = self._random.choice(self._service.workers)
        self._service.replace(worker)
        worker.send_signal(signal.SIGTERM)
        code = await ended(worker, 30)
        if code is None:  # as a supervisor does
            self.done["killed after SIGTERM"] += 1
            worker.kill()
            worker.wait()
            return IN_HAND
        if code == 1:
            self._service.failed_starts += 1
        elif code not in (0, -signal.SIGTERM):  # it had not come so far as to listen for the signal
            raise AssertionError(f"a worker that was told to stop ended with {code}")
        return 0

    # The server. When it is away for long the leases run out, and what was in hand may be made again.

    async def server_killed(self) -> int:
        self._service.broker.kill()
        await asyncio.sleep(self._random.uniform(0, 1.5))
        await asyncio.to_thread(self._service.broker.start)
        return WORKERS * IN_HAND

    async def server_paused(self) -> int:
        await self._command("CLIENT", "PAUSE", int(self._random.uniform(200, 1_500)), "ALL")
        return WORKERS * IN_HAND

    async def server_asleep(self) -> int:
        await self._command("DEBUG", "SLEEP", self._random.uniform(0.2, 1.5))
        return WORKERS * IN_HAND

    async def server_full(self) -> int:
        try:
            used = (await self._service.client.info("memory"))["used_memory"]
        except redis.RedisError:
            return 0
        await self._command("CONFIG", "SET", "maxmemory", used // 2)
        await asyncio.sleep(self._random.uniform(0.5, 1.5))
        await self._command("CONFIG", "SET", "maxmemory", 0)
        return 0

    async def clients_killed(self) -> int:
        await self._command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        return 0

    async def connections_cut(self) -> int:
        self._service.proxy.cut_all()
        return 0

    async def command_cut(self) -> int:
        names = ("commit", "route", "recover", "lanes_due", "lease_renew", "lease_acquire")
        for name in self._random.sample(names, 3):
            self._service.proxy.cut(script(name).sha.encode(), after=self._random.random() < 0.5)
        self._service.proxy.cut(b"XREADGROUP", after=True)
        return 0

    async def publish_cut(self) -> int:
        """One never comes, and of one no answer does."""
        for after in (False, True):
            self._service.proxy.cut(script("publish").sha.encode(), after=after)
        return 0

    async def reads_unblocked(self) -> int:
        """All that wait for entries at that moment get an error."""
        unblocked = 0
        while not unblocked:
            await asyncio.sleep(0.01)
            with suppress(redis.RedisError):
                for client in await self._service.client.client_list():
                    if "b" in client["flags"]:
                        unblocked += await self._service.client.client_unblock(client["id"], error=True)
        return 0

    async def scripts_forgotten(self) -> int:
        await self._command("SCRIPT", "FLUSH")
        return 0

    async def lease_deleted(self) -> int:
        keys = self._service.keys
        for p in self._random.sample(range(keys.partitions), 4):
            await self._command("DEL", keys.lease(self._random.choice(QUEUES), p))
        return WORKERS * IN_HAND

    async def group_deleted(self) -> int:
        keys = self._service.keys
        for p in self._random.sample(range(keys.partitions), 4):
            await self._command("XGROUP", "DESTROY", keys.queue(self._random.choice(QUEUES), p), GROUP)
        return WORKERS * IN_HAND

    async def _command(self, *words: object) -> None:
        """Until it has been taken: another fault may be at work."""
        while True:
            try:
                await self._service.client.execute_command(*words)
                return
            except redis.RedisError:
                await asyncio.sleep(0.05)

    # The provider.

    async def provider_down(self) -> int:
        await self._bad_mailbox(unavailable=True, seconds=2)
        return 0

    async def provider_flapping(self) -> int:
        for _ in range(4):
            await self._bad_mailbox(unavailable=True, seconds=0.3)
            await asyncio.sleep(0.3)
        return 0

    async def _bad_mailbox(self, *, unavailable: bool, seconds: float) -> None:
        self._service.mailbox.unavailable = unavailable
        await asyncio.sleep(seconds)
        self._service.mailbox.unavailable = False

    async def half_refused(self) -> int:
        await self._refusing(0.5)
        return 0

    async def all_greylisted(self) -> int:
        await self._refusing(1.0)
        return 0

    async def _refusing(self, share: float) -> None:
        self._service.mailbox.refuses = share
        await asyncio.sleep(1.5)
        self._service.mailbox.refuses = 0.0

    async def provider_slow(self) -> int:
        self._service.mailbox.slow = self._random.uniform(0.2, 1.5)
        await asyncio.sleep(2)
        self._service.mailbox.slow = 0.0
        return 0

    async def hung_up(self) -> int:
        """It has the mail, and says nothing: each of these is sent again."""
        self._service.mailbox.hangs_up += 3
        return 3
