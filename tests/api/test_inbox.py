"""A user's inbox over HTTP: pages, counts and marks, and nobody else's."""

from __future__ import annotations

from typing import Any

import pytest

from notifier.channel import InboxEntry
from notifier.inbox import Inbox
from tests.api.conftest import OPERATE, PUBLISH, Api

MARKUP = "<script>alert(1)</script> & \"'</b>\u2028\n<img src=x onerror=alert(1)>"


def inbox_of(api: Api) -> Inbox:
    inbox: Inbox = api.app.state.shared.runtime.inbox
    return inbox


def entry(number: int, **fields: Any) -> InboxEntry:
    given = {"id": f"e{number}", "type": "like", "title": f"Title {number}", "body": "A body"}
    return InboxEntry(**given | {"created_ms": 1_782_898_200_000 + number} | fields)


async def fill(api: Api, recipient: str, count: int) -> None:
    for number in range(count):
        await inbox_of(api).add(recipient, entry(number))


async def get(api: Api, recipient: str, **query: Any) -> dict[str, Any]:
    async with api.user(recipient) as user:
        response = await user.get("/v1/inbox", params=query)
    assert response.status_code == 200, response.text
    page: dict[str, Any] = response.json()
    return page


async def test_an_entry_has_its_twelve_members_and_null_for_what_it_has_not(api: Api) -> None:
    full = entry(
        123, url="https://app.example.com/1", actor={"id": "u7", "name": "Grace"}, data={"n": [1, None]}
    )
    await inbox_of(api).add("bo", entry(0))
    await inbox_of(api).add("bo", full)
    page = await get(api, "bo")
    assert page["meta"] == {"total": 2, "unread": 2, "unseen": 2}
    assert page["page_info"] == {"has_more": False, "after": None}
    assert page["entries"] == [
        {
            "id": "e123",
            "type": "like",
            "title": "Title 123",
            "body": "A body",
            "url": "https://app.example.com/1",
            "actor": {"id": "u7", "name": "Grace"},
            "data": {"n": [1, None]},
            "created_at": "2026-07-01T09:30:00.123Z",
            "seen_at": None,
            "read_at": None,
            "archived_at": None,
        },
        {
            "id": "e0",
            "type": "like",
            "title": "Title 0",
            "body": "A body",
            "url": None,
            "actor": None,
            "data": {},
            "created_at": "2026-07-01T09:30:00.000Z",
            "seen_at": None,
            "read_at": None,
            "archived_at": None,
        },
    ]


async def test_pages_follow_each_other_to_the_end(api: Api) -> None:
    await fill(api, "bo", 5)
    found, after = [], None
    for _ in range(4):
        page = await get(api, "bo", page_size=2, **({"after": after} if after else {}))
        found += [one["id"] for one in page["entries"]]
        after = page["page_info"]["after"]
        assert page["page_info"]["has_more"] is (after is not None)
        if after is None:
            break
    assert found == ["e4", "e3", "e2", "e1", "e0"]


async def test_marks_are_idempotent_and_answer_with_the_counts(api: Api) -> None:
    await fill(api, "bo", 2)
    async with api.user("bo") as bo:
        for mark, counts in (
            ("seen", (2, 2, 1)),
            ("read", (2, 1, 1)),
            ("read", (2, 1, 1)),
            ("unread", (2, 2, 1)),
            ("archived", (1, 1, 1)),
            ("unarchived", (2, 2, 1)),
        ):
            response = await bo.post(f"/v1/inbox/e0/{mark}")
            assert response.status_code == 200
            assert tuple(response.json()[name] for name in ("total", "unread", "unseen")) == counts
        assert (await bo.get("/v1/inbox/counts")).json() == {"total": 2, "unread": 2, "unseen": 1}


async def test_filters_choose_what_is_listed(api: Api) -> None:
    await fill(api, "bo", 3)
    await inbox_of(api).mark("bo", "e1", "read")
    await inbox_of(api).mark("bo", "e2", "archived")
    for query, ids in (
        ({}, ["e1", "e0"]),
        ({"status": "unread"}, ["e0"]),
        ({"status": "read"}, ["e1"]),
        ({"archived": "only"}, ["e2"]),
        ({"archived": "include"}, ["e2", "e1", "e0"]),
    ):
        assert [one["id"] for one in (await get(api, "bo", **query))["entries"]] == ids


async def test_a_bulk_mark_leaves_out_what_came_after_the_list_was_shown(api: Api) -> None:
    await fill(api, "bo", 4)
    shown = (await get(api, "bo"))["entries"][2]["created_at"]
    async with api.user("bo") as bo:
        response = await bo.post("/v1/inbox/read", json={"status": "unread", "until": shown})
        assert response.json() == {"total": 4, "unread": 2, "unseen": 2}
        assert (await bo.post("/v1/inbox/archived", json={"status": "read"})).json()["total"] == 2
        assert (await bo.post("/v1/inbox/seen")).json() == {"total": 2, "unread": 2, "unseen": 0}
        assert (await bo.post("/v1/inbox/unarchived")).json()["total"] == 4


