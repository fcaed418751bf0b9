"""The channel `push` against a Web Push service that checks tokens and decrypts."""

from __future__ import annotations

import asyncio
import base64
import ipaddress
import json
import os
import shutil
import ssl
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import RequestReceived, StreamEnded
from hypothesis import given, settings
from hypothesis import strategies as st
from py_vapid import jwt

from channels.push import PushChannel, open_channel, payload
from channels.push.endpoint import check_endpoint, origin_of
from channels.push.vapid import TOKEN_LIFE, VapidSigner, load_key, public_key_of
from channels.push.web_push import WebPushSettings, seconds, ttl_seconds
from notifier.channel import (
    Delivery,
    InvalidAddress,
    PermanentFailure,
    TakesDevices,
    TransientFailure,
    device_key,
)
from notifier.errors import ConfigurationError, InvalidRecipient
from notifier.event import FcmDevice, Recipient, WebPushDevice
from notifier.local.broker import free_port
from notifier.local.listener import Listener
from notifier.local.push_service import PushService, vapid_keys

KEYS = vapid_keys()
CONTENT = {"title": "Ada liked your photo", "body": "See who else did", "url": "https://example.com/p/1"}


def delivery(device: WebPushDevice, *, event_id: str = "e1", event: bytes = b'{"type":"like"}') -> Delivery:
    return Delivery.of(
        "push", event=event, event_id=event_id, event_type="like", to="bob", key=device_key(device),
        address=device.model_dump_json(),
    )  # fmt: skip


@asynccontextmanager
async def push(**settings: str) -> AsyncIterator[PushChannel]:
    environ = {
        "NOTIFIER_VAPID_PRIVATE_KEY": KEYS.private,
        "NOTIFIER_VAPID_SUBJECT": "mailto:admin@example.com",
        "NOTIFIER_WEB_PUSH_ALLOW_HTTP": "true",
    }
    environ |= {f"NOTIFIER_{name.upper()}": value for name, value in settings.items()}
    channel = open_channel(environ)
    assert isinstance(channel, PushChannel)
    await channel.open()
    try:
        yield channel
    finally:
        await channel.close()


@pytest.fixture
async def service() -> AsyncIterator[PushService]:
    async with PushService() as running:
        yield running


# What arrives --------------------------------------------------------------------------------


async def test_a_push_is_decrypted_by_the_browser_that_it_is_for(service: PushService) -> None:
    device, other = service.subscribe(KEYS.public), service.subscribe()
    one = delivery(device)
    async with push() as channel:
        sent = await channel.send(one, {**CONTENT, "title": "Grüße ☕"})
        await channel.send(delivery(other), CONTENT)
    assert sent.answer == "201"
    first, second = service.pushes
    assert first.endpoint == device.endpoint
    assert first.payload == {**CONTENT, "title": "Grüße ☕", "id": "e1", "type": "like"}
    assert (first.topic, first.ttl, first.urgency) == (one.id, 2_419_200, "normal")
    assert second.endpoint == other.endpoint


async def test_a_push_without_a_link_has_none(service: PushService) -> None:
    async with push() as channel:
        await channel.send(delivery(service.subscribe()), {"title": "t", "body": "b", "url": ""})
    assert service.pushes[0].payload == {"title": "t", "body": "b", "id": "e1", "type": "like"}


async def test_a_repeated_delivery_has_the_same_topic(service: PushService) -> None:
    device = service.subscribe()
    async with push() as channel:
        await channel.send(delivery(device), CONTENT)
        await channel.send(delivery(device), CONTENT)
        await channel.send(delivery(device, event_id="e2"), CONTENT)
    first, again, other = (one.topic for one in service.pushes)
    assert first == again != other


async def test_a_push_is_not_kept_longer_than_its_event_is_worth_telling(service: PushService) -> None:
    soon = (datetime.now(UTC) + timedelta(minutes=10)).isoformat()
    event = json.dumps({"type": "like", "expires_at": soon}).encode()
    async with push() as channel:
        await channel.send(delivery(service.subscribe(), event=event), CONTENT)
    assert 590 < service.pushes[0].ttl <= 600
    assert ttl_seconds(timedelta(hours=1), None) == 3_600
    assert ttl_seconds(timedelta(hours=1), datetime.now(UTC) - timedelta(days=1)) == 0


async def test_one_connection_carries_many_pushes(service: PushService) -> None:
    device = service.subscribe()
    async with push() as channel:
        for number in range(20):
            await channel.send(delivery(device, event_id=str(number)), CONTENT)
        assert service.connections == 1
    assert len(service.pushes) == 20


