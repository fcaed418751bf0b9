"""The header `Idempotency-Key` (draft-ietf-httpapi-idempotency-key-header): a request that is sent twice.

The broker keeps for a day which body came under a key, and who had its events before; that is all an answer
holds which the body does not. Events without an id get one that is made of key and body, so they are accepted
once even if the process dies between publishing and keeping the answer.
"""

from __future__ import annotations

import hashlib
import re
import uuid
from collections.abc import Mapping
from contextlib import suppress
from datetime import timedelta
from typing import Any, Final

import structlog
from pydantic_core import from_json, to_json

from notifier.api.problems import Problem
from notifier.bootstrap import Runtime
from notifier.broker.scripts import ask
from notifier.errors import BrokerError

log = structlog.get_logger(__name__)

KEPT: Final = timedelta(hours=24)
BUSY: Final = timedelta(seconds=30)
"""How long a request that never ended keeps others of its key away."""

_KEY: Final = re.compile(r'"([\x20-\x21\x23-\x7e]{1,255})"|([\x21\x23-\x7e]{1,255})')
_FIELD: Final = "Idempotency-Key"

Notes = Mapping[int, list[int] | None]
"""What publishing told of the events, by their places: the places of those recipients who had one before, or
None for one that was refused. Others were new to everybody."""


class Repetition:
    """One request with a key."""

    def __init__(self, runtime: Runtime, key: str, owner: str, content: bytes) -> None:
        """`owner` is whose keys these are; `content` is all that makes the request what it is.

        Raises Problem (400) for a key that is none.
        """
        match = _KEY.fullmatch(key)
        if not match:
            reason = "must have 1 to 255 visible ASCII characters, with or without quotes around them"
            raise Problem(400, f"{_FIELD}: {reason}", errors=[(_FIELD, reason)])
        self._runtime = runtime
        self._fingerprint = hashlib.sha256(content).digest()
        digest = hashlib.sha256(f"{owner}\0{match[1] or match[2]}".encode(errors="replace")).digest()
        self._name = runtime.keys.idempotency(digest.hex())
        self._seed = digest + self._fingerprint

    def event_id(self, place: int) -> str:
        """The id of the event in this place: the same in every repetition (UUID version 8, RFC 9562)."""
        raw = bytearray(hashlib.sha256(self._seed + place.to_bytes(4, "big")).digest()[:16])
        raw[6] = raw[6] & 0x0F | 0x80
        raw[8] = raw[8] & 0x3F | 0x80
        return str(uuid.UUID(bytes=bytes(raw)))

    async def begin(self) -> Notes | None:
        """None for the first request; else what the answer to the first one was made of.

        Raises Problem: 422 when the key came with another body, 409 while the first is being answered.
        """
        there = await self._ask("SET", self._name, b"busy" + self._fingerprint, "NX", "GET", "PX", _ms(BUSY))
        if there is None:
            return None
        if there[4:36] != self._fingerprint:
            reason = "came with another body before"
            raise Problem(422, f"{_FIELD}: {reason}", errors=[(_FIELD, reason)])
        if there[:4] == b"busy":
            detail = "the first request with this Idempotency-Key is being answered"
            raise Problem(409, detail, headers={"Retry-After": "1"})
        return {int(event): places for event, places in from_json(there[36:]).items()}

    async def keep(self, notes: Notes) -> None:
        """Keeps the answer. A broker that is away now is no error: the events are accepted, and repeating
        them is harmless."""
        record = b"done" + self._fingerprint + to_json(notes)
        try:
            await self._ask("SET", self._name, record, "PX", _ms(KEPT))
        except BrokerError as error:
            log.warning("idempotency_not_kept", error=str(error))

    async def forget(self) -> None:
        """Lets the next request begin at once, after this one failed."""
        with suppress(BrokerError):  # it lapses by itself
            await self._ask("DEL", self._name)

    async def _ask(self, *command: Any) -> Any:
        [reply] = await ask(self._runtime.client, command)
        return reply


def _ms(time: timedelta) -> int:
    return int(time / timedelta(milliseconds=1))