async def test_some_are_marked_by_id_and_what_is_not_there_is_passed_over(api: Api) -> None:
    await fill(api, "bo", 4)
    async with api.user("bo") as bo:
        response = await bo.post("/v1/inbox/read", json={"ids": ["e0", "nothing", "e2", "e0"]})
        assert response.json() == {"total": 4, "unread": 2, "unseen": 2}
        assert [one["id"] for one in (await get(api, "bo", status="read"))["entries"]] == ["e2", "e0"]


async def test_nobody_reaches_an_inbox_but_their_own(api: Api) -> None:
    await fill(api, "bo", 1)
    async with api.user("ada") as ada:
        assert (await ada.get("/v1/inbox")).json()["entries"] == []
        assert (await ada.get("/v1/inbox", params={"recipient": "bo"})).status_code == 422
        assert (await ada.post("/v1/inbox/e0/read")).status_code == 404
        assert (await ada.post("/v1/inbox/bo/read")).status_code == 404
        assert (await ada.post("/v1/inbox/archived", json={})).json()["total"] == 0
        assert (await ada.post("/v1/inbox/archived", json={"recipient": "bo"})).status_code == 422
    assert (await get(api, "bo"))["meta"] == {"total": 1, "unread": 1, "unseen": 1}


async def test_an_inbox_takes_a_token_and_no_key(api: Api) -> None:
    for headers in ({}, *({"Authorization": f"Bearer {key}"} for key in (PUBLISH, OPERATE))):
        for method, path in (
            ("GET", "/v1/inbox"),
            ("GET", "/v1/inbox/counts"),
            ("GET", "/v1/inbox/stream"),
            ("POST", "/v1/inbox/e0/read"),
            ("POST", "/v1/inbox/read"),
        ):
            response = await api.client.request(method, path, headers=headers)
            assert response.status_code == 401
            assert response.headers["WWW-Authenticate"] == "Bearer"


async def test_markup_comes_back_as_the_text_that_it_is(api: Api) -> None:
    await inbox_of(api).add("bo", entry(0, title=MARKUP, body=MARKUP, data={MARKUP: MARKUP}))
    async with api.user("bo") as bo:
        response = await bo.get("/v1/inbox")
    assert response.headers["Content-Type"] == "application/json"
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert response.headers["Cache-Control"] == "no-store"
    [shown] = response.json()["entries"]
    assert (shown["title"], shown["body"], shown["data"]) == (MARKUP, MARKUP, {MARKUP: MARKUP})


@pytest.mark.parametrize(
    ("field", "query"),
    [
        ("status", {"status": "new"}),
        ("archived", {"archived": "yes"}),
        ("after", {"after": "nonsense"}),
        ("after", {"after": "A" * 1_001}),
        ("page_size", {"page_size": 0}),
        ("page_size", {"page_size": 101}),
        ("page_size", {"page_size": "many"}),
    ],
)
async def test_a_bad_parameter_is_named(api: Api, field: str, query: dict[str, Any]) -> None:
    async with api.user("bo") as bo:
        response = await bo.get("/v1/inbox", params=query)
    assert response.status_code == 422
    assert response.json()["errors"][0]["field"].endswith(field)


@pytest.mark.parametrize(
    ("field", "body"),
    [
        ("status", {"status": "new"}),
        ("status", {"status": None}),
        ("status", {"status": ["all"]}),
        ("archived", {"archived": ""}),
        ("archived", {"archived": None}),
        ("until", {"until": "yesterday"}),
        ("until", {"until": "2026-07-01T09:30:00"}),
        ("until", {"until": "2026-13-01T09:30:00Z"}),
        ("until", {"until": 1_782_898_200_000}),
        ("untill", {"untill": "2026-07-01T09:30:00Z"}),
        ("ids", {"ids": []}),
        ("ids", {"ids": ["e0"] * 101}),
        ("ids[1]", {"ids": ["e0", 1]}),
        ("ids[0]", {"ids": ["e" * 201]}),
        ("status", {"ids": ["e0"], "status": "all"}),
        ("body", ["all"]),
    ],
)
async def test_a_bad_filter_is_named_and_marks_nothing(api: Api, field: str, body: Any) -> None:
    await fill(api, "bo", 1)
    async with api.user("bo") as bo:
        response = await bo.post("/v1/inbox/read", json=body)
    assert response.status_code == 422
    assert [error["field"] for error in response.json()["errors"]] == [field]
    assert (await get(api, "bo"))["meta"]["unread"] == 1


@pytest.mark.parametrize("until", ["2026-07-01t09:30:00z", "9999-12-31T23:59:59.999999+00:00"])
async def test_times_are_those_of_rfc_3339(api: Api, until: str) -> None:
    await fill(api, "bo", 1)
    async with api.user("bo") as bo:
        assert (await bo.post("/v1/inbox/read", json={"until": until})).json()["unread"] == 0


async def test_a_mark_that_is_none_is_named(api: Api) -> None:
    async with api.user("bo") as bo:
        for path in ("/v1/inbox/e0/liked", "/v1/inbox/liked"):
            response = await bo.post(path)
            assert response.status_code == 422
            assert response.json()["errors"][0]["field"].endswith("mark")