@pytest.mark.parametrize("body", ["x" * 10_000, "ß" * 10_000, '"' * 10_000, "☕" * 3_000, "👩‍👩‍👧‍👦" * 1_000])
async def test_a_long_body_is_cut_to_fit(service: PushService, body: str) -> None:
    async with push() as channel:
        await channel.send(delivery(service.subscribe()), {**CONTENT, "body": body})
    received = service.pushes[0].payload
    assert received["body"].endswith("…")
    assert body.startswith(received["body"].removesuffix("…"))
    assert 3_960 < len(json.dumps(received, ensure_ascii=False, separators=(",", ":")).encode()) <= 3_993


@settings(max_examples=100, deadline=None)
@given(title=st.text(max_size=1_000), body=st.text(max_size=6_000), event_id=st.text(max_size=200))
def test_every_payload_fits_and_is_a_beginning_of_what_was_written(
    title: str, body: str, event_id: str
) -> None:
    title, body, event_id = title * 3, body * 3, "".join(filter(str.isprintable, event_id))
    data = payload.encode(title=title, body=body, url="u" * 2_000, event_id=event_id, event_type="t" * 100)
    assert len(data) <= payload.MAX_BYTES
    got = json.loads(data)
    for field, whole in (("title", title), ("body", body)):
        assert got[field] == whole or (
            got[field].endswith("…") and whole.startswith(got[field].removesuffix("…"))
        )


@pytest.mark.parametrize(
    "character",
    ["e\u0301", "👩‍👩‍👧‍👦", "👍🏽", "❤\ufe0f", "🇩🇪", "ß"],
    ids=["accent", "family", "skin tone", "variation", "flag", "two bytes"],
)
def test_a_character_is_never_cut_in_two(character: str) -> None:
    text = character * 40
    for room in range(3, len(text.encode())):
        shortened = payload.shorten(text, room)
        assert len(shortened.encode()) <= room
        assert shortened.removesuffix("…").replace(character, "") == ""


def test_half_a_link_is_no_link() -> None:
    with pytest.raises(PermanentFailure, match="url"):
        payload.encode(
            title="", body="", url="https://example.com/" + "ß" * 1_000, event_id="", event_type=""
        )


# Outcomes ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (301, PermanentFailure),
        (307, PermanentFailure),
        (400, PermanentFailure),
        (401, PermanentFailure),
        (403, PermanentFailure),
        (404, InvalidAddress),
        (408, TransientFailure),
        (410, InvalidAddress),
        (413, PermanentFailure),
        (429, TransientFailure),
        (500, TransientFailure),
        (503, TransientFailure),
    ],
)
async def test_what_a_status_means(service: PushService, status: int, kind: type[Exception]) -> None:
    device = service.subscribe()
    elsewhere = service.subscribe()
    service.answers[device.endpoint] = [(status, {"Location": elsewhere.endpoint})]
    async with push() as channel:
        with pytest.raises(kind) as failure:
            await channel.send(delivery(device), CONTENT)
        assert type(failure.value) is kind
        assert failure.value.answer == f"{status} as scripted"  # type: ignore[attr-defined]
        assert service.requests == 1  # a redirect is not followed
        await channel.send(delivery(device), CONTENT)  # and the next one gets through


async def test_an_expired_subscription_is_an_invalid_address(service: PushService) -> None:
    device = service.subscribe()
    service.expire(device)
    async with push() as channel:
        with pytest.raises(InvalidAddress) as failure:
            await channel.send(delivery(device), CONTENT)
    assert failure.value.answer == "410 the subscription has expired"


async def test_a_key_that_the_browser_does_not_know_stops_nobody_else(service: PushService) -> None:
    async with push() as channel:
        with pytest.raises(PermanentFailure) as failure:
            await channel.send(delivery(service.subscribe(vapid_keys().public)), CONTENT)
        assert not isinstance(failure.value, InvalidAddress)
        assert failure.value.answer.startswith("403")
        await channel.send(delivery(service.subscribe(KEYS.public)), CONTENT)


