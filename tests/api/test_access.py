"""Keys and tokens: what is let in, and every known way to get in without one."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from notifier.api.access import ApiKeys, TokenKeys, check_origin, open_access
from notifier.api.problems import Problem
from notifier.errors import ConfigurationError
from notifier.settings import load
from tests.api.conftest import OPERATE, PUBLISH, RECIPIENTS, Api, serving

HS_KEY = b"h" * 32
ED_KEY = Ed25519PrivateKey.from_private_bytes(b"e" * 32)
ED_PUBLIC = ED_KEY.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
ED_PEM = ED_KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def b64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def keys(audience: str = "notifier") -> TokenKeys:
    return TokenKeys(f"hs256:{b64(HS_KEY)},eddsa:{b64(ED_PUBLIC)}", audience)


def claims(**changes: Any) -> dict[str, Any]:
    now = int(time.time())
    given = {"sub": "u1", "aud": "notifier", "exp": now + 3_600} | changes
    return {name: value for name, value in given.items() if value is not None}


def who(token: str) -> str:
    return keys().holder(token).recipient_id


def signed(header: dict[str, Any], body: dict[str, Any], key: bytes = HS_KEY) -> str:
    """A token by hand, with HMAC, whatever its header says."""

    def part(raw: bytes) -> bytes:
        return base64.urlsafe_b64encode(raw).rstrip(b"=")

    text = part(json.dumps(header).encode()) + b"." + part(json.dumps(body).encode())
    return (text + b"." + part(hmac.digest(key, text, "sha256"))).decode()


# Tokens.


@pytest.mark.parametrize(("key", "algorithm"), [(HS_KEY, "HS256"), (ED_KEY, "EdDSA")])
def test_a_token_stands_for_its_subject(key: Any, algorithm: str) -> None:
    assert who(jwt.encode(claims(sub="Jürgen ☀"), key, algorithm)) == "Jürgen ☀"
    assert who(jwt.encode(claims(aud=["other", "notifier"], iat=int(time.time())), key, algorithm)) == "u1"


def test_every_key_is_tried() -> None:
    tokens = TokenKeys(f"hs256:{b64(b'a' * 32)},hs256:{b64(b'b' * 40)}", "notifier")
    for key in (b"a" * 32, b"b" * 40):
        assert tokens.holder(jwt.encode(claims(), key, "HS256")).recipient_id == "u1"


def now_and(seconds: int) -> int:
    return int(time.time()) + seconds


ATTACKS: dict[str, Callable[[], str]] = {
    "nothing": lambda: "",
    "no token": lambda: "abc",
    "two parts": lambda: jwt.encode(claims(), HS_KEY, "HS256").rpartition(".")[0],
    "signature cut off": lambda: jwt.encode(claims(), HS_KEY, "HS256").rpartition(".")[0] + ".",
    "signature of another body": lambda: ".".join(
        [*jwt.encode(claims(sub="u2"), HS_KEY, "HS256").split(".")[:2],
         jwt.encode(claims(), HS_KEY, "HS256").split(".")[2]]
    ),
    "unsigned": lambda: jwt.encode(claims(), None, "none"),
    "alg None": lambda: signed({"alg": "None"}, claims()),
    "alg nOnE": lambda: signed({"alg": "nOnE"}, claims()),
    "no alg": lambda: signed({"typ": "JWT"}, claims()),
    "alg is a list": lambda: signed({"alg": ["HS256"]}, claims()),
    "another secret": lambda: jwt.encode(claims(), b"x" * 32, "HS256"),
    "HS384 with our key": lambda: jwt.encode(claims(), HS_KEY * 2, "HS384"),
    "public key as HMAC secret, raw": lambda: signed({"alg": "HS256"}, claims(), ED_PUBLIC),
    "public key as HMAC secret, PEM": lambda: signed({"alg": "HS256"}, claims(), ED_PEM),
    "EdDSA in name only": lambda: signed({"alg": "EdDSA"}, claims()),
    "HMAC secret as EdDSA": lambda: jwt.encode(
        claims(), Ed25519PrivateKey.from_private_bytes(HS_KEY), "EdDSA"
    ),
    "RSA": lambda: jwt.encode(claims(), generate_private_key(65_537, 2_048), "RS256"),
    "a key in its own header": lambda: jwt.encode(
        claims(), b"x" * 32, "HS256", headers={"jwk": {"kty": "oct", "k": b64(b"x" * 32)}}
    ),
    "critical extension": lambda: jwt.encode(claims(), HS_KEY, "HS256", headers={"crit": ["x"], "x": 1}),
    "expired": lambda: jwt.encode(claims(exp=now_and(-60)), HS_KEY, "HS256"),
    "not yet": lambda: jwt.encode(claims(nbf=now_and(3_600)), HS_KEY, "HS256"),
    "from the future": lambda: jwt.encode(claims(iat=now_and(3_600), exp=now_and(7_200)), HS_KEY, "HS256"),
    "no exp": lambda: jwt.encode(claims(exp=None), HS_KEY, "HS256"),
    "exp is text": lambda: signed({"alg": "HS256"}, claims(exp="never")),
    "exp is infinite": lambda: signed({"alg": "HS256"}, claims(exp=float("inf"))),
    "exp is no number": lambda: signed({"alg": "HS256"}, claims(exp=float("nan"))),
    "exp is huge": lambda: signed({"alg": "HS256"}, claims(exp=10**400)),
    "valid for years": lambda: jwt.encode(claims(exp=now_and(10**8)), HS_KEY, "HS256"),
    "valid for years, by its iat": lambda: jwt.encode(claims(iat=0), HS_KEY, "HS256"),
    "valid for years, iat of tomorrow": lambda: signed(
        {"alg": "HS256"}, claims(iat=now_and(10**8), exp=now_and(10**8 + 60))
    ),
    "iat is text": lambda: signed({"alg": "HS256"}, claims(iat="now")),
    "iat is infinite": lambda: signed({"alg": "HS256"}, claims(iat=float("-inf"))),
    "another audience": lambda: jwt.encode(claims(aud="billing"), HS_KEY, "HS256"),
    "no audience": lambda: jwt.encode(claims(aud=None), HS_KEY, "HS256"),
    "audience is an object": lambda: signed({"alg": "HS256"}, claims(aud={"notifier": 1})),
    "no subject": lambda: jwt.encode(claims(sub=None), HS_KEY, "HS256"),
    "empty subject": lambda: jwt.encode(claims(sub=""), HS_KEY, "HS256"),
    "subject with a line": lambda: jwt.encode(claims(sub="a\nb"), HS_KEY, "HS256"),
    "long subject": lambda: jwt.encode(claims(sub="x" * 201), HS_KEY, "HS256"),
    "subject is a number": lambda: signed({"alg": "HS256"}, claims(sub=1)),
    "subject is half a character": lambda: signed({"alg": "HS256"}, claims(sub="\ud800")),
    "claims are a list": lambda: signed({"alg": "HS256"}, [1]),  # type: ignore[arg-type]
    "deep header": lambda: base64.urlsafe_b64encode(b"[" * 2_001).decode() + ".e30.c2ln",
    "deep claims": lambda: f"{signed({'alg': 'HS256'}, claims()).split('.')[0]}.{b64(b'[' * 2_001)}.c2ln",
    "huge": lambda: jwt.encode(claims(fill="x" * 10_000), HS_KEY, "HS256"),
}  # fmt: skip


@pytest.mark.parametrize("name", ATTACKS)
@pytest.mark.filterwarnings("ignore::jwt.warnings.InsecureKeyLengthWarning")
def test_a_token_that_is_not_ours_is_refused(name: str) -> None:
    with pytest.raises(Problem) as caught:
        who(ATTACKS[name]())
    assert caught.value.status_code == 401
    assert "WWW-Authenticate" in (caught.value.headers or {})


def test_what_we_sign_is_valid_for_a_day_at_most() -> None:
    for lifetime, seconds in ((timedelta(minutes=5), 300), (timedelta(days=30), 86_400)):
        token, expires = keys().sign("u1", lifetime)
        assert who(token) == "u1"
        assert abs(expires - time.time() - seconds) < 5


def test_without_an_hs256_key_nothing_is_signed() -> None:
    with pytest.raises(Problem) as caught:
        TokenKeys(f"eddsa:{b64(ED_PUBLIC)}", "notifier").sign("u1", timedelta(hours=1))
    assert caught.value.status_code == 409


# Keys.


async def test_each_scope_opens_its_own_routes(api: Api) -> None:
    for secret, status in ((PUBLISH, 202), (RECIPIENTS, 403), (OPERATE, 403)):
        async with api.with_key(secret) as client:
            response = await client.post("/v1/events", json={"type": "like", "recipient": "u1"})
            assert response.status_code == status
    for secret, status in ((PUBLISH, 403), (RECIPIENTS, 403), (OPERATE, 200)):
        async with api.with_key(secret) as client:
            assert (await client.get("/metrics")).status_code == status


@pytest.mark.parametrize(
    "header",
    [None, "", "Bearer", f"Basic {PUBLISH}", PUBLISH, f"Bearer {PUBLISH}x", f"Bearer {PUBLISH[:-1]}",
     f"Bearer {PUBLISH.upper()}", f"Bearer publish:{PUBLISH}", "Bearer Jürgen", f"Bearer {'x' * 20_000}",
     f"Bearer {hashlib.sha256(PUBLISH.encode()).hexdigest()}"],
)  # fmt: skip
async def test_without_a_known_key_nothing_opens(header: str | None, api: Api) -> None:
    headers = [] if header is None else [(b"Authorization", header.encode())]
    response = await api.client.post("/v1/events", json={"type": "like", "recipient": "u1"}, headers=headers)
    assert response.status_code == 401
    assert response.headers["WWW-Authenticate"] == "Bearer"
    assert response.headers["Content-Type"] == "application/problem+json"
    assert PUBLISH not in response.text


async def test_a_token_opens_nothing_of_the_services_and_a_key_no_inbox(api: Api) -> None:
    async with api.user("u1") as client:
        response = await client.post("/v1/events", json={"type": "like", "recipient": "u1"})
        assert response.status_code == 401
        assert (await client.get("/metrics")).status_code == 401


async def test_keys_of_a_scope_can_be_replaced_one_by_one(redis_url: str) -> None:
    old, new = "old-secret-0123456789", "new-secret-0123456789"
    async with serving(redis_url, NOTIFIER_API_KEYS=f"publish:{old}, publish:{new},operate:{new},") as api:
        for secret in (old, new):
            async with api.with_key(secret) as client:
                event = {"type": "like", "recipient": "u1"}
                assert (await client.post("/v1/events", json=event)).status_code == 202
        async with api.with_key(new) as client:
            assert (await client.get("/metrics")).status_code == 200
        async with api.with_key(old) as client:
            assert (await client.get("/metrics")).status_code == 403


async def test_metrics_can_be_open(redis_url: str) -> None:
    async with serving(redis_url, NOTIFIER_METRICS_OPEN="true") as api:
        assert (await api.client.get("/metrics")).status_code == 200
        assert (await api.client.post("/v1/events", json={})).status_code == 401


def test_every_key_is_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    known = ApiKeys(",".join(f"publish:{number:016d}" for number in range(5)))
    compared: list[bytes] = []
    real = hmac.compare_digest

    def compare(one: bytes, other: bytes) -> bool:
        compared.append(other)
        return real(one, other)

    monkeypatch.setattr("notifier.api.access.hmac.compare_digest", compare)
    for secret, found in ((f"{0:016d}", {"publish"}), (f"{4:016d}", {"publish"}), ("nobody", set())):
        compared.clear()
        assert known.scopes(secret) == found
        assert len(compared) == 5


# Settings.


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("API_KEYS", "publish"),
        ("API_KEYS", "secret0123456789abcdef"),
        ("API_KEYS", "admin:secret0123456789abcdef"),
        ("API_KEYS", "publish:secret-too-short"[:23]),
        ("API_KEYS", "publish:secret with blanks in it"),
        ("API_KEYS", "publish:secretß0123456789abcdef"),
        ("API_KEYS", f"publish:{PUBLISH},operate:secret"),
        ("TOKEN_KEYS", "secret"),
        ("TOKEN_KEYS", f"hs256:{b64(b's' * 31)}"),
        ("TOKEN_KEYS", "hs256:secret!"),
        ("TOKEN_KEYS", f"eddsa:{b64(b's' * 33)}"),
        ("TOKEN_KEYS", f"rs256:{b64(b's' * 32)}"),
    ],
)
def test_a_key_that_can_not_be_used_is_refused_without_being_shown(setting: str, value: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        open_access(load({f"NOTIFIER_{setting}": value}))
    assert caught.value.setting == f"NOTIFIER_{setting}"
    assert "secret" not in str(caught.value).replace("the secret of key", "")
    assert "c3Nz" not in str(caught.value)
    assert "secret0" not in repr(load({f"NOTIFIER_{setting}": value}))


def test_no_key_at_all_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="NOTIFIER_API_KEYS: is needed"):
        open_access(load({}))


@pytest.mark.parametrize("key", [ED_PUBLIC, HS_KEY])
def test_keys_may_be_written_as_base64url_too(key: bytes) -> None:
    kind = "eddsa" if key == ED_PUBLIC else "hs256"
    assert TokenKeys(f"{kind}:{base64.urlsafe_b64encode(key).decode().rstrip('=')}", "notifier")


# Browsers of other origins.


async def test_other_origins_are_let_in_by_list(redis_url: str) -> None:
    ours, theirs = "https://app.example.com", "https://evil.example.com"
    async with serving(redis_url, NOTIFIER_CORS_ORIGINS=f"{ours},http://127.0.0.1:3000") as api:
        for origin, is_allowed in ((ours, True), (theirs, False), (f"{ours}.evil.example.com", False)):
            asked = {"Origin": origin, "Access-Control-Request-Method": "GET",
                     "Access-Control-Request-Headers": "authorization"}  # fmt: skip
            preflight = await api.client.options("/v1/inbox", headers=asked)
            plain = await api.client.get("/livez", headers={"Origin": origin})
            for response in (preflight, plain):
                assert (response.headers.get("Access-Control-Allow-Origin") == origin) == is_allowed
                assert "Access-Control-Allow-Credentials" not in response.headers


async def test_browsers_may_send_and_read_each_header_of_the_document(redis_url: str) -> None:
    origin = "https://app.example.com"
    async with serving(redis_url, NOTIFIER_CORS_ORIGINS=origin) as api:
        operations = [one for resource in api.app.openapi()["paths"].values() for one in resource.values()]
        sent = {
            p["name"].lower() for one in operations for p in one.get("parameters", ()) if p["in"] == "header"
        }
        read = {
            name.lower()
            for one in operations
            for response in one["responses"].values()
            for name in response.get("headers", ())
        }
        assert {"if-match", "idempotency-key"} <= sent - {"accept-encoding"}
        asked = {"Origin": origin, "Access-Control-Request-Method": "PUT",
                 "Access-Control-Request-Headers": ", ".join(sorted(sent))}  # fmt: skip
        preflight = await api.client.options("/v1/recipients/u1", headers=asked)
        assert preflight.status_code == 200, preflight.text
        plain = await api.client.get("/livez", headers={"Origin": origin})
        exposed = plain.headers["Access-Control-Expose-Headers"].lower().split(", ")
        assert "etag" in read
        assert read <= set(exposed)


async def test_without_a_list_no_origin_is_let_in(api: Api) -> None:
    response = await api.client.get("/livez", headers={"Origin": "https://app.example.com"})
    assert "Access-Control-Allow-Origin" not in response.headers


@pytest.mark.parametrize(
    "origin", ["*", "app.example.com", "https://app.example.com/", "https://a b", "null"]
)
def test_what_is_no_origin_is_refused(origin: str) -> None:
    with pytest.raises(ConfigurationError, match="NOTIFIER_CORS_ORIGINS"):
        check_origin(origin)
