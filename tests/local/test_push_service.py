"""The Web Push service of `notifier demo` and `notifier dev`: it refuses what a real one would."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from py_vapid import Vapid02
from pywebpush import WebPusher

from notifier.event import WebPushDevice
from notifier.local.push_service import Push, PushService, vapid_keys

KEYS = vapid_keys()


@pytest.fixture
async def service() -> AsyncIterator[PushService]:
    async with PushService() as running:
        yield running


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(trust_env=False) as made:
        yield made


def sealed(device: WebPushDevice, plain: bytes = b'{"title":"Hi"}') -> bytes:
    body: bytes = WebPusher(device.model_dump(include={"endpoint", "keys"})).encode(plain)["body"]
    return body


def headers(service: PushService, /, *, private: str = KEYS.private, **changes: Any) -> dict[str, str]:
    """What a good request has, with claims of the token or headers changed."""
    claims = {"aud": service.origin, "sub": "mailto:a@example.com", "exp": int(time.time()) + 3_600}
    claims |= {name: changes.pop(name) for name in list(changes) if name in claims}
    token = Vapid02.from_raw(private.encode()).sign(claims)["Authorization"]
    made = {
        "Authorization": token,
        "TTL": "60",
        "Content-Encoding": "aes128gcm",
        "Topic": "t",
        "Urgency": "low",
    }
    return {name: value for name, value in {**made, **changes}.items() if value is not None}


async def test_a_good_push_is_decrypted_and_recorded(client: httpx.AsyncClient) -> None:
    shown: list[Push] = []
    async with PushService(on_push=shown.append) as service:
        device = service.subscribe(KEYS.public)
        answer = await client.post(device.endpoint, content=sealed(device), headers=headers(service))
        pushed = await service.wait_for(lambda one: one.endpoint == device.endpoint, timeout=5)
    assert answer.status_code == 201
    assert answer.headers["Location"].startswith(service.origin)
    assert (pushed.payload, pushed.topic, pushed.ttl, pushed.urgency) == ({"title": "Hi"}, "t", 60, "low")
    assert shown == service.pushes == [pushed]


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"Authorization": None}, 401),
        ({"Authorization": "Bearer abc"}, 401),
        ({"Authorization": "vapid t=a.b.c, k=abc"}, 403),
        ({"aud": "https://push.example.com"}, 403),
        ({"exp": int(time.time()) - 10}, 403),
        ({"exp": int(time.time()) + 25 * 3_600}, 403),
        ({"private": vapid_keys().private}, 403),
        ({"TTL": None}, 400),
        ({"TTL": "soon"}, 400),
        ({"Topic": "x" * 33}, 400),
        ({"Topic": "a b"}, 400),
        ({"Urgency": "panic"}, 400),
        ({"Content-Encoding": "gzip"}, 415),
    ],
)
async def test_what_a_real_service_would_refuse(
    service: PushService, client: httpx.AsyncClient, changes: dict[str, Any], status: int
) -> None:
    device = service.subscribe(KEYS.public)
    answer = await client.post(device.endpoint, content=sealed(device), headers=headers(service, **changes))
    assert (answer.status_code, service.pushes) == (status, [])


async def test_a_token_whose_signature_was_changed_is_refused(
    service: PushService, client: httpx.AsyncClient
) -> None:
    device = service.subscribe()
    good = headers(service)
    token = good["Authorization"]
    dot = token.rindex(".")
    good["Authorization"] = token[: dot + 1] + ("B" if token[dot + 1] == "A" else "A") + token[dot + 2 :]
    answer = await client.post(device.endpoint, content=sealed(device), headers=good)
    assert answer.status_code == 403


@pytest.mark.parametrize("body", ["other", "changed", "short", "list", "text"])
async def test_a_body_that_is_not_for_this_browser_is_refused(
    service: PushService, client: httpx.AsyncClient, body: str
) -> None:
    device = service.subscribe()
    good = sealed(device)
    content = {
        "other": sealed(service.subscribe()),
        "changed": good[:-1] + bytes([good[-1] ^ 1]),
        "short": good[:20],
        "list": sealed(device, b"[1]"),
        "text": sealed(device, b"hello"),
    }[body]
    answer = await client.post(device.endpoint, content=content, headers=headers(service))
    assert (answer.status_code, service.pushes) == (400, [])


async def test_a_body_beyond_4096_bytes_is_refused_and_one_of_them_is_taken(
    service: PushService, client: httpx.AsyncClient
) -> None:
    device = service.subscribe()
    fits = sealed(device, json.dumps({"a": "x" * (3_993 - 9)}).encode())
    assert len(fits) == 4_096
    answers = [
        await client.post(device.endpoint, content=content, headers=headers(service))
        for content in (fits, fits + b"x")
    ]
    assert [answer.status_code for answer in answers] == [201, 413]


async def test_an_expired_or_unknown_subscription_is_gone(
    service: PushService, client: httpx.AsyncClient
) -> None:
    device = service.subscribe()
    service.expire(device)
    gone = await client.post(device.endpoint, content=sealed(device), headers=headers(service))
    unknown = await client.post(service.origin + "/push/x", content=b"x", headers=headers(service))
    assert (gone.status_code, unknown.status_code) == (410, 404)


async def test_answers_are_given_in_turn(service: PushService, client: httpx.AsyncClient) -> None:
    device = service.subscribe()
    service.answers[device.endpoint] = [(429, {"Retry-After": "3"}), (500, {})]
    answers = [
        await client.post(device.endpoint, content=sealed(device), headers=headers(service)) for _ in range(3)
    ]
    assert [answer.status_code for answer in answers] == [429, 500, 201]
    assert answers[0].headers["Retry-After"] == "3"
    assert (len(service.pushes), service.requests) == (1, 3)


async def test_it_stops_while_clients_are_connected_and_frees_its_port() -> None:
    async with PushService() as service:
        _, writer = await asyncio.open_connection("127.0.0.1", service.port)
        async with asyncio.timeout(5):
            while service.connections == 0:
                await asyncio.sleep(0)
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", service.port)) != 0
    writer.close()


async def test_nonsense_is_hung_up_on(service: PushService) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
    writer.write(b"\x16\x03\x01 this is no HTTP\r\n\r\n")
    async with asyncio.timeout(5):
        assert await reader.read() == b""
    writer.close()


def test_the_keys_are_a_pair() -> None:
    assert (
        Vapid02.from_raw(KEYS.private.encode())
        .sign({"aud": "https://example.com", "sub": "mailto:a@example.com"})["Authorization"]
        .endswith(f"k={KEYS.public}")
    )
    assert vapid_keys() != KEYS