async def test_the_service_says_when_to_come_back(service: PushService) -> None:
    device = service.subscribe()
    at = format_datetime(datetime.now(UTC) + timedelta(minutes=2), usegmt=True)
    service.answers[device.endpoint] = [(429, {"Retry-After": "17"}), (503, {"Retry-After": at}), (503, {})]
    waits = []
    async with push() as channel:
        for _ in range(3):
            with pytest.raises(TransientFailure) as failure:
                await channel.send(delivery(device), CONTENT)
            waits.append(failure.value.retry_after)
    assert waits[0] == 17
    assert waits[1] is not None
    assert 110 < waits[1] <= 120
    assert waits[2] is None


@pytest.mark.parametrize(
    ("header", "wait"),
    [(None, None), ("", None), ("soon", None), ("-5", None), ("0", 0), ("1" * 400, 86_400),
     ("Wed, 21 Oct 2015 07:28:00 GMT", 0), ("Wed, 21 Oct 9999 07:28:00 GMT", 86_400)],
)  # fmt: skip
def test_a_retry_after_is_between_now_and_a_day(header: str | None, wait: float | None) -> None:
    assert seconds(header) == wait


async def test_nobody_listening_is_transient_and_shows_no_endpoint() -> None:
    async with PushService(free_port()) as service:
        device = service.subscribe()
    async with push() as channel:
        with pytest.raises(TransientFailure) as failure:
            await channel.send(delivery(device), CONTENT)
    assert device.endpoint.rpartition("/")[2] not in str(failure.value)


