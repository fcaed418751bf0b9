"""Web Push (RFC 8030): encrypted for the browser (RFC 8291), signed with our VAPID key (RFC 8292).

Settings:

NOTIFIER_VAPID_PRIVATE_KEY      32 bytes as base64url, or the path of a PEM file; needed to send
NOTIFIER_VAPID_PUBLIC_KEY       its public key, for an API that is not given the private one
NOTIFIER_VAPID_SUBJECT          mailto:name@example.com or https://…: whom a push service can ask
NOTIFIER_WEB_PUSH_TTL           how long a push service keeps a message for a browser that is away,
                                default and most 4w; less when the event expires before
NOTIFIER_WEB_PUSH_TIMEOUT       for one request as a whole, default 10s
NOTIFIER_WEB_PUSH_ALLOW_HTTP    true: also http:// and this machine, for `notifier dev` and tests

What the answers mean. Each browser vendor runs a push service, so no answer of one says anything of the
others, and nothing here opens the breaker of the whole channel:

200 201 202     delivered
404 410         InvalidAddress: the subscription is gone
401 403         PermanentFailure: our key was refused. Mostly the browser subscribed with a key that was
                replaced since; one such browser must not stop everybody's pushes, and if the key in the
                settings is wrong, what failed waits in the dead letter queue for a redrive. The devices
                are not removed, for a wrong key would then cost all of them
408 429 5xx     TransientFailure, after the time that Retry-After names
3xx, other 4xx  PermanentFailure; redirects are not followed
no answer       TransientFailure; whether the message arrived is unknown. Its Topic is the same when it is
                tried again, so a push service replaces the first if the browser has not fetched it yet

Endpoints come from browsers, so they are checked before anything is sent (`check_endpoint`).
"""

from __future__ import annotations

import asyncio
import base64
import logging
import re
import ssl
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Annotated, Final, Self

import http_ece
import httpx
from cryptography.hazmat.primitives.asymmetric import ec
from pydantic import BeforeValidator, Field
from pydantic_core import PydanticCustomError

from channels.push import payload
from channels.push.endpoint import check_endpoint, origin_of
from channels.push.vapid import (
    VapidSigner,
    check_key,
    check_public_key,
    check_subject,
    load_key,
    public_key_of,
)
from channels.settings import ChannelSettings, Duration
from notifier.channel import (
    Delivery,
    DeliveryError,
    Finding,
    InvalidAddress,
    PermanentFailure,
    Sent,
    TransientFailure,
)
from notifier.errors import ConfigurationError
from notifier.event import WebPushDevice

_ANSWER_BYTES: Final = 2_000
_MOST_RETRY_AFTER: Final = 86_400.0
_KEY, _SUBJECT = "NOTIFIER_VAPID_PRIVATE_KEY", "NOTIFIER_VAPID_SUBJECT"
_PUBLIC_KEY = "NOTIFIER_VAPID_PUBLIC_KEY"


def _key(value: object) -> object:
    return _checked(check_key, value)


def _public_key(value: object) -> object:
    return _checked(check_public_key, value)


def _subject(value: object) -> object:
    return _checked(check_subject, value)


def _checked(check: Callable[[str], str], value: object) -> object:
    try:
        return check(value) if isinstance(value, str) else value
    except ValueError as error:
        raise PydanticCustomError("vapid", "{reason}", {"reason": str(error)}) from None


class WebPushSettings(ChannelSettings):
    private_key: Annotated[str | None, BeforeValidator(_key)] = Field(
        None, repr=False, validation_alias="NOTIFIER_VAPID_PRIVATE_KEY"
    )
    """32 bytes as base64url, or the path of a PEM file; needed to send"""
    public_key: Annotated[str | None, BeforeValidator(_public_key)] = Field(
        None, validation_alias="NOTIFIER_VAPID_PUBLIC_KEY"
    )
    """its public key, base64url, which browsers subscribe with. For an API that is not given the private
    key; otherwise it is made of that one"""
    subject: Annotated[str | None, BeforeValidator(_subject)] = Field(
        None, validation_alias="NOTIFIER_VAPID_SUBJECT"
    )
    """`mailto:name@example.com` or `https://…`: whom a push service can ask; needed to send"""
    ttl: Duration = Field(
        timedelta(weeks=4), ge=timedelta(0), le=timedelta(weeks=4), validation_alias="NOTIFIER_WEB_PUSH_TTL"
    )
    """how long a push service keeps a message for a browser that is away; less when the event expires
    before"""
    timeout: Duration = Field(
        timedelta(seconds=10), gt=timedelta(0), validation_alias="NOTIFIER_WEB_PUSH_TIMEOUT"
    )
    """for one request as a whole"""
    allow_http: bool = Field(False, validation_alias="NOTIFIER_WEB_PUSH_ALLOW_HTTP")
    """`true`: also `http://` and addresses of this machine, for development and tests"""


