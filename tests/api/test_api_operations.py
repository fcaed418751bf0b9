"""Queues and dead letters by HTTP."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import httpx
import pytest
import redis.asyncio

from notifier.broker.scripts import Call, run, script
from notifier.dead_letters import Failure
from notifier.keys import GROUP, Keys, dlq_of
from notifier.operations.dead_letters import Bounds
from tests.api.conftest import Api
from tests.api.told import fields, problem

KEYS = Keys()
LATER = Failure("TransientFailure", "451 try later", "451 4.7.1 greylisted", 8, 1_000, 2_000)
BROKEN = Failure("TemplateError", "like/email.jinja:3: undefined", "", 1, 1_000, 2_000)
LETTERS, REDRIVE, DISCARD = "/v1/dead-letters", "/v1/dead-letters/redrive", "/v1/dead-letters/discard"


@pytest.fixture
async def operator(api: Api) -> AsyncIterator[httpx.AsyncClient]:
    async with api.operator as client:
        yield client


async def bury(
    client: redis.asyncio.Redis,
    recipient: str = "u1",
    *,
    queue: str = "email",
    state: str = "dlq",
    failure: Failure = LATER,
    kind: str = "like",
    at: str = "*",
) -> str:
    """The id of a new dead letter."""
    partition = KEYS.partition_of(recipient)
    event = json.dumps({"id": f"e-{recipient}", "type": kind, "data": {"n": 1}}).encode()
    name, key = recipient.encode(), f"{recipient}@example.org".encode()
    head = b"\n".join((b"1", b"e-" + name, kind.encode(), name, name, key, key, b"500", b""))
    stream = (KEYS.dlq if state == "dlq" else KEYS.dead)(queue, partition)
    entry = await client.execute_command("XADD", stream, at, *failure.fields(), "head", head, "event", event)
    return f"{queue}:{partition:02d}:{state}:{entry.decode()}"


async def everything(operator: httpx.AsyncClient, path: str = LETTERS, **parameters: Any) -> list[Any]:
    """All pages together."""
    found, after = [], None
    while True:
        asked = parameters | ({"after": after} if after else {})
        response = await operator.get(path, params=asked)
        assert response.status_code == 200, response.text
        page = response.json()
        found += page["dead_letters"]
        after = page["page_info"]["after"]
        assert page["page_info"]["has_more"] == (after is not None)
        if after is None:
            return found


async def ids(operator: httpx.AsyncClient, **parameters: Any) -> list[str]:
    return [one["id"] for one in await everything(operator, **parameters)]


# Looking.


async def test_queues_say_what_lies_where(operator: httpx.AsyncClient, client: redis.asyncio.Redis) -> None:
    await client.xadd(KEYS.queue("email", 3), {"n": 1})
    await bury(client, state="dead")
    told = (await operator.get("/v1/queues")).json()
    assert told["partitions"] == KEYS.partitions
    assert [one["queue"] for one in told["queues"]] == ["events", "email", "push", "in_app"]
    email = told["queues"][1]
    assert (email["waiting"], email["dead"], email["dlq"], email["owners"]) == (1, 1, 0, {})
    assert (email["unowned_partitions"], email["scheduled"]) == (16, None)
    assert email["oldest_seconds"] >= 0


async def test_dead_letters_are_listed_oldest_first(
    operator: httpx.AsyncClient, client: redis.asyncio.Redis
) -> None:
    expected = [await bury(client, f"u{i}", at=f"{1_000 + i}-0", state="dead") for i in range(7)]
    assert await ids(operator) == expected
    [first, *_] = await everything(operator)
    assert first == {
        "id": expected[0], "queue": "email", "state": "dead", "error": "TransientFailure",
        "reason": "451 try later", "answer": "451 4.7.1 greylisted", "attempts": 8,
        "first_failed_at": "1970-01-01T00:00:01.000Z", "last_failed_at": "1970-01-01T00:00:02.000Z",
        "since": "1970-01-01T00:00:01.000Z", "event_id": "e-u0", "type": "like", "recipient": "u0",
        "address_key": "u0@example.org", "accepted_at": "1970-01-01T00:00:00.500Z", "expires_at": None,
    }  # fmt: skip
    whole = (await operator.get(f"{LETTERS}/{expected[0]}")).json()
    assert whole.items() > first.items()
    assert whole["event"] == {"id": "e-u0", "type": "like", "data": {"n": 1}}
    assert "Redrive it" in whole["advice"]


@pytest.mark.parametrize("page_size", [1, 3, 50])
async def test_pages_have_each_letter_once_also_those_of_one_millisecond(
    operator: httpx.AsyncClient, client: redis.asyncio.Redis, page_size: int
) -> None:
    places = [("email", "dlq"), ("email", "dead"), ("push", "dead"), ("events", "dlq")]
    expected = {
        await bury(client, f"u{i}", queue=queue, state=state, at=f"{5_000 + i // 8}-0")
        for i in range(16)
        for queue, state in places
    }
    found = await ids(operator, page_size=page_size)
    assert set(found) == expected
    assert len(found) == len(expected)


async def test_filters_are_those_of_the_command_line(
    operator: httpx.AsyncClient, client: redis.asyncio.Redis
) -> None:
    hour_ago = int(time.time() * 1000) - 3_600_000
    old = await bury(client, "u1", at=f"{hour_ago}-0")
    at = f"{hour_ago + 3_500_000}"
    order = {"kind": "order_placed", "state": "dead", "at": f"{at}-0"}
    broken = await bury(client, "u2", queue="push", failure=BROKEN, **order)
    event = await bury(client, "u3", queue="events", failure=BROKEN, at=f"{at}-1")
    assert await ids(operator, channel="push") == [broken]
    assert await ids(operator, channel=["push", "events"]) == [broken, event]
    assert await ids(operator, error="TemplateError", state="dlq") == [event]
    assert await ids(operator, type="order_placed") == [broken]
    assert await ids(operator, recipient="u1") == [old]
    assert await ids(operator, older_than="10m") == [old]
    assert await ids(operator, state="dead") == [broken]
    assert await ids(operator, state="all") == [old, broken, event]
    assert await ids(operator, error=["TemplateError", "TransientFailure"], type="like", channel="email") == [
        old
    ]
    assert await ids(operator, recipient="nobody") == []


async def test_few_among_many_are_found_over_several_requests(
    operator: httpx.AsyncClient, client: redis.asyncio.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = []
    for i in range(60):
        letter = await bury(client, f"u{i}", failure=BROKEN if i % 20 == 19 else LATER)
        if i % 20 == 19:
            expected.append(letter)
    monkeypatch.setattr("notifier.api.operations.Bounds", partial(Bounds, looked_at=7))
    page = (await operator.get(LETTERS, params={"error": "TemplateError"})).json()
    assert (page["dead_letters"], page["page_info"]["has_more"]) == ([], True)
    assert await ids(operator, error="TemplateError") == expected


async def test_what_can_not_be_asked_for_names_the_field(operator: httpx.AsyncClient) -> None:
    wrong: tuple[tuple[dict[str, Any], str], ...] = (
        ({"state": "gone"}, "query.state"),
        ({"older_than": "soon"}, "query.older_than"),
        ({"older_than": "9999999w"}, "query.older_than"),
        ({"page_size": 0}, "query.page_size"),
        ({"page_size": 201}, "query.page_size"),
        ({"after": "nonsense"}, "query.after"),
        ({"after": "é"}, "query.after"),
        ({"after": "1-email:07:dead:1-99999999999999999999"}, "query.after"),
    )
    for parameters, field in wrong:
        assert fields(await operator.get(LETTERS, params=parameters)) == [field]
    assert fields(await operator.get(LETTERS, params={"channel": "pigeon"}), 404) == ["channel"]
    assert fields(await operator.get(f"{LETTERS}/nonsense")) == ["path.id"]
    for unknown in ("pigeon:07:dead:1-0", "email:99:dead:1-0", "email:07:dead:1-0"):
        problem(await operator.get(f"{LETTERS}/{unknown}"), 404)


async def test_a_cursor_with_other_filters_begins_at_its_time(
    operator: httpx.AsyncClient, client: redis.asyncio.Redis
) -> None:
    letters = [await bury(client, f"u{i}", state="dead", at=f"{1_000 + i // 2}-0") for i in range(6)]
    first = (await operator.get(LETTERS, params={"page_size": 3})).json()
    told = {letter["id"] for letter in first["dead_letters"]}
    after = first["page_info"]["after"]
    rest = (await operator.get(LETTERS, params={"after": after})).json()["dead_letters"]
    assert {one["id"] for one in rest} == set(letters) - told
    for parameters, expected in (
        ({"channel": "push"}, []),
        ({"state": "dlq"}, []),
        ({"recipient": "u5"}, [letters[5]]),
        ({"recipient": "u0"}, []),
    ):
        page = (await operator.get(LETTERS, params={"after": after, **parameters})).json()
        assert [one["id"] for one in page["dead_letters"]] == expected


async def test_entries_that_are_no_letters_are_shown_as_far_as_they_can_be_read(
    operator: httpx.AsyncClient, client: redis.asyncio.Redis
) -> None:
    for content in (b"\xff\xfe", b'{"a": NaN}', b'{"x": "\\ud800"}', b"[" * 5_000):
        await client.xadd(KEYS.dead("events", 0), {"event": content, "to": b"\xff"})
    for letter in await everything(operator):
        response = await operator.get(f"{LETTERS}/{letter['id']}")
        assert response.status_code == 200
        assert isinstance(response.json()["event"], str)


# Mending.


async def mended(operator: httpx.AsyncClient, path: str, **body: Any) -> dict[str, Any]:
    response = await operator.post(path, json=body)
    assert response.status_code == 200, response.text
    told: dict[str, Any] = response.json()
    return told


def counts(told: dict[str, Any]) -> tuple[int, int, int, int]:
    return told["done"], told["gone"], told["busy"], told["unusable"]


async def test_letters_are_redriven_and_discarded_by_their_ids(
    operator: httpx.AsyncClient, client: redis.asyncio.Redis
) -> None:
    first, second, third = [await bury(client, f"u{i}") for i in range(3)]
    told = await mended(operator, REDRIVE, ids=[first, first, "email:00:dead:1-0"])
    assert counts(told) == (1, 1, 0, 0)
    assert told["left"] == [{"id": "email:00:dead:1-0", "result": "gone"}]
    assert await client.xlen(KEYS.queue("email", KEYS.partition_of("u0"))) == 1
    assert counts(await mended(operator, DISCARD, ids=[second])) == (1, 0, 0, 0)
    assert await ids(operator) == [third]


async def test_what_the_filters_select_is_mended_and_nothing_else(
    operator: httpx.AsyncClient, client: redis.asyncio.Redis
) -> None:
    kept = await bury(client, "u1", failure=BROKEN)
    for i in range(2, 9):
        await bury(client, f"u{i}")
    dry = await mended(operator, REDRIVE, error=["TransientFailure"], dry_run=True)
    assert (dry["dry_run"], dry["matched"], dry["done"]) == (True, 7, 0)
    assert dry["groups"] == [
        {"queue": "email", "state": "dlq", "error": "TransientFailure", "type": "like", "count": 7}
    ]
    assert len(await ids(operator)) == 8
    assert counts(await mended(operator, REDRIVE, error=["TransientFailure"])) == (7, 0, 0, 0)
    assert await ids(operator) == [kept]
    assert counts(await mended(operator, DISCARD, all=True)) == (1, 0, 0, 0)
    assert await ids(operator) == []


async def test_a_long_job_goes_on_where_the_last_request_ended(
    operator: httpx.AsyncClient, client: redis.asyncio.Redis
) -> None:
    for i in range(25):
        await bury(client, f"u{i}", failure=BROKEN if i % 5 == 0 else LATER)
    done, after, requests = 0, None, 0
    while True:
        cursor = {"after": after} if after else {}
        told = await mended(operator, REDRIVE, error=["TransientFailure"], limit=6, **cursor)
        assert told["done"] <= 6
        done += told["done"]
        requests += 1
        after = told["page_info"]["after"]
        # What fails again at once, and comes back to the DLQ, is not taken again.
        for i in range(3):
            await bury(client, f"again{i}")
        if not told["page_info"]["has_more"]:
            break
    assert (done, requests) == (20, 4)
    assert len(await ids(operator, error="TransientFailure")) == 12
    assert len(await ids(operator, error="TemplateError")) == 5


async def test_a_rate_is_kept_over_requests(operator: httpx.AsyncClient, client: redis.asyncio.Redis) -> None:
    for i in range(20):
        await bury(client, f"u{i}")
    began = time.monotonic()
    first = await mended(operator, REDRIVE, all=True, rate=40, limit=10)
    await mended(operator, REDRIVE, all=True, rate=40, limit=10, after=first["page_info"]["after"])
    assert 0.5 <= time.monotonic() - began < 5
    assert await ids(operator) == []


async def test_two_operators_at_once_redrive_each_letter_once(
    operator: httpx.AsyncClient, client: redis.asyncio.Redis
) -> None:
    for i in range(300):
        await bury(client, f"u{i}")
    told = await asyncio.gather(*(mended(operator, REDRIVE, all=True) for _ in range(4)))
    assert sum(one["done"] for one in told) == 300
    queued = [await client.xlen(KEYS.queue("email", number)) for number in range(KEYS.partitions)]
    assert sum(queued) == 300


async def test_what_the_worker_tries_now_is_left_alone(
    operator: httpx.AsyncClient, client: redis.asyncio.Redis
) -> None:
    letter = await bury(client, "u1")
    partition = KEYS.partition_of("u1")
    stream = KEYS.dlq("email", partition)
    lease = (KEYS.lease(dlq_of("email"), partition), stream)
    await run(client, Call(script("lease_acquire"), lease, ("worker", 60_000, GROUP)))
    consumer = (await client.hget(lease[0], "token")).rpartition(b"#")[0]  # type: ignore[misc,union-attr]
    await client.execute_command("XREADGROUP", "GROUP", GROUP, consumer, "STREAMS", stream, ">")
    told = await mended(operator, DISCARD, ids=[letter])
    assert counts(told) == (0, 0, 1, 0)
    assert await ids(operator) == [letter]


async def test_a_job_that_is_not_clear_is_not_begun(
    operator: httpx.AsyncClient, client: redis.asyncio.Redis
) -> None:
    letter = await bury(client)
    wrong: tuple[tuple[Any, str], ...] = (
        ({}, "ids"),
        ({"dry_run": True}, "ids"),
        ({"all": False}, "all"),
        ({"all": None}, "all"),
        ({"all": True, "channel": ["email"]}, "channel"),
        ({"ids": [letter], "all": True}, "all"),
        ({"ids": [letter], "limit": 1}, "limit"),
        ({"ids": []}, "ids"),
        ({"ids": [letter] * 1_001}, "ids"),
        ({"ids": ["nonsense"]}, "ids"),
        ({"channel": []}, "channel"),
        ({"error": []}, "error"),
        ({"type": []}, "type"),
        ({"recipient": ""}, "recipient"),
        ({"recipient": None}, "recipient"),
        ({"state": "all"}, "state"),
        ({"channel": "email"}, "channel"),
        ({"all": True, "limit": 0}, "limit"),
        ({"all": True, "limit": 10_001}, "limit"),
        ({"all": True, "limit": "5"}, "limit"),
        ({"all": True, "rate": 0}, "rate"),
        ({"all": True, "rate": "50/s"}, "rate"),
        ({"all": True, "after": "nonsense"}, "after"),
        ({"all": True, "dry_run": "no"}, "dry_run"),
        ({"older_than": "soon"}, "older_than"),
        ({"everything": True}, "everything"),
        ([], "body"),
    )
    for path in (REDRIVE, DISCARD):
        for body, field in wrong:
            assert [one.partition(".")[0] for one in fields(await operator.post(path, json=body))] == [field]
        assert fields(await operator.post(path, json={"channel": ["pigeon"]}), 404) == ["channel"]
        assert fields(await operator.post(path, json={"ids": ["pigeon:07:dead:1-0"]}), 404) == ["ids"]
        problem(await operator.post(path, content=b"{"), 400)
        problem(await operator.post(path, content=b"{}", headers={"Content-Type": "text/plain"}), 415)
    assert await ids(operator) == [letter]


# Who may.


async def test_only_a_key_of_the_scope_operate_is_let_in(api: Api) -> None:
    routes = (
        ("GET", "/v1/queues"),
        ("GET", LETTERS),
        ("GET", f"{LETTERS}/email:07:dead:1-0"),
        ("POST", REDRIVE),
        ("POST", DISCARD),
    )
    async with api.publisher as publisher, api.backend as backend, api.user("ada") as user:
        for method, route in routes:
            problem(await api.client.request(method, route, content=b"{}"), 401)
            problem(await publisher.request(method, route, content=b"{}"), 403)
            problem(await backend.request(method, route, content=b"{}"), 403)
            problem(await user.request(method, route, content=b"{}"), 401)


async def test_a_broker_that_is_full_is_told_and_nothing_is_lost(
    operator: httpx.AsyncClient, client: redis.asyncio.Redis
) -> None:
    letter = await bury(client)
    await client.config_set("maxmemory", 1)
    response = await operator.post(REDRIVE, json={"all": True})
    await client.config_set("maxmemory", 0)
    problem(response, 503)
    assert response.headers["Retry-After"]
    assert await ids(operator) == [letter]
