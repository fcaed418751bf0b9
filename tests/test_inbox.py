"""The inbox, on Valkey and on the oldest Redis that is supported, if that is installed."""

from __future__ import annotations

import asyncio
import itertools
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import redis
import redis.asyncio

from notifier.broker.connection import connect
from notifier.broker.scripts import Call, ask, run, script
from notifier.channel import InboxEntry
from notifier.errors import BrokerFull, BrokerUnavailable, InvalidInput
from notifier.inbox import Counts, Inbox, StoredEntry, decode_entry, encode_entry, inbox_keys
from notifier.keys import Keys
from notifier.local.broker import EmbeddedBroker, free_port

KEYS = Keys(partitions=1)
SETS = ("unseen", "seen", "read", "archived_unseen", "archived_seen", "archived_read")


@pytest.fixture(scope="module")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedBroker]:
    binary = shutil.which("redis-server")
    if binary is None:
        pytest.skip("no redis-server is installed")
    with EmbeddedBroker(tmp_path_factory.mktemp("redis"), persistent=False, binary=Path(binary)) as server:
        yield server


@pytest.fixture(params=["valkey", "redis"])
def url(request: pytest.FixtureRequest) -> str:
    if request.param == "valkey":
        return str(request.getfixturevalue("redis_url"))
    server: EmbeddedBroker = request.getfixturevalue("redis_server")
    with redis.Redis.from_url(server.url) as client:
        client.flushall()
        client.config_set("maxmemory", 0)
    return server.url


@pytest.fixture
async def client(url: str) -> AsyncIterator[redis.asyncio.Redis]:
    async with connect(url) as client:
        yield client


@pytest.fixture
def inbox(client: redis.asyncio.Redis) -> Inbox:
    return Inbox(client, KEYS)


def entry(id: str, created_ms: int = 0) -> InboxEntry:  # noqa: A002 - the field's name
    return InboxEntry(id=id, type="like", title="A title", body="A body", created_ms=created_ms)


async def fill(inbox: Inbox, recipient: str, count: int) -> None:
    for i in range(count):
        assert await inbox.add(recipient, entry(f"e{i}", created_ms=1_000 + i))


async def ids(inbox: Inbox, recipient: str, **filters: str) -> list[str]:
    page = await inbox.list(recipient, page_size=100, **filters)  # type: ignore[arg-type]
    assert page.after is None
    return [stored.entry.id for stored in page.entries]


async def let_a_millisecond_pass(client: redis.asyncio.Redis) -> None:
    """Until the server would give a mark another time."""
    seconds, microseconds = await client.time()
    while await client.time() < (
        seconds + (microseconds + 1_000) // 1_000_000,
        (microseconds + 1_000) % 1_000_000,
    ):
        pass


async def assert_consistent(client: redis.asyncio.Redis, recipient: str) -> None:
    """Every entry has its JSON, its state, and a place in the one set that its state says."""
    prefix = KEYS.inbox(recipient)
    places = [
        (member.decode()[15:], name)
        for name in SETS
        for member in await client.zrange(f"{prefix}:{name}", 0, -1)
    ]
    states = await client.hgetall(f"{prefix}:states")
    assert sorted(place[0] for place in places) == sorted(key.decode() for key in states)
    assert sorted(states) == sorted(await client.hkeys(f"{prefix}:entries"))
    for entry_id, name in places:
        _, seen, read, archived = states[entry_id.encode()].split()
        level = "read" if read != b"0" else "seen" if seen != b"0" else "unseen"
        assert name == ("archived_" if archived != b"0" else "") + level


async def changes(client: redis.asyncio.Redis, recipient: str) -> list[list[str]]:
    """The fields of the records, oldest first."""
    [records] = await ask(client, ("XRANGE", f"{KEYS.inbox(recipient)}:changes", "-", "+"))
    return [[word.decode() for word in fields] for _, fields in records]


async def test_an_entry_comes_back_as_it_was_added(inbox: Inbox) -> None:
    full = InboxEntry(
        id="ä:1",
        type="like",
        title="Ada liked “Höhe” 🏔",
        body="line one\nline two",
        url="/photos/7",
        actor={"id": "ada", "name": "Ada"},
        data={"photo": {"id": 7}, "tags": ["a", None]},
        created_ms=1_700_000_000_123,
    )
    assert await inbox.add("bo", full)
    page = await inbox.list("bo")
    assert page.entries == (StoredEntry(full, None, None, None),)
    assert page.counts == Counts(total=1, unread=1, unseen=1)
    assert page.after is None