_EXAMPLE = re.compile(r"[@/.]example\.(com|org|net)\b")


def _others_may_read(path: Path) -> bool:
    try:
        return path.is_file() and bool(path.stat().st_mode & 0o004)
    except OSError:
        return False


class WebPushSender:
    """Pushes to browsers; see the module."""

    kind: Final = "web_push"

    def __init__(self, settings: WebPushSettings) -> None:
        self.settings = settings
        self._signer: VapidSigner | None = None
        self._client: httpx.AsyncClient | None = None

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Self:
        return cls(WebPushSettings.read(environ))

    def check(self, device: WebPushDevice) -> None:
        """Raises PermanentFailure when nothing will ever be sent to its endpoint."""
        check_endpoint(device.endpoint, allow_http=self.settings.allow_http)

    def public_key(self) -> str | None:
        """What a browser needs to subscribe: the uncompressed point, base64url. Raises ConfigurationError."""
        if self.settings.public_key or self.settings.private_key is None:
            return self.settings.public_key
        return public_key_of(self._load())

    def _load(self) -> ec.EllipticCurvePrivateKey:
        try:
            key = load_key(self.settings.private_key or "")
        except OSError as error:
            reason = f"is no key of 32 bytes in base64url, and no file that can be read: {error.strerror}"
            raise ConfigurationError(_KEY, reason) from None
        except ValueError as error:
            raise ConfigurationError(_KEY, str(error)) from None
        if self.settings.public_key not in {None, public_key_of(key)}:
            raise ConfigurationError(_PUBLIC_KEY, f"is not the public key of {_KEY}")
        return key

    async def open(self) -> None:
        settings = self.settings
        if settings.private_key is None:
            raise ConfigurationError(_KEY, "is needed to send to browsers")
        if settings.subject is None:
            raise ConfigurationError(_SUBJECT, "is needed to send to browsers")
        self._signer = VapidSigner(self._load(), settings.subject)
        # It logs every URL at INFO, and the URL of an endpoint is the secret that lets one push to it.
        logging.getLogger("httpx").setLevel(logging.WARNING)
        self._client = httpx.AsyncClient(
            http2=True,
            verify=await asyncio.to_thread(ssl.create_default_context),
            timeout=httpx.Timeout(settings.timeout.total_seconds()),
            limits=httpx.Limits(max_connections=100, max_keepalive_connections=50, keepalive_expiry=60),
            follow_redirects=False,
            trust_env=False,
        )

    async def close(self) -> None:
        if self._client is not None:
            await self._client.aclose()
            self._client = None

    def variables(self) -> Collection[str]:
        """See `notifier.channel.ChecksItself`."""
        return self.settings.variables()

    async def check_settings(self) -> Sequence[Finding]:
        """See `notifier.channel.ChecksItself`. There is nobody to ask: each browser names its own service."""
        settings = self.settings
        found = [Finding("ok", "VAPID key", f"a pair of P-256; browsers subscribe with {self.public_key()}")]
        path = Path(settings.private_key or "")
        if await asyncio.to_thread(_others_may_read, path):
            means = "Whoever reads it can push to all browsers in our name."
            found.append(
                Finding("warning", "VAPID key", f"{path} can be read by all", means, f"chmod 600 {path}")
            )
        if settings.subject and _EXAMPLE.search(settings.subject):
            means = "A push service that has a question reaches nobody, and may refuse us."
            mend = "Set NOTIFIER_VAPID_SUBJECT to an address of yours."
            found.append(Finding("warning", "VAPID subject", settings.subject, means, mend))
        if settings.allow_http:
            means = "Whoever registers a device can make this service call machines of its own network."
            mend = "Remove NOTIFIER_WEB_PUSH_ALLOW_HTTP, which is for development."
            found.append(Finding("warning", "push over http", "allowed", means, mend))
        return found

    async def send(self, delivery: Delivery, device: WebPushDevice, content: Mapping[str, str]) -> Sent:
        if self._client is None:
            raise RuntimeError("the channel is not open")
        endpoint = check_endpoint(device.endpoint, allow_http=self.settings.allow_http)
        body = encrypt(
            payload.encode(
                title=content["title"],
                body=content["body"],
                url=content.get("url"),
                event_id=delivery.event_id,
                event_type=delivery.event_type,
            ),
            device,
        )
        try:
            async with asyncio.timeout(self.settings.timeout.total_seconds()):
                return await self._post(self._client, endpoint, body, self._headers(delivery, endpoint))
        except TimeoutError:
            raise TransientFailure("the push service did not answer in time") from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            # The text of httpx's errors may hold the endpoint, which is a secret.
            raise TransientFailure(f"the push service can't be reached: {type(error).__name__}") from None

    def _headers(self, delivery: Delivery, endpoint: str) -> dict[str, str]:
        if self._signer is None:
            raise RuntimeError("the channel is not open")
        return {
            "Authorization": self._signer.authorization(origin_of(endpoint)),
            "Content-Type": "application/octet-stream",
            "Content-Encoding": "aes128gcm",
            "Accept-Encoding": "identity",
            "TTL": str(ttl_seconds(self.settings.ttl, delivery.expires_at)),
            "Topic": delivery.id[:32],
            "Urgency": "normal",
        }

    async def _post(
        self, client: httpx.AsyncClient, endpoint: str, body: bytes, headers: Mapping[str, str]
    ) -> Sent:
        async with client.stream("POST", endpoint, content=body, headers=headers) as response:
            answer = f"{response.status_code} {await _beginning(response)}".strip()
        failure = outcome(response.status_code, answer, response.headers.get("Retry-After"))
        if failure is not None:
            raise failure
        return Sent(answer=answer)


