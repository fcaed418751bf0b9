"""A Web Push service on this machine, and the browsers that have subscribed to it.

It checks what a real one checks (RFC 8030 and 8292), and decrypts what only the browser could (RFC 8291
and 8188).
"""

from __future__ import annotations

import asyncio
import base64
import json
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Final, NamedTuple, Self

import http_ece
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from py_vapid import jwt

from notifier.event import WebPushDevice, WebPushKeys
from notifier.local.arrivals import Arrivals
from notifier.local.http import Request, Response, serve_connection
from notifier.local.listener import Listener

_MAX_BODY: Final = 4_096
_MAX_TOKEN_AGE: Final = 24 * 3_600
_URGENCIES: Final = frozenset({"very-low", "low", "normal", "high"})


class VapidKeys(NamedTuple):
    """A P-256 key pair, base64url: `private` is a value for NOTIFIER_VAPID_PRIVATE_KEY."""

    private: str
    public: str


def vapid_keys() -> VapidKeys:
    """A new pair, good for as long as browsers are subscribed with it."""
    key = ec.generate_private_key(ec.SECP256R1())
    return VapidKeys(_secret(key), _public(key))


class Browser(NamedTuple):
    """What a browser keeps to be reached again: the end of its endpoint, and its secrets, base64url."""

    token: str
    private_key: str
    auth: str


def new_browser() -> Browser:
    key = ec.generate_private_key(ec.SECP256R1())
    return Browser(secrets.token_urlsafe(24), _secret(key), _base64url(secrets.token_bytes(16)))


@dataclass(frozen=True, slots=True)
class Push:
    """What a browser was pushed. `ttl` is in seconds."""

    endpoint: str
    payload: dict[str, Any]
    topic: str | None
    ttl: int
    urgency: str
    received_at: datetime


@dataclass(slots=True)
class _Subscription:
    key: ec.EllipticCurvePrivateKey
    auth: bytes
    application_key: str | None
    expired: bool = False


class _Refused(Exception):
    def __init__(self, status: int, reason: str) -> None:
        self.status = status
        self.reason = reason
        super().__init__(reason)


