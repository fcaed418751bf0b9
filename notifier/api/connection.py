"""A connection that does not wait for ever, and takes no more than it should.

uvicorn bounds neither how long a client may take over its request (Slowloris) nor how large the head may
be, so this does. Times are only noted while data flows; `Server` looks at all connections once a second.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import Any, Final, Literal

from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from notifier.api import problems


@dataclass(frozen=True, slots=True)
class Limits:
    """Sizes in bytes, times in seconds.

    connections    open at once; one more gets 503 to whatever it asks
    head_bytes     request line and headers; 431
    headers        how many; 431
    url_bytes      the target; 414
    head           from the first byte of a head to its end, and from a connection to its first byte
    pace_bytes     of a body have to come in each `pace`, while it is us who wait
    rest           what still comes of a body after the answer is read and dropped, for so long
    write          a client may leave an answer unread; a stream that is not read is cut as well
    """

    connections: int = 10_000
    head_bytes: int = 32 * 1024
    headers: int = 100
    url_bytes: int = 8 * 1024
    head: float = 10.0
    pace_bytes: int = 32 * 1024
    pace: float = 10.0
    rest: float = 5.0
    write: float = 30.0


class _Refused(Exception):
    """Raised in the parser's callbacks."""


async def _overloaded(scope: Scope, receive: Receive, send: Send) -> None:
    """What a connection too many is answered."""
    headers = {"Retry-After": problems.RETRY_AFTER, "Connection": "close"}
    problem = problems.Problem(503, "too many connections", headers=headers)
    await problems.answer(problem, None)(scope, receive, send)


class Connection(HttpToolsProtocol):
    """HTTP/1.1 within `limits`."""

    limits: Limits

    def __init__(self, *arguments: Any, limits: Limits, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.limits = limits
        self._waits_for: Literal["head", "pace", "rest"] | None = None  # None while it is our turn
        self._since = 0.0
        self._stalled: float | None = None
        self._in_head = False
        self._head_bytes = 0  # of what came while the head was not complete
        self._header_bytes = 0
        self._body_bytes = 0  # since `_since`
        self._refusal = 400

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self.limits.connections:
            whole = self.app

            async def let_through(scope: Scope, receive: Receive, send: Send) -> None:
                # A supervisor that gets no answer would kill what is merely busy.
                app: Any = whole if scope["path"] == "/livez" else _overloaded
                await app(scope, receive, send)

            self.app = let_through
        self._wait_for("head")

    def _wait_for(self, what: Literal["head", "pace", "rest"]) -> None:
        self._waits_for = what
        self._since = self.loop.time()

    def is_overdue(self, now: float) -> bool:
        """Whether the client has let us wait for too long."""
        if self._stalled is not None and now - self._stalled > self.limits.write:
            return True
        if self._waits_for is None or now - self._since <= getattr(self.limits, self._waits_for):
            return False
        is_at_pace = self._waits_for == "pace" and self._body_bytes >= self.limits.pace_bytes
        if is_at_pace or self.flow.read_paused:
            self._since, self._body_bytes = now, 0
            return False
        return True

    # The parser's callbacks, in the order of a request.

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head, self._head_bytes, self._header_bytes = True, 0, 0
        self._wait_for("head")

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        if len(self.url) > self.limits.url_bytes:
            self._refuse(414)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._header_bytes += len(name) + len(value) + 4
        if self._header_bytes > self.limits.head_bytes or len(self.headers) >= self.limits.headers:
            self._refuse(431)
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        hosts = sum(name == b"host" for name, _ in self.headers)
        if hosts > 1 or (not hosts and self.parser.get_http_version() == "1.1"):
            self._refuse(400)  # RFC 9112, 3.2: a proxy in front may take it for another host's
        super().on_headers_complete()
        self._in_head, self._body_bytes = False, 0
        self._wait_for("pace")

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._waits_for = None
        super().on_message_complete()

    def on_response_complete(self) -> None:
        if self._waits_for == "pace":  # answered before the body was there
            self._wait_for("rest")
        super().on_response_complete()

    def _refuse(self, status: int) -> None:
        self._refusal = status
        raise _Refused

    # What the transport tells.

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        super().data_received(data)
        if self._in_head:
            # The parser tells a header when all of it is there.
            self._head_bytes += len(data)
            if self._head_bytes > self.limits.head_bytes and not self.transport.is_closing():
                self._refusal = 431
                self.send_400_response("")

    def pause_writing(self) -> None:
        self._stalled = self.loop.time()
        super().pause_writing()

    def resume_writing(self) -> None:
        self._stalled = None
        super().resume_writing()

    def send_400_response(self, msg: str) -> None:
        """What can't be read as a request is answered in our form, unless an answer is on its way."""
        cycle: Any = self.cycle  # None before the first request
        if cycle is None or cycle.response_complete or not cycle.response_started:
            body = json.dumps(problems.body_of(self._refusal, _DETAILS[self._refusal])).encode()
            self.transport.write(
                b"%scontent-type: %s\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%s"
                % (STATUS_LINE[self._refusal], problems.MEDIA_TYPE.encode(), len(body), body)
            )
        self.transport.close()

    def _unsupported_upgrade_warning(self) -> None:
        """Nothing here can be upgraded to: the request is answered as it is, and is the last."""
        if self._in_head:  # the preface of HTTP/2 is no request
            self.send_400_response("")
        else:
            self.cycle.keep_alive = False


_DETAILS: Final = {
    400: "this is not an HTTP/1.1 request that can be read",
    414: "the URL is too long",
    431: "the head of the request is too large",
}
