"""How app services publish events: `Publisher` for threads, `AsyncPublisher` for asyncio.

Both share one core: events are checked and encoded once, grouped by partition, and added by one script
for each partition, many scripts in one round trip. An event is accepted at most once for each id and
recipient within the dedup window, so a publish that raised BrokerError may be repeated with the same
events.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from types import TracebackType
from typing import Any, Final, Literal, NamedTuple, Protocol, Self, get_args

from notifier.broker import meta
from notifier.broker.connection import connect, connect_sync
from notifier.broker.entries import checked_line
from notifier.broker.line import Argument, Command
from notifier.broker.scripts import Call, run_all, run_all_sync, script
from notifier.errors import (
    BacklogFull,
    BrokerError,
    BrokerUnavailable,
    ConfigurationError,
    InvalidEvent,
    PartitionsMoved,
)
from notifier.event import Event, parse_event, parse_events
from notifier.keys import Keys

Source = Event | Mapping[str, Any] | str | bytes
"""What can be published: an Event, a mapping of the same shape, or JSON text."""

Durability = Literal["memory", "fsync", "replicas"]
"""When a publish returns: the server has it in memory; on its disk (WAITAOF); on a replica too (WAIT)."""


class PublishTracing(Protocol):
    """Makes spans of OpenTelemetry: `notifier.tracing.Tracing`."""

    def publishing(self, events: Sequence[Event]) -> AbstractContextManager[Sequence[str]]:
        """Around the publishing of these; gives the traceparent of each, or nothing."""


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


class _Chunk:
    """Events for recipients of one partition, as they go to the server in one call. `whose` holds the
    number of each event and its recipient; `traces` the traceparents, by the place in `whose`."""

    __slots__ = ("arguments", "partition", "seen", "seen_prefix", "traces", "whose")

    def __init__(self, partition: int, seen_prefix: str) -> None:
        self.partition = partition
        self.seen_prefix = seen_prefix
        self.seen: list[str] = []
        self.arguments: list[Argument] = []
        self.whose: list[tuple[int, str]] = []
        self.traces: dict[int, str] | None = None

    def trace(self, traceparent: str) -> None:
        """Of the event that comes next."""
        self.traces = self.traces or {}
        self.traces[len(self.whose)] = traceparent

    def all_traces(self) -> tuple[str, ...]:
        """What the script takes behind all events: nothing, when none has a trace."""
        traces = self.traces
        return ("\n".join([traces.get(place, "") for place in range(len(self.whose))]),) if traces else ()


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
        tracing: PublishTracing | None = None,
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
        self._tracing = tracing
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

    def _traced(self, events: Sequence[_Encoded]) -> AbstractContextManager[Sequence[str | None]]:
        """The traceparent of each event, if it has one."""
        if self._tracing is None:
            return nullcontext([event.traceparent for event, _, _ in events])
        return self._tracing.publishing([event for event, _, _ in events])

    def _rounds(
        self, keys: Keys, events: Sequence[_Encoded], traces: Sequence[str | None]
    ) -> Iterator[list[_Chunk]]:
        """What goes out in one round trip after the other."""
        chunks: list[_Chunk] = []
        filling: dict[int, _Chunk] = {}
        round_bytes = 0
        for number, (event, body, tos) in enumerate(events):
            trace, event_id = traces[number], event.id
            due = int(event.deliver_at.timestamp() * 1000) if event.deliver_at else ""
            expires = str(int(event.expires_at.timestamp() * 1000)) if event.expires_at else ""
            checked = checked_line(event_id, event.type, expires, body)
            for recipient, to in zip(event.everyone(), tos, strict=True):
                round_bytes += len(body) + len(to)
                if round_bytes > _MAX_ROUND_BYTES and chunks:
                    yield chunks
                    chunks, filling, round_bytes = [], {}, len(body) + len(to)
                recipient_id = recipient.id
                partition = keys.partition_of(recipient_id)
                chunk = filling.get(partition)
                if chunk is None or len(chunk.whose) == _MAX_CALL_ENTRIES:
                    chunk = filling[partition] = _Chunk(partition, keys.seen(partition, ""))
                    chunks.append(chunk)
                if trace:
                    chunk.trace(trace)
                chunk.seen.append(chunk.seen_prefix + event_id)
                chunk.arguments += (due, recipient_id, checked, to, body)
                chunk.whose.append((number, recipient_id))
        if chunks:
            yield chunks

    def _calls(self, keys: Keys, chunks: Sequence[_Chunk]) -> list[Call]:
        publish = script("publish")
        return [
            Call(
                publish,
                (
                    keys.queue("events", chunk.partition),
                    keys.scheduled(chunk.partition),
                    keys.scheduled_items(chunk.partition),
                    *chunk.seen,
                ),
                (self._backlog_limit, self._window_ms, *chunk.arguments, *chunk.all_traces()),
            )
            for chunk in chunks
        ]

    def _then(self) -> Command:
        if self._durability == "fsync":
            return "WAITAOF", 1, 0, self._timeout_ms
        if self._durability == "replicas":
            return "WAIT", 1, self._timeout_ms
        return ()

    def _settle(
        self, replies: Sequence[Any], chunks: Sequence[_Chunk], duplicates: dict[int, list[str]]
    ) -> None:
        """Notes who had an event before. Raises the first failure, after looking at every reply."""
        failure: BrokerError | None = None
        for reply, chunk in zip(replies, chunks, strict=False):
            if isinstance(reply, BrokerError):
                failure = failure or reply
            elif reply[0] < 0:
                failure = failure or BacklogFull(chunk.partition, reply[1], self._backlog_limit)
            elif 0 in reply:
                for accepted, (number, recipient_id) in zip(reply, chunk.whose, strict=True):
                    if not accepted:
                        duplicates.setdefault(number, []).append(recipient_id)
        if failure:
            if isinstance(failure, PartitionsMoved):
                self._keys = None  # the next publish asks anew
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
    for place, event in enumerate(parse_events(list(sources))):
        try:
            encoded.append((event, *event.encode()))
        except InvalidEvent as error:
            raise InvalidEvent(f"events[{place}].{error.field}", error.reason) from None
    return encoded


def _one(source: Source) -> _Encoded:
    event = parse_event(source)
    return event, *event.encode()


def _accepted(events: Sequence[_Encoded], duplicates: Mapping[int, list[str]]) -> list[Accepted]:
    return [
        _new(
            Accepted,
            (
                event.id,
                (event.recipient.id,) if event.recipient else tuple([one.id for one in event.recipients]),
                tuple(duplicates[number]) if number in duplicates else (),
            ),
        )
        for number, (event, _, _) in enumerate(events)
    ]


_new = tuple.__new__  # what a named tuple's constructor does, in half the time


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
        with self._traced(events) as traces:
            for chunks in self._rounds(keys, events, traces):
                replies = run_all_sync(self._client, self._calls(keys, chunks), self._then())
                self._settle(replies, chunks, duplicates)
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
        with self._traced(events) as traces:
            for chunks in self._rounds(keys, events, traces):
                replies = await run_all(self._client, self._calls(keys, chunks), self._then())
                self._settle(replies, chunks, duplicates)
        return _accepted(events, duplicates)

    async def close(self) -> None:
        await self._client.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
