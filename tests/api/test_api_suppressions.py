"""Suppressed addresses by HTTP."""

from __future__ import annotations

from typing import Any

import httpx
import redis.asyncio

from notifier.keys import Keys
from notifier.recipients import Suppressions, encode_suppression, suppression_field
from tests.api.told import fields, problem

KEYS = Keys()
ADA = "/v1/recipients/ada/suppressions"


async def test_what_a_worker_suppressed_is_listed_and_lifted(
    backend: httpx.AsyncClient, client: redis.asyncio.Redis
) -> None:
    field = suppression_field("email", "ada", "ada@example.org")
    value = encode_suppression("550 no such user", 1_764_000_000_000)
    await client.hset(KEYS.suppressed(KEYS.partition_of("ada")), field, value)  # type: ignore[arg-type,misc]
    expected = {
        "recipient": "ada", "channel": "email", "address_key": "ada@example.org",
        "reason": "550 no such user", "at": "2025-11-24T16:00:00.000Z",
    }  # fmt: skip
    assert (await backend.get(ADA)).json() == {"suppressions": [expected]}
    assert (await backend.get("/v1/suppressions")).json() == {
        "suppressions": [expected],
        "page_info": {"has_more": False, "after": None},
    }
    assert (await backend.delete(f"{ADA}/email/ada@example.org")).status_code == 204
    problem(await backend.delete(f"{ADA}/email/ada@example.org"), 404)
    assert (await backend.get(ADA)).json() == {"suppressions": []}


async def test_an_address_is_suppressed_by_hand(
    backend: httpx.AsyncClient, client: redis.asyncio.Redis
) -> None:
    assert (await backend.put(f"{ADA}/email/ada%252Fx@example.org")).status_code == 204
    assert (await backend.put(f"{ADA}/push/fcm-0", json={"reason": "stolen"})).status_code == 204
    told = [(one.channel, one.address_key, one.reason) for one in await Suppressions(client, KEYS).of("ada")]
    assert told == [("email", "ada%2Fx@example.org", "by hand"), ("push", "fcm-0", "stolen")]


async def test_what_can_not_be_suppressed_is_refused(
    backend: httpx.AsyncClient, client: redis.asyncio.Redis
) -> None:
    before = await client.dbsize()
    problem(await backend.put(f"{ADA}/pigeon/k"), 404)
    wrong: tuple[tuple[str, Any, list[str]], ...] = (
        ("email/a%2Fb", {}, ["path.address_key"]),
        ("email/a%0Ab", {}, ["path.address_key"]),
        ("EMAIL/k", {}, ["path.channel"]),
        ("email/k", {"reason": 3}, ["reason"]),
        ("email/k", {"reason": None}, ["reason"]),
        ("email/k", {"reason": "x" * 501}, ["reason"]),
        ("email/k", {"why": "x"}, ["why"]),
        ("email/k", [], ["body"]),
    )
    for path, body, expected in wrong:
        assert fields(await backend.put(f"{ADA}/{path}", json=body)) == expected
    assert await client.dbsize() == before


async def test_all_are_listed_page_by_page(backend: httpx.AsyncClient, client: redis.asyncio.Redis) -> None:
    for partition in (2, 9):
        rows = {
            suppression_field("push", f"u{i}", f"d{partition}"): encode_suppression("", i) for i in range(700)
        }
        await client.hset(KEYS.suppressed(partition), mapping=rows)  # type: ignore[arg-type,misc]
    found, after, requests = set(), None, 0
    while True:
        parameters = {"page_size": 100} | ({"after": after} if after else {})
        page = (await backend.get("/v1/suppressions", params=parameters)).json()
        found |= {(one["recipient"], one["address_key"]) for one in page["suppressions"]}
        requests += 1
        after = page["page_info"]["after"]
        assert page["page_info"]["has_more"] == (after is not None)
        if after is None:
            break
    assert len(found) == 1_400
    assert 8 < requests < 30


async def test_a_page_that_is_none_is_refused(backend: httpx.AsyncClient) -> None:
    for parameters, field in (
        ({"after": "nonsense"}, "query.after"),
        ({"page_size": 0}, "query.page_size"),
        ({"page_size": 1_001}, "query.page_size"),
    ):
        assert fields(await backend.get("/v1/suppressions", params=parameters)) == [field]
