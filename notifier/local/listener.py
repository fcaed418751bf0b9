"""A server on 127.0.0.1 that hangs up on every client when it closes."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Listener:
    """A context manager: runs `serve` for each client, and closes its connection when `serve` ends.

    An OSError of `serve` is that of a client who has gone. Others are told by the event loop, like those of
    asyncio's own servers. With `tls` it speaks TLS.
    """

    def __init__(self, serve: Serve, host: str = "127.0.0.1", *, tls: ssl.SSLContext | None = None) -> None:
        self.port = 0
        self._serve = serve
        self._host = host
        self._tls = tls
        self._server: asyncio.Server | None = None
        self._clients: set[asyncio.Task[None]] = set()

    @property
    def clients(self) -> int:
        """How many are connected now."""
        return len(self._clients)

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def open(self, port: int = 0) -> int:
        """The port; 0 chooses one that is free. Raises OSError when it is in use."""
        self._server = await asyncio.start_server(self._accept, self._host, port, ssl=self._tls)
        self.port = self._server.sockets[0].getsockname()[1]
        return self.port

    async def close(self) -> None:
        """Refuses new clients and hangs up on all. Does nothing when it isn't open."""
        if self._server is None:
            return
        server, self._server = self._server, None
        server.close()
        # From Python 3.12 on wait_closed waits for the clients, who keep their connections.
        self.hang_up()
        await asyncio.gather(*self._clients, return_exceptions=True)
        await server.wait_closed()

    def hang_up(self) -> int:
        """Cuts every connection that is open now; how many."""
        for client in self._clients:
            client.cancel()
        return len(self._clients)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._server is None:  # it came while we were closing
            writer.transport.abort()
            return
        client = asyncio.create_task(self._run(reader, writer))
        self._clients.add(client)

        def gone(_client: asyncio.Task[None]) -> None:  # also when it was cancelled before it began
            self._clients.discard(client)
            writer.transport.abort()

        client.add_done_callback(gone)

    async def _run(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._serve(reader, writer)
            writer.close()
            await writer.wait_closed()  # until the rest is written
        except OSError:
            pass