@asynccontextmanager
async def answering(
    answer: Callable[[asyncio.StreamWriter], Coroutine[Any, Any, None]],
) -> AsyncIterator[WebPushDevice]:
    """A device whose push service does what `answer` does."""

    async def serve(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await answer(writer)

    async with Listener(serve) as listener:
        keys = PushService().subscribe().keys
        yield WebPushDevice(endpoint=f"http://127.0.0.1:{listener.port}/x", keys=keys)


class Http2Service:
    """A TLS server that speaks nothing but HTTP/2 and answers 201."""

    def __init__(self) -> None:
        self.origin = ""
        self.connections = 0
        self.requests: list[dict[str, str]] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        connection = H2Connection(H2Configuration(client_side=False, header_encoding="utf-8"))
        connection.initiate_connection()
        writer.write(connection.data_to_send())
        while data := await reader.read(65_536):
            for event in connection.receive_data(data):
                if isinstance(event, RequestReceived):
                    self.requests.append({str(name): str(value) for name, value in event.headers})
                elif isinstance(event, StreamEnded):
                    connection.send_headers(event.stream_id, [(":status", "201")], end_stream=True)
            writer.write(connection.data_to_send())


@asynccontextmanager
async def http2_service(certificate: Path) -> AsyncIterator[Http2Service]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    context.set_alpn_protocols(["h2"])
    service = Http2Service()
    async with Listener(service.serve, tls=context) as listener:
        service.origin = f"https://127.0.0.1:{listener.port}"
        yield service


async def test_a_service_that_speaks_http2_is_spoken_to_in_it(
    monkeypatch: pytest.MonkeyPatch, certificate: Path
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    async with http2_service(certificate) as service, push() as channel:
        device = PushService().subscribe().model_copy(update={"endpoint": f"{service.origin}/push/1"})
        for number in range(5):
            await channel.send(delivery(device, event_id=str(number)), CONTENT)
        assert service.connections == 1
    assert [one[":path"] for one in service.requests] == ["/push/1"] * 5
    assert service.requests[0]["topic"] == delivery(device, event_id="0").id


@pytest.mark.parametrize("drip", [b"", b"HTTP/1.1 201 Created\r\nContent-Length: 99\r\n\r\nx"])
async def test_a_service_that_does_not_finish_is_transient(drip: bytes) -> None:
    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(drip)
        await asyncio.Event().wait()

    async with answering(answer) as device, push(web_push_timeout="100ms") as channel:
        with pytest.raises(TransientFailure, match="in time"):
            await channel.send(delivery(device), CONTENT)


async def test_an_endless_answer_is_read_only_in_part() -> None:
    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 9999999999\r\n\r\n")
        while True:
            writer.write(b"no\x1b " * 10_000)
            await writer.drain()

    async with answering(answer) as device, push() as channel:
        with pytest.raises(PermanentFailure) as failure:
            await channel.send(delivery(device), CONTENT)
    assert failure.value.answer.startswith("400 no no no")
    assert len(failure.value.answer) <= 500
    assert failure.value.answer.isprintable()


@pytest.mark.parametrize("keys", [{"p256dh": "A" * 87}, {"auth": "A" * 23}, {"p256dh": "B" + "A" * 86}])
async def test_keys_that_are_none_are_an_invalid_address(
    service: PushService, keys: Mapping[str, str]
) -> None:
    good = service.subscribe()
    device = good.model_copy(update={"keys": good.keys.model_copy(update=keys)})
    async with push() as channel:
        with pytest.raises(InvalidAddress):
            await channel.send(delivery(device), CONTENT)
    assert service.requests == 0


# Endpoints -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "endpoint",
    [
        "http://push.example.com/x",
        "https://localhost/x",
        "https://LOCALHOST./x",
        "https://db.localhost/x",
        "https://redis/x",
        "https://metadata.google.internal/x",
        "https://127.0.0.1/x",
        "https://127.1/x",
        "https://2130706433/x",
        "https://0x7f000001/x",
        "https://0x7f.0.0.1/x",
        "https://0177.0.0.1/x",
        "https://10.0.0.8/x",
        "https://172.16.0.1/x",
        "https://192.168.1.1/x",
        "https://169.254.169.254/latest/meta-data",
        "https://100.64.0.1/x",
        "https://0.0.0.0/x",
        "https://[::1]/x",
        "https://[::]/x",
        "https://[::ffff:127.0.0.1]/x",
        "https://[::127.0.0.1]/x",
        "https://[64:ff9b::7f00:1]/x",
        "https://[64:ff9b:1::a00:8]/x",
        "https://[2002:a00:8::]/x",
        "https://[fe80::1]/x",
        "https://[fc00::1]/x",
        "https://[ff02::1]/x",
        "https://[100::1]/x",
        "https://[2001:0:a00:8::]/x",
        "https://198.18.0.1/x",
        "https://224.0.0.1/x",
        "https://255.255.255.255/x",
        "https://１２７.0.0.1/x",  # noqa: RUF001 - the full-width digits are the point
        "https://user:pass@push.example.com/x",
        "https://push.example.com:99999/x",
        "https:///x",
        "ftp://push.example.com/x",
    ],
)
def test_an_endpoint_inside_our_own_network_is_not_called(endpoint: str) -> None:
    with pytest.raises(PermanentFailure) as failure:
        check_endpoint(endpoint, allow_http=False)
    assert not isinstance(failure.value, InvalidAddress)


@given(address=st.ip_addresses())  # which prefers those of the registries of special purposes
@settings(max_examples=500)
def test_what_python_knows_as_private_is_never_called(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> None:
    """Our list is written out, since a NetworkPolicy must have the same; Python keeps one that grows."""
    host = f"[{address}]" if address.version == 6 else str(address)
    try:
        check_endpoint(f"https://{host}/x", allow_http=False)
    except PermanentFailure:
        return
    assert address.is_global, address


@pytest.mark.parametrize(
    ("endpoint", "origin"),
    [
        ("https://fcm.googleapis.com/fcm/send/abc:def", "https://fcm.googleapis.com"),
        ("https://updates.push.services.mozilla.com/wpush/v2/x", "https://updates.push.services.mozilla.com"),
        ("https://push.example.com:443/x", "https://push.example.com"),
        ("https://push.example.com:8443/x", "https://push.example.com:8443"),
        ("https://Push.Example.com/x", "https://push.example.com"),
        ("https://[2606:4700::1111]:8443/x", "https://[2606:4700::1111]:8443"),
        ("https://8.8.8.8/x", "https://8.8.8.8"),
    ],
)
def test_a_public_endpoint_is_called_and_has_an_origin(endpoint: str, origin: str) -> None:
    assert check_endpoint(endpoint, allow_http=False) == endpoint
    assert origin_of(endpoint) == origin


async def test_http_and_this_machine_need_a_setting(service: PushService) -> None:
    async with push(web_push_allow_http="false") as channel:
        with pytest.raises(PermanentFailure, match="https"):
            await channel.send(delivery(service.subscribe()), CONTENT)
    assert service.requests == 0


# The key and its tokens ----------------------------------------------------------------------


def test_a_token_is_signed_once_for_each_origin_and_renewed_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now)
    signer = VapidSigner(load_key(KEYS.private), "https://example.com/contact")
    first = signer.authorization("https://a.example")
    assert signer.authorization("https://a.example") == first
    assert signer.authorization("https://b.example") != first
    token, key = (part.split("=", 1)[1] for part in first.removeprefix("vapid ").split(", "))
    assert key == KEYS.public
    claims = jwt.decode(token, key)
    assert claims == {
        "aud": "https://a.example",
        "sub": "https://example.com/contact",
        "exp": int(now) + TOKEN_LIFE,
    }
    now += TOKEN_LIFE - 3_601
    assert signer.authorization("https://a.example") == first
    now += 2
    assert signer.authorization("https://a.example") != first


async def test_the_key_may_be_a_pem_file(service: PushService, tmp_path: Path) -> None:
    key = load_key(KEYS.private)
    file = tmp_path / "vapid.pem"
    file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    async with push(vapid_private_key=str(file)) as channel:
        await channel.send(delivery(service.subscribe(KEYS.public)), CONTENT)
    assert len(service.pushes) == 1


@pytest.mark.parametrize("content", [None, b"nothing", "P-384"])
async def test_a_key_file_that_is_no_good_is_named(tmp_path: Path, content: bytes | str | None) -> None:
    file = tmp_path / "vapid.pem"
    if content == "P-384":
        key = ec.generate_private_key(ec.SECP384R1())
        file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    elif isinstance(content, bytes):
        file.write_bytes(content)
    with pytest.raises(ConfigurationError, match="NOTIFIER_VAPID_PRIVATE_KEY") as caught:
        async with push(vapid_private_key=str(file)):
            pass
    if content is None:
        assert "is no key of 32 bytes in base64url" in caught.value.reason


@pytest.mark.parametrize("missing", ["NOTIFIER_VAPID_PRIVATE_KEY", "NOTIFIER_VAPID_SUBJECT"])
async def test_sending_needs_a_key_and_routing_does_not(missing: str) -> None:
    environ = {"NOTIFIER_VAPID_PRIVATE_KEY": KEYS.private, "NOTIFIER_VAPID_SUBJECT": "mailto:a@example.com"}
    del environ[missing]
    channel = open_channel(environ)
    device = PushService().subscribe()
    assert len(channel.addresses(Recipient(id="b", devices=(device,)))) == 1
    with pytest.raises(ConfigurationError) as failure:
        await channel.open()
    assert failure.value.setting == missing


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("NOTIFIER_VAPID_PRIVATE_KEY", base64.urlsafe_b64encode(bytes(32)).decode()),
        ("NOTIFIER_VAPID_PRIVATE_KEY", base64.urlsafe_b64encode(b"\xff" * 32).decode()),
        ("NOTIFIER_VAPID_SUBJECT", "admin@example.com"),
        ("NOTIFIER_VAPID_SUBJECT", "mailto:admin@localhost"),
        ("NOTIFIER_VAPID_SUBJECT", "http://example.com"),
        ("NOTIFIER_WEB_PUSH_TTL", "5w"),
        ("NOTIFIER_WEB_PUSH_TTL", "4"),
        ("NOTIFIER_WEB_PUSH_TIMEOUT", "0s"),
        ("NOTIFIER_WEB_PUSH_ALLOW_HTTP", "perhaps"),
    ],
)
def test_a_wrong_setting_is_named_and_not_shown(name: str, value: str) -> None:
    with pytest.raises(ConfigurationError) as failure:
        open_channel({name: value})
    assert failure.value.setting == name
    assert value.rstrip("=") not in failure.value.reason or len(value) < 12


