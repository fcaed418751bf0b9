"""CloudEvents 1.0: structured, batched, and in headers."""

from __future__ import annotations

import base64
import json
from typing import Any

import httpx
import pytest

from notifier.api.cloud_events import BATCH, STRUCTURED
from tests.api.conftest import Api
from tests.api.events import pairs, waiting

EVENT: dict[str, Any] = {
    "specversion": "1.0",
    "id": "e1",
    "source": "/photos",
    "type": "like",
    "subject": "u1",
    "time": "2026-01-31T12:00:00Z",
    "actor": "u7",
    "data": {"photo": "Harbour"},
}


async def post(api: Api, content: Any, content_type: str = STRUCTURED, **headers: str) -> httpx.Response:
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    sent = {"Content-Type": content_type} | headers
    async with api.publisher as client:
        return await client.post("/v1/events", content=body, headers={k: v for k, v in sent.items() if v})


def binary(**changes: str | None) -> dict[str, str]:
    """The headers of EVENT; None leaves one out."""
    attributes = {name: value for name, value in EVENT.items() if name != "data"} | changes
    return {f"ce-{name}": str(value) for name, value in attributes.items() if value is not None}


def assert_accepted(redis_url: str, recipient: str = "u1") -> None:
    [(event, to)] = waiting(redis_url)
    assert to == recipient
    assert event == {
        "id": "e1",
        "type": "like",
        "occurred_at": "2026-01-31T12:00:00Z",
        "actor": {"id": "u7"},
        "data": {"photo": "Harbour"},
    }


async def test_a_structured_event_is_accepted(api: Api, redis_url: str) -> None:
    response = await post(api, EVENT, "application/cloudevents+json; charset=utf-8")
    assert response.status_code == 202
    assert response.json() == {
        "events": [{"id": "e1", "recipients": [{"recipient": "u1", "duplicate": False}]}]
    }
    assert_accepted(redis_url)


async def test_an_event_in_headers_is_accepted(api: Api, redis_url: str) -> None:
    response = await post(api, EVENT["data"], "application/json", **binary())
    assert response.status_code == 202
    assert_accepted(redis_url)


async def test_data_in_base64_is_accepted(api: Api, redis_url: str) -> None:
    encoded = base64.b64encode(json.dumps(EVENT["data"]).encode()).decode()
    event = {name: value for name, value in EVENT.items() if name != "data"} | {"data_base64": encoded}
    assert (await post(api, event)).status_code == 202
    assert_accepted(redis_url)


async def test_a_batch_is_accepted_in_its_order(api: Api, redis_url: str) -> None:
    batch = [EVENT | {"id": f"e{i}"} for i in range(50)]
    assert (await post(api, batch, BATCH)).status_code == 202
    assert pairs(redis_url) == [(f"e{i}", "u1") for i in range(50)]


async def test_each_event_of_a_batch_is_refused_on_its_own(api: Api, redis_url: str) -> None:
    response = await post(api, [EVENT, EVENT | {"subject": ""}, 7, EVENT | {"id": "e2"}], BATCH)
    assert response.status_code == 207
    errors = [one.get("error", {}).get("field") for one in response.json()["events"]]
    assert errors == [None, "subject", "event", None]
    assert pairs(redis_url) == [("e1", "u1"), ("e2", "u1")]


@pytest.mark.parametrize(
    ("sent", "recipient"),
    [
        ("J%C3%BCrgen", "Jürgen"),
        ("100%25", "100%"),
        ("a%20b", "a b"),
        ("%E2%98%80", "☀"),
        ('"quoted"', "quoted"),
        (r'"a \"b\" c"', 'a "b" c'),
        ("%22", '"'),
        ("%2525", "%25"),  # decoded once
        ("50%", "50%"),
    ],
)
async def test_headers_are_decoded(sent: str, recipient: str, api: Api, redis_url: str) -> None:
    response = await post(api, EVENT["data"], "application/json", **binary(subject=sent))
    assert response.status_code == 202
    assert_accepted(redis_url, recipient)


@pytest.mark.parametrize("sent", ["%ff", "%C3", "a%80b"])
async def test_a_header_that_is_not_utf_8_is_refused(sent: str, api: Api) -> None:
    response = await post(api, EVENT["data"], "application/json", **binary(subject=sent))
    assert (response.status_code, response.json()["errors"][0]["field"]) == (400, "ce-subject")


