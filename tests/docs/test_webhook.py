"""The channel of docs/how-to/write-a-channel.md, against a server that answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import httpx
import pytest

from examples.webhook import open_channel, outcome
from notifier.channel import ChannelUnavailable, Delivery, PermanentFailure, Sent, TransientFailure
from notifier.errors import ConfigurationError
from notifier.local.broker import free_port
from notifier.local.listener import Listener


def delivery() -> Delivery:
    event = b'{"id":"e1","type":"like","occurred_at":"2026-01-31T12:00:00Z"}'
    return Delivery.of("webhook", event=event, event_id="e1", event_type="like", to="ada", key="room")


@asynccontextmanager
async def answering(answer: bytes) -> AsyncIterator[tuple[str, list[bytes]]]:
    """A server that answers each request with these bytes, and closes. Yields its URL and what came."""
    came: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        size = next(
            int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")
        )
        came.append(head + await reader.readexactly(size))
        writer.write(answer)
        await writer.drain()

    async with Listener(serve) as listener:
        yield f"http://127.0.0.1:{listener.port}/", came


@asynccontextmanager
async def sending(url: str) -> AsyncIterator[Callable[[], object]]:
    channel = open_channel({"NOTIFIER_WEBHOOK_URL": url})
    await channel.open()
    try:
        yield lambda: channel.send(delivery(), {"text": "Bob liked it."})
    finally:
        await channel.close()


async def test_it_posts_the_text_and_the_stable_id() -> None:
    async with (
        answering(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n") as (url, came),
        sending(url) as send,
    ):
        sent = await send()  # type: ignore[misc]
    assert isinstance(sent, Sent)
    assert f"idempotency-key: {delivery().id}".encode() in came[0].lower()
    assert came[0].endswith(b'{"type":"like","recipient":"ada","text":"Bob liked it."}')


async def test_an_answer_that_is_cut_off_is_tried_again_later() -> None:
    async with answering(b"HTTP/1.1 20") as (url, _), sending(url) as send:
        with pytest.raises(TransientFailure):
            await send()  # type: ignore[misc]


async def test_nobody_there_opens_the_breaker() -> None:
    async with sending(f"http://127.0.0.1:{free_port()}/") as send:
        with pytest.raises(ChannelUnavailable):
            await send()  # type: ignore[misc]


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (200, None),
        (204, None),
        (400, PermanentFailure),
        (403, ChannelUnavailable),
        (404, ChannelUnavailable),
        (408, TransientFailure),
        (422, PermanentFailure),
        (429, ChannelUnavailable),
        (500, TransientFailure),
        (503, TransientFailure),
    ],
)
def test_what_each_status_means(status: int, expected: type | None) -> None:
    assert type(outcome(httpx.Response(status))) is (expected or type(None))


def test_retry_after_is_handed_on() -> None:
    failure = outcome(httpx.Response(503, headers={"Retry-After": "7"}))
    assert isinstance(failure, TransientFailure)
    assert failure.retry_after == 7


def test_a_url_is_checked_at_the_start() -> None:
    with pytest.raises(ConfigurationError, match="NOTIFIER_WEBHOOK_URL: must begin with"):
        open_channel({"NOTIFIER_WEBHOOK_URL": "ftp://example.com"})


async def test_without_a_url_it_can_be_loaded_and_not_opened() -> None:
    with pytest.raises(ConfigurationError, match="is needed to post"):
        await open_channel({}).open()