def test_the_key_shows_nowhere() -> None:
    assert KEYS.private not in repr(WebPushSettings.read({"NOTIFIER_VAPID_PRIVATE_KEY": KEYS.private}))


# Addresses -----------------------------------------------------------------------------------


def test_each_device_of_a_configured_kind_is_one_address_whose_key_tells_nothing() -> None:
    service = PushService()
    first, second = service.subscribe(), service.subscribe()
    recipient = Recipient.model_validate(
        {"id": "bob", "devices": [first, second, first, {"kind": "apns", "token": "ab" * 32}]}
    )
    addresses = open_channel({}).addresses(recipient)
    assert [one.key for one in addresses] == [device_key(first), device_key(second)]
    assert WebPushDevice.model_validate_json(addresses[0].value) == first
    key = addresses[0].key
    assert key.startswith("web_push-")
    assert len(key) == len("web_push-") + 12
    assert key.removeprefix("web_push-") not in first.endpoint


async def test_a_device_that_can_not_be_read_is_a_permanent_failure() -> None:
    async with push() as channel:
        for value in ("{}", "not JSON", '{"kind":"apns","token":"' + "ab" * 32 + '"}'):
            with pytest.raises(PermanentFailure):
                await channel.send(
                    Delivery.of("push", event_id="e", event_type="like", to="bob", key="k", address=value),
                    CONTENT,
                )


