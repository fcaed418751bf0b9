"""The files that a browser loads: `<notifier-inbox>`, its German texts, and the service worker of Web Push.

They are the same for everybody and hold no secret, so they take no key, and any site may load them. They
are compressed once, when they are first asked for.
"""

from __future__ import annotations

import gzip
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Annotated, Final

from fastapi import APIRouter, Header, Request, Response

from notifier.api.problems import Problem

router = APIRouter(prefix="/web", include_in_schema=False)

INBOX: Final = "notifier-inbox.js"
GERMAN: Final = "notifier-inbox.de.js"
WORKER: Final = "notifier-push-worker.js"

_TYPE: Final = "text/javascript; charset=utf-8"
_HEADERS: Final[Mapping[str, str]] = {
    # A page on another site loads a module only when it is told that it may.
    "Access-Control-Allow-Origin": "*",
    "Cross-Origin-Resource-Policy": "cross-origin",
    "Cache-Control": "public, max-age=300, stale-while-revalidate=86400",
    "Vary": "Accept-Encoding",
}
_OWN_HEADERS: Final[Mapping[str, Mapping[str, str]]] = {
    INBOX: {},
    GERMAN: {},
    WORKER: {
        "Cache-Control": "no-cache",
        # Behind a proxy of the app's own site it may serve all of that site, not only /web/.
        "Service-Worker-Allowed": "/",
        # A worker's policy is that of its own file. It reaches the API and the app's backend.
        "Content-Security-Policy": "default-src 'none'; connect-src *",
    },
}

_GZIP: Final = re.compile(r"(?:gzip|\*)(?:\s*;\s*q=(?:1(?:\.0{0,3})?|0\.(?!0{0,3}$)[0-9]{1,3}))?")


@dataclass(frozen=True, slots=True)
class _File:
    plain: bytes
    packed: bytes
    digest: str


@cache
def _read(name: str) -> _File:
    plain = files("notifier").joinpath("web", name).read_bytes()
    return _File(plain, gzip.compress(plain, 9, mtime=0), hashlib.sha256(plain).hexdigest()[:32])


@router.api_route("/{name}", methods=["GET", "HEAD"])
async def web_file(
    request: Request,
    name: str,
    accept_encoding: Annotated[str, Header()] = "",
    if_none_match: Annotated[str, Header()] = "",
) -> Response:
    """A file by its name."""
    if name not in _OWN_HEADERS:
        raise Problem(404, "there is no such file")
    file = _read(name)
    packed = _takes_gzip(accept_encoding)
    body = file.packed if packed else file.plain
    etag = f'"{file.digest}-gz"' if packed else f'"{file.digest}"'
    headers = {**_HEADERS, **_OWN_HEADERS[name], "ETag": etag}
    # Both forms have the same content; a proxy may have turned the tag into a weak one.
    known = {tag.strip().removeprefix("W/") for tag in if_none_match.split(",")}
    if known & {"*", f'"{file.digest}"', f'"{file.digest}-gz"'}:
        return Response(status_code=304, headers=headers)
    if packed:
        headers["Content-Encoding"] = "gzip"
    headers["Content-Length"] = str(len(body))
    return Response(b"" if request.method == "HEAD" else body, headers=headers, media_type=_TYPE)


def _takes_gzip(accepted: str) -> bool:
    """Whether an Accept-Encoding names gzip and does not refuse it (RFC 9110, section 12.5.3)."""
    return any(_GZIP.fullmatch(part.strip()) for part in accepted.lower().split(","))
