"""A TCP proxy before the broker that cuts connections where it hurts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

from notifier.local.broker import free_port
from notifier.local.listener import Listener


class Proxy:
    """Passes bytes on. Each rule is used once, on the first request that contains its bytes.

    A request here is what one read from the client brought, which for a small command is the whole of it.
    """

    def __init__(self, upstream_host: str, upstream_port: int) -> None:
        self._upstream = (upstream_host, upstream_port)
        self._before: list[bytes] = []
        self._after: list[bytes] = []
        self.cuts = 0
        self.accepted = 0  # connections, ever
        self._listener = Listener(self._serve)

    @property
    def port(self) -> int:
        return self._listener.port

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def cut(self, request: bytes, *, after: bool) -> None:
        """The next request with these bytes never reaches the server; or, `after`, the server runs it, and
        its answer never reaches the client."""
        (self._after if after else self._before).append(request)

    async def start(self, port: int = 0) -> None:
        # A port of its own kind: while it is stopped, no connection that goes out is given this one.
        await self._listener.open(port or free_port())

    async def stop(self) -> None:
        """Refuses new connections and cuts all that are open; `start(port)` brings it back."""
        await self._listener.close()

    def cut_all(self) -> None:
        """Cuts every connection that is open now."""
        self.cuts += self._listener.hang_up()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        up_reader, up_writer = await asyncio.open_connection(*self._upstream)
        silent = asyncio.Event()
        back = asyncio.create_task(self._answers(up_reader, writer, silent))
        try:
            while data := await reader.read(1 << 20):
                if not silent.is_set() and _take(self._before, data):
                    self.cuts += 1
                    return
                if not silent.is_set() and _take(self._after, data):  # else it is cut already
                    silent.set()  # from the server's next answer on
                up_writer.write(data)
                await up_writer.drain()
        finally:
            back.cancel()
            for side in (writer, up_writer):
                side.transport.abort()
            await asyncio.gather(back, return_exceptions=True)

    async def _answers(
        self, upstream: asyncio.StreamReader, client: asyncio.StreamWriter, silent: asyncio.Event
    ) -> None:
        try:
            while data := await upstream.read(1 << 20):
                if silent.is_set():
                    self.cuts += 1
                    client.transport.abort()
                    return
                client.write(data)
                await client.drain()
        except ConnectionError:  # the server was killed
            pass
        client.close()


def _take(rules: list[bytes], data: bytes) -> bool:
    for rule in rules:
        if rule in data:
            rules.remove(rule)
            return True
    return False


@asynccontextmanager
async def open_proxy(url: str) -> AsyncIterator[Proxy]:
    parts = urlsplit(url)
    proxy = Proxy(parts.hostname or "127.0.0.1", parts.port or 6379)
    await proxy.start()
    try:
        yield proxy
    finally:
        await proxy.stop()
