"""What a hostile or clumsy client can't do: fill the memory, hold connections, write into logs or headers."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import pytest
import structlog

from notifier.api.bodies import BODY_LIMIT
from notifier.api.connection import Limits
from tests.api.conftest import PUBLISH, Api, serving
from tests.api.events import pairs
from tests.api.raw import Wire, head, wire
from tests.support.waiting import until

EVENT = json.dumps({"id": "e1", "type": "like", "recipient": "u1"}).encode()
LARGE = 10 * 1024 * 1024
QUICK = Limits(connections=10, head=0.5, pace=0.5, pace_bytes=10_000, rest=0.5, write=0.5)
"""The same limits for a test that waits for them; the server looks once a second."""
SOON = 9.0
"""Seconds: much more than those limits take, and less than the usual ones."""


@pytest.fixture
async def quick(redis_url: str) -> AsyncIterator[Api]:
    async with serving(redis_url, QUICK) as running:
        yield running


def connections(api: Api) -> int:
    return len(api.server.server_state.connections)


# Bodies.


async def test_ten_megabytes_are_refused_as_soon_as_they_are_announced(api: Api) -> None:
    async with wire(api.url) as client:
        await client.send(head(length=LARGE))  # and no body
        answer = await client.answer()
    assert (answer.status, answer.json["errors"][0]["field"]) == (413, "body")
    assert answer.headers["content-type"] == "application/problem+json"


async def test_ten_megabytes_that_are_sent_all_the_same_hurt_nobody(api: Api, redis_url: str) -> None:
    async with api.publisher as client:  # which writes all of it before it reads
        response = await client.post(
            "/v1/events", content=b"x" * LARGE, headers={"Content-Type": "application/json"}
        )
    assert response.status_code == 413
    assert pairs(redis_url) == []


async def test_ten_megabytes_in_chunks_are_refused_when_they_become_too_many(api: Api) -> None:
    chunk = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
    async with wire(api.url) as client:
        await client.send(head("Transfer-Encoding: chunked"))
        sent = 0
        while sent <= BODY_LIMIT:
            await client.send(chunk)
            sent += 0x10000
        answer = await client.answer()  # although the body has no end
    assert (answer.status, answer.json["errors"][0]["field"]) == (413, "body")


async def sends_in_vain(client: Wire, data: bytes) -> bool:
    client.writer.write(data)
    try:
        await client.writer.drain()
    except ConnectionError:
        return True
    return False


async def test_a_body_that_goes_on_after_its_answer_is_read_for_a_while_and_then_cut(quick: Api) -> None:
    chunk = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
    async with wire(quick.url) as client:
        await client.send(head("Transfer-Encoding: chunked", key="nobody"))
        assert (await client.answer()).status == 401
        await until(lambda: sends_in_vain(client, chunk))


async def test_a_body_of_the_largest_size_is_read(api: Api) -> None:
    filled = EVENT + b" " * (BODY_LIMIT - len(EVENT))
    async with api.publisher as client:
        for content, status in ((filled, 202), (filled + b" ", 413)):
            response = await client.post(
                "/v1/events", content=content, headers={"Content-Type": "application/json"}
            )
            assert response.status_code == status


async def test_without_a_key_no_body_is_asked_for(api: Api) -> None:
    async with wire(api.url) as client:
        await client.send(head("Expect: 100-continue", length=len(EVENT), key="nobody"))
        answer = await client.answer()
        assert (answer.status, answer.headers["connection"]) == (401, "close")
        assert await client.is_closed()


async def test_with_a_key_the_body_is_asked_for(api: Api, redis_url: str) -> None:
    async with wire(api.url) as client:
        await client.send(head("Expect: 100-continue", length=len(EVENT)))
        assert (await client.answer()).status == 100
        await client.send(EVENT)
        assert (await client.answer()).status == 202
    assert pairs(redis_url) == [("e1", "u1")]


# Heads.


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        (["X-Fill: " + "x" * 40_000], 431),
        ([f"X-{number}: " + "x" * 1_000 for number in range(50)], 431),
        ([f"X-{number}: x" for number in range(200)], 431),
        (["no colon"], 400),
        (["X-Name : x"], 400),
        (["X-Null: a\0b"], 400),
        (["Content-Length: 5", "Content-Length: 6"], 400),
        (["Content-Length: -1"], 400),
        (["Content-Length: 5", "Transfer-Encoding: chunked"], 400),
        (["Transfer-Encoding: chunked, identity"], 400),
    ],
)
async def test_a_head_that_is_too_large_or_broken_is_refused(lines: list[str], status: int, api: Api) -> None:
    async with wire(api.url) as client:
        await client.send(head(*lines))
        answer = await client.answer()
        assert (answer.status, answer.json["status"]) == (status, status)
        assert answer.headers["content-type"] == "application/problem+json"
        assert await client.is_closed()


async def test_a_head_without_end_is_refused_when_it_becomes_too_large(api: Api) -> None:
    async with wire(api.url) as client:
        await client.send(b"GET /livez HTTP/1.1\r\nHost: x\r\nX-Fill: ")
        for _ in range(40):
            await client.send(b"x" * 1_000)
        assert (await client.answer()).status == 431
        assert await client.is_closed()


async def test_a_url_without_end_is_refused(api: Api) -> None:
    async with wire(api.url) as client:
        await client.send(b"GET /" + b"x" * 20_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await client.answer()).status == 414


@pytest.mark.parametrize(
    "line",
    [b"nonsense", b"GET", b"GET /x", b"GET /x HTTP/9.9", b"\x16\x03\x01\x02\x00\x01\x00",
     b"PRI * HTTP/2.0\r\n\r\nSM", b"GET \xff HTTP/1.1", b"GET http:// HTTP/1.1", b"CONNECT a:1 HTTP/1.1",
     b"FOO /x HTTP/1.1"],
)  # fmt: skip
async def test_what_is_no_request_is_refused_without_a_traceback(
    line: bytes, api: Api, capfd: pytest.CaptureFixture[str]
) -> None:
    async with wire(api.url) as client:
        await client.send(line + b"\r\n\r\n")
        assert (await client.answer()).status in {400, 404, 405, 505}
    assert "Traceback" not in capfd.readouterr().err


async def test_an_upgrade_is_not_made_and_the_request_is_answered(api: Api) -> None:
    for upgrade in ("websocket", "h2c"):
        async with wire(api.url) as client:
            lines = f"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: {upgrade}\r\n\r\n"
            await client.send(lines.encode())
            assert (await client.answer()).status == 200


async def test_requests_in_a_row_are_answered_in_a_row(api: Api, redis_url: str) -> None:
    async with wire(api.url) as client:
        events = [json.dumps({"id": f"e{i}", "type": "like", "recipient": "u1"}).encode() for i in range(20)]
        await client.send(b"".join(head(length=len(event)) + event for event in events))
        answers = [await client.answer() for _ in events]
    assert [answer.json["events"][0]["id"] for answer in answers] == [f"e{i}" for i in range(20)]
    assert pairs(redis_url) == [(f"e{i}", "u1") for i in range(20)]


# Slowness (Slowloris), and connections.


async def trickle(client: Wire, data: bytes) -> float:
    """Sends a byte at a time until the server cuts; how long that took, in seconds."""
    start = time.monotonic()

    async def send() -> None:
        for byte in data:
            await client.send(bytes([byte]))
            await asyncio.sleep(0.05)

    sending = asyncio.create_task(send())
    await client.is_closed()
    sending.cancel()
    await asyncio.gather(sending, return_exceptions=True)
    return time.monotonic() - start


@pytest.mark.slow
async def test_a_head_that_trickles_in_is_cut(quick: Api) -> None:
    async with wire(quick.url) as client:
        assert await trickle(client, head("X-Fill: " + "x" * 5_000)) < SOON
    async with wire(quick.url) as client:  # the second request of a connection too
        await client.send(head(length=len(EVENT)) + EVENT)
        assert (await client.answer()).status == 202
        assert await trickle(client, head("X-Fill: " + "x" * 5_000)) < SOON


@pytest.mark.slow
async def test_a_body_that_trickles_in_is_cut(quick: Api, redis_url: str) -> None:
    with structlog.testing.capture_logs() as logged:
        async with wire(quick.url) as client:
            await client.send(head(length=5_000))
            assert await trickle(client, b" " * 5_000) < SOON
        await until(lambda: not quick.server.server_state.tasks)
    assert [(line["event"], line["log_level"]) for line in logged] == [("client_left", "debug")]
    assert pairs(redis_url) == []


@pytest.mark.slow
async def test_a_client_that_says_nothing_is_cut(quick: Api) -> None:
    async with wire(quick.url) as client:
        assert await trickle(client, b"") < SOON
    await until(lambda: connections(quick) <= 1)


@pytest.mark.slow
async def test_a_slow_body_that_keeps_its_pace_is_read(quick: Api, redis_url: str) -> None:
    filled = EVENT + b" " * 70_000
    async with wire(quick.url) as client:
        # Enough for the first look, whenever that is. From one to the next the server sleeps ten times as
        # long as we do, on the same loop: however long the machine stands still, it gets what it wants.
        await client.send(head(length=len(filled)) + filled[: QUICK.pace_bytes])
        for start in range(QUICK.pace_bytes, len(filled), 3_000):  # about two seconds
            await client.send(filled[start : start + 3_000])
            await asyncio.sleep(0.1)
        assert (await client.answer()).status == 202
    assert pairs(redis_url) == [("e1", "u1")]


@pytest.mark.slow
async def test_who_leaves_answers_unread_is_cut(quick: Api) -> None:
    parts = urlsplit(quick.url)
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        client.connect((parts.hostname, parts.port))
        client.setblocking(False)
        asked = b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n" * 200
        before = connections(quick)
        loop = asyncio.get_running_loop()

        async def is_cut() -> bool:
            try:
                async with asyncio.timeout(0.1):
                    await loop.sock_sendall(client, asked)
            except ConnectionError:
                return True
            except TimeoutError:
                pass
            return False

        await until(is_cut)
    await until(lambda: connections(quick) <= before)


@pytest.mark.slow
async def test_one_connection_too_many_is_told_so_and_probes_are_answered(redis_url: str) -> None:
    few = Limits(connections=10)  # which may be idle for a while
    async with serving(redis_url, few) as api, asyncio.TaskGroup() as tasks:
        clients = [wire(api.url) for _ in range(few.connections + 1)]
        opened = [await tasks.create_task(client.__aenter__()) for client in clients]
        await until(lambda: connections(api) == few.connections + 1)
        await opened[-1].send(head(length=len(EVENT)) + EVENT)
        answer = await opened[-1].answer()
        assert (answer.status, "retry-after" in answer.headers) == (503, True)
        assert (await api.client.get("/livez")).status_code == 200
        assert (await api.client.get("/readyz")).status_code == 503
        await opened[0].send(head(length=len(EVENT)) + EVENT)
        assert (await opened[0].answer()).status == 202
        for client in clients:
            await client.__aexit__(None, None, None)
        await until(lambda: connections(api) <= 1)
        assert (await api.client.get("/readyz")).status_code == 200


# Logs and headers.


async def test_a_request_has_its_client_s_id(api: Api) -> None:
    response = await api.client.get("/livez", headers={"X-Request-Id": "order-4711/a.b:c=d+e@f_g"})
    assert response.headers["X-Request-Id"] == "order-4711/a.b:c=d+e@f_g"


@pytest.mark.parametrize(
    "sent",
    [b"a b", b"a\tb", b"a\x1b[31mred", "Jürgen".encode(), b"x" * 129, b'{"level":"error"}', b"-rf", b"a%0ab"],
)  # fmt: skip
async def test_an_id_that_is_not_fit_for_a_log_is_replaced(sent: bytes, api: Api) -> None:
    async with wire(api.url) as client:
        await client.send(b"GET /livez HTTP/1.1\r\nHost: x\r\nX-Request-Id: " + sent + b"\r\n\r\n")
        answer = await client.answer()
    assert answer.status in {200, 400}
    assert answer.headers.get("x-request-id", "new").encode() != sent
    assert b"\n" not in answer.headers.get("x-request-id", "").encode()


async def test_what_is_sent_comes_back_neither_in_headers_nor_at_length(api: Api) -> None:
    marker = "<script>alert(1)</script>"
    async with api.publisher as client:
        responses = [
            await client.post("/v1/events", json={"type": marker * 100, "recipient": "u1"}),
            await client.post("/v1/events", json={marker * 100: 1, "type": "like", "recipient": "u1"}),
            await client.post("/v1/events", content=marker * 100, headers={"Content-Type": marker}),
            await client.post(
                "/v1/events", content=marker * 100, headers={"Content-Type": "application/json"}
            ),
            await client.post(f"/{marker}", params={marker: marker}),
        ]
    for response in responses:
        assert 400 <= response.status_code < 500
        assert response.headers["Content-Type"] == "application/problem+json"
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert "default-src 'none'" in response.headers["Content-Security-Policy"]
        assert len(response.content) < 2_500
        assert marker not in str(response.headers)


async def test_a_failure_shows_nothing_of_the_inside(api: Api) -> None:
    async def fail() -> None:
        raise RuntimeError("the secret is 4711")

    api.app.add_api_route("/fail/{name}", fail)
    with structlog.testing.capture_logs() as logged:
        response = await api.client.get("/fail/somebody", headers={"X-Request-Id": "mine"})
    assert (response.status_code, response.headers["X-Request-Id"]) == (500, "mine")
    assert "4711" not in response.text
    assert "Traceback" not in response.text
    [line] = [line for line in logged if line["event"] == "request_failed"]
    assert (line["route"], line["method"]) == ("/fail/{name}", "GET")
    assert PUBLISH not in str(logged)
    assert "somebody" not in str(logged)


async def test_what_is_not_there_is_a_problem_too(api: Api) -> None:
    for method, path, status in (
        ("GET", "/v1/nothing", 404),
        ("PUT", "/v1/events", 405),
        ("GET", "/livez/", 404),
    ):
        response = await api.client.request(method, path)
        assert (response.status_code, response.json()["status"]) == (status, status)
        assert response.headers["Content-Type"] == "application/problem+json"
        assert ("Allow" in response.headers) == (status == 405)


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        (b"GET /livez HTTP/1.1\r\n", 400),
        (b"GET /livez HTTP/1.1\r\nHost: a\r\nHost: b\r\n", 400),
        (b"GET /livez HTTP/1.0\r\nHost: a\r\nHost: b\r\n", 400),
        (b"GET /livez HTTP/1.0\r\n", 200),
        (b"GET /livez HTTP/1.1\r\nHost:\r\n", 200),
    ],
)
async def test_a_request_names_one_host(api: Api, lines: bytes, status: int) -> None:
    async with wire(api.url) as client:
        await client.send(lines + b"\r\n")
        assert (await client.answer()).status == status