# An independent peer -------------------------------------------------------------------------

_ON_THIS_MACHINE_ONLY = """
const net = require('net'), listen = net.Server.prototype.listen;
net.Server.prototype.listen = function (port, ...rest) {
  return listen.call(this, port, '127.0.0.1', ...rest);
};
require(process.argv[1]);
"""


@pytest.fixture
def web_push_testing() -> Iterator[str]:
    """The npm package of that name, another implementation of RFC 8291 and 8292; its URL."""
    program = Path(__file__).parents[2] / ".peers/node_modules/web-push-testing/src/bin/server.js"
    node = shutil.which("node")
    if node is None or not program.exists():
        reason = "needs node, and web-push-testing in .peers: .ci/run installs it"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    port = free_port()
    process = subprocess.Popen(
        [node, "-e", _ON_THIS_MACHINE_ONLY, str(program), str(port)],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        assert b"running" in process.stdout.readline()
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.communicate()


async def test_another_implementation_takes_our_token_and_decrypts(web_push_testing: str) -> None:
    async with (
        httpx.AsyncClient(base_url=web_push_testing, timeout=20, trust_env=False) as browser,
        push() as channel,
    ):
        options = {"userVisibleOnly": "true", "applicationServerKey": KEYS.public}
        data: dict[str, Any] = (await browser.post("/subscribe", json=options)).json()["data"]
        client = data.pop("clientHash")
        device = WebPushDevice.model_validate({**data, "endpoint": f"{web_push_testing}/notify/{client}"})
        sent = await channel.send(delivery(device), CONTENT)
        got = (await browser.post("/get-notifications", json={"clientHash": client})).json()
        assert sent.answer.startswith("201")
        assert [json.loads(one) for one in got["data"]["messages"]] == [
            {**CONTENT, "id": "e1", "type": "like"}
        ]
        await browser.post(f"/expire-subscription/{client}")
        with pytest.raises(InvalidAddress):
            await channel.send(delivery(device), CONTENT)


# What registers by itself.

_PRIVATE, _PUBLIC = "NOTIFIER_VAPID_PRIVATE_KEY", "NOTIFIER_VAPID_PUBLIC_KEY"


def test_a_device_that_nothing_can_be_sent_to_is_refused_before_it_is_stored() -> None:
    channel = open_channel({})
    assert isinstance(channel, TakesDevices)
    inside = WebPushDevice.model_validate(
        {"endpoint": "https://10.0.0.1/x", "keys": {"p256dh": "A" * 87, "auth": "B" * 22}}
    )
    with pytest.raises(InvalidRecipient, match="the endpoint's host is not a public one"):
        channel.check_device(inside)
    channel.check_device(FcmDevice(kind="fcm", token="kept-for-a-sender"))
    local = open_channel({"NOTIFIER_WEB_PUSH_ALLOW_HTTP": "true"})
    assert isinstance(local, TakesDevices)
    local.check_device(inside)


def test_the_public_key_is_that_of_the_private_one() -> None:
    private, public = _key_pair()
    for environ in ({_PRIVATE: private}, {_PUBLIC: public}, {_PUBLIC: public + "="}):
        channel = open_channel(environ)
        assert isinstance(channel, TakesDevices)
        assert channel.push_key() == public
    none = open_channel({})
    assert isinstance(none, TakesDevices)
    assert none.push_key() is None


async def test_a_public_key_of_another_private_one_stops_the_worker() -> None:
    private, _ = _key_pair()
    _, other = _key_pair()
    environ = {_PRIVATE: private, _PUBLIC: other, "NOTIFIER_VAPID_SUBJECT": "mailto:ops@example.com"}
    with pytest.raises(ConfigurationError, match="NOTIFIER_VAPID_PUBLIC_KEY: is not the public key of"):
        await open_channel(environ).open()


@pytest.mark.parametrize("key", ["nonsense", "A" * 87, "é" * 87, "BA" + "A" * 85, "B" * 200])
def test_what_is_no_public_key_is_refused(key: str) -> None:
    with pytest.raises(ConfigurationError, match="NOTIFIER_VAPID_PUBLIC_KEY: is not a public key of P-256"):
        open_channel({_PUBLIC: key})


def _key_pair() -> tuple[str, str]:
    key = ec.generate_private_key(ec.SECP256R1())
    raw = key.private_numbers().private_value.to_bytes(32, "big")
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode(), public_key_of(key)