def test_an_encoded_entry_is_compact_and_leaves_out_what_it_has_not() -> None:
    bare = entry("ü", created_ms=5)
    assert (
        encode_entry(bare).decode()
        == '{"id":"ü","type":"like","title":"A title","body":"A body","created_ms":5}'
    )
    assert decode_entry(encode_entry(bare)) == bare


async def test_the_newest_comes_first_whatever_the_order_of_arrival(inbox: Inbox) -> None:
    for created_ms in (20, 5, 100, 7):
        await inbox.add("bo", entry(f"at{created_ms}", created_ms))
    assert await ids(inbox, "bo") == ["at100", "at20", "at7", "at5"]


async def test_an_entry_is_added_once(inbox: Inbox) -> None:
    assert await inbox.add("bo", entry("a"))
    await inbox.mark("bo", "a", "read")
    assert not await inbox.add("bo", entry("a", created_ms=9))
    await inbox.mark("bo", "a", "archived")
    assert not await inbox.add("bo", entry("a"))
    assert await inbox.counts("bo") == Counts(0, 0, 0)
    assert await inbox.add("ada", entry("a"))


async def test_beyond_the_limit_the_oldest_fall_out_with_their_state(client: redis.asyncio.Redis) -> None:
    small = Inbox(client, KEYS, limit=3)
    await fill(small, "bo", 3)
    await small.mark("bo", "e0", "read")
    await small.mark("bo", "e1", "archived")
    for i in (3, 4):
        assert await small.add("bo", entry(f"e{i}", created_ms=1_000 + i))
    assert await ids(small, "bo", archived="include") == ["e4", "e3", "e2"]
    assert await small.counts("bo") == Counts(3, 3, 3)
    await assert_consistent(client, "bo")


async def test_what_fell_out_is_not_added_again(client: redis.asyncio.Redis) -> None:
    small = Inbox(client, KEYS, limit=3)
    await fill(small, "bo", 6)
    for i in range(3):
        assert not await small.add("bo", entry(f"e{i}", created_ms=1_000 + i))
    assert await ids(small, "bo") == ["e5", "e4", "e3"]


async def test_the_memory_of_what_fell_out_is_bounded_by_the_limit(client: redis.asyncio.Redis) -> None:
    small = Inbox(client, KEYS, limit=3)
    await fill(small, "bo", 20)
    assert await client.zrange(f"{KEYS.inbox('bo')}:gone", 0, -1) == [b"e14", b"e15", b"e16"]


async def test_an_entry_older_than_all_of_a_full_inbox_falls_out_at_once(client: redis.asyncio.Redis) -> None:
    small = Inbox(client, KEYS, limit=2)
    await fill(small, "bo", 2)
    assert await small.add("bo", entry("late", created_ms=1))
    assert not await small.add("bo", entry("late", created_ms=1))
    assert await ids(small, "bo") == ["e1", "e0"]


async def test_of_entries_of_one_millisecond_what_was_archived_or_read_falls_out_first(
    client: redis.asyncio.Redis,
) -> None:
    small = Inbox(client, KEYS, limit=6)
    for name in "abcdef":
        await small.add("bo", entry(name, created_ms=7))
    for name, marks in {"a": "seen", "b": "read", "d": "seen", "e": "read"}.items():
        await small.mark("bo", name, marks)  # type: ignore[arg-type]
    for name in "def":
        await small.mark("bo", name, "archived")
    for i in range(6):
        await small.add("bo", entry(f"new{i}", created_ms=8))
    assert await client.zrange(f"{KEYS.inbox('bo')}:gone", 0, -1) == [b"e", b"d", b"f", b"b", b"a", b"c"]


async def test_a_lowered_limit_is_reached_in_bounded_steps(client: redis.asyncio.Redis, inbox: Inbox) -> None:
    await fill(inbox, "bo", 150)
    small = Inbox(client, KEYS, limit=10)
    await small.add("bo", entry("x", created_ms=9_000))
    assert (await small.counts("bo")).total == 51
    await small.add("bo", entry("y", created_ms=9_001))
    assert (await small.counts("bo")).total == 10
    await assert_consistent(client, "bo")


