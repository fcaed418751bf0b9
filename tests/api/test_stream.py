"""GET /v1/inbox/stream: told at once, resumed where it was left, and nothing for who may not."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from pathlib import Path

import httpx
import pytest

from notifier.api import access, stream
from notifier.api.connection import Limits
from notifier.api.server import DRAIN
from notifier.inbox import Inbox
from tests.api.conftest import Api, serving
from tests.api.streams import Event, Stream, listening
from tests.api.test_inbox import MARKUP, entry, fill, inbox_of
from tests.support.brokers import DurableBroker
from tests.support.waiting import until


@asynccontextmanager
async def stream_of(api: Api, recipient: str, last_event_id: str | None = None) -> AsyncIterator[Stream]:
    async with api.user(recipient) as client, listening(client, last_event_id) as events:
        yield events


def names(events: list[Event]) -> list[str]:
    return [event.name for event in events]


async def streams(api: Api) -> int:
    """How many the process says there are."""
    async with api.operator as operator:
        text = (await operator.get("/metrics")).text
    line = next(line for line in text.splitlines() if line.startswith("notifier_streams "))
    return int(float(line.split()[1]))


async def test_the_head_keeps_proxies_and_caches_from_holding_events_back(api: Api) -> None:
    async with stream_of(api, "bo") as events:
        first = await events.next()
        headers = events.response.headers
    assert headers["Content-Type"] == "text/event-stream; charset=utf-8"
    assert headers["Cache-Control"] == "no-store"
    assert headers["X-Accel-Buffering"] == "no"
    assert events.retry_ms == 2_000
    assert (first.name, first.data) == ("counts", {"total": 0, "unread": 0, "unseen": 0})


async def test_each_change_is_told_and_followed_by_the_counts(api: Api) -> None:
    inbox = inbox_of(api)
    async with stream_of(api, "bo") as events:
        await events.next()
        await inbox.add("bo", entry(1))
        added, counts = await events.take(2)
        assert names([added, counts]) == ["entry", "counts"]
        assert counts.data == {"total": 1, "unread": 1, "unseen": 1}
        assert added.id == counts.id
        async with api.user("bo") as bo:
            [listed] = (await bo.get("/v1/inbox")).json()["entries"]
        assert added.data == listed

        await inbox.mark("bo", "e1", "read")
        marked, counts = await events.take(2)
        assert marked.name == "marks"
        [state] = marked.data["entries"]
        assert state.keys() == {"id", "seen_at", "read_at", "archived_at"}
        assert state["id"] == "e1"
        assert state["read_at"].endswith("Z")
        assert state["archived_at"] is None
        assert counts.data["unread"] == 0

        await inbox.delete("bo")
        reset, counts = await events.take(2)
        assert (reset.name, reset.data) == ("reset", {})
        assert counts.data["total"] == 0


async def test_a_bulk_mark_names_few_entries_and_says_all_of_many(api: Api) -> None:
    inbox = inbox_of(api)
    await fill(api, "bo", 51)
    async with stream_of(api, "bo") as events:
        await events.next()
        await inbox.mark_all("bo", "read", until_ms=entry(2).created_ms)
        few, _ = await events.take(2)
        assert {one["id"] for one in few.data["entries"]} == {"e0", "e1", "e2"}
        await inbox.mark_all("bo", "archived")
        many, _ = await events.take(2)
        assert (many.name, many.data) == ("marks", {"all": True})


async def test_last_event_id_brings_what_was_missed_and_nothing_else(api: Api) -> None:
    inbox = inbox_of(api)
    async with stream_of(api, "bo") as events:
        await events.next()
        for number in range(3):
            await inbox.add("bo", entry(number))
        while (event := await events.next()).data.get("id") != "e1":
            pass
    async with stream_of(api, "bo", event.id) as events:
        missed, counts = await events.take(2)
        assert (missed.name, missed.data["id"]) == ("entry", "e2")
        assert counts.data["total"] == 3
    async with stream_of(api, "bo", counts.id) as events:
        assert names([await events.next()]) == ["counts"]


async def test_an_id_that_is_not_known_any_more_is_a_reset(api: Api) -> None:
    await fill(api, "bo", 1)
    async with stream_of(api, "bo", "5-0") as events:
        assert names(await events.take(2)) == ["reset", "counts"]


@pytest.mark.parametrize("header", ["x", "1-", "1 -0", "99999999999999999999-0", "1-0\t1-0"])
async def test_an_id_that_is_none_is_refused_and_named(api: Api, header: str) -> None:
    async with api.user("bo") as bo:
        response = await bo.get("/v1/inbox/stream", headers={"Last-Event-ID": header})
    assert response.status_code == 422
    assert "last-event-id" in response.json()["errors"][0]["field"].lower()


async def test_nobody_hears_of_another_inbox(api: Api) -> None:
    inbox = inbox_of(api)
    async with stream_of(api, "ada") as ada, stream_of(api, "bo") as bo:
        await asyncio.gather(ada.next(), bo.next())
        for number, person in ((1, "bo"), (2, "ada")):
            await inbox.add(person, entry(number))
        assert (await ada.next()).data["id"] == "e2"
        assert (await bo.next()).data["id"] == "e1"


async def test_markup_and_line_breaks_stay_data(api: Api) -> None:
    text = MARKUP + "\r\n\r\nevent: reset\r\ndata: {}\r\n\r\n"
    async with stream_of(api, "bo") as events:
        await events.next()
        await inbox_of(api).add("bo", entry(1, title=text, body=text, data={text: text}))
        added, counts = await events.take(2)
    assert names([added, counts]) == ["entry", "counts"]
    assert (added.data["title"], added.data["body"], added.data["data"]) == (text, text, {text: text})


# Who may listen, and for how long.


async def test_an_expired_token_is_refused(api: Api) -> None:
    tokens = api.app.state.access.tokens
    async with api.with_key(tokens.sign("bo", timedelta(seconds=-60))[0]) as client:
        assert (await client.get("/v1/inbox/stream")).status_code == 401


@pytest.mark.slow
async def test_the_stream_ends_when_the_token_expires(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access, "_LEEWAY", 0)
    token, expires = api.app.state.access.tokens.sign("bo", timedelta(seconds=5))
    async with api.with_key(token) as client:
        async with listening(client) as events:
            assert names(await events.rest()) == ["counts"]
        assert expires - 0.1 <= time.time() < expires + 6  # and not at the first heartbeat, after 12 s
        assert (await client.get("/v1/inbox/stream")).status_code == 401


async def test_one_recipient_and_one_process_have_limits(redis_url: str) -> None:
    limits = {"NOTIFIER_STREAMS": "3", "NOTIFIER_STREAMS_PER_RECIPIENT": "2"}
    async with serving(redis_url, **limits) as api, AsyncExitStack() as stack, api.user("cleo") as cleo:
        for person in ("bo", "bo"):
            await stack.enter_async_context(stream_of(api, person))
        async with api.user("bo") as bo:
            refused = await bo.get("/v1/inbox/stream")
            assert (refused.status_code, refused.headers["Retry-After"]) == (429, "5")
        async with stream_of(api, "ada"):
            refused = await cleo.get("/v1/inbox/stream")
            assert (refused.status_code, refused.headers["Retry-After"]) == (503, "5")
            assert refused.headers["Content-Type"] == "application/problem+json"
        async with asyncio.timeout(20):
            while True:  # Ada has gone, and soon that is known
                async with cleo.stream("GET", "/v1/inbox/stream") as response:
                    if response.status_code == 200:
                        break


async def test_who_has_gone_is_not_counted_any_more(api: Api) -> None:
    before = await streams(api)
    async with stream_of(api, "bo"), stream_of(api, "ada"):
        assert await streams(api) == before + 2

    async def as_before() -> bool:
        return await streams(api) == before

    await until(as_before)


# What goes wrong.


async def test_an_idle_stream_is_kept_alive(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "HEARTBEAT", 0.02)
    async with stream_of(api, "bo") as events:
        await events.next()
        waiting = asyncio.create_task(events.next())
        await until(lambda: events.comments >= 3)
        await inbox_of(api).add("bo", entry(1))
        assert (await waiting).data["id"] == "e1"


async def test_at_the_end_streams_end_as_they_should_and_at_once(redis_url: str) -> None:
    async with serving(redis_url) as api, stream_of(api, "bo") as one, stream_of(api, "ada") as other:
        await asyncio.gather(one.next(), other.next())
        began = time.monotonic()
        api.server.should_exit = True
        # A whole response: a proxy in between would tell the client of a cut one as an error.
        assert await asyncio.gather(one.rest(), other.rest()) == [[], []]
        for events in (one, other):
            assert events.retry_ms is not None
            assert 1_000 <= events.retry_ms <= 6_000
    assert time.monotonic() - began < DRAIN / 2


async def test_a_broker_that_is_away_is_told_with_a_status_and_what_was_missed_comes_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with DurableBroker(tmp_path, persistent=True) as broker:
        async with serving(broker.url) as api, stream_of(api, "bo") as events:
            await events.next()
            monkeypatch.setattr(stream, "_PATIENCE", 0.3)  # for those who come later
            await fill(api, "bo", 1)
            await events.take(2)
            await asyncio.to_thread(broker.kill)
            async with api.user("ada") as ada:
                refused = await ada.get("/v1/inbox/stream")
            assert refused.status_code == 503
            assert refused.headers["Retry-After"] == "5"
            await asyncio.to_thread(broker.start)
            await inbox_of(api).add("bo", entry(7))
            added, counts = await events.take(2)  # on the stream that was there all the time
            assert added.data["id"] == "e7"
            assert counts.data["total"] == 2


async def test_a_client_that_never_reads_is_cut_and_holds_nothing(redis_url: str) -> None:
    async with serving(redis_url, limits=Limits(write=0.5)) as api:
        before = await streams(api)
        token = api.app.state.access.tokens.sign("bo", timedelta(hours=1))[0]
        port = httpx.URL(api.url).port
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1)
        try:
            writer.write(
                b"GET /v1/inbox/stream HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %b\r\n\r\n"
                % token.encode()
            )

            async def listens() -> bool:
                return await streams(api) == before + 1

            await until(listens)
            inbox: Inbox = inbox_of(api)
            number = 0
            async with stream_of(api, "bo") as quick:  # whom it must not hold up
                await quick.next()
                while await streams(api) == before + 2:
                    number += 1
                    await inbox.add("bo", entry(number, body="x" * 200_000))
                    assert (await quick.next()).data["id"] == f"e{number}"
                    await quick.next()
            assert number < 200  # 40 MB: what two sockets hold, and one update
        finally:
            writer.transport.abort()
            del reader
