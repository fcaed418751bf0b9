"""The inbox against a model of twenty lines: whatever is done in whatever order, both agree."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from notifier.broker.connection import connect
from notifier.channel import InboxEntry
from notifier.inbox import Counts, Inbox
from notifier.keys import Keys

LIMIT = 5
KEYS = Keys(partitions=2)
_numbers = itertools.count()

# The fixture only hands over an URL; each example has a recipient of its own.
modest = settings(
    max_examples=100,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    database=None,
)

entry_ids = st.sampled_from(["a", "B", "c:1", "é", "Z", "zz", "0", "~", "a b"])
times = st.integers(0, 4)
marks = st.sampled_from(["seen", "read", "unread", "archived", "unarchived"])
statuses = st.sampled_from(["all", "unseen", "unread", "read"])
archiveds = st.sampled_from(["exclude", "include", "only"])
adds = st.tuples(st.just("add"), entry_ids, times)
single_marks = st.tuples(st.just("mark"), entry_ids, marks)
bulk_marks = st.tuples(st.just("mark_all"), marks, statuses, archiveds, st.none() | times)


@dataclass
class State:
    created_ms: int
    seen: bool = False
    read: bool = False
    archived: bool = False

    def put(self, mark: str) -> None:
        self.seen |= mark in {"seen", "read"}
        self.read = mark == "read" or (self.read and mark != "unread")
        self.archived = mark == "archived" or (self.archived and mark != "unarchived")

    def matches(self, status: str, archived: str) -> bool:
        by_status = {"all": True, "unseen": not self.seen, "unread": not self.read, "read": self.read}
        by_archived = {"include": True, "exclude": not self.archived, "only": self.archived}
        return by_status[status] and by_archived[archived]


@dataclass
class Model:
    limit: int
    stored: dict[str, State] = field(default_factory=dict)
    gone: list[str] = field(default_factory=list)

    def add(self, entry_id: str, created_ms: int) -> bool:
        if entry_id in self.stored or entry_id in self.gone[-self.limit :]:
            return False
        self.stored[entry_id] = State(created_ms)
        if len(self.stored) > self.limit:
            self.gone.append(min(self.stored, key=self.age))
            del self.stored[self.gone[-1]]
        return True

    def age(self, entry_id: str) -> tuple[int, bool, bool, bool, bytes]:
        state = self.stored[entry_id]
        return (state.created_ms, not state.archived, not state.read, not state.seen, entry_id.encode())

    def mark(self, entry_id: str, mark: str) -> Counts | None:
        if entry_id not in self.stored:
            return None
        self.stored[entry_id].put(mark)
        return self.counts()

    def mark_all(self, mark: str, status: str, archived: str, until_ms: int | None) -> Counts:
        for state in self.stored.values():
            if state.matches(status, archived) and (until_ms is None or state.created_ms <= until_ms):
                state.put(mark)
        return self.counts()

    def list(self, status: str, archived: str) -> list[str]:
        newest_first = sorted(
            self.stored, key=lambda name: (self.stored[name].created_ms, name.encode()), reverse=True
        )
        return [name for name in newest_first if self.stored[name].matches(status, archived)]

    def counts(self) -> Counts:
        return Counts(*(len(self.list(status, "exclude")) for status in ("all", "unread", "unseen")))


@dataclass
class Both:
    """Does each thing to the inbox and to the model, and compares the answers."""

    inbox: Inbox
    model: Model
    recipient: str = field(default_factory=lambda: f"r{next(_numbers)}")

    async def do(self, operation: tuple[Any, ...]) -> None:
        match operation:
            case ("add", entry_id, created_ms):
                entry = InboxEntry(entry_id, "like", "title", "body", created_ms=created_ms)
                assert await self.inbox.add(self.recipient, entry) == self.model.add(entry_id, created_ms)
            case ("mark", entry_id, mark):
                counts = await self.inbox.mark(self.recipient, entry_id, mark)
                assert counts == self.model.mark(entry_id, mark)
            case (_, mark, status, archived, until_ms):
                found = await self.inbox.mark_all(
                    self.recipient, mark, status=status, archived=archived, until_ms=until_ms
                )
                assert found == self.model.mark_all(mark, status, archived, until_ms)

    async def compare(self, status: str, archived: str) -> None:
        page = await self.inbox.list(self.recipient, status=status, archived=archived)  # type: ignore[arg-type]
        assert [stored.entry.id for stored in page.entries] == self.model.list(status, archived)
        assert page.counts == await self.inbox.counts(self.recipient) == self.model.counts()
        for stored in page.entries:
            state = self.model.stored[stored.entry.id]
            times_of = (stored.seen_ms, stored.read_ms, stored.archived_ms)
            assert [time is not None for time in times_of] == [state.seen, state.read, state.archived]


def with_both(url: str, limit: int, work: Callable[[Both], Awaitable[None]]) -> None:
    async def connected() -> None:
        async with connect(url) as client:
            await work(Both(Inbox(client, KEYS, limit=limit), Model(limit)))

    asyncio.run(connected())


@modest
@given(
    operations=st.lists(adds | single_marks | bulk_marks, max_size=40),
    views=st.lists(st.tuples(statuses, archiveds), min_size=1, max_size=3),
)
def test_the_inbox_does_what_its_model_does(
    redis_url: str, operations: list[tuple[Any, ...]], views: list[tuple[str, str]]
) -> None:
    async def work(both: Both) -> None:
        for operation in operations:
            await both.do(operation)
        for status, archived in [*views, ("all", "include")]:
            await both.compare(status, archived)

    with_both(redis_url, LIMIT, work)


@modest
@given(
    there=st.dictionaries(entry_ids, times, min_size=1),
    view=st.tuples(statuses, archiveds),
    page_size=st.integers(1, 4),
    between=st.lists(st.lists(adds | single_marks | bulk_marks, max_size=3), max_size=6),
)
@example(  # marking the entry at the cursor takes it out of the set that the cursor was made from
    there={"a": 1, "B": 1, "c:1": 1},
    view=("unread", "exclude"),
    page_size=1,
    between=[[("mark", "c:1", "read")], [("mark", "a", "archived")]],
)
def test_changes_between_two_pages_make_nothing_appear_twice_or_be_skipped(
    redis_url: str,
    there: dict[str, int],
    view: tuple[str, str],
    page_size: int,
    between: list[list[tuple[Any, ...]]],
) -> None:
    async def work(both: Both) -> None:
        status, archived = view
        for entry_id, created_ms in there.items():
            await both.do(("add", entry_id, created_ms))
        always, shown, after = set(both.model.list(status, archived)), [], None
        for changes in [*between, *([[]] * 30)]:
            page = await both.inbox.list(
                both.recipient,
                status=status,  # type: ignore[arg-type]
                archived=archived,  # type: ignore[arg-type]
                after=after,
                page_size=page_size,
            )
            shown += [stored.entry.id for stored in page.entries]
            after = page.after
            if after is None:
                break
            for change in changes:
                await both.do(change)
            always &= set(both.model.list(status, archived))
        assert after is None
        assert len(shown) == len(set(shown))
        assert always <= set(shown)

    with_both(redis_url, 1_000, work)
