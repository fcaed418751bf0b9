"""Devices by HTTP: by the app's backend, and by users themselves."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

import httpx
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from notifier.event import MAX_DEVICES
from tests.api.conftest import Api, serving
from tests.api.told import fields, problem

PHONE = {"kind": "fcm", "token": "a-token-of-firebase"}
IPHONE = {"kind": "apns", "token": "0f" * 32}
# As PushSubscription.toJSON() gives it.
BROWSER: dict[str, Any] = {
    "endpoint": "https://push.example.com/send/secret-of-the-browser",
    "expirationTime": None,
    "keys": {"p256dh": "A" * 87, "auth": "B" * 22},
}
BACKEND, OWN = "/v1/recipients/ada/devices", "/v1/inbox/devices"


async def keys(client: httpx.AsyncClient, path: str = OWN) -> list[str]:
    return [one["key"] for one in (await client.get(path)).json()["devices"]]


async def test_users_register_browsers_and_apps(ada: httpx.AsyncClient, backend: httpx.AsyncClient) -> None:
    told = []
    for device, kind in ((BROWSER, "web_push"), (PHONE, "fcm"), (IPHONE, "apns")):
        first = await ada.post(OWN, json=device)
        assert first.status_code == 201
        assert first.json() == {"key": first.json()["key"], "kind": kind, "suppressed": None}
        again = await ada.post(OWN, json=device)
        assert (again.status_code, again.json()) == (200, first.json())
        told.append(first.json())
    assert (await ada.get(OWN)).json() == {"devices": told}
    stored = (await backend.get("/v1/recipients/ada")).json()
    assert [one["kind"] for one in stored["devices"]] == ["web_push", "fcm", "apns"]


async def test_backends_register_devices_too(ada: httpx.AsyncClient, backend: httpx.AsyncClient) -> None:
    assert (await backend.post(BACKEND, json=PHONE)).status_code == 201
    assert await keys(ada) == await keys(backend, BACKEND) != []


async def test_endpoints_and_tokens_are_not_shown(ada: httpx.AsyncClient, backend: httpx.AsyncClient) -> None:
    for device in (BROWSER, PHONE):
        said = (await ada.post(OWN, json=device)).text + (await ada.get(OWN)).text
        said += (await backend.get(BACKEND)).text
        assert "secret" not in said
        assert PHONE["token"] not in said


async def test_of_nobody_there_are_none(ada: httpx.AsyncClient, backend: httpx.AsyncClient) -> None:
    problem(await backend.get(BACKEND), 404)
    assert (await ada.get(OWN)).json() == {"devices": []}


async def test_a_device_belongs_to_who_registered_it_last(api: Api, ada: httpx.AsyncClient) -> None:
    await ada.post(OWN, json=PHONE)
    await ada.post(OWN, json=BROWSER)
    async with api.user("bo") as bo:
        await bo.post(OWN, json=PHONE)
        assert [key[:3] for key in await keys(bo)] == ["fcm"]
    assert [key[:3] for key in await keys(ada)] == ["web"]


async def test_a_user_removes_devices_of_their_own_only(
    api: Api, ada: httpx.AsyncClient, backend: httpx.AsyncClient
) -> None:
    key = (await ada.post(OWN, json=PHONE)).json()["key"]
    async with api.user("bo") as bo:
        problem(await bo.delete(f"{OWN}/{key}"), 404)
    assert await keys(ada) == [key]
    assert (await ada.delete(f"{OWN}/{key}")).status_code == 204
    problem(await ada.delete(f"{OWN}/{key}"), 404)
    await ada.post(OWN, json=PHONE)
    assert (await backend.delete(f"{BACKEND}/{key}")).status_code == 204
    assert await keys(ada) == []


async def test_a_suppressed_device_is_told_and_used_again_when_it_registers(
    ada: httpx.AsyncClient, backend: httpx.AsyncClient
) -> None:
    key = (await ada.post(OWN, json=PHONE)).json()["key"]
    await backend.put(f"/v1/recipients/ada/suppressions/push/{key}", json={"reason": "404 unregistered"})
    assert (await ada.get(OWN)).json()["devices"][0]["suppressed"] == "404 unregistered"
    await ada.post(OWN, json=PHONE)
    assert (await ada.get(OWN)).json()["devices"][0]["suppressed"] is None


async def test_a_wrong_device_names_the_field(ada: httpx.AsyncClient, backend: httpx.AsyncClient) -> None:
    wrong: tuple[tuple[Any, str], ...] = (
        ({}, "endpoint"),
        ({"kind": "pager"}, "kind"),
        ({"kind": "fcm"}, "token"),
        ({"kind": "fcm", "token": "short"}, "token"),
        ({"kind": "fcm", "token": "t" * 4_097}, "token"),
        ({"kind": "fcm", "token": "t" * 20, "name": "mine"}, "name"),
        ({"kind": "apns", "token": "z" * 64}, "token"),
        (BROWSER | {"keys": {"p256dh": "A", "auth": "B" * 22}}, "keys.p256dh"),
        (BROWSER | {"endpoint": "ftp://push.example.com/x"}, "endpoint"),
        (BROWSER | {"endpoint": "https://push.example.com/" + "x" * 2_000}, "endpoint"),
        (BROWSER | {"expirationTime": False}, "expirationTime"),
        (BROWSER | {"expirationTime": "1"}, "expirationTime"),
        ([BROWSER], "body"),
    )
    for device, field in wrong:
        assert fields(await ada.post(OWN, json=device)) == [field]
        assert fields(await backend.post(BACKEND, json=device)) == [field]
    problem(await ada.post(OWN, content=b"{"), 400)
    problem(await ada.post(OWN, content=b"{}", headers={"Content-Type": "text/plain"}), 415)
    problem(await ada.post(OWN, json=BROWSER | {"x": "x" * 20_000}), 413)
    assert await keys(ada) == []


async def test_an_endpoint_inside_of_the_network_is_not_registered(ada: httpx.AsyncClient) -> None:
    inside = (
        "http://push.example.com/x", "https://127.0.0.1/x", "https://localhost/x", "https://169.254.169.254/latest",
        "https://[::1]/x", "https://10.0.0.8:6379/", "https://redis.internal/", "https://2130706433/",
        "https://user@push.example.com/", "https://broker/",
    )  # fmt: skip
    for endpoint in inside:
        told = problem(await ada.post(OWN, json=BROWSER | {"endpoint": endpoint}), 422)
        assert told["errors"][0]["field"] == "device"
    assert await keys(ada) == []


async def test_there_is_a_limit_that_says_so(ada: httpx.AsyncClient) -> None:
    for i in range(MAX_DEVICES):
        assert (await ada.post(OWN, json={"kind": "fcm", "token": f"token-{i:04d}"})).status_code == 201
    told = problem(await ada.post(OWN, json=PHONE), 422)
    assert told["errors"] == [{"field": "devices", "reason": "are 50 already; the limit is 50: remove one"}]


async def test_devices_that_are_registered_at_once_are_all_kept(ada: httpx.AsyncClient) -> None:
    tokens = [f"token-{i:04d}" for i in range(15)]
    await asyncio.gather(*(ada.post(OWN, json={"kind": "fcm", "token": token}) for token in tokens))
    assert len(await keys(ada)) == len(tokens)


async def test_only_a_token_lets_a_user_in(api: Api) -> None:
    for method, path in (
        ("GET", OWN),
        ("POST", OWN),
        ("DELETE", f"{OWN}/fcm-0"),
        ("GET", "/v1/inbox/push-key"),
    ):
        problem(await api.client.request(method, path, content=b"{}"), 401)
        async with api.backend as backend:
            problem(await backend.request(method, path, content=b"{}"), 401)


# The key to subscribe with.


def key_pair() -> tuple[str, str]:
    """Private and public, as settings and browsers have them."""
    key = ec.generate_private_key(ec.SECP256R1())
    private = key.private_numbers().private_value.to_bytes(32, "big")
    public = key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    first, second = (base64.urlsafe_b64encode(raw).rstrip(b"=").decode() for raw in (private, public))
    return first, second


async def test_a_page_is_told_the_public_key(redis_url: str) -> None:
    private, public = key_pair()
    for name, value in (("NOTIFIER_VAPID_PRIVATE_KEY", private), ("NOTIFIER_VAPID_PUBLIC_KEY", public)):
        async with serving(redis_url, **{name: value}) as api, api.user("ada") as ada:
            assert (await ada.get("/v1/inbox/push-key")).json() == {"public_key": public}


async def test_where_no_browser_is_pushed_to_there_is_no_key(ada: httpx.AsyncClient) -> None:
    problem(await ada.get("/v1/inbox/push-key"), 404)


async def test_a_key_that_can_not_be_used_is_not_told_to_the_user(redis_url: str) -> None:
    async with (
        serving(redis_url, NOTIFIER_VAPID_PRIVATE_KEY="/no/such/key.pem") as api,
        api.user("ada") as ada,
    ):
        told = problem(await ada.get("/v1/inbox/push-key"), 500)
        assert "key.pem" not in str(told)
