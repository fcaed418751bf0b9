"""Profiles by HTTP: put, read, changed, deleted."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote

import httpx
import redis.asyncio

from notifier.event import parse_recipient
from notifier.keys import Keys
from notifier.recipients import MAX_PROFILE_BYTES, Recipients
from tests.api.conftest import RECIPIENTS, Api
from tests.api.raw import wire
from tests.api.told import fields, problem

KEYS = Keys()
PATCH = "application/merge-patch+json"
ADA = {"email": "ada@example.org", "name": "Ada"}
# What an id may hold: slashes, dots that a URL would swallow, what is an escape or a query or means something
# to the broker.
IDS = (
    "a/b", "ü", "..", ".", "%2F", "%", "a b", "a?b#c", "*", "a:b", "{x}", "import", "'; DROP", "\\", "日本",
    "x" * 200, "../../suppressions", "<script>",
)  # fmt: skip


def path(recipient_id: str, rest: str = "") -> str:
    # httpx swallows dots as a browser does, unless they are escaped; and one id is a route's name.
    escaped = quote(recipient_id, safe="").replace(".", "%2E")
    return f"/v1/recipients/{'%69mport' if escaped == 'import' else escaped}{rest}"


async def patch(backend: httpx.AsyncClient, recipient_id: str, body: Any, **headers: str) -> httpx.Response:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return await backend.patch(
        path(recipient_id), content=content, headers={"Content-Type": PATCH, **headers}
    )


# Putting and reading.


async def test_a_profile_is_stored_and_read(backend: httpx.AsyncClient, recipients: Recipients) -> None:
    full = ADA | {
        "locale": "de",
        "time_zone": "Europe/Berlin",
        "devices": [{"kind": "fcm", "token": "t" * 20}],
        "preferences": {"social": {"email": False}},
    }
    response = await backend.put(path("ada"), json=full)
    assert response.status_code == 201
    assert response.json() == {"id": "ada", **full}
    assert await recipients.get("ada") == parse_recipient({"id": "ada", **full})
    read = await backend.get(path("ada"))
    assert (read.status_code, read.json()) == (200, {"id": "ada", **full})
    assert read.headers["ETag"] == response.headers["ETag"]
    again = await backend.put(path("ada"), json={"id": "ada"})
    assert (again.status_code, again.json()) == (200, {"id": "ada"})
    assert again.headers["ETag"] != response.headers["ETag"]


async def test_an_id_may_hold_any_character(backend: httpx.AsyncClient, recipients: Recipients) -> None:
    for one in IDS:
        assert (await backend.put(path(one), json={"name": "N"})).status_code == 201
    for one in IDS:
        assert (await backend.get(path(one))).json() == {"id": one, "name": "N"}
        assert await recipients.get(one) is not None
        assert (await backend.get(path(one, "/devices"))).json() == {"devices": []}
        assert (await backend.delete(path(one))).status_code == 204
        assert await recipients.get(one) is None


async def test_a_path_is_taken_as_it_comes(api: Api) -> None:
    async with wire(api.url) as line:
        for name in (b"..", b".", b"...", b"%2e%2E"):
            body = b'{"name": "N"}'
            await line.send(
                b"PUT /v1/recipients/%s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\n"
                b"Content-Length: %d\r\n\r\n%s" % (name, RECIPIENTS.encode(), len(body), body)
            )
            answer = await line.answer()
            assert answer.json == {"id": name.decode().replace("%2e%2E", ".."), "name": "N"}


async def test_what_can_not_be_an_id_is_refused(backend: httpx.AsyncClient) -> None:
    for segment in ("%0A", "a%0Ab", "x" * 201, "%E2%80%A8", "%FF", "%C3", "%7F"):
        for method in ("GET", "PUT", "PATCH", "DELETE"):
            body = None if method in {"GET", "DELETE"} else {}
            response = await backend.request(method, f"/v1/recipients/{segment}", json=body)
            assert fields(response) == ["path.id"]


WRONG: tuple[tuple[Any, str], ...] = (
    ({"email": "nobody"}, "email"),
    ({"email": "a@example.com\r\nBcc: b@example.com"}, "email"),
    ({"name": "A\nB"}, "name"),
    ({"name": "x" * 201}, "name"),
    ({"age": 3}, "age"),
    ({"id": "bo"}, "id"),
    ({"id": 3}, "id"),
    ({"time_zone": "Mars/Olympus"}, "time_zone"),
    ({"preferences": {"social": {"email": "maybe"}}}, "preferences.social.email"),
    ({"preferences": {"social": {"email": "yes"}}}, "preferences.social.email"),
    ({"preferences": {"social": {"email": 1}}}, "preferences.social.email"),
    ({"devices": [{"kind": "pager"}]}, "devices[0]"),
    ({"devices": [{"kind": "fcm", "token": "t" * 20}] * 51}, "devices"),
    ([], "body"),
    ("ada", "body"),
)


async def test_a_wrong_profile_names_the_field(
    backend: httpx.AsyncClient, client: redis.asyncio.Redis
) -> None:
    before = await client.dbsize()
    for body, field in WRONG:
        assert fields(await backend.put(path("ada"), json=body)) == [field]
    assert await client.dbsize() == before


UNREADABLE: tuple[tuple[bytes, dict[str, str], int], ...] = (
    (b"", {}, 400),
    (b"{", {}, 400),
    (b"\xff\xfe", {}, 400),
    (b'{"name": "\\ud800"}', {}, 400),
    (b'{"n":' * 100_000, {}, 413),
    (b'{"n":' * 40_000, {}, 400),
    (b'{"a": NaN}', {}, 400),
    (b"{}", {"Content-Type": "text/plain"}, 415),
    (b"{}", {"Content-Type": "application/x-www-form-urlencoded"}, 415),
    (b"{}", {"Content-Type": "application/json; charset=utf-16"}, 415),
    (b"{}", {"Content-Encoding": "gzip"}, 415),
    (b'{"name": "' + b"x" * 300_000 + b'"}', {}, 413),
)


async def test_a_body_that_can_not_be_read_is_refused(backend: httpx.AsyncClient) -> None:
    for content, headers, status in UNREADABLE:
        sent = {"Content-Type": "application/json"} | headers
        problem(await backend.put(path("ada"), content=content, headers=sent), status)
        problem(await backend.patch(path("ada"), content=content, headers=sent), status)


async def test_a_profile_has_a_limit(backend: httpx.AsyncClient) -> None:
    devices = [{"kind": "fcm", "token": f"{i:04d}" + "t" * 4_000} for i in range(20)]
    told = problem(await backend.put(path("ada"), json={"devices": devices}), 422)
    assert f"the limit is {MAX_PROFILE_BYTES}" in told["detail"]
    problem(await backend.get(path("ada")), 404)


# Changing.


async def test_a_merge_patch_sets_replaces_and_removes(backend: httpx.AsyncClient) -> None:
    await backend.put(path("ada"), json=ADA | {"preferences": {"social": {"email": False}}})
    body = {"name": None, "locale": "de", "preferences": {"social": {"push": False}, "news": {"*": False}}}
    response = await patch(backend, "ada", body)
    assert response.status_code == 200
    assert response.json() == {
        "id": "ada",
        "email": ADA["email"],
        "locale": "de",
        "preferences": {"social": {"email": False, "push": False}, "news": {"*": False}},
    }
    plain = await backend.patch(path("ada"), json={"preferences": None})
    assert "preferences" not in plain.json()
    assert (await patch(backend, "ada", {})).headers["ETag"] == plain.headers["ETag"]


async def test_a_patch_of_nobody_makes_nobody(backend: httpx.AsyncClient, recipients: Recipients) -> None:
    problem(await patch(backend, "ada", ADA), 404)
    assert await recipients.get("ada") is None


async def test_a_patch_does_not_change_the_id(backend: httpx.AsyncClient) -> None:
    await backend.put(path("ada"), json=ADA)
    for other in ("bo", None):
        assert fields(await patch(backend, "ada", {"id": other})) == ["id"]
    assert (await patch(backend, "ada", {"id": "ada"})).status_code == 200


async def test_patches_at_once_are_all_applied(backend: httpx.AsyncClient) -> None:
    await backend.put(path("ada"), json=ADA)
    answers = await asyncio.gather(
        *(patch(backend, "ada", {"preferences": {f"c{i}": {"email": False}}}) for i in range(25)),
        patch(backend, "ada", {"locale": "de"}),
        backend.post(path("ada", "/devices"), json={"kind": "fcm", "token": "t" * 20}),
    )
    assert {answer.status_code for answer in answers} <= {200, 201}
    stored = (await backend.get(path("ada"))).json()
    assert set(stored["preferences"]) == {f"c{i}" for i in range(25)}
    assert (stored["locale"], len(stored["devices"]), stored["name"]) == ("de", 1, "Ada")


# Conditions.


async def test_only_one_of_two_changes_of_one_version_is_made(backend: httpx.AsyncClient) -> None:
    tag = (await backend.put(path("ada"), json=ADA)).headers["ETag"]
    first, second = await asyncio.gather(
        patch(backend, "ada", {"name": "Ada L."}, **{"If-Match": tag}),
        patch(backend, "ada", {"name": "A. Lovelace"}, **{"If-Match": tag}),
    )
    assert {first.status_code, second.status_code} == {200, 412}
    won = first if first.status_code == 200 else second
    assert (await backend.get(path("ada"))).json() == won.json()
    problem(await backend.put(path("ada"), json={}, headers={"If-Match": tag}), 412)
    problem(await backend.delete(path("ada"), headers={"If-Match": tag}), 412)
    listed = f'W/"x", {won.headers["ETag"]} , "other"'
    assert (await backend.put(path("ada"), json={}, headers={"If-Match": listed})).status_code == 200


async def test_what_must_not_be_there_is_not_overwritten(backend: httpx.AsyncClient) -> None:
    new = {"If-None-Match": "*"}
    assert (await backend.put(path("ada"), json=ADA, headers=new)).status_code == 201
    problem(await backend.put(path("ada"), json={}, headers=new), 412)
    problem(await backend.put(path("bo"), json={}, headers={"If-Match": "*"}), 412)
    assert (await backend.put(path("ada"), json={}, headers={"If-Match": "*"})).status_code == 200
    assert (await backend.delete(path("ada"), headers={"If-Match": "*"})).status_code == 204
    problem(await backend.delete(path("ada"), headers={"If-Match": "*"}), 412)


async def test_what_is_known_is_not_sent_again(backend: httpx.AsyncClient) -> None:
    tag = (await backend.put(path("ada"), json=ADA)).headers["ETag"]
    for known in (tag, f"W/{tag}", f'"a",{tag}', "*"):
        response = await backend.get(path("ada"), headers={"If-None-Match": known})
        assert (response.status_code, response.content, response.headers["ETag"]) == (304, b"", tag)
    assert (await backend.get(path("ada"), headers={"If-None-Match": '"other"'})).status_code == 200
    problem(await backend.get(path("ada"), headers={"If-Match": '"other"'}), 412)


async def test_a_condition_that_is_none_does_not_hold(backend: httpx.AsyncClient) -> None:
    await backend.put(path("ada"), json=ADA)
    for tag in ("abc", "a, b", '"a', '"a" "b"'):
        problem(await backend.put(path("ada"), json={}, headers={"If-Match": tag}), 412)
    long = '"' + "a" * 2_000 + '"'
    assert fields(await backend.put(path("ada"), json={}, headers={"If-Match": long})) == ["header.if-match"]
    assert (await backend.get(path("ada"))).json() == {"id": "ada", **ADA}


async def test_what_is_wrong_is_told_before_a_condition(backend: httpx.AsyncClient) -> None:
    await backend.put(path("ada"), json=ADA)
    assert fields(await patch(backend, "ada", {"email": "nobody"}, **{"If-Match": '"other"'})) == ["email"]


# Importing.


async def test_lines_are_stored_or_refused_one_by_one(
    backend: httpx.AsyncClient, recipients: Recipients
) -> None:
    await recipients.put(parse_recipient({"id": "u1"}))
    lines = b'{"id": "u1", "name": "N"}\n{"id": "u2", "age": 1}\nnonsense\n{"id": "u3"}'
    for kind in ("application/x-ndjson", "application/jsonl", "application/x-ndjson; charset=utf-8"):
        response = await backend.post("/v1/recipients/import", content=lines, headers={"Content-Type": kind})
        assert response.status_code == 200
        told = response.json()
        assert [(one["line"], one["field"]) for one in told["errors"]] == [(2, "age"), (3, "recipient")]
        assert (told["stored"], told["refused"]) == (2, 2)
    assert told["new"] == 0
    assert [one and one.name for one in await recipients.get_many(["u1", "u2", "u3"])] == ["N", None, None]
    assert await recipients.get("u3") is not None


async def test_more_than_any_other_body_may_have_can_be_imported(
    backend: httpx.AsyncClient, recipients: Recipients
) -> None:
    async def lines() -> AsyncIterator[bytes]:
        for i in range(3_000):
            yield (
                b'{"id": "u%d", "preferences": {"%s": {}}}\n' % (i, b"c" * 90 + b"%d" % i)
                + b" " * 2_000
                + b"\n"
            )

    response = await backend.post(
        "/v1/recipients/import", content=lines(), headers={"Content-Type": "application/x-ndjson"}
    )
    assert response.json() == {"stored": 3_000, "new": 3_000, "refused": 0, "errors": []}
    assert None not in await recipients.get_many([f"u{i}" for i in range(3_000)])


async def test_an_import_of_another_type_is_refused(backend: httpx.AsyncClient) -> None:
    for kind in ("application/json", "text/csv"):
        response = await backend.post(
            "/v1/recipients/import", content=b'{"id": "u1"}', headers={"Content-Type": kind}
        )
        problem(response, 415)


async def test_what_came_before_the_connection_was_cut_is_stored(api: Api, recipients: Recipients) -> None:
    first = b"".join(b'{"id": "u%d"}\n' % i for i in range(500))
    async with wire(api.url) as line:
        await line.send(
            b"POST /v1/recipients/import HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\n"
            b"Content-Type: application/x-ndjson\r\nContent-Length: 1000000\r\n\r\n%s"
            % (RECIPIENTS.encode(), first)
        )
        await line.send(b'{"id": "cut", "name": "half a li')
        await until_stored(recipients, "u499")
    async with api.backend as backend:
        problem(await backend.get(path("cut")), 404)
        assert (await backend.get("/v1/recipients/u0")).status_code == 200


async def until_stored(recipients: Recipients, recipient_id: str) -> None:
    async with asyncio.timeout(20):
        while await recipients.get(recipient_id) is None:
            await asyncio.sleep(0.01)


async def test_an_import_into_a_full_server_says_how_far_it_came(
    backend: httpx.AsyncClient, client: redis.asyncio.Redis
) -> None:
    async def lines() -> AsyncIterator[bytes]:
        yield b"".join(b'{"id": "u%d"}\n' % i for i in range(500))
        await until_stored(Recipients(client, KEYS), "u499")
        await client.config_set("maxmemory", 1)
        yield b"".join(b'{"id": "w%d"}\n' % i for i in range(500))

    response = await backend.post(
        "/v1/recipients/import", content=lines(), headers={"Content-Type": "application/x-ndjson"}
    )
    await client.config_set("maxmemory", 0)
    told = problem(response, 503)
    assert "lines up to 500 are done" in told["detail"]
    assert response.headers["Retry-After"]


# Who may.


ROUTES = (
    ("PUT", "/v1/recipients/ada"),
    ("GET", "/v1/recipients/ada"),
    ("PATCH", "/v1/recipients/ada"),
    ("DELETE", "/v1/recipients/ada"),
    ("POST", "/v1/recipients/import"),
    ("GET", "/v1/recipients/ada/devices"),
    ("POST", "/v1/recipients/ada/devices"),
    ("DELETE", "/v1/recipients/ada/devices/fcm-0"),
    ("GET", "/v1/recipients/ada/preferences"),
    ("PUT", "/v1/recipients/ada/preferences"),
    ("PATCH", "/v1/recipients/ada/preferences"),
    ("GET", "/v1/recipients/ada/suppressions"),
    ("PUT", "/v1/recipients/ada/suppressions/email/k"),
    ("DELETE", "/v1/recipients/ada/suppressions/email/k"),
    ("GET", "/v1/suppressions"),
    ("POST", "/v1/recipients/ada/tokens"),
)


async def test_only_a_key_of_the_scope_recipients_is_let_in(api: Api) -> None:
    async with api.publisher as publisher, api.operator as operator, api.user("ada") as user:
        for method, route in ROUTES:
            unknown = await api.client.request(method, route, content=b"{}")
            problem(unknown, 401)
            assert unknown.headers["WWW-Authenticate"] == "Bearer"
            problem(await publisher.request(method, route, content=b"{}"), 403)
            problem(await operator.request(method, route, content=b"{}"), 403)
            problem(await user.request(method, route, content=b"{}"), 401)


async def test_nobody_is_let_in_before_the_body_is_read(api: Api) -> None:
    async with wire(api.url) as line:
        await line.send(
            b"POST /v1/recipients/import HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-ndjson\r\n"
            b"Content-Length: 1000000\r\n\r\n"
        )
        assert (await line.answer()).status == 401


# Tokens.


async def test_a_token_lets_its_recipient_in_and_nobody_else(api: Api, backend: httpx.AsyncClient) -> None:
    response = await backend.post(path("a/b", "/tokens"), json={"expires_in": "15m"})
    assert response.status_code == 200
    told = response.json()
    assert response.headers["Cache-Control"] == "no-store"
    async with api.with_key(told["token"]) as user:
        await user.put("/v1/inbox/preferences", json={"preferences": {"social": {"email": False}}})
    assert (await backend.get(path("a/b"))).json()["preferences"] == {"social": {"email": False}}
    problem(await backend.get(path("a")), 404)
    assert (await backend.post(path("ada", "/tokens"))).status_code == 200


async def test_a_token_of_another_life_is_not_signed(backend: httpx.AsyncClient) -> None:
    for life in ("25h", "0s", "1000m", "1d", 5, None, "soon"):
        response = await backend.post(path("ada", "/tokens"), json={"expires_in": life})
        assert fields(response) == ["expires_in"]
    assert fields(await backend.post(path("ada", "/tokens"), json={"sub": "bo"})) == ["sub"]