class PushService:
    """A context manager on 127.0.0.1.

    `answers` holds, for an endpoint, what its next pushes are answered, in turn: a status and headers.
    `requests` counts all that came, also what was refused.
    """

    def __init__(self, port: int | None = None, on_push: Callable[[Push], None] | None = None) -> None:
        self.answers: dict[str, list[tuple[int, Mapping[str, str]]]] = {}
        self.requests = 0
        self._port = port or 0
        self._arrivals: Arrivals[Push] = Arrivals(on_push)
        self._subscriptions: dict[str, _Subscription] = {}
        self._listener = Listener(self._serve)

    @property
    def port(self) -> int:
        return self._listener.port

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def connections(self) -> int:
        """How many clients are connected now."""
        return self._listener.clients

    @property
    def pushes(self) -> list[Push]:
        """The last 1,000, oldest first."""
        return self._arrivals.items

    async def wait_for(self, predicate: Callable[[Push], bool], timeout: float = 5.0) -> Push:
        """The first push that fits, come already or still to come. Raises TimeoutError."""
        return await self._arrivals.wait_for(predicate, timeout)

    def subscribe(self, application_key: str | None = None, browser: Browser | None = None) -> WebPushDevice:
        """A new browser, with keys of its own, or one that was here before.

        With `application_key`, a public VAPID key, only its owner may push to it. Raises ValueError when
        the browser's secrets are none.
        """
        browser = browser or new_browser()
        endpoint = f"{self.origin}/push/{browser.token}"
        number = int.from_bytes(_from_base64url(browser.private_key), "big")
        key = ec.derive_private_key(number, ec.SECP256R1())
        subscription = _Subscription(key, _from_base64url(browser.auth), application_key)
        self._subscriptions[endpoint] = subscription
        keys = WebPushKeys(p256dh=_public(subscription.key), auth=_base64url(subscription.auth))
        return WebPushDevice(endpoint=endpoint, keys=keys)

    def expire(self, device: WebPushDevice) -> None:
        """From now on pushes to it are answered 410."""
        self._subscriptions[device.endpoint].expired = True

    async def __aenter__(self) -> Self:
        """Raises OSError when the port is in use."""
        await self._listener.open(self._port)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._listener.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await serve_connection(reader, writer, self._answer, max_body=_MAX_BODY)

    def _answer(self, request: Request) -> Response:
        self.requests += 1
        endpoint = self.origin + request.path
        try:
            waiting = self.answers.get(endpoint)
            if waiting:
                status, headers = waiting.pop(0)
                if status >= 300:
                    return Response(status, headers, b"as scripted")
            self._arrivals.add(self._accept(endpoint, request))
        except _Refused as refusal:
            return Response(refusal.status, {"Content-Type": "text/plain"}, refusal.reason.encode())
        return Response(201, {"Location": f"{self.origin}/message/{secrets.token_urlsafe(12)}"}, b"")

    def _accept(self, endpoint: str, request: Request) -> Push:
        if request.method != "POST":
            raise _Refused(405, "only POST is known here")
        subscription = self._subscriptions.get(endpoint)
        if subscription is None:
            raise _Refused(404, "no such subscription")
        if subscription.expired:
            raise _Refused(410, "the subscription has expired")
        self._check_vapid(request.headers.get("authorization", ""), subscription)
        ttl = request.headers.get("ttl", "")
        if not ttl.isdecimal():
            raise _Refused(400, "TTL is missing or not a number")
        urgency = request.headers.get("urgency", "normal")
        if urgency not in _URGENCIES:
            raise _Refused(400, "Urgency is unknown")
        topic = request.headers.get("topic")
        if topic is not None and not _is_topic(topic):
            raise _Refused(400, "Topic is not up to 32 characters of base64url")
        if request.headers.get("content-encoding") != "aes128gcm":
            raise _Refused(415, "Content-Encoding is not aes128gcm")
        payload = _decrypt(request.body, subscription)
        return Push(endpoint, payload, topic, int(ttl), urgency, datetime.now(UTC))

    def _check_vapid(self, authorization: str, subscription: _Subscription) -> None:
        scheme, _, rest = authorization.partition(" ")
        if scheme.lower() != "vapid":
            raise _Refused(401, "no VAPID token")
        fields = dict(part.strip().partition("=")[::2] for part in rest.split(","))
        try:
            claims = jwt.decode(fields.get("t", ""), fields.get("k", ""))
            expires, audience = float(claims["exp"]), claims["aud"]
        except (InvalidSignature, KeyError, ValueError, TypeError):
            raise _Refused(403, "the VAPID token is not valid") from None
        if audience != self.origin:
            raise _Refused(403, f"the VAPID token is for {audience}")
        if not 0 < expires - time.time() <= _MAX_TOKEN_AGE:
            raise _Refused(403, "the VAPID token has expired, or lasts for more than a day")
        if not str(claims.get("sub", "")).startswith(("mailto:", "https:")):
            raise _Refused(403, "the VAPID token names nobody to turn to")
        if subscription.application_key not in {None, fields["k"]}:
            raise _Refused(403, "the VAPID key is not the one that the browser subscribed with")


def _is_topic(text: str) -> bool:
    return 0 < len(text) <= 32 and text.isascii() and text.replace("-", "").replace("_", "").isalnum()


def _decrypt(body: bytes, subscription: _Subscription) -> dict[str, Any]:
    try:
        plain = http_ece.decrypt(
            body, private_key=subscription.key, auth_secret=subscription.auth, version="aes128gcm"
        )
        payload = json.loads(plain)
    except (http_ece.ECEException, ValueError, LookupError):
        raise _Refused(400, "the body does not decrypt to JSON") from None
    if not isinstance(payload, dict):
        raise _Refused(400, "the body is no JSON object")
    return payload


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _from_base64url(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _secret(key: ec.EllipticCurvePrivateKey) -> str:
    return _base64url(key.private_numbers().private_value.to_bytes(32, "big"))


def _public(key: ec.EllipticCurvePrivateKey) -> str:
    return _base64url(key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint))
