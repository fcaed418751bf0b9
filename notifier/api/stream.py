"""`GET /v1/inbox/stream`: server-sent events (WHATWG HTML, section 9.2), for as long as the client listens.

A response of our own: it waits in one place for whatever comes first, and holds nothing for a client that
is idle; what a library would add is a task group and a buffer for each. A client that does not read is cut
by the server, see `notifier.api.connection`.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Mapping
from typing import Annotated, Any, Final

from fastapi import APIRouter, Header, Response
from starlette.types import Receive, Scope, Send

from notifier.api import inbox_schemas as schemas
from notifier.api.access import Holder, TokenHolder
from notifier.api.entries import counts_of, entry_of, marks_of, to_json
from notifier.api.problems import RETRY_AFTER, Problem, responses
from notifier.api.shared import Parts
from notifier.live import Added, Ended, Live, Marked, Subscription, TooManyStreams, Update
from notifier.live.changes import Change

router = APIRouter(prefix="/v1/inbox", tags=["inbox"])

HEARTBEAT: Final = 15.0  # seconds: less than proxies wait before they cut what is silent
RETRY_MS: Final = 2_000

_PATIENCE: Final = 5.0  # seconds for the first answer of the broker
_COMMENT: Final = b":\n\n"
_HEADERS: Final = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),  # nginx and others must not hold events back
)
_START: Final = {"type": "http.response.start", "status": 200, "headers": _HEADERS}


def encode(update: Update) -> bytes:
    """The events of an update: its changes, then the counts."""
    return b"".join(
        (*map(_event, update.changes), _frame("counts", update.position, counts_of(update.counts)))
    )


def _event(change: Change) -> bytes:
    if isinstance(change, Added):
        return _frame("entry", change.position, entry_of(change.stored))
    if isinstance(change, Marked):
        data: Mapping[str, Any] = {"all": True}
        if change.states is not None:
            data = {"entries": [marks_of(state) for state in change.states]}
        return _frame("marks", change.position, data)
    return _frame("reset", change.position, {})


def _frame(event: str, position: str, data: object) -> bytes:
    return b"event: %b\nid: %b\ndata: %b\n\n" % (event.encode(), position.encode(), to_json(data))


class EventStream(Response):
    """Tells what becomes of the inbox of who holds the token, until that expires or somebody leaves."""

    def __init__(self, live: Live, holder: Holder, position: str | None) -> None:
        super().__init__()
        self._live = live
        self._holder = holder
        self._position = position

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with _subscribed(self._live, self._holder.recipient_id, self._position) as subscription:
            leaving = asyncio.create_task(_until_gone(receive))
            leaving.add_done_callback(lambda _: subscription.end())
            try:
                await self._tell(subscription, send)
            finally:
                leaving.cancel()
                await asyncio.gather(leaving, return_exceptions=True)

    async def _tell(self, subscription: Subscription, send: Send) -> None:
        update: Update | None = await _first(subscription)
        await send(_START)
        await _write(send, b"retry: %d\n\n" % RETRY_MS)
        last = b""
        try:
            while (left := self._holder.expires - time.time()) > 0:
                await _write(send, _COMMENT if update is None else encode(update))
                update = None  # it may be large, and the next one be far away
                pause = HEARTBEAT * random.uniform(0.8, 1.0)  # noqa: S311 - not all clients at once
                update = await subscription.next(min(pause, left))
        except Ended:
            # All come again, but not all at once.
            last = b"retry: %d\n\n" % random.randint(RETRY_MS // 2, 3 * RETRY_MS)  # noqa: S311
        await _write(send, last, more=False)


async def _write(send: Send, body: bytes, *, more: bool = True) -> None:
    await send({"type": "http.response.body", "body": body, "more_body": more})


async def _first(subscription: Subscription) -> Update:
    """Comes before the response's head, so that a broker that is away is told with a status."""
    try:
        update = await subscription.next(_PATIENCE)
    except Ended:
        raise _stopping() from None
    if update is None:
        raise Problem(503, "the broker can't be reached now", headers={"Retry-After": RETRY_AFTER})
    return update


def _subscribed(live: Live, recipient_id: str, position: str | None) -> Subscription:
    try:
        return live.subscribe(recipient_id, position)
    except Ended:
        raise _stopping() from None
    except TooManyStreams as error:
        whose = "for this recipient" if error.of_recipient else "in this process"
        raise Problem(
            429 if error.of_recipient else 503,
            f"there are {error.limit} streams {whose} already",
            headers={"Retry-After": RETRY_AFTER},
        ) from None


def _stopping() -> Problem:
    return Problem(503, "the server stops; connect again", headers={"Retry-After": RETRY_AFTER})


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


@router.get(
    "/stream",
    summary="Listen to the inbox",
    status_code=200,  # which FastAPI does not find out from the class
    response_class=EventStream,
    responses={**schemas.STREAM, **responses(401, 422, 429, 503)},
)
async def stream_inbox(
    holder: TokenHolder,
    parts: Parts,
    last_event_id: Annotated[
        str | None,
        Header(
            pattern=r"^[0-9]{1,20}-[0-9]{1,20}$",
            description="The `id` of the last event that was processed: what was missed comes first",
        ),
    ] = None,
) -> EventStream:
    """Server-sent events. `counts` comes first, and after every change; `entry` is a new entry; `marks` says
    which entries have other marks, or `{"all": true}` when they are many: then, and after `reset`, load the
    inbox again. Each event has an `id`. `reset` means that what was missed is not known any more.

    Listen first, then load: what changes meanwhile comes as an event. The stream ends when the token expires,
    or the server stops; come again after `retry` milliseconds with `Last-Event-ID`, and nothing is missed.
    Lines that begin with a colon come at least every 15 seconds. Send the token in the header, with `fetch`;
    `EventSource` can't do that.
    """
    return EventStream(parts.live, holder, last_event_id)
