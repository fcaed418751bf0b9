"""Administrators are told of the dead: once an interval for each queue, with counts, and never of alerts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from notifier.alerts import Alerter
from notifier.channel import PermanentFailure
from notifier.dead_letters import ALERT_TYPE
from notifier.errors import BrokerUnavailable
from notifier.event import parse_body
from notifier.publisher import AsyncPublisher
from tests.support.channels import ScriptedChannel
from tests.support.service import Service, address_of, open_service, ping
from tests.support.waiting import until

ADA, OPS = address_of("ada"), "ops@example.com"
ALL = ["router", "post", "dead_letters"]


@pytest.fixture
async def service(redis_url: str, tmp_path: Path) -> AsyncIterator[Service]:
    async with open_service(redis_url, tmp_path, **{ALERT_TYPE: ""}) as service:
        yield service


async def alerts(service: Service) -> list[dict[str, Any]]:
    """The data of the alerts that were published and wait for a router."""
    return [parse_body(fields[b"event"]).data for fields in await service.entries("events")]


@asynccontextmanager
async def alerter(
    service: Service,
    interval: timedelta,
    publisher: AsyncPublisher | None = None,
    queues: Sequence[str] = ("post",),
) -> AsyncIterator[None]:
    running = asyncio.create_task(
        Alerter(service.client, service.keys, publisher or service.publisher, queues, [OPS], interval).run()
    )
    try:
        yield
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running


async def bury(service: Service, count: int, error: str = "PermanentFailure", queue: str = "post") -> None:
    """As the commit of a second try that failed does it; all at once, so that an alert tells of all."""
    commit = service.client.pipeline(transaction=True)
    for i in range(count):
        p = i % service.keys.partitions
        fields = {
            "error": error,
            "reason": "x",
            "answer": "",
            "attempts": 2,
            "first": 1_000 + i,
            "last": 2_000,
        }
        commit.xadd(service.keys.dead(queue, p), fields)  # type: ignore[arg-type]
        commit.hincrby(service.keys.unalerted(p), queue, 1)
    await commit.execute()


async def unalerted(service: Service, queue: str = "post") -> int:
    counts = [
        await service.client.hget(service.keys.unalerted(p), queue) for p in range(service.keys.partitions)
    ]
    return sum(int(count or 0) for count in counts)


async def test_the_whole_way_from_a_dead_delivery_to_a_message_for_the_administrators(
    service: Service, post: ScriptedChannel
) -> None:
    post.always[ADA] = PermanentFailure("550")
    async with service.worker([post], ALL, admins=(OPS,)):
        await service.publish(*(ping(f"e{i}", "ada") for i in range(3)))
        await until(lambda: post.sent_to(OPS))
        await until(lambda: service.nothing_left("events", "post", "post:dlq"))
        await until(lambda: _is_zero(service))
    assert len(await service.entries("post", "dead")) == 3


async def test_an_alert_has_the_counts_and_the_errors(service: Service) -> None:
    await bury(service, 3)
    await bury(service, 5, error="TransientFailure")
    async with alerter(service, timedelta(hours=1)):
        [alert] = await until(lambda: alerts(service))
        await until(lambda: _is_zero(service))
    assert alert == {
        "channel": "post",
        "count": 8,
        "errors": [{"error": "TransientFailure", "count": 5}, {"error": "PermanentFailure", "count": 3}],
        "since": "1970-01-01T00:00:02+00:00",
    }


async def test_within_an_interval_there_is_one_alert_for_each_queue_and_the_rest_comes_with_the_next(
    service: Service,
) -> None:
    async with alerter(service, timedelta(seconds=1), queues=("post", "events")):
        await bury(service, 2)
        await until(lambda: alerts(service))
        await bury(service, 3)
        await bury(service, 1, queue="events")
        await until(lambda: _published(service, 3))
    found = [(alert["channel"], alert["count"]) for alert in await alerts(service)]
    assert sorted(found) == [("events", 1), ("post", 2), ("post", 3)]


async def test_several_workers_send_one_alert_between_them(service: Service) -> None:
    await bury(service, 4)
    async with alerter(service, timedelta(seconds=4)), alerter(service, timedelta(seconds=4)):
        await until(lambda: _is_zero(service))
        await service.client.delete(service.keys.alert("post"))
        await bury(service, 1)
        await until(lambda: _published(service, 2))
    assert [alert["count"] for alert in await alerts(service)] == [4, 1]


async def test_what_another_has_told_of_meanwhile_is_not_told_again(service: Service) -> None:
    await bury(service, 4)
    hour = timedelta(hours=1)
    async with AsyncPublisher(service.url) as publisher:
        late, early = (
            Alerter(service.client, service.keys, publisher, ["post"], [OPS], interval=hour) for _ in range(2)
        )
        await early.tell("post")
        await service.client.delete(service.keys.alert("post"))  # so long it stood still
        await late.tell("post")  # it had seen them before
    assert [alert["count"] for alert in await alerts(service)] == [4]
    assert await unalerted(service) == 0


async def test_what_two_tell_of_takes_nothing_off_the_count_of_the_next(service: Service) -> None:
    class Standing(AsyncPublisher):
        async def publish(self, event: Any) -> Any:
            for p in range(service.keys.partitions):  # meanwhile another told of them
                await service.client.hset(service.keys.unalerted(p), "post", 0)  # type: ignore[arg-type, misc]
            return await super().publish(event)

    await bury(service, 4)
    async with Standing(service.url) as publisher:
        alerter = Alerter(service.client, service.keys, publisher, ["post"], [OPS], timedelta(hours=1))
        await alerter.tell("post")
    assert await unalerted(service) == 0


async def test_a_count_is_not_lost_when_the_alert_can_not_be_published(service: Service) -> None:
    class Refusing(AsyncPublisher):
        refused = 0

        async def publish(self, event: Any) -> Any:
            if self.refused < 2:
                self.refused += 1
                raise BrokerUnavailable("not now")
            return await super().publish(event)

    await bury(service, 4)
    async with Refusing(service.url) as publisher, alerter(service, timedelta(seconds=1), publisher):
        [alert] = await until(lambda: alerts(service))
    assert alert["count"] == 4
    assert publisher.refused == 2


async def test_a_count_is_not_lost_when_a_worker_dies_before_it_alerted(service: Service) -> None:
    await bury(service, 2)
    await service.client.set(service.keys.alert("post"), "", px=500)  # what the dead one left behind
    async with alerter(service, timedelta(seconds=1)):
        [alert] = await until(lambda: alerts(service))
    assert alert["count"] == 2


async def test_an_alert_that_dies_does_not_alert(service: Service, post: ScriptedChannel) -> None:
    post.always = {ADA: PermanentFailure("550"), OPS: PermanentFailure("550")}
    async with service.worker([post], ALL, admins=(OPS,)):
        await service.publish(ping("e0", "ada"))
        await until(lambda: _dead(service, "post", 2))
        assert await unalerted(service) == 0


async def test_an_alert_without_templates_dies_and_does_not_alert(redis_url: str, tmp_path: Path) -> None:
    post = ScriptedChannel()
    post.always[ADA] = PermanentFailure("550")
    async with open_service(redis_url, tmp_path) as service, service.worker([post], ALL, admins=(OPS,)):
        await service.publish(ping("e0", "ada"))
        await until(lambda: _dead(service, "events", 1))
        assert await unalerted(service, "events") == 0


async def test_what_died_and_has_strange_fields_does_not_end_the_alerter(service: Service) -> None:
    fields = {"error": "MalformedEntry", "reason": "", "answer": "", "attempts": 1, "first": 1, "last": 1}
    await service.client.execute_command(
        "XADD", service.keys.dead("events", 0), "*", *(w for pair in fields.items() for w in pair),
        "attempts", "many",
    )  # fmt: skip
    await service.client.hincrby(service.keys.unalerted(0), "events", 1)
    async with alerter(service, timedelta(hours=1), queues=("events",)):
        [alert] = await until(lambda: alerts(service))
    assert alert["count"] == 1


async def _is_zero(service: Service) -> bool:
    return await unalerted(service) == 0


async def _published(service: Service, count: int) -> bool:
    return len(await alerts(service)) == count


async def _dead(service: Service, queue: str, count: int) -> bool:
    return len(await service.entries(queue, "dead")) == count