async def test_filters_select_by_status_and_by_archived(inbox: Inbox) -> None:
    await fill(inbox, "bo", 6)
    for entry_id, marks in {"e1": ("seen",), "e2": ("read",), "e4": ("seen",), "e5": ("read",)}.items():
        for mark in marks:
            await inbox.mark("bo", entry_id, mark)  # type: ignore[arg-type]
    for entry_id in ("e3", "e4", "e5"):
        await inbox.mark("bo", entry_id, "archived")
    expected = {
        ("all", "exclude"): ["e2", "e1", "e0"],
        ("unseen", "exclude"): ["e0"],
        ("unread", "exclude"): ["e1", "e0"],
        ("read", "exclude"): ["e2"],
        ("all", "include"): ["e5", "e4", "e3", "e2", "e1", "e0"],
        ("unseen", "include"): ["e3", "e0"],
        ("unread", "include"): ["e4", "e3", "e1", "e0"],
        ("read", "include"): ["e5", "e2"],
        ("all", "only"): ["e5", "e4", "e3"],
        ("unseen", "only"): ["e3"],
        ("unread", "only"): ["e4", "e3"],
        ("read", "only"): ["e5"],
    }
    found = {
        (status, archived): await ids(inbox, "bo", status=status, archived=archived)
        for status, archived in expected
    }
    assert found == expected
    assert await inbox.counts("bo") == Counts(total=3, unread=2, unseen=1)


async def test_reading_implies_seeing_and_unread_leaves_it_seen(inbox: Inbox) -> None:
    await fill(inbox, "bo", 1)
    assert await inbox.mark("bo", "e0", "read") == Counts(1, 0, 0)
    assert await inbox.mark("bo", "e0", "unread") == Counts(1, 1, 0)
    [stored] = (await inbox.list("bo")).entries
    assert stored.seen_ms is not None
    assert stored.read_ms is None


async def test_reading_later_keeps_the_time_of_seeing(client: redis.asyncio.Redis, inbox: Inbox) -> None:
    await fill(inbox, "bo", 1)
    await inbox.mark("bo", "e0", "seen")
    await let_a_millisecond_pass(client)
    await inbox.mark("bo", "e0", "read")
    [stored] = (await inbox.list("bo")).entries
    assert stored.seen_ms is not None
    assert stored.read_ms is not None
    assert stored.seen_ms < stored.read_ms


async def test_what_is_archived_counts_no_more_until_it_is_taken_back(inbox: Inbox) -> None:
    await fill(inbox, "bo", 2)
    assert await inbox.mark("bo", "e0", "archived") == Counts(1, 1, 1)
    assert await inbox.mark("bo", "e0", "read") == Counts(1, 1, 1)
    assert await inbox.mark("bo", "e0", "unarchived") == Counts(2, 1, 1)


@pytest.mark.parametrize("mark", ["seen", "read", "unread", "archived", "unarchived"])
async def test_a_mark_made_twice_changes_nothing(
    client: redis.asyncio.Redis, inbox: Inbox, mark: str
) -> None:
    await fill(inbox, "bo", 1)
    first = await inbox.mark("bo", "e0", mark)  # type: ignore[arg-type]
    before = await client.hgetall(f"{KEYS.inbox('bo')}:states")
    await let_a_millisecond_pass(client)
    assert await inbox.mark("bo", "e0", mark) == first  # type: ignore[arg-type]
    assert await client.hgetall(f"{KEYS.inbox('bo')}:states") == before


async def test_marking_an_unknown_entry_says_so_and_makes_none(
    client: redis.asyncio.Redis, inbox: Inbox
) -> None:
    assert await inbox.mark("bo", "nothing", "read") is None
    assert await client.dbsize() == 0


async def test_a_bulk_mark_keeps_to_its_filter_and_its_time(
    client: redis.asyncio.Redis, inbox: Inbox
) -> None:
    await fill(inbox, "bo", 6)
    await inbox.mark("bo", "e0", "archived")
    assert await inbox.mark_all("bo", "read", until_ms=1_003) == Counts(total=5, unread=2, unseen=2)
    assert await ids(inbox, "bo", status="read") == ["e3", "e2", "e1"]
    assert await inbox.mark_all("bo", "archived", status="read") == Counts(total=2, unread=2, unseen=2)
    assert await inbox.mark_all("bo", "seen") == Counts(total=2, unread=2, unseen=0)
    assert await ids(inbox, "bo", archived="only", status="unread") == ["e0"]
    assert await inbox.mark_all("bo", "unarchived") == Counts(total=6, unread=3, unseen=1)
    await assert_consistent(client, "bo")


