"""Who may do what: API keys for services, short-lived tokens for users.

A service sends `Authorization: Bearer <secret>`; each of the `NOTIFIER_API_KEYS` (`scope:secret`) has one
scope: `publish`, `recipients` or `operate`. A user sends a JWT (RFC 7519) that is signed with one of the
`NOTIFIER_TOKEN_KEYS`; its `sub` is the recipient's id, and nothing else says whose inbox is meant.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
import time
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, Any, Final, Literal, get_args

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import SecretStr

from notifier.api.problems import Problem
from notifier.errors import ConfigurationError, InvalidRecipient
from notifier.event import parse_to
from notifier.settings import Settings

Scope = Literal["publish", "recipients", "operate"]
_Credentials = HTTPAuthorizationCredentials | None

SHORTEST_SECRET: Final = 16
LONGEST_LIFETIME: Final = timedelta(hours=24)
_LONGEST_TOKEN: Final = 4_096
_LEEWAY: Final = 5  # seconds by which clocks may differ


def _words(text: str) -> Iterator[str]:
    return (word.strip() for word in text.split(",") if word.strip())


class ApiKeys:
    """The keys of `NOTIFIER_API_KEYS`, as digests."""

    def __init__(self, text: str) -> None:
        """Raises ConfigurationError, which never shows a secret."""
        self._keys = [self._read(number, word) for number, word in enumerate(_words(text), 1)]

    @staticmethod
    def _read(number: int, word: str) -> tuple[str, bytes]:
        scope, colon, secret = word.partition(":")
        known = get_args(Scope)
        if not colon or scope not in known:
            raise ConfigurationError(
                "NOTIFIER_API_KEYS",
                f"key {number} must begin with one of {', '.join(s + ':' for s in known)}",
            )
        if len(secret) < SHORTEST_SECRET or not secret.isascii() or not secret.isprintable() or " " in secret:
            raise ConfigurationError(
                "NOTIFIER_API_KEYS",
                f"the secret of key {number} must have {SHORTEST_SECRET} or more visible ASCII characters",
            )
        return scope, hashlib.sha256(secret.encode()).digest()

    def __bool__(self) -> bool:
        return bool(self._keys)

    def has(self, scope: Scope) -> bool:
        """Whether there is a key of this scope."""
        return any(known == scope for known, _ in self._keys)

    def scopes(self, secret: str) -> frozenset[str]:
        """The scopes of a secret; none when it is unknown. Takes as long for every secret of one length."""
        digest = hashlib.sha256(secret.encode(errors="replace")).digest()
        # A list, so that every key is compared whatever the others gave.
        found = [(scope, hmac.compare_digest(digest, known)) for scope, known in self._keys]
        return frozenset(scope for scope, is_equal in found if is_equal)


@dataclass(frozen=True, slots=True)
class _TokenKey:
    algorithm: Literal["HS256", "EdDSA"]
    key: Any


@dataclass(frozen=True, slots=True)
class Holder:
    """A user, until their token expires (Unix seconds)."""

    recipient_id: str
    expires: float


class TokenKeys:
    """The keys of `NOTIFIER_TOKEN_KEYS`: `hs256:<base64>` or `eddsa:<base64 of the public key>`."""

    def __init__(self, text: str, audience: str) -> None:
        """Raises ConfigurationError, which never shows a key."""
        self._audience = audience
        self._keys = [self._read(number, word) for number, word in enumerate(_words(text), 1)]

    @staticmethod
    def _read(number: int, word: str) -> _TokenKey:
        kind, _, encoded = word.partition(":")
        try:
            digits = encoded.translate(_PLAIN)
            raw = base64.b64decode(digits + "=" * (-len(digits) % 4), validate=True)
        except (binascii.Error, ValueError):
            raise ConfigurationError("NOTIFIER_TOKEN_KEYS", f"key {number} is not base64") from None
        if kind == "hs256" and len(raw) >= 32:
            return _TokenKey("HS256", raw)
        if kind == "eddsa" and len(raw) == 32:
            return _TokenKey("EdDSA", Ed25519PublicKey.from_public_bytes(raw))
        raise ConfigurationError(
            "NOTIFIER_TOKEN_KEYS",
            f"key {number} must be hs256: and the base64 of 32 bytes or more, or eddsa: and that of a raw "
            "public key of 32 bytes",
        )

    def __bool__(self) -> bool:
        return bool(self._keys)

    def holder(self, token: str) -> Holder:
        """Who holds a token. Raises Problem (401)."""
        if len(token) > _LONGEST_TOKEN:
            raise _unauthorized("the token is too long")
        try:
            algorithm = jwt.get_unverified_header(token).get("alg")
            claims = self._verified(token, algorithm)
        except jwt.ExpiredSignatureError:
            raise _unauthorized("the token has expired") from None
        except (jwt.InvalidTokenError, ValueError, RecursionError):
            raise _unauthorized("the token is not valid") from None
        longest, expires = int(LONGEST_LIFETIME.total_seconds()), int(claims["exp"])
        if (
            expires > int(time.time()) + longest + _LEEWAY
            or expires - int(claims.get("iat", expires)) > longest
        ):
            raise _unauthorized("the token is valid for more than 24 hours")
        try:
            if not claims["sub"].startswith("{"):
                parse_to(claims["sub"].encode())
            return Holder(str(claims["sub"]), expires + _LEEWAY)
        except (InvalidRecipient, UnicodeEncodeError):
            raise _unauthorized("the token's sub is not a recipient's id") from None

    def _verified(self, token: str, algorithm: str | None) -> dict[str, Any]:
        failure: jwt.InvalidTokenError = jwt.InvalidAlgorithmError()
        for one in self._keys:
            if one.algorithm != algorithm:  # a key serves its own algorithm only (RFC 8725, section 3.1)
                continue
            try:
                claims: dict[str, Any] = jwt.decode(
                    token,
                    one.key,
                    algorithms=[one.algorithm],
                    audience=self._audience,
                    leeway=_LEEWAY,
                    options={"require": ["sub", "exp", "aud"]},
                )
                return claims
            except jwt.InvalidSignatureError as error:
                failure = error
        raise failure

    def sign(self, recipient_id: str, lifetime: timedelta) -> tuple[str, int]:
        """A token for this recipient, and when it expires (Unix seconds).

        Raises Problem (409) when there is no hs256 key to sign with.
        """
        key = next((one.key for one in self._keys if one.algorithm == "HS256"), None)
        if key is None:
            raise Problem(409, "NOTIFIER_TOKEN_KEYS has no hs256 key: your backend signs the tokens")
        now = int(time.time())
        expires = now + int(min(lifetime, LONGEST_LIFETIME).total_seconds())
        claims = {"sub": recipient_id, "aud": self._audience, "iat": now, "exp": expires}
        return jwt.encode(claims, key, algorithm="HS256"), expires


_PLAIN: Final = str.maketrans("-_", "+/", "=")
"""From base64url to base64, without padding."""


@dataclass(frozen=True, slots=True)
class Access:
    """Who is let in."""

    keys: ApiKeys
    tokens: TokenKeys
    metrics_open: bool = False

    def check(self, given: _Credentials, *scopes: Scope) -> None:
        """One of the scopes is enough. Raises Problem: 401 without a known key, 403 when it has another
        scope."""
        has = self.keys.scopes(_given(given))
        if not has:
            raise _unauthorized("the key is not known")
        if has.isdisjoint(scopes):
            raise Problem(403, f"this takes a key of the scope {' or '.join(scopes)}")

    def check_metrics(self, authorization: str) -> None:
        """Whether this header opens the metrics. Raises Problem, as `check` does."""
        if not self.metrics_open:
            scheme, _, secret = authorization.partition(" ")
            is_key = scheme.lower() == "bearer" and secret
            self.check(
                HTTPAuthorizationCredentials(scheme=scheme, credentials=secret) if is_key else None, "operate"
            )


def read_access(settings: Settings) -> Access:
    """Raises ConfigurationError when a key can't be used."""
    return Access(
        ApiKeys(_text(settings.api_keys)),
        TokenKeys(_text(settings.token_keys), settings.token_audience),
        settings.metrics_open,
    )


