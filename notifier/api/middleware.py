"""What every request goes through, and every response: plain ASGI, since it is on the way of each.

A request has an id: the client's `X-Request-Id`, or a new one. It stands in the response, in every log line
and in every problem.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

import structlog
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from notifier.api import problems
from notifier.event import uuid7

log = structlog.get_logger(__name__)

_REQUEST_ID: Final = re.compile(rb"[A-Za-z0-9][A-Za-z0-9._:/+=@-]{0,127}")
_HEADERS: Final[Mapping[str, str]] = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
}
"""Set where the route has not set its own."""


def request_id(headers: list[tuple[bytes, bytes]]) -> str:
    """The client's id if it is fit to be logged, or a new one."""
    for name, value in headers:
        if name == b"x-request-id" and _REQUEST_ID.fullmatch(value):
            return value.decode("ascii")
    return uuid7()


class Requests:
    """Outermost: gives the request its id, and answers what nobody else has answered."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        scope["request_id"] = request_id(scope["headers"])
        structlog.contextvars.bind_contextvars(request_id=scope["request_id"])
        started = False

        async def send_with_headers(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                headers = MutableHeaders(scope=message)
                headers["X-Request-Id"] = scope["request_id"]
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            await self._app(scope, receive, send_with_headers)
        except Exception as error:
            log.exception("request_failed", method=scope["method"])
            if started:  # too late for an answer: the server cuts the connection
                raise
            response = problems.answer(problems.problem_of(error), scope["request_id"])
            await response(scope, receive, send_with_headers)
