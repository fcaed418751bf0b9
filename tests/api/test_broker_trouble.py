"""A broker that is full or away: the client is told when to come back, and nothing is half done."""

from __future__ import annotations

import pytest
import redis

from notifier.broker.connection import connect
from notifier.operations import partitions
from tests.api.conftest import Api, serving
from tests.api.events import pairs
from tests.support.proxy import open_proxy


def like(number: int, recipient: str = "u1") -> dict[str, str]:
    return {"id": f"e{number}", "type": "like", "recipient": recipient}


async def test_a_backlog_at_its_limit_is_429(redis_url: str) -> None:
    async with serving(redis_url, NOTIFIER_BACKLOG_LIMIT="2") as api, api.publisher as client:
        assert (await client.post("/v1/events", json=[like(0), like(1)])).status_code == 202
        response = await client.post("/v1/events", json=like(2))
        assert (response.status_code, response.headers["Retry-After"]) == (429, "5")
        assert response.headers["Content-Type"] == "application/problem+json"
        assert response.json()["events"] == [{"id": "e2"}]
        assert (await client.post("/v1/events", json=like(3, "somebody else"))).status_code == 202
    assert sorted(pairs(redis_url)) == [("e0", "u1"), ("e1", "u1"), ("e3", "somebody else")]


async def test_a_list_of_which_a_part_was_accepted_can_be_repeated_with_its_ids(redis_url: str) -> None:
    async with serving(redis_url, NOTIFIER_BACKLOG_LIMIT="1") as api, api.publisher as client:
        await client.post("/v1/events", json=like(0))
        events = [{"type": "like", "recipient": recipient} for recipient in ("u1", "u2", "u3", "u1")]
        response = await client.post("/v1/events", json=[*events, {"type": "Wrong"}])
        assert response.status_code == 429
        *told, refused = response.json()["events"]
        assert refused["error"]["field"] == "type"
        first = [pair for pair in pairs(redis_url) if pair[0] != "e0"]
        with redis.Redis.from_url(redis_url) as broker:
            for queue in broker.scan_iter("*:events"):
                broker.xtrim(queue, maxlen=0, approximate=False)  # as when a worker has caught up
        again = [event | {"id": one["id"]} for event, one in zip(events, told, strict=True)]
        repeated = await client.post("/v1/events", json=again)
        assert repeated.status_code == 202
    assert sorted(first + pairs(redis_url)) == sorted((event["id"], event["recipient"]) for event in again)


async def test_a_full_broker_is_503_and_takes_nothing(api: Api, redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as broker:
        broker.config_set("maxmemory", 1)
        try:
            async with api.publisher as client:
                for headers in ({}, {"Idempotency-Key": "once"}):
                    response = await client.post("/v1/events", json=[like(1), like(2)], headers=headers)
                    assert (response.status_code, response.headers["Retry-After"]) == (503, "5")
        finally:
            broker.config_set("maxmemory", 0)
    assert pairs(redis_url) == []
    async with api.publisher as client:
        response = await client.post("/v1/events", json=[like(1)], headers={"Idempotency-Key": "once"})
        assert response.status_code == 202


@pytest.mark.slow
async def test_durability_that_is_not_confirmed_is_503_and_repeating_is_harmless(redis_url: str) -> None:
    async with serving(redis_url, NOTIFIER_DURABILITY="replicas") as api, api.publisher as client:
        response = await client.post("/v1/events", json=like(1))
    assert response.status_code == 503
    assert response.json()["events"] == [{"id": "e1"}]
    async with serving(redis_url) as api, api.publisher as client:
        response = await client.post("/v1/events", json=like(1))
        assert response.json()["events"][0]["recipients"] == [{"recipient": "u1", "duplicate": True}]
    assert pairs(redis_url) == [("e1", "u1")]


async def test_a_lost_answer_is_503_and_repeating_is_harmless(redis_url: str) -> None:
    async with open_proxy(redis_url) as proxy, serving(proxy.url) as api, api.publisher as client:
        await client.post("/v1/events", json=like(0))
        proxy.cut(b'"type":"like"', after=True)
        assert (await client.post("/v1/events", json=like(1))).status_code == 503
        assert proxy.cuts == 1
        response = await client.post("/v1/events", json=like(1))
        assert response.json()["events"][0]["recipients"][0]["duplicate"] is True
    assert pairs(redis_url) == [("e0", "u1"), ("e1", "u1")]


async def test_readiness_follows_the_broker(redis_url: str) -> None:
    async with open_proxy(redis_url) as proxy, serving(proxy.url) as api:
        assert (await api.client.get("/readyz")).status_code == 200
        port = proxy.port
        await proxy.stop()
        response = await api.client.get("/readyz")
        assert (response.status_code, response.headers["Content-Type"]) == (503, "application/problem+json")
        assert (await api.client.get("/livez")).status_code == 200
        async with api.operator as client:
            text = (await client.get("/metrics")).text
            assert "notifier_http_requests_total" in text
            assert "notifier_queue_entries{" not in text
        await proxy.start(port)
        assert (await api.client.get("/readyz")).status_code == 200
        async with api.operator as client:
            text = (await client.get("/metrics")).text
            assert 'notifier_queue_entries{queue="events",state="waiting"} 0.0' in text


async def test_an_api_that_knows_the_former_number_of_partitions_says_so(redis_url: str) -> None:
    async with serving(redis_url) as api, api.backend as client:
        assert (await client.put("/v1/recipients/u1", json={"id": "u1"})).status_code in {200, 201}
        async with connect(redis_url) as broker:
            await partitions.change(broker, "ntf", 4)
        answer = await client.put("/v1/recipients/u1", json={"id": "u1"})
        assert answer.status_code == 503
        assert "has to be started again" in answer.json()["detail"]
