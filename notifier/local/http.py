"""Enough of an HTTP/1.1 server for a local peer: small requests, kept connections (h11 parses)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import h11


@dataclass(frozen=True, slots=True)
class Request:
    """`path` has its query; names of `headers` are in lower case."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Response:
    status: int
    headers: Mapping[str, str]
    body: bytes


async def serve_connection(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    answer: Callable[[Request], Response],
    *,
    max_body: int,
) -> None:
    """Answer one client's requests until it goes. A body beyond `max_body` bytes is answered 413."""
    connection = h11.Connection(h11.SERVER)
    try:
        while True:
            head = await _next(connection, reader)
            if not isinstance(head, h11.Request):
                return
            body = await _body(connection, reader, max_body)
            response = Response(413, {}, b"too large") if body is None else answer(_request(head, body))
            writer.write(_encode(connection, response))
            await writer.drain()
            if body is None or connection.our_state is not h11.DONE:
                return
            connection.start_next_cycle()
    except h11.RemoteProtocolError:
        return  # the client speaks no HTTP


async def _next(connection: h11.Connection, reader: asyncio.StreamReader) -> object:
    while (event := connection.next_event()) is h11.NEED_DATA:
        if connection.they_are_waiting_for_100_continue:
            raise ConnectionError("100-continue is not spoken here")
        connection.receive_data(await reader.read(65_536))
    return event


async def _body(connection: h11.Connection, reader: asyncio.StreamReader, limit: int) -> bytes | None:
    body = b""
    while isinstance(event := await _next(connection, reader), h11.Data):
        body += event.data
        if len(body) > limit:
            return None
    return body


def _request(head: h11.Request, body: bytes) -> Request:
    headers = {name.decode("ascii"): value.decode("latin-1") for name, value in head.headers}
    return Request(head.method.decode("ascii"), head.target.decode("ascii"), headers, body)


def _encode(connection: h11.Connection, response: Response) -> bytes:
    headers = {**response.headers, "Content-Length": str(len(response.body))}
    out = connection.send(h11.Response(status_code=response.status, headers=list(headers.items())))
    out = (out or b"") + (connection.send(h11.Data(data=response.body)) or b"")
    return out + (connection.send(h11.EndOfMessage()) or b"")
