"""The app's own site: a page with the inbox, a backend that signs tokens, and the push worker."""

from __future__ import annotations

import asyncio
import html
from collections.abc import Callable
from datetime import timedelta
from importlib.resources import files
from types import TracebackType
from typing import Self

from notifier.local.http import Request, Response, serve_connection
from notifier.local.listener import Listener

POLICY = (
    "default-src 'none'; script-src 'self' {api}; style-src 'self'; connect-src 'self' {api}; "
    "worker-src 'self'; img-src 'self' data:; base-uri 'none'; "
    "require-trusted-types-for 'script'; trusted-types notifier-inbox app"
)
_PAGE = """<!doctype html>
<html lang="{lang}" dir="{dir}">
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>Harbour</title><link rel="icon" href="data:,"><link rel="stylesheet" href="/style.css">
<script type="module" src="{api}/web/notifier-inbox.js"></script></head>
<body><nav><a href="/">Harbour</a><notifier-inbox {attributes}></notifier-inbox></nav>
<main><h1>Photos</h1><p>What the app is about.</p><button>A button of the app</button></main></body>
</html>"""
_STYLE = """:root { color-scheme: light dark; font: 15px/1.5 system-ui, sans-serif; }
body { margin: 0; min-height: 100vh; background: light-dark(#f5f6f8, #0f1115); }
nav { display: flex; align-items: center; justify-content: space-between; padding: 8px 16px;
  background: light-dark(#fff, #171a20); border-bottom: 1px solid light-dark(#e2e5ea, #2c313b); }
nav a { color: inherit; font-weight: 700; text-decoration: none; }
main { max-width: 720px; margin: 0 auto; padding: 24px 16px; }"""


class Site:
    """`GET /` is the page for ada; `?as=bob&lang=de&dir=rtl` and attributes are as the query says.

    A context manager on a free port of 127.0.0.1. `tokens` counts those that it gave; `pages` are more pages,
    by path.
    """

    def __init__(self) -> None:
        self.api_url = ""
        self.sign: Callable[[str, timedelta], str] = lambda _who, _lifetime: ""
        self.lifetime = timedelta(minutes=5)
        self.signed_in = True
        self.tokens = 0
        self.pages: dict[str, Response] = {}
        self._listener = Listener(self._serve)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._listener.port}"

    async def __aenter__(self) -> Self:
        await self._listener.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._listener.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await serve_connection(reader, writer, self._answer, max_body=10_000)

    def _answer(self, request: Request) -> Response:
        path, _, query = request.path.partition("?")
        options = dict(part.split("=", 1) for part in query.split("&") if "=" in part)
        if path in self.pages:
            return self.pages[path]
        if path in {"/token", "/notifier-token"}:
            if not self.signed_in:
                return Response(401, {}, b"")
            self.tokens += 1
            return Response(
                200,
                {"Content-Type": "text/plain"},
                self.sign(options.get("as", "ada"), self.lifetime).encode(),
            )
        if path == "/style.css":
            return Response(200, {"Content-Type": "text/css"}, _STYLE.encode())
        if path == "/notifier-push-worker.js":
            worker = files("notifier").joinpath("web/notifier-push-worker.js").read_bytes()
            return Response(200, {"Content-Type": "text/javascript"}, worker)
        return self._page(options)

    def _page(self, options: dict[str, str]) -> Response:
        who, lang, direction = (options.pop(name, default) for name, default in _DEFAULTS.items())
        given = {"token-url": f"/token?as={who}", **options}
        attributes = " ".join(f'{name}="{html.escape(value)}"' for name, value in given.items())
        page = _PAGE.format(lang=lang, dir=direction, api=self.api_url, attributes=attributes)
        policy = POLICY.format(api=self.api_url)
        headers = {"Content-Type": "text/html; charset=utf-8", "Content-Security-Policy": policy}
        return Response(200, headers, page.encode())


_DEFAULTS = {"as": "ada", "lang": "en", "dir": "ltr"}
