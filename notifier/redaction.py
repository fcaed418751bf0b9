"""How people appear in logs: recognisable, not readable."""

from __future__ import annotations

import hashlib
import re


def redacted(recipient_id: bytes | str) -> str:
    """The first 12 hex digits of the id's BLAKE2b digest: the same for the same recipient."""
    source = recipient_id.encode() if isinstance(recipient_id, str) else recipient_id
    return hashlib.blake2b(source, digest_size=6).hexdigest()


def without_addresses(text: str) -> str:
    """A provider's words for the log: a mailbox becomes <address>, and of a URL, which may be a push
    endpoint and so a secret, the host is left."""
    if "@" not in text and "//" not in text:
        return text
    return _MAILBOX.sub("<address>", _URL.sub(r"\1…", text))


def traceback_without_addresses(text: str) -> str:
    """The same for a traceback, where hosts and users of servers stay: they say what went wrong."""
    return _IN_TRACEBACK.sub("<address>", _URL.sub(r"\1…", text))


_IN_TRACEBACK = re.compile(r"(?<![\w/*.+-])[\w.+-]+@[\w-]+\.[\w.-]+")
_MAILBOX = re.compile(r"[^\s<>()\[\]:;,\"']+@[^\s<>()\[\]:;,\"']+")
_URL = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]*://(?:[^\s/<>\"'@]*@)?[^\s/<>\"']+/)[^\s<>\"']+")
