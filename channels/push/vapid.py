"""The VAPID key, and the tokens that it signs (RFC 8292)."""

from __future__ import annotations

import base64
import binascii
import re
import time
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from py_vapid import jwt

TOKEN_LIFE: Final = 12 * 3_600
"""Seconds; the RFC allows up to 24 hours."""
_RENEWED_BEFORE: Final = 3_600
_MOST_ORIGINS: Final = 1_000

_RAW_KEY = re.compile(r"[A-Za-z0-9_-]{43}=?")
# Apple's push service refuses a subject without a dotted domain.
_SUBJECT = re.compile(r"mailto:[^\s@<>,]+@[^\s@<>,.]+(\.[^\s@<>,.]+)+|https://[^\s/@.]+(\.[^\s/@.]+)+(/\S*)?")


def check_subject(text: str) -> str:
    """The same. Raises ValueError."""
    if not _SUBJECT.fullmatch(text) or not text.isascii():
        raise ValueError("is neither mailto:name@example.com nor https://example.com")
    return text


def check_key(text: str) -> str:
    """The same, unless it is a key in the form of 32 bytes and no good. A path is not looked at yet."""
    if _RAW_KEY.fullmatch(text):
        load_key(text)
    return text


def load_key(text: str) -> ec.EllipticCurvePrivateKey:
    """The private key from 32 bytes in base64url, or from a PEM file.

    Raises OSError when there is no such file, and ValueError, whose text never holds the key.
    """
    if _RAW_KEY.fullmatch(text):
        raw = text.rstrip("=") + "="
        try:
            number = int.from_bytes(base64.urlsafe_b64decode(raw), "big")
            return ec.derive_private_key(number, ec.SECP256R1())
        except (binascii.Error, ValueError):
            raise ValueError("is not a private key of P-256") from None
    try:
        key = load_pem_private_key(Path(text).read_bytes(), password=None)
    except (ValueError, TypeError):  # TypeError: it wants a password
        raise ValueError("is a file without a PEM private key, or with an encrypted one") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise ValueError("is a file whose key is not one of P-256")  # noqa: TRY004 - it is the file that is wrong
    return key


def public_key_of(key: ec.EllipticCurvePrivateKey) -> str:
    """The uncompressed point of the public key, base64url without padding (RFC 8292, section 3.2)."""
    point = key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    return base64.urlsafe_b64encode(point).rstrip(b"=").decode()


def check_public_key(text: str) -> str:
    """The same without padding. Raises ValueError when it is no uncompressed point of P-256 in base64url."""
    digits = text.rstrip("=")
    try:
        point = base64.b64decode(digits + "=" * (-len(digits) % 4), altchars=b"-_", validate=True)
        ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), point)
    except ValueError:
        point = b""
    if len(point) != 65:
        raise ValueError("is not a public key of P-256 in base64url")
    return digits


class VapidSigner:
    """Authorization headers, kept for each origin until an hour before they end."""

    def __init__(self, key: ec.EllipticCurvePrivateKey, subject: str) -> None:
        self._key = key
        self._subject = subject
        self._public = public_key_of(key)
        self._headers: dict[str, tuple[str, float]] = {}

    def authorization(self, origin: str) -> str:
        """The header's value for a push service. Signing takes 0.2 ms, looking up nothing."""
        now = time.time()
        known = self._headers.get(origin)
        if known is not None and now < known[1]:
            return known[0]
        if len(self._headers) >= _MOST_ORIGINS:  # origins come from browsers: they must not fill the memory
            self._headers.clear()
        claims = {"aud": origin, "sub": self._subject, "exp": int(now) + TOKEN_LIFE}
        # The bare signing function: py-vapid's classes refuse subjects with a path, and IPv6 origins.
        header = f"vapid t={jwt.sign(claims, self._key)}, k={self._public}"
        self._headers[origin] = (header, now + TOKEN_LIFE - _RENEWED_BEFORE)
        return header