async def test_pages_follow_each_other_even_where_many_entries_have_one_time(inbox: Inbox) -> None:
    names = ["a", "B", "Z", "é", "a:b", "_", "-", "0", "aa"]
    for name in names:
        await inbox.add("bo", entry(name, created_ms=7))
    await inbox.mark("bo", "B", "seen")
    await inbox.mark("bo", "aa", "read")
    pages, after = [], None
    for _ in range(6):
        page = await inbox.list("bo", after=after, page_size=2)
        pages.append([stored.entry.id for stored in page.entries])
        after = page.after
        if after is None:
            break
    assert [len(page) for page in pages] == [2, 2, 2, 2, 1]
    assert list(itertools.chain(*pages)) == sorted(names, key=str.encode, reverse=True)


async def test_a_full_last_page_has_no_cursor(inbox: Inbox) -> None:
    await fill(inbox, "bo", 4)
    first = await inbox.list("bo", page_size=2)
    assert (await inbox.list("bo", page_size=2, after=first.after)).after is None


@pytest.mark.parametrize("page_size", [0, -1, 101])
async def test_a_page_size_out_of_bounds_is_named(inbox: Inbox, page_size: int) -> None:
    with pytest.raises(InvalidInput) as caught:
        await inbox.list("bo", page_size=page_size)
    assert caught.value.field == "page_size"


