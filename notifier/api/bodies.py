"""The body of a request: how large it may be, and that somebody asks for it."""

from __future__ import annotations

from typing import Any, Final

from fastapi import Depends, Request
from starlette.types import Message, Receive, Scope

from notifier.api.problems import Problem

BODY_LIMIT: Final = 4 * 1024 * 1024
"""In bytes; for routes that do not say otherwise."""

_PLACE: Final = "notifier.body"


class Body:
    """Counts a body as it comes. Raises Problem (413) as soon as more is announced or there than may be."""

    __slots__ = ("_announced", "_came", "_receive", "is_asked_for", "limit")

    def __init__(self, receive: Receive, announced: int) -> None:
        self.limit = BODY_LIMIT
        self.is_asked_for = False
        self._receive = receive
        self._announced = announced
        self._came = 0

    async def __call__(self) -> Message:
        self.is_asked_for = True
        if self._announced <= self.limit:
            message = await self._receive()
            self._came += len(message.get("body", b""))
            if self._came <= self.limit:
                return message
        reason = f"has more than {self.limit} bytes"
        raise Problem(413, f"body: {reason}", errors=[("body", reason)])


def limited(scope: Scope, receive: Receive) -> Body:
    """What reads the body instead of `receive`."""
    lengths = [value for name, value in scope["headers"] if name == b"content-length"]
    body = Body(receive, int(lengths[0]) if lengths and lengths[0].isdigit() else 0)
    scope[_PLACE] = body
    return body


def takes_up_to(limit: int) -> Any:
    """For a route's `dependencies`: another limit, for a route that reads the body by itself."""

    async def choose(request: Request) -> None:
        request.scope[_PLACE].limit = limit

    return Depends(choose)
