"""What the cases of `test_failpoints` share: a namespace of their own, a mixed load, and a verdict."""

from __future__ import annotations

import asyncio
import json
import signal
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import redis.asyncio

from notifier.dead_letters import ALERT_TYPE
from notifier.keys import Keys
from notifier.local.broker import EmbeddedBroker
from notifier.operations.queues import QueueState, look
from notifier.publisher import AsyncPublisher
from tests.support.failpoints import DIED, Armed
from tests.support.fork_server import Child, ForkServer
from tests.support.ledger import Ledger, inbox_events, judge, leftovers
from tests.support.service import address_of, ping, write_types
from tests.support.waiting import until

QUEUES = ("events", "post", "box")
IN_HAND = 10
ADMIN = "ops@example.com"
PLAIN = tuple(f"u{i}" for i in range(6))


@dataclass
class Load:
    """What was accepted. Each recipient has one address on the channel `post` and one inbox."""

    published: dict[str, list[str]] = field(default_factory=dict)
    never: set[str] = field(default_factory=set)
    """The event ids that end among the dead."""
    unrouted: set[str] = field(default_factory=set)
    """Those of them that nobody can route."""

    def event(self, number: int, recipient: str, **fields: Any) -> dict[str, Any]:
        event_id = f"e{number}-{recipient}"
        self.published.setdefault(recipient, []).append(event_id)
        return ping(event_id, recipient) | fields


def mixed() -> tuple[Load, list[dict[str, Any]]]:
    """Something for every call that a worker makes."""
    load = Load()
    events = [load.event(n, u) for n in range(4) for u in PLAIN]
    events += [load.event(n, u) for n in range(3) for u in ("flaky", "twice", "flaky-too")]
    events += [load.event(0, u) for u in ("second", "sinks", "bad")]
    events.append(load.event(0, "nowhere", type="unheard_of"))
    load.never |= {"e0-bad", "e0-nowhere"}
    load.unrouted.add("e0-nowhere")
    soon = datetime.now(UTC) + timedelta(milliseconds=250)
    events.append(load.event(0, "later", deliver_at=soon))
    return load, events


class NotReached(AssertionError):
    """The process lives: it never came to its point."""


