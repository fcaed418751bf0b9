"""What every request goes through, and every response: plain ASGI, since it is on the way of each.

A request has an id: the client's `X-Request-Id`, or a new one. It stands in the response, in every log line
and in every problem.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from typing import Final

import structlog
from prometheus_client import Counter, Histogram
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from notifier.api import problems
from notifier.api.bodies import Body, limited
from notifier.uuid7 import uuid7

log = structlog.get_logger(__name__)

REQUESTS: Final = Counter(
    "notifier_http_requests_total", "Requests that were answered.", ["method", "route", "status"]
)
SECONDS: Final = Histogram(
    "notifier_http_request_seconds",
    "From the head of a request to the head of its answer.",
    ["route"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)

_REQUEST_ID: Final = re.compile(rb"[A-Za-z0-9][A-Za-z0-9._:/+=@-]{0,127}")
_HEADERS: Final = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
)
"""Set where the route has not set its own."""


def request_id(headers: Iterable[tuple[bytes, bytes]]) -> str:
    """The client's id if it is fit to be logged, or a new one."""
    for name, value in headers:
        if name == b"x-request-id" and _REQUEST_ID.fullmatch(value):
            return value.decode("ascii")
    return uuid7()


class Requests:
    """Outermost: gives the request its id, counts it, and answers what nobody else has answered."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        scope["request_id"] = request_id(scope["headers"])
        structlog.contextvars.bind_contextvars(request_id=scope["request_id"])
        body = limited(scope, receive)
        is_answered = False

        async def answer(message: Message) -> None:
            nonlocal is_answered
            if message["type"] == "http.response.start":
                is_answered = True
                _add_headers(message, scope, body)
                _count(scope, message["status"], time.perf_counter() - started)
            await send(message)

        try:
            await self._app(scope, body, answer)
        except ClientDisconnect:
            log.debug("client_left", method=scope["method"], route=_route(scope))
        except Exception as error:
            log.exception("request_failed", method=scope["method"], route=_route(scope))
            if is_answered:  # too late for another answer: the server cuts the connection
                raise
            response = problems.answer(problems.problem_of(error), scope["request_id"])
            await response(scope, receive, answer)


def _add_headers(message: Message, scope: Scope, body: Body) -> None:
    headers: list[tuple[bytes, bytes]] = list(message.get("headers", ()))
    there = {name.lower() for name, _ in headers}
    headers += [header for header in _HEADERS if header[0] not in there]
    headers.append((b"x-request-id", scope["request_id"].encode()))
    if not body.is_asked_for and any(name == b"expect" for name, _ in scope["headers"]):
        # The client waits for leave to send its body, and its next request would be taken for it.
        headers.append((b"connection", b"close"))
    message["headers"] = headers


def _route(scope: Scope) -> str:
    """The path as it was declared: what a client sends may hold a recipient's id."""
    return getattr(scope.get("route"), "path_format", "none")


def _count(scope: Scope, status: int, seconds: float) -> None:
    route = _route(scope)
    REQUESTS.labels(scope["method"], route, status).inc()
    SECONDS.labels(route).observe(seconds)
    if status >= 500:
        log.warning("request_not_served", method=scope["method"], route=route, status=status)
