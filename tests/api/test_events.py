"""POST /v1/events: what is answered is what the broker has."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from notifier.api.events import MAX_EVENTS, MAX_NOTIFICATIONS
from notifier.event import MAX_DATA_BYTES
from tests.api.conftest import Api
from tests.api.events import pairs, waiting


def like(event_id: str = "e1", recipient: Any = "u1", **fields: Any) -> dict[str, Any]:
    return {"id": event_id, "type": "like", "recipient": recipient} | fields


def row(event_id: str, *recipients: str, duplicates: tuple[str, ...] = ()) -> dict[str, Any]:
    told = [{"recipient": one, "duplicate": one in duplicates} for one in recipients]
    return {"id": event_id, "recipients": told}


async def post(api: Api, content: Any, **headers: str) -> httpx.Response:
    async with api.publisher as client:
        return await client.post("/v1/events", json=content, headers=headers)


async def post_bytes(api: Api, content: bytes, content_type: str = "application/json") -> httpx.Response:
    async with api.publisher as client:
        return await client.post("/v1/events", content=content, headers={"Content-Type": content_type})


def problem(response: httpx.Response) -> dict[str, Any]:
    """The problem, after making sure that it is one."""
    assert response.headers["Content-Type"] == "application/problem+json"
    body: dict[str, Any] = response.json()
    assert {"type", "title", "status", "detail", "request_id"} <= body.keys()
    assert body["status"] == response.status_code
    assert body["request_id"] == response.headers["X-Request-Id"]
    return body


def fields(response: httpx.Response) -> list[str]:
    return [error["field"] for error in problem(response)["errors"]]


# One event.


async def test_one_event_is_in_the_broker_when_202_comes(api: Api, redis_url: str) -> None:
    response = await post(api, like(data={"photo": "Morning ☀"}, actor="u7"))
    assert response.status_code == 202
    assert response.json() == {"events": [row("e1", "u1")]}
    [(event, to)] = waiting(redis_url)
    assert (event["id"], event["data"], event["actor"], to) == (
        "e1",
        {"photo": "Morning ☀"},
        {"id": "u7"},
        "u1",
    )


async def test_an_event_without_id_is_given_one(api: Api, redis_url: str) -> None:
    response = await post(api, {"type": "like", "recipient": "u1"})
    [told] = response.json()["events"]
    assert pairs(redis_url) == [(told["id"], "u1")]


async def test_each_recipient_is_told_of_and_who_had_it_before(api: Api, redis_url: str) -> None:
    await post(api, like("e1", "u2"))
    event = {"id": "e1", "type": "like", "recipients": ["u1", "u2", {"id": "u3", "locale": "de"}]}
    response = await post(api, event)
    assert response.status_code == 202
    assert response.json() == {"events": [row("e1", "u1", "u2", "u3", duplicates=("u2",))]}
    assert sorted(pairs(redis_url)) == [("e1", "u1"), ("e1", "u2"), ("e1", "u3")]


async def test_who_is_named_twice_gets_it_once(api: Api, redis_url: str) -> None:
    response = await post(api, {"id": "e1", "type": "like", "recipients": ["u1", "u2", "u1"]})
    told = [(one["recipient"], one["duplicate"]) for one in response.json()["events"][0]["recipients"]]
    assert told == [("u1", False), ("u2", False), ("u1", True)]
    assert sorted(pairs(redis_url)) == [("e1", "u1"), ("e1", "u2")]


# Lists.


async def test_a_list_is_accepted_in_its_order(api: Api, redis_url: str) -> None:
    events = [like(f"e{i}", f"u{i % 3}") for i in range(300)]
    response = await post(api, events)
    assert response.status_code == 202
    assert response.json() == {"events": [row(f"e{i}", f"u{i % 3}") for i in range(300)]}
    for person in range(3):
        mine = [event_id for event_id, to in pairs(redis_url) if to == f"u{person}"]
        assert mine == [f"e{i}" for i in range(person, 300, 3)]


async def test_each_event_of_a_list_is_refused_on_its_own(api: Api, redis_url: str) -> None:
    too_large = like("e4", data={"text": "x" * MAX_DATA_BYTES})
    response = await post(api, [like("e1"), like("e2", type="Like"), 5, too_large, like("e5", colour="red")])
    assert response.status_code == 207
    accepted, *refused = response.json()["events"]
    assert accepted == row("e1", "u1")
    assert [one["error"]["field"] for one in refused] == ["type", "event", "data", "colour"]
    assert pairs(redis_url) == [("e1", "u1")]


async def test_a_list_of_which_nothing_can_be_accepted_is_a_problem(api: Api, redis_url: str) -> None:
    response = await post(api, [like(type="Like"), like("e2", "")])
    assert response.status_code == 422
    assert fields(response) == ["[0].type", "[1].recipient.id"]
    assert [one["error"]["field"] for one in response.json()["events"]] == ["type", "recipient.id"]
    assert pairs(redis_url) == []


async def test_a_list_that_is_too_large_only_when_encoded_is_a_problem(api: Api, redis_url: str) -> None:
    response = await post(api, [like(data={"text": "x" * MAX_DATA_BYTES})])
    assert (response.status_code, fields(response)) == (422, ["[0].data"])
    assert pairs(redis_url) == []


async def test_a_list_has_a_largest_size(api: Api, redis_url: str) -> None:
    for events, status in (([], 422), ([like(f"e{i}") for i in range(MAX_EVENTS + 1)], 413)):
        response = await post(api, events)
        assert (response.status_code, fields(response)) == (status, ["body"])
    assert pairs(redis_url) == []


async def test_the_largest_list_is_accepted(api: Api, redis_url: str) -> None:
    response = await post(api, [like(f"e{i}") for i in range(MAX_EVENTS)])
    assert (response.status_code, len(pairs(redis_url))) == (202, MAX_EVENTS)


async def test_a_request_has_a_largest_number_of_recipients(api: Api, redis_url: str) -> None:
    crowd = [str(i) for i in range(1_000)]
    events = [{"id": f"e{i}", "type": "like", "recipients": crowd} for i in range(MAX_NOTIFICATIONS // 1_000)]
    response = await post(api, [*events, like("one more")])
    assert (response.status_code, fields(response)) == (413, ["body"])
    assert pairs(redis_url) == []


# What is no event.


@pytest.mark.parametrize(
    ("event", "field"),
    [
        ({"type": "like"}, "recipient"),
        ({"recipient": "u1"}, "type"),
        (like(recipients=["u2"]), "recipient"),
        (like(colour="red"), "colour"),
        (like(recipient={"id": "u1", "email": "no mailbox"}), "recipient.email"),
        ({"type": "like", "recipients": ["u1", {"id": "u2", "locale": "?"}]}, "recipients[1].locale"),
        (like(occurred_at="yesterday"), "occurred_at"),
        (like(data=[1]), "data"),
        (like(data={"text": "x" * MAX_DATA_BYTES}), "data"),
        (like("two\nlines"), "id"),
        (like("x" * 201), "id"),
        (5, "event"),
        ("text", "event"),
    ],
)
async def test_an_event_that_breaks_a_rule_is_refused_by_its_field(
    event: Any, field: str, api: Api, redis_url: str
) -> None:
    response = await post(api, event)
    assert (response.status_code, fields(response)) == (422, [field])
    assert problem(response)["detail"].startswith(f"{field}: ")
    assert pairs(redis_url) == []


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b'{"type": "like"} x', b"\xff\xfe{}", b'{"a": NaN}', b'{"type": "\xe9"}', b'["a",]',
     b'{"n": ' + b"9" * 5_000 + b"}", b"\xef\xbb\xbf{}", b'{"a": "\\ud800"}'],
)  # fmt: skip
async def test_what_is_no_json_is_refused(body: bytes, api: Api) -> None:
    response = await post_bytes(api, body)
    assert (response.status_code, fields(response)) == (400, ["body"])


@pytest.mark.parametrize("depth", [101, 150, 1_000, 100_000])
@pytest.mark.parametrize("brackets", ["[]", "{}"])
async def test_deep_nesting_is_refused(depth: int, brackets: str, api: Api, redis_url: str) -> None:
    opening = brackets[0] if brackets == "[]" else '{"a":'
    deep = opening * depth + "1" + brackets[1] * depth
    body = f'{{"type": "like", "recipient": "u1", "data": {{"deep": {deep}}}}}'
    response = await post_bytes(api, body.encode())
    assert response.status_code in {400, 422}
    assert fields(response) == ["data" if depth < 200 else "body"]
    assert pairs(redis_url) == []


@pytest.mark.parametrize(
    "content_type",
    ["text/plain", "application/x-www-form-urlencoded", "application/json; charset=latin-1", "a", "*/*",
     "application/xml", "multipart/form-data; boundary=x"],
)  # fmt: skip
async def test_another_content_type_is_refused(content_type: str, api: Api, redis_url: str) -> None:
    response = await post_bytes(api, json.dumps(like()).encode(), content_type)
    assert (response.status_code, fields(response)) == (415, ["content-type"])
    assert "application/cloudevents+json" in response.headers["Accept"]
    assert pairs(redis_url) == []


async def test_json_may_be_called_so_in_several_ways(api: Api) -> None:
    for content_type in (
        "application/json; charset=UTF-8",
        "APPLICATION/JSON",
        'application/json;charset="utf-8"',
    ):
        response = await post_bytes(api, json.dumps(like()).encode(), content_type)
        assert response.status_code == 202


async def test_a_compressed_body_is_refused(api: Api) -> None:
    response = await post(api, like(), **{"Content-Encoding": "gzip"})
    assert (response.status_code, fields(response)) == (415, ["content-encoding"])


async def test_events_are_counted(api: Api) -> None:
    async def counted() -> dict[str, float]:
        async with api.operator as client:
            text = (await client.get("/metrics")).text
        lines = [line.split() for line in text.splitlines() if line.startswith("notifier_api_events_total{")]
        return {name.split('"')[1]: float(value) for name, value in lines}

    before = await counted()
    await post(
        api, [like("e1"), like("e1"), like("e2", type="L"), like("e3"), {"type": "x", "recipients": ["a"]}]
    )
    after = await counted()
    assert {name: after[name] - before.get(name, 0) for name in after} == {
        "accepted": 3, "duplicate": 1, "refused": 1,
    }  # fmt: skip