class Scene:
    """One case's namespace and processes."""

    def __init__(self, server: ForkServer, url: str, folder: Path, namespace: str) -> None:
        folder.mkdir()
        self.server = server
        self.folder = folder
        self.keys = Keys(namespace, 2)
        self.client = redis.asyncio.Redis.from_url(url, max_connections=4)
        self.publisher = AsyncPublisher(url, namespace=namespace, partitions=2)
        self.ledger = Ledger(folder / "ledger")
        self.log = folder / "log"
        self.log.touch()
        self.place = {
            "url": url,
            "namespace": namespace,
            "templates": str(write_types(folder / "types", **{ALERT_TYPE: ""})),
            "ledger": str(self.ledger.path),
        }
        self.crashes = 0

    async def fork(self, work: str = "work", armed: Armed | None = None, **options: Any) -> Child:
        place = self.place | options.pop("place", {})
        return await self.server.fork(work, self.log, armed, place=place, **options)

    async def dies(self, child: Child) -> None:
        """Waits until it has, at its point."""
        try:
            code = await child.ended(8)
        except TimeoutError:
            raise NotReached from None
        assert code == DIED, f"ended with {code}"
        self.crashes += 1

    async def look(self) -> dict[str, QueueState]:
        return {state.queue: state for state in await look(self.client, self.keys, QUEUES[1:])}

    async def dead(self, count: int) -> None:
        await until(lambda: self._sum("dead", count), every=0.02)

    async def in_dlq(self, count: int) -> None:
        await until(lambda: self._sum("dlq", count), every=0.02)

    async def _sum(self, state: str, count: int) -> bool:
        return sum(getattr(queue, state) for queue in (await self.look()).values()) == count

    async def at_rest(self, load: Load) -> None:
        """Everything has come to its end, and the dead were told of."""
        await until(lambda: self._is_at_rest(load), deadline=15, every=0.05)

    async def _is_at_rest(self, load: Load) -> bool:
        # In this order: once all are dead no count goes up, and an alert is queued before it is counted off.
        if not await self._sum("dead", len(load.never)):
            return False
        for number in range(self.keys.partitions):
            if any(int(n) for n in await self.client.hvals(self.keys.unalerted(number))):
                return False
        states = (await self.look()).values()
        return not any(s.waiting or s.in_hand or s.parked or s.dlq or s.scheduled for s in states)

    async def close(self) -> None:
        self.ledger.close()
        await self.publisher.close()
        await self.client.aclose()

    # What must hold.

    async def assert_clean(self, load: Load, *, duplicates: int | None = None) -> None:
        """`duplicates` allowed; else what each crash had in hand, on the queue and on its DLQ."""
        published = {
            address_of(u): [e for e in ids if e not in load.never] for u, ids in load.published.items()
        }
        verdict = judge(published, [line for line in self.ledger.lines() if not _is_alert(line.event_id)])
        assert not verdict.breaches, verdict.breaches
        allowed = self.crashes * 2 * IN_HAND if duplicates is None else duplicates
        assert verdict.duplicates <= allowed, f"{verdict.duplicates} duplicates, {allowed} allowed"
        await self._assert_inboxes(load)
        if load.never:
            alerts = [line for line in self.ledger.lines() if _is_alert(line.event_id)]
            assert {line.address for line in alerts} == {ADMIN}
        left = await leftovers(self.client, self.keys, QUEUES, dead=len(load.never))
        assert not left, left
        said = self.log.read_text(errors="replace")
        assert "UNLISTED" not in said
        assert "Traceback" not in said

    async def _assert_inboxes(self, load: Load) -> None:
        for recipient, ids in load.published.items():
            wanted = sorted(event_id for event_id in ids if event_id not in load.unrouted)
            assert await inbox_events(self.client, self.keys, recipient) == wanted, recipient
        boxed = judge(
            {u: [e for e in ids if e not in load.unrouted] for u, ids in load.published.items()},
            [line for line in self.ledger.lines("boxed") if not _is_alert(line.event_id)],
        )
        assert not boxed.breaches, boxed.breaches


def _is_alert(event_id: str) -> bool:
    return event_id.startswith(ALERT_TYPE)


# Scenarios: each reaches its point, and then somebody else finishes.


async def mix(scene: Scene, armed: Armed) -> None:
    """A worker of all roles under a mixed load."""
    load, events = mixed()
    await _add_by_hand(scene, load)
    await scene.publisher.publish_many(events)
    await scene.dies(await scene.fork(armed=armed))
    await _finish(scene, load)


async def scheduling(scene: Scene, armed: Armed) -> None:
    """A worker that serves already finds what is due so much later that it has time to see it before."""
    load = Load()
    victim = await scene.fork(armed=armed)
    await until(lambda: _owns_all(scene, victim), every=0.01)
    await _add_by_hand(scene, load, due_in=timedelta(seconds=2.5))
    await scene.publisher.publish_many([load.event(n, u) for n in range(2) for u in PLAIN])
    await scene.dies(victim)
    await _finish(scene, load)


async def _add_by_hand(scene: Scene, load: Load, due_in: timedelta = timedelta(milliseconds=900)) -> None:
    """As another language's client would: due later, and not checked by anybody."""
    due = datetime.now(UTC) + due_in
    event = load.event(0, "foreign", deliver_at=due.isoformat(), occurred_at=due.isoformat())
    to = event.pop("recipient")
    await scene.publisher.publish_many([])  # so that the installation exists
    stream = scene.keys.queue("events", scene.keys.partition_of("foreign"))
    await scene.client.xadd(stream, {"v": "1", "to": json.dumps(to), "event": json.dumps(event)})


