"""A client of `GET /v1/inbox/stream`: reads server-sent events as WHATWG HTML says, section 9.2."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx

from tests.support.waiting import DEADLINE


@dataclass(frozen=True, slots=True)
class Event:
    name: str
    id: str
    data: Any


class Stream:
    def __init__(self, response: httpx.Response) -> None:
        self.response = response
        self.retry_ms: int | None = None
        self.comments = 0
        self._lines = _lines(response)
        self.last_id: str | None = None

    async def next(self) -> Event:
        """Raises StopAsyncIteration at the end of the stream, TimeoutError when nothing comes."""
        name, data = "message", []
        async with asyncio.timeout(DEADLINE):
            while True:
                line = await anext(self._lines)
                field, _, value = line.partition(":")
                value = value.removeprefix(" ")
                if not line:
                    if data:
                        return Event(name, self.last_id or "", json.loads("\n".join(data)))
                elif not field:
                    self.comments += 1
                elif field == "event":
                    name = value
                elif field == "id":
                    self.last_id = value
                elif field == "retry":
                    self.retry_ms = int(value)
                elif field == "data":
                    data.append(value)

    async def take(self, count: int) -> list[Event]:
        return [await self.next() for _ in range(count)]

    async def rest(self) -> list[Event]:
        """What comes until the server ends the stream."""
        events = []
        while True:
            try:
                events.append(await self.next())
            except StopAsyncIteration:
                return events


async def _lines(response: httpx.Response) -> AsyncIterator[str]:
    """httpx would end a line at U+2028 too."""
    rest = b""
    async for some in response.aiter_bytes():
        *lines, rest = (rest + some).split(b"\n")
        for line in lines:
            yield line.removesuffix(b"\r").decode()


@asynccontextmanager
async def listening(client: httpx.AsyncClient, last_event_id: str | None = None) -> AsyncIterator[Stream]:
    headers = {} if last_event_id is None else {"Last-Event-ID": last_event_id}
    async with client.stream("GET", "/v1/inbox/stream", headers=headers) as response:
        assert response.status_code == 200, await response.aread()
        yield Stream(response)
