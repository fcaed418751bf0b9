"""What the service promises, on every shape of broker: nobody should notice where it runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from channels.in_app import open_channel
from notifier.broker.connection import Client, connect
from notifier.channel import PermanentFailure, TransientFailure
from notifier.event import FcmDevice, Recipient
from notifier.inbox import Inbox
from notifier.operations import dead_letters
from notifier.operations.mending import Result, mend_all
from notifier.operations.queues import look
from notifier.publisher import Publisher
from notifier.recipients import Devices, Import, Recipients, Suppressions, import_lines
from tests.support.channels import ScriptedChannel
from tests.support.ledger import Ledger, judge
from tests.support.processes import worker_process
from tests.support.service import Service, address_of, ping
from tests.support.topologies import Topology
from tests.support.waiting import until

pytestmark = pytest.mark.slow

PEOPLE = [f"u{i}" for i in range(40)]  # spread over all partitions, and so over all nodes


@pytest.fixture
async def client(topology: Topology) -> Client:
    async with connect(topology.url) as client:
        yield client


async def test_every_event_reaches_the_inbox_exactly_once(service: Service, client: Client) -> None:
    (service.templates / "ping" / "in_app.jinja").write_text(
        "{% block title %}ping{% endblock %}{% block body %}{{ event.id }}{% endblock %}"
    )
    events = [ping(f"e{n}-{u}", u) for n in range(5) for u in PEOPLE]
    async with service.worker([open_channel({})], ("router", "in_app"), in_hand=50):
        await service.publish(*events)
        accepted = await service.publisher.publish_many(events)
        await until(lambda: service.nothing_left("events", "in_app"))
    assert all(one.duplicate for one in accepted)
    inbox = Inbox(client, service.keys)
    for u in PEOPLE:
        page = await inbox.list(u)
        assert sorted(stored.entry.body for stored in page.entries) == [f"e{n}-{u}" for n in range(5)]


async def test_order_per_recipient_holds_through_retries(service: Service, post: ScriptedChannel) -> None:
    for u in PEOPLE[::4]:
        post.answers[address_of(u)] = [TransientFailure("451")] * 2
    async with service.worker([post], in_hand=60):
        for n in range(6):
            await service.publish(*(ping(f"e{n}", u, id=f"{u}-e{n}") for u in PEOPLE))
        await until(lambda: len(post.sent) == 6 * len(PEOPLE))
        await until(lambda: service.nothing_left("events", "post"))
    for u in PEOPLE:
        assert post.sent_to(address_of(u)) == [f"{u}-e{n}" for n in range(6)]


async def test_an_undeliverable_message_gets_its_second_try_and_is_then_redriven(
    service: Service, client: Client, post: ScriptedChannel
) -> None:
    for u in PEOPLE:
        post.answers[address_of(u)] = [PermanentFailure("550"), PermanentFailure("550 still")]
    selection = dead_letters.Selection(["post"], ("dead",))
    async with service.worker([post], ("router", "post", "dead_letters")):
        await service.publish(*(ping(u, u) for u in PEOPLE))
        await until(lambda: _count(client, service, selection, len(PEOPLE)))
        assert len(post.attempts) == 2 * len(PEOPLE)
        one = await anext(dead_letters.find(client, service.keys, selection))
        assert (await dead_letters.get(client, service.keys, one.id)) == one
        letters = dead_letters.find(client, service.keys, selection)
        results = await mend_all(client, service.keys, "redrive", letters)
        assert results == {Result.DONE: len(PEOPLE)}
        await until(lambda: len(post.sent) == len(PEOPLE))
    assert {attempt.event_id for attempt in post.sent} == set(PEOPLE)


async def _count(client: Client, service: Service, selection: dead_letters.Selection, wanted: int) -> bool:
    return await dead_letters.count(client, service.keys, selection) == wanted


async def test_what_is_scheduled_comes_in_its_time(service: Service, post: ScriptedChannel) -> None:
    started = time.monotonic()
    due = datetime.now(UTC) + timedelta(milliseconds=800)
    async with service.worker([post]):
        await service.publish(*(ping(f"later-{u}", u, deliver_at=due) for u in PEOPLE))
        await until(lambda: len(post.sent) == len(PEOPLE))
    assert min(attempt.at for attempt in post.sent) - started > 0.5


async def test_queues_tell_what_waits_and_who_serves_it(
    service: Service, client: Client, post: ScriptedChannel
) -> None:
    await service.publish(*(ping(u, u) for u in PEOPLE))
    events, mail = await look(client, service.keys, ["post"])
    assert (events.waiting, mail.waiting, sum(events.owners.values())) == (len(PEOPLE), 0, 0)
    async with service.worker([post]) as worker:
        await until(lambda: service.nothing_left("events", "post"))
        events, mail = await look(client, service.keys, ["post"])
        assert events.owners == mail.owners == {worker.name: service.keys.partitions}
        assert events.served(service.keys.partitions)
    assert await service.owners("post") == {}


async def test_profiles_are_stored_used_and_removed(
    service: Service, client: Client, post: ScriptedChannel
) -> None:
    recipients = Recipients(client, service.keys)
    for u in PEOPLE:
        assert await recipients.put(Recipient(id=u, email=f"{u}@elsewhere.example"))
    assert not await recipients.put(Recipient(id="u0", email="u0@elsewhere.example"))
    found = await recipients.get_many([*PEOPLE, "nobody"])
    assert [r and r.id for r in found] == [*PEOPLE, None]
    async with service.worker([post]):
        await service.publish(*({"id": f"e-{u}", "type": "ping", "recipient": u} for u in PEOPLE))
        await until(lambda: len(post.sent) == len(PEOPLE))
    assert {attempt.address for attempt in post.sent} == {f"{u}@elsewhere.example" for u in PEOPLE}
    assert await recipients.delete("u0")
    assert not await recipients.delete("u0")


async def test_devices_change_hands_and_addresses_are_suppressed(service: Service, client: Client) -> None:
    recipients, suppressions = Recipients(client, service.keys), Suppressions(client, service.keys)
    devices = Devices(recipients, suppressions, ["push"])
    phone = FcmDevice(kind="fcm", token="a-telephone-of-many")
    for u in PEOPLE[:8]:
        assert await devices.add(u, phone)
        assert [one for one in PEOPLE[:8] if await devices.of(one)] == [u]
    report = Import()
    await import_lines(
        recipients, _one_block(b"".join(b'{"id": "%s"}\n' % u.encode() for u in PEOPLE)), report
    )
    assert (report.stored, report.new) == (len(PEOPLE), len(PEOPLE) - 8)
    assert [one for one in PEOPLE if await devices.of(one)] == []
    for u in PEOPLE:
        assert await suppressions.add(u, "push", "fcm-0", "gone")
    found, after = [], ""
    while after is not None:
        page = await suppressions.page(after or None, 5)
        found += [one.recipient for one in page.found]
        after = page.after
    assert sorted(found) == sorted(PEOPLE)


async def _one_block(block: bytes) -> AsyncIterator[bytes]:
    yield block


def test_threads_publish_as_well(service: Service) -> None:
    with Publisher(service.url) as publisher:
        accepted = publisher.publish_many([ping(u, u) for u in PEOPLE])
        assert not any(one.duplicate for one in accepted)
        assert publisher.publish(ping("u3", "u3")).duplicate


def test_the_command_line_works_on_it(service: Service) -> None:
    events = "\n".join(json.dumps(ping(u, u) | {"type": "ping"}) for u in PEOPLE)
    _notifier(service, "publish", "-", said=events)
    told = json.loads(_notifier(service, "queues", "--json"))
    assert next(queue for queue in told if queue["queue"] == "events")["waiting"] == len(PEOPLE)
    assert _notifier(service, "dlq", "list", "--json") == ""


def _notifier(service: Service, *arguments: str, said: str = "") -> str:
    settings = {"NOTIFIER_REDIS_URL": service.url, "NOTIFIER_TEMPLATES": str(service.templates)}
    done = subprocess.run(
        [sys.executable, "-m", "notifier.cli", *arguments],
        env=os.environ | settings, input=said, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    ledger = Ledger(tmp_path / "ledger")
    yield ledger
    ledger.close()


async def test_a_worker_that_is_killed_is_replaced(service: Service, ledger: Ledger, tmp_path: Path) -> None:
    events = [ping(f"{u}-{n}", f"slow{u}") for n in range(6) for u in PEOPLE]
    before, after = events[:120], events[120:]
    expected = {address_of(f"slow{u}"): [f"{u}-{n}" for n in range(6)] for u in PEOPLE}
    with worker_process(service.url, tmp_path, NOTIFIER_IN_HAND="50") as first:
        await service.publish(*before)
        await until(lambda: len(ledger.lines()) > 30)
        first.kill()
        killed = time.monotonic()
        await service.publish(*after)  # the first one may have been done with the others already
        with worker_process(service.url, tmp_path, NOTIFIER_IN_HAND="50") as second:
            await until(lambda: _serves(second, service))
            there = time.monotonic()
            await until(lambda: {line.event_id for line in ledger.lines()} == _ids(expected))
            taken_over = _first_of(second, ledger) - max(killed, there)
    verdict = judge(expected, ledger.lines())
    assert not verdict.missing
    assert not verdict.out_of_order
    assert verdict.duplicates <= 50
    assert taken_over < 2 + 8  # the TTL, and what a busy machine adds


def _ids(expected: dict[str, list[str]]) -> set[str]:
    return {event_id for ids in expected.values() for event_id in ids}


async def _serves(process: subprocess.Popen[bytes], service: Service) -> bool:
    """Whether it has said that it is there."""
    names = await service.client.zrange(service.keys.workers("post"), 0, -1)
    return any(f"-{process.pid}-" in name.decode() for name in names)


def _first_of(process: subprocess.Popen[bytes], ledger: Ledger) -> float:
    return min(line.at for line in ledger.lines() if line.pid == process.pid)