@pytest.mark.parametrize("after", ["", "!", "abc", "ü", "MDAw", "eHh4eHh4eHh4eHh4eHh4eHg", "A" * 7])
async def test_a_cursor_that_no_page_gave_is_named(inbox: Inbox, after: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        await inbox.list("bo", after=after)
    assert caught.value.field == "after"


async def test_words_that_are_no_filter_or_mark_are_named(inbox: Inbox) -> None:
    for field, call in {
        "status": inbox.list("bo", status="new"),  # type: ignore[arg-type]
        "archived": inbox.list("bo", archived="yes"),  # type: ignore[arg-type]
        "mark": inbox.mark("bo", "a", "liked"),  # type: ignore[arg-type]
        "until_ms": inbox.mark_all("bo", "read", until_ms=-1),
        "created_ms": inbox.add("bo", entry("a", created_ms=10**15)),
    }.items():
        with pytest.raises(InvalidInput) as caught:
            await call
        assert caught.value.field == field


async def test_inboxes_of_ids_that_look_like_keys_stay_apart(inbox: Inbox) -> None:
    for recipient in ("x", "x:unseen", "x:entries", "{x}"):
        await inbox.add(recipient, entry(f"for {recipient}"))
    for recipient in ("x", "x:unseen", "x:entries", "{x}"):
        assert await ids(inbox, recipient) == [f"for {recipient}"]


async def test_deleting_an_inbox_leaves_only_the_word_that_it_is_gone(client: redis.asyncio.Redis) -> None:
    small = Inbox(client, KEYS, limit=4)
    await fill(small, "bo", 8)
    await small.add("ada", entry("a"))
    for entry_id, mark in (("e4", "read"), ("e5", "archived"), ("e6", "seen")):
        await small.mark("bo", entry_id, mark)  # type: ignore[arg-type]
    assert await small.delete("bo")
    assert not await small.delete("bo")
    left = set(await client.keys("*")) - {key.encode() for key in inbox_keys(KEYS, "ada")}
    assert left == {f"{KEYS.inbox('bo')}:changes".encode()}
    assert await changes(client, "bo") == [["gone", ""]]
    assert (await small.list("bo")).entries == ()
    assert await ids(small, "ada") == ["a"]


async def test_every_change_leaves_one_record_and_nothing_else_does(
    client: redis.asyncio.Redis, inbox: Inbox
) -> None:
    await fill(inbox, "bo", 3)
    await inbox.add("bo", entry("e0"))
    for mark in ("seen", "seen", "read", "read", "unread"):
        await inbox.mark("bo", "e1", mark)  # type: ignore[arg-type]
    await inbox.mark("bo", "nothing", "read")
    for _ in range(2):
        await inbox.mark_all("bo", "seen")
    await inbox.counts("bo")
    await inbox.list("bo")
    assert await changes(client, "bo") == [
        ["add", "e0"],
        ["add", "e1"],
        ["add", "e2"],
        ["mark", "e1"],
        ["mark", "e1"],
        ["mark", "e1"],
        ["mark", "e0", "mark", "e2"],
    ]


async def test_of_a_bulk_mark_of_many_only_that_is_written_down(
    client: redis.asyncio.Redis, inbox: Inbox
) -> None:
    await fill(inbox, "bo", 51)
    await inbox.mark_all("bo", "seen")
    await inbox.mark_all("bo", "read", until_ms=1_049)
    last_two = (await changes(client, "bo"))[-2:]
    assert last_two[0] == ["many", ""]
    assert last_two[1] == [word for i in range(50) for word in ("mark", f"e{i}")]


async def test_the_records_are_bounded_and_end_with_disuse(client: redis.asyncio.Redis, inbox: Inbox) -> None:
    await fill(inbox, "bo", 1_000)
    key = f"{KEYS.inbox('bo')}:changes"
    assert 200 <= await client.xlen(key) <= 300
    assert 86_390 <= await client.ttl(key) <= 86_400


async def test_who_may_not_publish_on_the_channel_may_still_change_the_inbox(
    client: redis.asyncio.Redis, url: str
) -> None:
    await client.acl_setuser(
        "quiet", enabled=True, passwords=["+geheim"], keys=["*"], commands=["+@all"], reset_channels=True
    )
    async with connect(url.replace("://", "://quiet:geheim@")) as quiet:
        assert await Inbox(quiet, KEYS).add("bo", entry("a"))
    assert await changes(client, "bo") == [["add", "a"]]
    await client.acl_deluser("quiet")


async def test_two_clients_that_add_and_mark_at_once_keep_the_counts_right(url: str) -> None:
    async def work(client: redis.asyncio.Redis, own: int) -> int:
        inbox, added = Inbox(client, KEYS, limit=30), 0
        for i in range(60):
            added += await inbox.add("bo", entry(f"e{i}", created_ms=i))  # both add the same ids
            await inbox.mark("bo", f"e{i - own}", "read" if own else "archived")
            await inbox.mark("bo", f"e{i - 2}", "unread" if own else "seen")
            if i % 20 == 19:
                await inbox.mark_all("bo", "unarchived" if own else "read", until_ms=i - 3)
        return added

    async with connect(url) as one, connect(url) as other:
        assert sum(await asyncio.gather(work(one, 0), work(other, 1))) == 60
        await assert_consistent(one, "bo")
        page = await Inbox(one, KEYS).list("bo", archived="include", page_size=100)
        assert [stored.entry.id for stored in page.entries] == [f"e{i}" for i in range(59, 29, -1)]
        shown = [stored for stored in page.entries if stored.archived_ms is None]
        assert page.counts == Counts(
            total=len(shown),
            unread=sum(stored.read_ms is None for stored in shown),
            unseen=sum(stored.seen_ms is None for stored in shown),
        )


async def test_a_full_server_refuses_entries_and_still_takes_marks(
    client: redis.asyncio.Redis, inbox: Inbox
) -> None:
    await fill(inbox, "bo", 2)
    await client.config_set("maxmemory", 1)
    try:
        with pytest.raises(BrokerFull):
            await inbox.add("bo", entry("more", created_ms=9_000))
        assert await inbox.mark("bo", "e0", "read") == Counts(2, 1, 1)
        assert await ids(inbox, "bo") == ["e1", "e0"]
    finally:
        await client.config_set("maxmemory", 0)
    await assert_consistent(client, "bo")


async def test_a_broker_that_is_away_is_told_apart_from_an_empty_inbox() -> None:
    async with connect(f"redis://127.0.0.1:{free_port()}") as client:
        inbox = Inbox(client, KEYS)
        with pytest.raises(BrokerUnavailable):
            await inbox.list("bo")
        with pytest.raises(BrokerUnavailable):
            await inbox.delete("bo")


async def test_the_included_function_touches_only_keys_below_its_prefix(client: redis.asyncio.Redis) -> None:
    for i in range(4):
        await run(client, Call(script("inbox_add"), ["{x}:some:prefix"], (f"id{i}", i, "{}", 2)))
    assert all(key.startswith(b"{x}:some:prefix:") for key in await client.keys("*"))
