"""Another number of partitions on every shape of broker, where in a cluster no step reaches two of them; and
what the doctor says of each."""

from __future__ import annotations

import pytest

from notifier.api.keys_check import check_keys
from notifier.broker.connection import connect
from notifier.broker.scripts import ask
from notifier.event import parse_recipient
from notifier.keys import Keys
from notifier.operations import partitions
from notifier.operations.doctor import examine
from notifier.publisher import Publisher
from notifier.recipients import Recipients
from tests.support.channels import ScriptedChannel
from tests.support.ledger import leftovers
from tests.support.service import Service, address_of, ping
from tests.support.waiting import until

pytestmark = pytest.mark.slow
PEOPLE = [f"u{n}" for n in range(12)]


async def test_what_waits_is_delivered_in_order_after_the_change(
    service: Service, post: ScriptedChannel
) -> None:
    await service.publish(*(ping(f"e{n}-{person}", person) for n in range(5) for person in PEOPLE))
    async with connect(service.url) as client:
        await Recipients(client, service.keys).put(parse_recipient({"id": "ada", "name": "Ada"}))
        moved = await partitions.change(client, "ntf", 5)
        assert moved.counts["events"] == 5 * len(PEOPLE)
        now = Keys("ntf", 5, 2)
        assert await Recipients(client, now).get("ada")
        assert (await partitions.survey(client, service.keys)).counts.keys() <= {"events", "suppressed"}
    async with service.worker([post]):
        await until(lambda: len(post.sent) == 5 * len(PEOPLE))
    for person in PEOPLE:
        assert post.sent_to(address_of(person)) == [f"e{n}-{person}" for n in range(5)]
    assert await leftovers(service.client, now, ("events", "post")) == []


async def test_the_doctor_looks_at_each_server(service: Service) -> None:
    await service.publish(ping("e", "u"))
    sections = {
        one.title: one.findings for one in await examine({"NOTIFIER_REDIS_URL": service.url}, check_keys)
    }
    broker = {finding.what: finding for finding in sections["broker"]}
    assert {broker[what].level for what in ("reachable", "clocks", "rights")} == {"ok"}
    assert any(what.startswith("maxmemory-policy") for what in broker)
    queues = {finding.what: finding for finding in sections["queues"]}
    assert queues["partitions"].found == "16"
    assert queues["events workers"].level == "error"  # an event waits


async def test_a_user_with_few_rights_changes_the_number_and_is_told_what_it_may(
    redis_url: str,
) -> None:
    rights = "~{ntf:* ~ntf:* &{ntf:* +@all -@dangerous +role +info +restore"
    url = redis_url.replace("://", "://keeper:sesame@")
    async with connect(redis_url) as admin:
        await ask(admin, ("ACL", "SETUSER", "keeper", "on", ">sesame", *rights.split()))
        try:
            with Publisher(url) as publisher:
                publisher.publish_many([ping(f"e{n}", f"u{n}") for n in range(20)])
            async with connect(url) as client:
                await Recipients(client, Keys()).put(parse_recipient({"id": "ada"}))
                moved = await partitions.change(client, "ntf", 5)
                assert (moved.counts["events"], moved.counts["recipient"]) == (20, 1)
            sections = await examine({"NOTIFIER_REDIS_URL": url}, check_keys)
            [found] = [f for one in sections for f in one.findings if f.what == "rights"]
            assert found.level == "ok"
        finally:
            await ask(admin, ("ACL", "DELUSER", "keeper"))