async def _finish(scene: Scene, load: Load, **checks: Any) -> None:
    heir = await scene.fork(place={"mended": ""} if checks.pop("mended", False) else {})
    await until(lambda: _owns_all(scene, heir), every=0.05)
    await scene.at_rest(load)
    await heir.stop()
    await scene.assert_clean(load, **checks)


async def stopping(scene: Scene, armed: Armed) -> None:
    """A worker that is told to stop, and dies over it; other queues than that may still be at work."""
    load, events = mixed()
    victim = await scene.fork(armed=armed)
    await scene.publisher.publish_many(events)
    await until(scene.ledger.lines, every=0.005)
    victim.signal(signal.SIGTERM)
    await scene.dies(victim)
    await _finish(scene, load)


async def sharing(scene: Scene, armed: Armed) -> None:
    """A worker that gives half of its partitions to a second one, and dies over it."""
    load, events = mixed()
    victim = await scene.fork(armed=armed)
    await until(lambda: _owns_all(scene, victim), every=0.01)
    await scene.publisher.publish_many(events)
    heir = await scene.fork()
    await scene.dies(victim)
    await until(lambda: _owns_all(scene, heir), every=0.05)  # else the victim's leases outlive the heir
    await scene.at_rest(load)
    await heir.stop()
    await scene.assert_clean(load)


async def _owns_all(scene: Scene, child: Child) -> bool:
    """It has every partition of every queue and DLQ, and so everybody's before it has run out."""
    return all(
        sum(count for name, count in owners.items() if f"-{child.pid}-" in name) == scene.keys.partitions
        for state in (await scene.look()).values()
        for owners in (state.owners, state.dlq_owners)
    )


async def routing_into_a_full_server(scene: Scene, armed: Armed) -> None:
    """A server of its own is at its memory limit, so that the router has to insist."""
    with EmbeddedBroker(scene.folder / "broker", persistent=False) as broker:
        own = Scene(scene.server, broker.url, scene.folder / "own", "own")
        try:
            load, events = mixed()
            await own.publisher.publish_many(events)
            await own.client.config_set("maxmemory", 1_000_000)
            victim = await own.fork(armed=armed)
            await until(lambda: "routing_waits" in own.log.read_text(), every=0.02)
            await own.client.config_set("maxmemory", 0)
            await own.dies(victim)
            await _finish(own, load)
        finally:
            await own.close()


async def giving_back(scene: Scene, armed: Armed) -> None:
    """A worker that is told to stop while a parked lane waits in its hands for the channel to come back. It
    may have given the lane back before, and died there: one that is due before its parking is known here."""
    load = Load()
    events = [load.event(n, "stuck") for n in range(3)] + [load.event(0, u) for u in PLAIN]
    victim = await scene.fork(armed=armed)
    await scene.publisher.publish_many(events)
    await until(lambda: scene.ledger.lines("stuck") or not victim.lives, every=0.005)
    victim.signal(signal.SIGTERM)
    await scene.dies(victim)
    await _finish(scene, load, mended=True)


async def after_a_death(scene: Scene, armed: Armed) -> None:
    """What a second worker does with what the first one had in hand."""
    await _two_deaths(scene, Armed("broker.committer.Committer._send", False, "post ack"), armed)


async def after_a_death_over_lanes(scene: Scene, armed: Armed) -> None:
    await _two_deaths(scene, Armed("broker.committer.Committer._send", False, "post pop"), armed)


async def after_a_death_in_the_dlq(scene: Scene, armed: Armed) -> None:
    await _two_deaths(
        scene, Armed("broker.committer.Committer._send", False, "post:dlq move XADD dead"), armed
    )


async def _two_deaths(scene: Scene, first: Armed, second: Armed) -> None:
    load, events = mixed()
    await scene.publisher.publish_many(events)
    await scene.dies(await scene.fork(armed=first))
    await scene.dies(await scene.fork(armed=second))
    await _finish(scene, load)


