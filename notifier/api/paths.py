"""Paths whose segments may hold any character, a slash too.

An ASGI server decodes the path before routes see it: `/v1/recipients/a%2Fb` would be two segments. So routes
are matched on the path as it came, and each parameter is decoded by itself.
"""

from __future__ import annotations

from typing import Annotated, Any, Final
from urllib.parse import unquote_to_bytes

from fastapi import Path
from pydantic import BeforeValidator
from pydantic_core import PydanticCustomError
from starlette.types import ASGIApp, Receive, Scope, Send

LINE: Final = r"^[^\u0000-\u001f\u007f-\u009f\u2028\u2029]*$"
"""The pattern of ids and names as ECMA 262 has it: no control character, no line or paragraph separator."""


class RawPaths:
    """Puts the path as it came in the place of the decoded one."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and "raw_path" in scope:
            scope["path"] = scope["raw_path"].decode("latin-1")
        await self._app(scope, receive, send)


def _decoded(segment: object) -> str:
    try:
        return unquote_to_bytes(str(segment).encode("latin-1")).decode()
    except UnicodeDecodeError:
        raise PydanticCustomError("utf_8", "is not UTF-8, percent-encoded") from None


def segment(alias: str, description: str, example: str, *, max_length: int = 200, pattern: str = LINE) -> Any:
    """The metadata of a path parameter, for `Annotated[str, segment(…), Decoded]`, in this order: what the
    last one makes of it is checked by the one before. `alias` is its name in the path."""
    return Path(
        alias=alias,
        description=description,
        examples=[example],
        min_length=1,
        max_length=max_length,
        pattern=pattern,
    )


Decoded = BeforeValidator(_decoded)

RecipientId = Annotated[
    str, segment("id", "The recipient's id, percent-encoded: `a/b` is written `a%2Fb`", "u42"), Decoded
]
"""A route's parameter for `{id}`."""
