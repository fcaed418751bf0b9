"""The page of `notifier dev`: an inbox beside a form that publishes, in front of the HTTP API.

The page holds no key: it publishes through `POST /dev/events`, and asks `GET /dev/events/{id}` what became of
it; the key is added on this side. It reads the inbox with short-lived tokens of `GET /dev/token`. Whoever can
call these can publish as the app, so:

- Each request must name this machine as its host. A site that lets its own name point here (DNS rebinding)
  sends that name, and is refused.
- What changes something must come from the page itself: a browser says so in `Sec-Fetch-Site` and `Origin`,
  and asks before it sends JSON to another site, which nobody answers.
- No answer may be read by another site, and the page may be in no frame.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from importlib.resources import files
from typing import Any, Final

from starlette.datastructures import Headers
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route, Router
from starlette.types import ASGIApp, Receive, Scope, Send

from notifier.errors import TemplateError
from notifier.local.seeds import SEEDED
from notifier.rendering import TemplateFolder, sample_of

TOKEN_LIFETIME: Final = timedelta(minutes=5)

_HOSTS: Final = frozenset({"127.0.0.1", "localhost"})
_EVENTS: Final = "/dev/events"
_TYPES: Final[Mapping[str, str]] = {
    "dev.html": "text/html; charset=utf-8",
    "dev.css": "text/css; charset=utf-8",
    "dev.js": "text/javascript; charset=utf-8",
    "notifier-push-worker.js": "text/javascript; charset=utf-8",
}
_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; worker-src 'self'; "
    "img-src 'self' https: data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types notifier-inbox"
)
_HEADERS: Final[Mapping[str, str]] = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": _POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}

Sign = Callable[[str, timedelta], tuple[str, int]]
"""A token for a recipient, and when it expires."""


class DevPage:
    """ASGI middleware around the API: answers the page's own paths, hands on the others."""

    def __init__(self, app: ASGIApp, *, sign: Sign, publish_key: str, templates: TemplateFolder) -> None:
        self._app = app
        self._sign = sign
        self._publish_key = publish_key
        self._templates = templates
        pages = [Route("/", _file("dev.html")), Route("/dev/types", self._event_types)]
        pages += [Route(f"/{name}", _file(name)) for name in _TYPES if name != "dev.html"]
        # A router inside of an app raises what it refuses, such as another method than GET.
        self._pages = ExceptionMiddleware(Router([*pages, Route("/dev/token", self._token)]))
        self._paths = {route.path for route in pages} | {"/dev/token"}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        if not _names_this_machine(headers.get("host", "")):
            refusal = PlainTextResponse("this is for http://127.0.0.1 and http://localhost only", 421)
            await refusal(scope, receive, send)
        elif scope["path"] == _EVENTS or scope["path"].startswith(f"{_EVENTS}/"):
            await self._events(scope, headers, receive, send)
        elif scope["path"] in self._paths:
            await self._pages(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _events(self, scope: Scope, headers: Headers, receive: Receive, send: Send) -> None:
        if not _comes_from_the_page(headers):
            await PlainTextResponse("this is for the page alone", 403)(scope, receive, send)
            return
        kept = [(name, value) for name, value in scope["headers"] if name != b"authorization"]
        kept.append((b"authorization", f"Bearer {self._publish_key}".encode()))
        path = scope["path"].replace("/dev/", "/v1/", 1)
        raw_path = scope["raw_path"].replace(b"/dev/", b"/v1/", 1)
        await self._app({**scope, "path": path, "raw_path": raw_path, "headers": kept}, receive, send)

    async def _token(self, request: Request) -> Response:
        who = request.query_params.get("for")
        if not _comes_from_the_page(request.headers) or who not in {person.id for person in SEEDED}:
            return PlainTextResponse("tokens are for the page, and for ada and bob", 403, _HEADERS)
        token, _ = self._sign(who, TOKEN_LIFETIME)
        return PlainTextResponse(token, headers=_HEADERS)

    async def _event_types(self, _: Request) -> Response:
        people = [{"id": one.id, "name": one.name, "locale": one.locale} for one in SEEDED]
        return JSONResponse({"people": people, "types": event_types(self._templates)}, headers=_HEADERS)


def event_types(templates: TemplateFolder) -> list[dict[str, Any]]:
    """Each event type with its channels and an event to start from: that of its sample, for nobody yet."""
    found = []
    for kind in templates.catalogue.kinds.values():
        event: dict[str, Any] = {"type": kind.type, "data": {}}
        try:
            sample = sample_of(templates, kind.type)
        except TemplateError:
            pass  # there are others; `notifier templates check` tells of it
        else:
            actor = sample.actor.model_dump(exclude_none=True) if sample.actor else None
            event = {"type": kind.type, **({"actor": actor} if actor else {}), "data": sample.data}
        found.append({"type": kind.type, "channels": list(kind.channels), "event": event})
    return found


def _file(name: str) -> Callable[[Request], Response]:
    content = files("notifier").joinpath("web", name).read_bytes()

    def answer(_: Request) -> Response:
        return Response(content, headers=_HEADERS, media_type=_TYPES[name])

    return answer


def _names_this_machine(host: str) -> bool:
    name, _, port = host.partition(":")
    return name in _HOSTS and (not port or port.isdecimal())


def _comes_from_the_page(headers: Headers) -> bool:
    """Whether a browser says so; a program that is no browser may be on this machine only."""
    site = headers.get("sec-fetch-site")
    origin = headers.get("origin")
    return site in {None, "same-origin"} and origin in {None, f"http://{headers.get('host')}"}