async def publishing(scene: Scene, armed: Armed, *, blocking: bool = True) -> None:
    """A publisher that dies, and another that publishes the same again."""
    load = Load()
    events = [load.event(n, u) for n in range(4) for u in PLAIN]
    await scene.dies(await scene.fork("publish", armed, events=events, blocking=blocking))
    again = await scene.fork("publish", events=events, blocking=blocking)
    assert await again.ended() == 0
    await _finish(scene, load, duplicates=0)


async def publishing_async(scene: Scene, armed: Armed) -> None:
    await publishing(scene, armed, blocking=False)


async def alerting_in_vain(scene: Scene, armed: Armed) -> None:
    """The alert can't be published, so that its gate is opened again."""
    load = Load()
    bad = load.event(0, "bad")
    load.never.add("e0-bad")
    router = await scene.fork(roles=["router", "post", "box"])
    await scene.publisher.publish(bad)
    await scene.in_dlq(1)
    await router.stop()
    in_the_way = next(f"x{i}" for i in range(99) if _shares(scene.keys, f"x{i}", ADMIN))
    await scene.publisher.publish(load.event(0, in_the_way))
    await scene.dies(await scene.fork(armed=armed, roles=["dead_letters"], backlog_limit=1))
    await _finish(scene, load, duplicates=0)


def _shares(keys: Keys, one: str, other: str) -> bool:
    return keys.partition_of(one) == keys.partition_of(other)


COUNT_OF_LETTERS = 20
"""More than a first page of them holds."""


async def _mending(scene: Scene, armed: Armed, action: str, state: str) -> None:
    load = Load()
    events = [load.event(n, "bad") for n in range(COUNT_OF_LETTERS)]
    roles = ["router", "post", "box"] + ["dead_letters"] * (state == "dead")
    before = await scene.fork(roles=roles)
    await scene.publisher.publish_many(events)
    await (scene.dead if state == "dead" else scene.in_dlq)(COUNT_OF_LETTERS)
    if state == "dead":
        load.never = set(load.published["bad"])
        await scene.at_rest(load)
        load.never = set()
    await before.stop()
    await scene.dies(await scene.fork("mend", armed, action=action, state=state))
    again = await scene.fork("mend", action=action, state=state)
    assert await again.ended() == 0
    if action == "discard":
        load.published["bad"] = []
        heir = await scene.fork(place={"mended": ""})
        await until(lambda: _owns_all(scene, heir), every=0.03)
        await scene.at_rest(load)
        await heir.stop()
        left = await leftovers(scene.client, scene.keys, QUEUES)
        assert not left, left
        assert not [line for line in scene.ledger.lines() if not _is_alert(line.event_id)]
    else:
        await _finish(scene, load, mended=True, duplicates=0)


async def redriving_dead(scene: Scene, armed: Armed) -> None:
    await _mending(scene, armed, "redrive", "dead")


async def redriving_dlq(scene: Scene, armed: Armed) -> None:
    await _mending(scene, armed, "redrive", "dlq")


async def discarding_dead(scene: Scene, armed: Armed) -> None:
    await _mending(scene, armed, "discard", "dead")


async def administering(scene: Scene, armed: Armed) -> None:
    """An operator's process dies; the same again, by another one, ends where it should."""
    who = "grace"
    await scene.dies(await scene.fork("administer", armed, recipient=who))
    again = await scene.fork("administer", recipient=who)
    assert await again.ended() == 0
    left = [name async for name in scene.client.scan_iter(f"*{{{scene.keys.namespace}:*{who}*")]
    # `changes` says that the inbox is gone.
    assert [name for name in left if not name.endswith(b":changes")] == []
    assert [name async for name in scene.client.scan_iter(scene.keys.device("*"))] == []


async def run(scene: Scene, scenario: Any, armed: Armed) -> None:
    async with asyncio.timeout(45):
        try:
            await scenario(scene, armed)
        finally:
            await scene.close()
