"""`Idempotency-Key`: a request that is sent twice is carried out once."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest
import redis

from notifier.api.events import read
from notifier.api.idempotency import BUSY, KEPT
from notifier.event import MAX_DATA_BYTES
from tests.api.conftest import Api, serving
from tests.api.events import pairs
from tests.support.proxy import open_proxy

EVENTS = [{"type": "like", "recipient": f"u{i}"} for i in range(5)]
KEY = '"8e03978e-40d5-43dd-bc93-6894a57f9324"'


async def post(api: Api, content: Any, key: str = KEY, **headers: str) -> httpx.Response:
    async with api.publisher as client:
        return await client.post("/v1/events", json=content, headers={"Idempotency-Key": key} | headers)


def keys(redis_url: str) -> list[bytes]:
    with redis.Redis.from_url(redis_url) as client:
        return list(client.scan_iter("*:idempotency:*"))


async def test_the_first_answer_comes_again(api: Api, redis_url: str) -> None:
    first = await post(api, EVENTS)
    second = await post(api, EVENTS)
    assert (first.status_code, second.status_code) == (202, 202)
    assert second.content == first.content
    assert ("Idempotent-Replayed" in first.headers, second.headers["Idempotent-Replayed"]) == (False, "true")
    assert sorted(to for _, to in pairs(redis_url)) == [f"u{i}" for i in range(5)]


async def test_duplicates_and_refusals_come_again_as_they_were(api: Api, redis_url: str) -> None:
    async with api.publisher as client:
        await client.post("/v1/events", json={"id": "e1", "type": "like", "recipient": "u2"})
    events = [
        {"id": "e1", "type": "like", "recipients": ["u1", "u2", "u1"]},
        {"id": "e2", "type": "like", "recipient": "u1", "data": {"text": "x" * MAX_DATA_BYTES}},
        {"id": "e3", "type": "Like", "recipient": "u1"},
        {"id": "e4", "type": "like", "recipient": "u1"},
    ]
    first, second = await post(api, events), await post(api, events)
    assert (first.status_code, second.status_code) == (207, 207)
    assert second.content == first.content
    recipients = first.json()["events"][0]["recipients"]
    assert [one["duplicate"] for one in recipients] == [False, True, True]
    assert sorted(pairs(redis_url)) == [("e1", "u1"), ("e1", "u2"), ("e4", "u1")]


async def test_with_or_without_quotes_it_is_one_key(api: Api, redis_url: str) -> None:
    await post(api, EVENTS, "once")
    assert "Idempotent-Replayed" in (await post(api, EVENTS, '"once"')).headers
    assert len(pairs(redis_url)) == 5


async def test_another_body_is_refused(api: Api, redis_url: str) -> None:
    await post(api, EVENTS)
    response = await post(api, EVENTS[:4])
    assert (response.status_code, response.json()["errors"][0]["field"]) == (422, "Idempotency-Key")
    assert len(pairs(redis_url)) == 5


async def test_a_key_belongs_to_who_sent_it(redis_url: str) -> None:
    async with serving(redis_url, NOTIFIER_API_KEYS=f"publish:{'a' * 16},publish:{'b' * 16}") as api:
        for secret in ("a" * 16, "b" * 16):
            async with api.with_key(secret) as client:
                response = await client.post("/v1/events", json=EVENTS, headers={"Idempotency-Key": "1"})
                assert (response.status_code, "Idempotent-Replayed" in response.headers) == (202, False)
    assert len(pairs(redis_url)) == 10


async def test_one_of_two_at_once_is_told_to_wait(redis_url: str) -> None:
    async with open_proxy(redis_url) as proxy, serving(proxy.url) as api:
        responses = await asyncio.gather(*(post(api, EVENTS) for _ in range(10)))
        statuses = sorted(response.status_code for response in responses)
        assert set(statuses) <= {202, 409}
        assert 202 in statuses
        assert all("Retry-After" in one.headers for one in responses if one.status_code == 409)
    assert len(pairs(redis_url)) == 5


async def test_a_request_that_never_ended_keeps_others_away_for_a_while(api: Api, redis_url: str) -> None:
    await post(api, EVENTS)
    [name] = keys(redis_url)
    with redis.Redis.from_url(redis_url) as client:
        record = client.get(name)
        assert isinstance(record, bytes)
        client.set(name, b"busy" + record[4:36], px=int(BUSY.total_seconds() * 1000))
        response = await post(api, EVENTS)
        assert (response.status_code, "Retry-After" in response.headers) == (409, True)
        client.delete(name)  # as when the time is over
    again = await post(api, EVENTS)
    assert [one["recipients"][0]["duplicate"] for one in again.json()["events"]] == [True] * 5
    assert len(pairs(redis_url)) == 5


async def test_a_lost_answer_of_the_broker_leaves_no_event_twice(redis_url: str) -> None:
    async with open_proxy(redis_url) as proxy, serving(proxy.url) as api:
        await post(api, EVENTS, "before")
        proxy.cut(b'"type":"like"', after=True)
        first = await post(api, EVENTS)
        assert (first.status_code, proxy.cuts) == (503, 1)
        again = await post(api, EVENTS)
        assert again.status_code == 202
        first_ids, again_ids = ([one["id"] for one in reply.json()["events"]] for reply in (first, again))
        assert first_ids == again_ids
        assert [one["recipients"][0]["duplicate"] for one in again.json()["events"]] == [True] * 5
    assert len(pairs(redis_url)) == 10


async def test_answers_that_can_not_be_kept_are_given_all_the_same(redis_url: str) -> None:
    async with open_proxy(redis_url) as proxy, serving(proxy.url) as api:
        proxy.cut(b"\r\ndone", after=False)
        assert (await post(api, EVENTS)).status_code == 202
        assert proxy.cuts == 1
        assert (await post(api, EVENTS)).status_code == 409
    assert len(pairs(redis_url)) == 5


async def test_what_is_refused_as_a_whole_leaves_the_key_free(api: Api, redis_url: str) -> None:
    for wrong in (
        [],
        [{"type": "like"}],
        [5],
        {"type": "like", "recipient": "u", "data": {"t": "x" * 70_000}},
    ):
        assert (await post(api, wrong)).status_code == 422
    assert (await post(api, EVENTS)).status_code == 202
    assert len(pairs(redis_url)) == 5


async def test_answers_are_kept_for_a_day_in_a_few_bytes_and_say_nothing_of_people(
    api: Api, redis_url: str
) -> None:
    events = [{"id": f"e{i}", "type": "like", "recipient": f"somebody-{i}"} for i in range(1_000)]
    await post(api, events, "first")
    await post(api, events, "second")  # all are duplicates
    with redis.Redis.from_url(redis_url) as client:
        for name in keys(redis_url):
            record = client.get(name)
            assert isinstance(record, bytes)
            assert len(record) < 12_000
            assert b"somebody" not in record
            left = client.pttl(name)
            assert isinstance(left, int)
            assert KEPT.total_seconds() - 60 < left / 1000 <= KEPT.total_seconds()
    assert len(keys(redis_url)) == 2


@pytest.mark.parametrize("key", ["", '""', "x" * 256, '"', 'a"b', "Jürgen", "tab\tbed"])
async def test_what_is_no_key_is_refused(key: str, api: Api, redis_url: str) -> None:
    async with api.publisher as client:
        headers = [(b"Idempotency-Key", key.encode()), (b"Content-Type", b"application/json")]
        response = await client.post("/v1/events", content=json.dumps(EVENTS).encode(), headers=headers)
    assert (response.status_code, response.json()["errors"][0]["field"]) == (400, "Idempotency-Key")
    assert pairs(redis_url) == []


def test_ids_are_made_only_for_events_that_have_none() -> None:
    events = [{"id": "mine", "type": "like", "recipient": "u"}, {"type": "like", "recipient": "u"}]
    headers = httpx.Headers({"content-type": "application/json"})
    batch = read(headers, json.dumps(events).encode(), lambda place: f"made-{place}")  # type: ignore[arg-type]
    assert [event.id for event in batch.events] == ["mine", "made-1"]
