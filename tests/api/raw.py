"""Requests by hand, for what no client library would send."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from tests.api.conftest import PUBLISH


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Wire:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        with suppress(ConnectionError):
            await self.writer.drain()

    async def answer(self) -> Answer:
        """The next response, which has a length."""
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        status, *lines = head.split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines if line)}
        body = await self.reader.readexactly(int(headers.get("content-length", 0)))
        return Answer(int(status.split()[1]), headers, body)

    async def is_closed(self) -> bool:
        """Waits until the server has closed; whatever still comes is dropped."""
        with suppress(ConnectionError):
            while await self.reader.read(1 << 16):
                pass
        return True


@asynccontextmanager
async def wire(url: str) -> AsyncIterator[Wire]:
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    try:
        yield Wire(reader, writer)
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


def head(*lines: str, length: int | None = None, key: str = PUBLISH) -> bytes:
    """The head of a POST to /v1/events."""
    rows = ["POST /v1/events HTTP/1.1", "Host: localhost", "Content-Type: application/json"]
    rows += [f"Authorization: Bearer {key}", *lines]
    if length is not None:
        rows.append(f"Content-Length: {length}")
    return "\r\n".join([*rows, "", ""]).encode()
