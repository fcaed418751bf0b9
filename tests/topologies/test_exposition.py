"""What Prometheus is told of each shape of broker, and that a trace goes through the queues of each."""

from __future__ import annotations

import re

from notifier.broker.connection import connect
from notifier.operations.exposition import exposition
from tests.support.channels import ScriptedChannel
from tests.support.service import Service, ping
from tests.support.topologies import Topology
from tests.support.waiting import until

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def value(text: str, series: str) -> float:
    [found] = re.findall(rf"^{re.escape(series)} (.*)$", text, re.MULTILINE)
    return float(found)


async def test_each_data_server_tells_its_memory_and_all_queues_are_counted(
    topology: Topology, service: Service
) -> None:
    await service.publish(*(ping(f"e{n}", f"u{n}") for n in range(40)))
    async with connect(service.url) as client:
        told = (await exposition(client, service.keys, ("post",))).decode()
        assert value(told, "notifier_broker_up") == 1
        assert value(told, 'notifier_queue_entries{queue="events",state="waiting"}') == 40
        assert value(told, 'notifier_queue_added_total{queue="events"}') == 40
        assert value(told, 'notifier_partitions_without_owner{queue="post"}') == 16
        nodes = re.findall(r'^notifier_broker_memory_bytes\{node="(.*)"\} (.*)$', told, re.MULTILINE)
        assert len(nodes) == len(topology.primaries())
        assert all(float(used) > 500_000 for _, used in nodes)
        async with service.worker([ScriptedChannel()]):

            async def is_done() -> bool:
                text = (await exposition(client, service.keys, ("post",))).decode()
                left = value(text, 'notifier_queue_entries{queue="events",state="waiting"}')
                return left == 0 and value(text, 'notifier_partitions_without_owner{queue="post"}') == 0

            await until(is_done)


async def test_a_trace_goes_from_the_event_to_its_deliveries(service: Service) -> None:
    await service.publish(*(ping(f"e{n}", f"u{n}", traceparent=TRACEPARENT) for n in range(0, 40, 2)))
    mixed = [
        ping(f"e{n}", f"u{n}", **({"traceparent": TRACEPARENT} if n % 4 == 1 else {}))
        for n in range(1, 40, 2)
    ]
    await service.publish(*mixed)

    async def routed() -> list[dict[bytes, bytes]]:
        found = await service.entries("post")
        return found if len(found) == 40 else []

    async with service.worker([ScriptedChannel()], roles=("router",)):
        deliveries = await until(routed)
    traced = [fields[b"trace"] for fields in deliveries if b"trace" in fields]
    assert len(traced) == 30
    assert set(traced) == {TRACEPARENT.encode()}