async def test_a_header_can_smuggle_no_line_into_a_field(api: Api) -> None:
    response = await post(api, EVENT["data"], "application/json", **binary(subject="a%0D%0Ab"))
    assert (response.status_code, response.json()["errors"][0]["field"]) == (422, "subject")


async def test_an_event_in_headers_needs_no_data(api: Api, redis_url: str) -> None:
    assert (await post(api, b"", "", **binary())).status_code == 202
    [(event, _)] = waiting(redis_url)
    assert event["data"] == {}


@pytest.mark.parametrize("mode", ["structured", "binary"])
async def test_several_recipients_are_an_extension(mode: str, api: Api, redis_url: str) -> None:
    if mode == "structured":
        event = {name: value for name, value in EVENT.items() if name != "subject"}
        response = await post(api, event | {"recipients": "u1, u2,u3"})
    else:
        headers = binary(subject=None, recipients="u1,u2,u3")
        response = await post(api, EVENT["data"], "application/json", **headers)
    assert response.status_code == 202
    assert sorted(pairs(redis_url)) == [("e1", "u1"), ("e1", "u2"), ("e1", "u3")]


async def test_times_are_extensions_and_others_are_ignored(api: Api, redis_url: str) -> None:
    times = {"deliverat": "2020-01-01T00:00:00Z", "expiresat": "2100-01-01T00:00:00Z"}
    others = {
        "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "dataschema": "x:y",
        "n": 5,
    }
    assert (await post(api, EVENT | times | others)).status_code == 202
    [(event, _)] = waiting(redis_url)
    assert (event["deliver_at"], event["expires_at"]) == tuple(times.values())


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"specversion": "0.3"}, "specversion"),
        ({"specversion": None}, "specversion"),
        ({"id": None}, "id"),
        ({"id": ""}, "id"),
        ({"source": None}, "source"),
        ({"source": 5}, "source"),
        ({"type": None}, "type"),
        ({"type": "com.example.Liked"}, "type"),
        ({"subject": None}, "subject"),
        ({"subject": ["u1"]}, "subject"),
        ({"subject": "x" * 201}, "subject"),
        ({"actor": {"id": "u7"}}, "actor"),
        ({"actor": "x" * 201}, "actor"),
        ({"time": "yesterday"}, "time"),
        ({"time": 5}, "time"),
        ({"expiresat": "soon"}, "expiresat"),
        ({"deliverat": "2030-01-01T00:00:00Z", "expiresat": "2029-01-01T00:00:00Z"}, "expiresat"),
        ({"recipients": "u2"}, "recipients"),
        ({"subject": None, "recipients": ["u2"]}, "recipients"),
        ({"subject": None, "recipients": "u2," + "x" * 201}, "recipients[1].id"),
        ({"data": [1]}, "data"),
        ({"data": "text"}, "data"),
        ({"datacontenttype": "text/plain"}, "datacontenttype"),
        ({"data_base64": "e30="}, "data_base64"),
        ({"data": None, "data_base64": "§"}, "data_base64"),
        ({"data": None, "data_base64": "e30"}, "data_base64"),
        ({"data": None, "data_base64": 5}, "data_base64"),
    ],
)
async def test_an_attribute_that_breaks_a_rule_is_named(
    changes: dict[str, Any], field: str, api: Api, redis_url: str
) -> None:
    event = {name: value for name, value in (EVENT | changes).items() if value is not None}
    response = await post(api, event)
    assert (response.status_code, [one["field"] for one in response.json()["errors"]]) == (422, [field])
    assert pairs(redis_url) == []


async def test_structured_is_one_and_batch_is_a_list(api: Api) -> None:
    assert (await post(api, [EVENT])).status_code == 422
    assert (await post(api, EVENT, BATCH)).status_code == 422
    assert (await post(api, b"[", BATCH)).status_code == 400


async def test_data_in_headers_mode_is_json(api: Api) -> None:
    for content_type, status in (("text/plain", 415), ("application/xml", 415), ("application/ld+json", 202)):
        assert (await post(api, b"{}", content_type, **binary())).status_code == status
    assert (await post(api, b"{", "application/json", **binary())).status_code == 400