def open_access(settings: Settings) -> Access:
    """Raises ConfigurationError when a key can't be used, or there is none at all."""
    access = read_access(settings)
    if not access.keys and not access.tokens:
        raise ConfigurationError(
            "NOTIFIER_API_KEYS", "is needed, such as publish:<secret>,recipients:<secret>,operate:<secret>"
        )
    return access


def _text(secret: SecretStr | None) -> str:
    return secret.get_secret_value() if secret else ""


def _unauthorized(detail: str) -> Problem:
    return Problem(401, detail, headers={"WWW-Authenticate": "Bearer"})


def _access(request: Request) -> Access:
    access: Access = request.app.state.access
    return access


_api_key = HTTPBearer(auto_error=False, scheme_name="ApiKey", description="A secret of `NOTIFIER_API_KEYS`")
_token = HTTPBearer(
    auto_error=False,
    scheme_name="UserToken",
    bearerFormat="JWT",
    description="`sub` is the recipient's id; `aud` and `exp` are needed; HS256 or EdDSA",
)


def _given(credentials: _Credentials) -> str:
    if credentials is None or not credentials.credentials:
        raise _unauthorized("send the header Authorization: Bearer and a key or token")
    return credentials.credentials


def _scoped(*scopes: Scope) -> Callable[..., Coroutine[Any, Any, None]]:
    async def check(request: Request, given: Annotated[_Credentials, Depends(_api_key)]) -> None:
        _access(request).check(given, *scopes)

    return check


async def _metrics(request: Request, given: Annotated[_Credentials, Depends(_api_key)]) -> None:
    access = _access(request)
    if not access.metrics_open:
        access.check(given, "operate")


async def _holder(request: Request, given: Annotated[_Credentials, Depends(_token)]) -> Holder:
    return _access(request).tokens.holder(_given(given))


async def _user(holder: Annotated[Holder, Depends(_holder)]) -> str:
    return holder.recipient_id


async def _tokens(request: Request) -> TokenKeys:
    return _access(request).tokens


Publishes = Depends(_scoped("publish"))
ManagesRecipients = Depends(_scoped("recipients"))
Operates = Depends(_scoped("operate"))
PublishesOrOperates = Depends(_scoped("publish", "operate"))
SeesMetrics = Depends(_metrics)
"""For `APIRouter(dependencies=[…])`."""

User = Annotated[str, Depends(_user)]
"""A route's parameter: the id of the recipient whose token was sent."""

TokenHolder = Annotated[Holder, Depends(_holder)]
"""The same, and until when."""

Tokens = Annotated[TokenKeys, Depends(_tokens)]
"""A route's parameter: what signs tokens."""


def check_origin(origin: str) -> str:
    """An entry of `NOTIFIER_CORS_ORIGINS`. Raises ConfigurationError."""
    if not re.fullmatch(r"https?://[A-Za-z0-9.-]+(:[0-9]{1,5})?", origin):
        raise ConfigurationError(
            "NOTIFIER_CORS_ORIGINS", f"{origin!r} is not an origin such as https://app.example.com"
        )
    return origin
