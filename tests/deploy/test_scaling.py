"""Mail workers of k8s/overlays/production, scaled by the numbers, thresholds and rates of their ScaledObject.

Processes run as the Deployment says, with a channel that notes what it sends, 50 ms each, five at a time:
about 100 a second for each worker. `make soak` makes it long: NOTIFIER_SCALE_WAVES, each of
NOTIFIER_SCALE_SECONDS, and NOTIFIER_SCALE_SPEED.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import httpx
import pytest

from notifier.broker.connection import connect
from notifier.keys import Keys
from notifier.local.broker import EmbeddedBroker
from notifier.publisher import AsyncPublisher
from tests.support.autoscaler import Autoscaler
from tests.support.channels import LedgerChannel
from tests.support.cluster import Cluster
from tests.support.ledger import Ledger, judge, leftovers
from tests.support.manifests import Doc, named, of_kind, overlay
from tests.support.service import address_of
from tests.support.waiting import until

linux = pytest.mark.skipif(sys.platform != "linux", reason="takes all of 127.0.0.0/8 as this machine")

WAVES = int(os.environ.get("NOTIFIER_SCALE_WAVES", "1"))
SECONDS = float(os.environ.get("NOTIFIER_SCALE_SECONDS", "0"))
SPEED = float(os.environ.get("NOTIFIER_SCALE_SPEED", "60"))
PEOPLE = 200
WAITING = 2_800
"""What waits until all workers deliver, beside what they have in hand. 500 for each worker are allowed to,
and a tenth more or less changes nothing: from 2,750 on there are six, and seven from 3,300 on."""
EMAIL = "notifier-email"


class SlowMail(LedgerChannel):
    name = "email"


def open_slow_mail(environ: Mapping[str, str]) -> SlowMail:
    """The factory for `NOTIFIER_CHANNELS`."""
    return SlowMail(Ledger(Path(environ["LEDGER"])))


@dataclass
class Watched:
    """What the controller saw and did."""

    replicas: list[int] = field(default_factory=list)
    waiting: list[float] = field(default_factory=list)
    oldest: list[float] = field(default_factory=list)


async def control(cluster: Cluster, scaler: Autoscaler, seen: Watched) -> None:
    """As the controllers do, for ever."""
    scaling: list[asyncio.Task[None]] = []
    replicas = len(cluster.of(EMAIL))
    async with httpx.AsyncClient(trust_env=False, timeout=20) as client:
        try:
            while True:
                waiting, oldest = await scaler.signals(client)
                decided = scaler.decide([waiting, oldest], replicas)
                seen.waiting.append(waiting)
                seen.oldest.append(oldest)
                if decided != replicas:
                    seen.replicas.append(decided)
                    scaling.append(asyncio.create_task(cluster.scale(EMAIL, decided)))
                    replicas = decided
                await asyncio.sleep(scaler.pause)
        finally:
            await asyncio.gather(*scaling)


class Load:
    """Events for people whose mails take 50 ms, and what each of them is to get, in order."""

    def __init__(self, publisher: AsyncPublisher, ledger: Ledger, in_hand: int) -> None:
        self.published: dict[str, list[str]] = {}
        self.count = 0
        self._publisher = publisher
        self._ledger = ledger
        self._in_hand = in_hand
        self._delivered = 0
        self._read = 0
        self._workers: set[bytes] = set()

    @property
    def behind(self) -> int:
        """How many are not delivered. What was counted is not read again."""
        with self._ledger.path.open("rb") as file:
            file.seek(self._read)
            noted = file.read()
        noted = noted[: noted.rfind(b"\n") + 1]
        self._read += len(noted)
        self._delivered += noted.count(b"\n")
        self._workers |= {line.split(b" ")[3] for line in noted.splitlines()}
        return self.count - self._delivered

    async def top_up(self, workers: int) -> None:
        """Until so many wait, with so many workers that have their hands full."""
        missing = WAITING + workers * self._in_hand - self.behind
        for start in range(0, missing, 200):
            events = []
            for _ in range(min(200, missing - start)):
                recipient = f"slow{self.count % PEOPLE}"
                to = {"id": recipient, "email": address_of(recipient)}
                events.append({"id": f"e{self.count}", "type": "like", "recipient": to})
                self.published.setdefault(address_of(recipient), []).append(f"e{self.count}")
                self.count += 1
            await self._publisher.publish_many(events)

    async def wave(self, seen: Watched, workers: int) -> None:
        """Until so many workers have delivered, and as long as it is to take."""
        end, give_up = time.monotonic() + SECONDS, time.monotonic() + SECONDS + 60
        before = seen.replicas[-1]
        self._workers.clear()
        while len(self._workers) < workers or time.monotonic() < end:
            assert time.monotonic() < give_up, seen.replicas
            busy = len(self._workers)
            await self.top_up(max(before, busy) if busy < workers else before)
            await asyncio.sleep(0.1)


@linux
@pytest.mark.slow
@pytest.mark.timeout(900)
async def test_a_backlog_brings_six_workers_and_its_end_leaves_two(tmp_path: Path) -> None:
    docs = overlay("production")
    ledger = Ledger(tmp_path / "ledger")
    with EmbeddedBroker(tmp_path / "broker", persistent=False) as broker:
        secret = {
            "NOTIFIER_REDIS_URL": broker.url,
            "NOTIFIER_API_KEYS": "publish:" + "p" * 32,
            "NOTIFIER_SMTP_URL": "smtp://127.0.0.1:25",
        }
        more = {
            "NOTIFIER_CHANNELS": "tests.deploy.test_scaling:open_slow_mail",
            "NOTIFIER_CONCURRENCY": "5",
            "LEDGER": str(tmp_path / "ledger"),
        }
        async with (
            Cluster(docs, tmp_path, secret, more=more) as cluster,
            AsyncPublisher(broker.url) as publisher,
        ):
            await cluster.apply("notifier-api", "notifier-router", EMAIL)
            assert len(cluster.of(EMAIL)) == 1
            load, seen = Load(publisher, ledger, in_hand_of(docs)), Watched([1])
            scaler = Autoscaler(named(docs, "ScaledObject", EMAIL), cluster.resolve, speed=SPEED)
            await load.top_up(1)
            controlling = asyncio.create_task(control(cluster, scaler, seen))
            for _ in range(WAVES):
                await load.wave(seen, 6)
                await until(lambda: not load.behind, deadline=120, every=0.1)
                await until(lambda: is_at_rest(cluster, seen), deadline=300, every=0.1)
            await stopped(controlling)
            pods = list(cluster.pods)
            await asyncio.gather(*(cluster.stop(pod) for pod in pods))
        async with connect(broker.url) as client:
            left = await leftovers(client, Keys(), ("events", "email"))
    check(seen)
    verdict = judge(load.published, ledger.lines())
    assert (verdict.breaches, verdict.duplicates, left) == ([], 0, [])
    assert [(pod.name, pod.code, pod.restarts) for pod in pods if pod.code or pod.restarts] == []
    ledger.close()


def in_hand_of(docs: Sequence[Doc]) -> int:
    """The setting of the pods."""
    [settings] = [doc["data"] for doc in of_kind(docs, "ConfigMap") if "NOTIFIER_IN_HAND" in doc["data"]]
    return int(settings["NOTIFIER_IN_HAND"])


def is_at_rest(cluster: Cluster, seen: Watched) -> bool:
    return seen.replicas[-1] == 2 == len(cluster.of(EMAIL))


async def stopped(task: asyncio.Task[None]) -> None:
    """Raises what ended it before."""
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


def check(seen: Watched) -> None:
    """Up to six and down to two in each wave, with no turn in between; the backlog went."""
    changes = [after - before for before, after in pairwise(seen.replicas)]
    turns = sum((one > 0) != (next_ > 0) for one, next_ in pairwise(changes))
    assert seen.replicas[0] == 1
    assert (max(seen.replicas), seen.replicas[-1], turns) == (6, 2, 2 * WAVES - 1), seen.replicas
    assert max(seen.waiting) > 2_500
    assert seen.waiting[-1] == 0
    assert max(seen.oldest) < 60, "the second trigger was not needed"