def encrypt(plain: bytes, device: WebPushDevice) -> bytes:
    """One aes128gcm record for that browser. Raises InvalidAddress when its keys are none."""
    try:
        auth = _decode(device.keys.auth)
        their_key = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), _decode(device.keys.p256dh))
    except ValueError:
        raise InvalidAddress("the browser's public key is not a point of P-256") from None
    if len(auth) != 16:
        raise InvalidAddress("the browser's auth secret has not 16 bytes")
    sealed: bytes = http_ece.encrypt(
        plain,
        private_key=ec.generate_private_key(ec.SECP256R1()),
        dh=their_key,
        auth_secret=auth,
        version="aes128gcm",
    )
    return sealed


def outcome(status: int, answer: str, retry_after: str | None) -> DeliveryError | None:
    """What an HTTP status means (see the module); None is a success."""
    if status in {200, 201, 202}:
        return None
    if status in {404, 410}:
        return InvalidAddress("the subscription is gone", answer=answer)
    if status in {408, 429} or status >= 500:
        return TransientFailure(
            "the push service asks to try again later", answer=answer, retry_after=seconds(retry_after)
        )
    if status in {401, 403}:
        return PermanentFailure("the push service refused our VAPID key for this browser", answer=answer)
    return PermanentFailure("the push service refused the message", answer=answer)


def seconds(retry_after: str | None) -> float | None:
    """A Retry-After header (RFC 9110, section 10.2.3) in seconds from now, at most a day."""
    if not retry_after:
        return None
    text = retry_after.strip()
    if text.isascii() and text.isdecimal():
        wait = float(text[:12])
    else:
        try:
            at = parsedate_to_datetime(text)
        except (ValueError, OverflowError):
            return None
        wait = (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() - time.time()
    return min(max(wait, 0.0), _MOST_RETRY_AFTER)


def ttl_seconds(longest: timedelta, expires_at: datetime | None) -> int:
    """The TTL header: no longer than the event is worth telling."""
    ttl = longest.total_seconds()
    if expires_at is not None:
        ttl = min(ttl, (expires_at - datetime.now(UTC)).total_seconds())
    return max(int(ttl), 0)


async def _beginning(response: httpx.Response) -> str:
    data = b""
    async for chunk in response.aiter_raw():
        data += chunk
        if len(data) >= _ANSWER_BYTES:
            break
    text = data[:_ANSWER_BYTES].decode("utf-8", "replace")
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())[:490]


def _decode(text: str) -> bytes:
    text = text.rstrip("=")
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
