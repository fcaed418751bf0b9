"""How app services publish events: `Publisher` for threads, `AsyncPublisher` for asyncio.

Both share one core: events are checked and encoded once, grouped by partition, and added by one script
for each partition, many scripts in one round trip. An event is accepted at most once for each id and
recipient within the dedup window, so a publish that raised BrokerError may be repeated with the same
events.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from types import TracebackType
from typing import Any, Final, Literal, NamedTuple, Self, get_args

from notifier.broker import meta
from notifier.broker.connection import connect, connect_sync
from notifier.broker.entries import Checked
from notifier.broker.line import Command
from notifier.broker.scripts import Call, run_all, run_all_sync, script
from notifier.errors import (
    BacklogFull,
    BrokerError,
    BrokerUnavailable,
    ConfigurationError,
    InvalidEvent,
)
from notifier.event import Event, parse_event
from notifier.keys import Keys

Source = Event | Mapping[str, Any] | str | bytes
"""What can be published: an Event, a mapping of the same shape, or JSON text."""

Durability = Literal["memory", "fsync", "replicas"]
"""When a publish returns: the server has it in memory; on its disk (WAITAOF); on a replica too (WAIT)."""

DEDUP_WINDOW: Final = timedelta(hours=24)
BACKLOG_LIMIT: Final = 100_000

_MAX_CALL_ENTRIES = 200  # a script runs alone in the server: a millisecond or two, not more
_MAX_ROUND_BYTES = 8 << 20


class Accepted(NamedTuple):
    """What became of one event: `recipients` in the order given, and those of them who had it before."""

    id: str
    recipients: tuple[str, ...]
    duplicates: tuple[str, ...] = ()

    @property
    def duplicate(self) -> bool:
        """Nobody was new: the whole event had been accepted before."""
        return len(self.duplicates) == len(self.recipients)


_Encoded = tuple[Event, bytes, list[bytes]]
"""An event that is checked, its body, and one `to` for each recipient."""


class _Entry(NamedTuple):
    """One event for one recipient, as it goes to the server."""

    event: int
    recipient: str
    partition: int
    seen: str
    due_ms: int | str
    checked: str
    to: bytes
    body: bytes


class _Core:
    """What both publishers share; it does no I/O."""

    def __init__(
        self,
        url: str,
        *,
        namespace: str = "ntf",
        partitions: int | None = None,
        dedup_window: timedelta = DEDUP_WINDOW,
        backlog_limit: int = BACKLOG_LIMIT,
        durability: Durability = "memory",
        timeout: timedelta = timedelta(seconds=5),
    ) -> None:
        """`backlog_limit` counts the waiting events of one partition; 0 means no limit. Without
        `partitions`, those of the installation count. Raises ConfigurationError."""
        if durability not in get_args(Durability):
            raise ConfigurationError(
                "NOTIFIER_DURABILITY", f"must be one of {', '.join(get_args(Durability))}"
            )
        self._url = url
        self._namespace = namespace
        self._partitions = meta.checked_partitions(partitions)
        self._window_ms = int(dedup_window / timedelta(milliseconds=1))
        self._backlog_limit = backlog_limit
        self._durability = durability
        self._timeout = timeout
        self._timeout_ms = max(1, int(timeout / timedelta(milliseconds=1)) - 500)
        self._keys: Keys | None = None

    def _first_calls(self) -> tuple[list[Call], Command]:
        # Asked before anything is published: a server that can't keep the promise should not take it.
        probe: Command = ("WAITAOF", 1, 0, 1) if self._durability == "fsync" else ()
        return [meta.claim(self._namespace, self._partitions)], probe

    def _opened(self, replies: list[Any]) -> Keys:
        for reply in replies:
            if isinstance(reply, BrokerUnavailable) or (
                isinstance(reply, BrokerError) and reply is replies[0]
            ):
                raise reply
        if len(replies) > 1 and isinstance(replies[1], BrokerError):
            raise ConfigurationError(
                "NOTIFIER_DURABILITY", f"fsync needs a server with WAITAOF and appendonly yes ({replies[1]})"
            )
        self._keys = meta.keys(self._namespace, self._partitions, replies[0])
        return self._keys

    def _rounds(
        self, keys: Keys, events: Sequence[_Encoded]
    ) -> Iterator[tuple[list[Call], list[list[_Entry]]]]:
        """The calls of one round trip after the other, with the entries of each call."""
        round_: dict[int, list[list[_Entry]]] = {}
        round_bytes = 0
        for entry in self._entries(keys, events):
            size = len(entry.body) + len(entry.to)
            if round_bytes + size > _MAX_ROUND_BYTES:
                yield self._round(keys, round_)
                round_, round_bytes = {}, 0
            chunks = round_.setdefault(entry.partition, [[]])
            if len(chunks[-1]) >= _MAX_CALL_ENTRIES:
                chunks.append([])
            chunks[-1].append(entry)
            round_bytes += size
        if round_:
            yield self._round(keys, round_)

    def _entries(self, keys: Keys, events: Sequence[_Encoded]) -> Iterator[_Entry]:
        for number, (event, body, tos) in enumerate(events):
            due = int(event.deliver_at.timestamp() * 1000) if event.deliver_at else ""
            expires = str(int(event.expires_at.timestamp() * 1000)) if event.expires_at else ""
            checked = Checked(event.id, event.type, expires).line()
            for recipient, to in zip(event.everyone(), tos, strict=True):
                partition = keys.partition_of(recipient.id)
                seen = keys.seen(partition, event.id, recipient.id)
                yield _Entry(number, recipient.id, partition, seen, due, checked, to, body)

    def _round(
        self, keys: Keys, by_partition: Mapping[int, list[list[_Entry]]]
    ) -> tuple[list[Call], list[list[_Entry]]]:
        calls, chunks = [], []
        for partition, parts in by_partition.items():
            queues = (
                keys.queue("events", partition),
                keys.scheduled(partition),
                keys.scheduled_items(partition),
            )
            for entries in parts:
                arguments: list[str | bytes | int] = [self._backlog_limit, self._window_ms]
                for entry in entries:
                    arguments += (entry.due_ms, entry.checked, entry.to, entry.body)
                calls.append(
                    Call(script("publish"), (*queues, *(entry.seen for entry in entries)), arguments)
                )
                chunks.append(entries)
        return calls, chunks

    def _then(self) -> Command:
        if self._durability == "fsync":
            return "WAITAOF", 1, 0, self._timeout_ms
        if self._durability == "replicas":
            return "WAIT", 1, self._timeout_ms
        return ()

    def _settle(
        self, replies: Sequence[Any], chunks: Sequence[Sequence[_Entry]], duplicates: dict[int, list[str]]
    ) -> None:
        """Notes who had an event before. Raises the first failure, after looking at every reply."""
        failure: BrokerError | None = None
        for reply, entries in zip(replies, chunks, strict=False):
            if isinstance(reply, BrokerError):
                failure = failure or reply
            elif reply[0] < 0:
                failure = failure or BacklogFull(entries[0].partition, reply[1], self._backlog_limit)
            else:
                for accepted, entry in zip(reply, entries, strict=True):
                    if not accepted:
                        duplicates.setdefault(entry.event, []).append(entry.recipient)
        if failure:
            raise failure
        if self._durability != "memory":
            self._check_durable(replies[-1])

    def _check_durable(self, reply: Any) -> None:
        if isinstance(reply, BrokerError):
            raise reply
        confirmed = reply[0] if self._durability == "fsync" else reply
        if confirmed < 1:
            raise BrokerUnavailable(
                f"accepted, but not confirmed as {self._durability} within {self._timeout}"
            )


def _checked(sources: Iterable[Source]) -> list[_Encoded]:
    encoded = []
    for number, source in enumerate(sources):
        try:
            encoded.append(_one(source))
        except InvalidEvent as error:
            raise InvalidEvent(f"events[{number}].{error.field}", error.reason) from None
    return encoded


def _one(source: Source) -> _Encoded:
    event = parse_event(source)
    return event, *event.encode()


def _accepted(events: Sequence[_Encoded], duplicates: Mapping[int, list[str]]) -> list[Accepted]:
    return [
        Accepted(
            event.id,
            tuple([recipient.id for recipient in event.everyone()]),
            tuple(duplicates.get(number, ())),
        )
        for number, (event, _, _) in enumerate(events)
    ]


class Publisher(_Core):
    """Publishes from threads; one instance and its connections serve them all.

        with Publisher("redis://localhost:6379") as publisher:
            publisher.publish({"type": "like", "recipient": "u42", "actor": {"id": "u7", "name": "Ada"}})

    Connects when first used. See `_Core` for the options.
    """

    def __init__(self, url: str, **options: Any) -> None:
        super().__init__(url, **options)
        self._client = connect_sync(url, timeout=self._timeout)
        self._opening = threading.Lock()

    def publish(self, event: Source) -> Accepted:
        """Adds one event. Raises InvalidEvent, BacklogFull, BrokerFull or BrokerUnavailable."""
        return self._publish([_one(event)])[0]

    def publish_many(self, events: Iterable[Source]) -> list[Accepted]:
        """Adds events in order. All are checked before the first is sent.

        Raises InvalidEvent (`events[3].type`), BacklogFull, BrokerFull or BrokerUnavailable; after the
        last three some events may have been accepted.
        """
        return self._publish(_checked(events))

    def _publish(self, events: Sequence[_Encoded]) -> list[Accepted]:
        keys = self._keys or self._open()
        duplicates: dict[int, list[str]] = {}
        for calls, chunks in self._rounds(keys, events):
            self._settle(run_all_sync(self._client, calls, self._then()), chunks, duplicates)
        return _accepted(events, duplicates)

    def _open(self) -> Keys:
        with self._opening:
            return self._keys or self._opened(run_all_sync(self._client, *self._first_calls()))

    def close(self) -> None:
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class AsyncPublisher(_Core):
    """Publishes from asyncio; otherwise like `Publisher`."""

    def __init__(self, url: str, **options: Any) -> None:
        super().__init__(url, **options)
        self._client = connect(url, timeout=self._timeout)

    async def publish(self, event: Source) -> Accepted:
        """Adds one event. Raises InvalidEvent, BacklogFull, BrokerFull or BrokerUnavailable."""
        return (await self._publish([_one(event)]))[0]

    async def publish_many(self, events: Iterable[Source]) -> list[Accepted]:
        """Adds events in order; see `Publisher.publish_many`."""
        return await self._publish(_checked(events))

    async def _publish(self, events: Sequence[_Encoded]) -> list[Accepted]:
        keys = self._keys or self._opened(await run_all(self._client, *self._first_calls()))
        duplicates: dict[int, list[str]] = {}
        for calls, chunks in self._rounds(keys, events):
            self._settle(await run_all(self._client, calls, self._then()), chunks, duplicates)
        return _accepted(events, duplicates)

    async def close(self) -> None:
        await self._client.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
