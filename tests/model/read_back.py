"""What lies in the server, key by key; a key that nothing here knows is an error."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from redis.exceptions import ResponseError

from notifier.broker.entries import unpack
from notifier.broker.line import Caller, Command
from notifier.keys import GROUP
from tests.model.things import KEYS, PartitionView, QueueView, Row, base_of, is_final, read_fields

_KEY = re.compile(rf"\{{{KEYS.namespace}:(\d\d)\}}:(.*)")
_ALL = ("-", "+")

Fill = Callable[..., None]


async def read_back(line: Caller) -> list[PartitionView]:
    """All partitions as they are now. Two round trips."""
    [names] = await line.execute([("KEYS", f"*{KEYS.namespace}:*")])
    reader = _Reader()
    for name in sorted(names):
        reader.want(name.decode())
    now, *replies = await line.execute([("TIME",), *reader.commands])
    reader.now_ms = int(now[0]) * 1000 + int(now[1]) // 1000
    for fill, reply in zip(reader.fills, replies, strict=True):
        fill(reply)
    return reader.views


class _Reader:
    def __init__(self) -> None:
        self.views = [PartitionView() for _ in range(KEYS.partitions)]
        self.commands: list[Command] = []
        self.fills: list[Fill] = []
        self.now_ms = 0
        self._items: dict[str, bytes] = {}

    def _ask(self, fill: Fill, *command: str | int) -> None:
        self.commands.append(command)
        self.fills.append(fill)

    def want(self, name: str) -> None:
        found = _KEY.fullmatch(name)
        if name == KEYS.meta():
            return
        assert found, name
        view, words = self.views[int(found[1])], found[2].split(":")
        match words:
            case ["seen" | "recipient", *_]:
                pass
            case ["scheduled" | "suppressed" | "unalerted" | "inbox", *_]:
                self._want_of_partition(view, name, words)
            case [base, "dead"]:
                self._ask(lambda reply: self._dead(view, base, reply), "XRANGE", name, *_ALL)
            case [base, "dlq", *part]:
                self._want_of_queue(view, f"{base}:dlq", name, part)
            case [base, *part]:
                self._want_of_queue(view, base, name, part)

    def _want_of_partition(self, view: PartitionView, name: str, words: list[str]) -> None:
        match words:
            case ["scheduled"]:
                self._ask(self._scheduled, "HGETALL", f"{name}:items")
                self._ask(
                    lambda reply: self._scheduled_times(view, reply), "ZRANGE", name, 0, -1, "WITHSCORES"
                )
            case ["scheduled", "items"]:
                self._ask(
                    lambda reply: view.scheduled_numbers.update(_texts(reply) - {"last"}), "HKEYS", name
                )
            case ["suppressed"]:
                self._ask(lambda reply: view.suppressed.update(_texts(reply)), "HKEYS", name)
            case ["unalerted"]:
                self._ask(lambda reply: view.unalerted.update(_counts(reply)), "HGETALL", name)
            case ["inbox", _, "entries"]:
                self._ask(lambda reply: view.inbox.update(_texts(reply)), "HKEYS", name)

    def _want_of_queue(self, view: PartitionView, queue: str, name: str, part: list[str]) -> None:
        of = view.queues[queue]
        match part:
            case []:
                self._ask(lambda reply: self._pending(of, reply), "XPENDING", name, GROUP, *_ALL, 10_000)
                self._ask(lambda reply: self._group(of, reply), "XINFO", "GROUPS", name)
                self._ask(lambda reply: self._stream(of, queue, reply), "XRANGE", name, *_ALL)
            case ["lease"]:
                self._ask(lambda reply: self._lease(of, reply), "HMGET", name, "token", "until", "step")
            case ["parked"]:
                self._ask(lambda reply: self._parked(of, reply), "ZRANGE", name, 0, -1, "WITHSCORES")
            case ["retries"]:
                self._ask(lambda reply: of.retries.update(_pairs(reply)), "HGETALL", name)
            case ["lane", lane]:
                self._ask(lambda reply: self._lane(of, queue, lane, reply), "LRANGE", name, 0, -1)
            case _:
                raise AssertionError(f"nobody knows the key {name}")

    def _scheduled(self, reply: list[bytes]) -> None:
        self._items = _pairs(reply, keep_bytes=True)

    def _scheduled_times(self, view: PartitionView, reply: list[bytes]) -> None:
        for number, due in zip(reply[::2], reply[1::2], strict=True):
            queue, *fields = unpack(self._items[number.decode()])
            thing = read_fields(queue.decode(), fields).thing
            view.scheduled.append((thing, queue.decode(), float(due) <= self.now_ms))

    def _pending(self, of: QueueView, reply: Any) -> None:
        if not isinstance(reply, ResponseError):
            for entry_id, holder, _, owners in reply:
                of.pending[entry_id.decode()] = f"{owners} {holder.decode()}"

    def _group(self, of: QueueView, reply: Any) -> None:
        for group in reply:
            info = dict(zip(group[::2], group[1::2], strict=True))
            of.last_read = info[b"last-delivered-id"].decode()
            of.has_group = True

    def _stream(self, of: QueueView, queue: str, reply: Any) -> None:
        for entry_id, fields in reply:
            owners, _, holder = of.pending.get(entry_id.decode(), "0 ").partition(" ")
            read = read_fields(queue, fields)
            # Of an entry that is no dead letter the attempts lie with its lane.
            of.stream.append(Row(read.thing, read.error, read.attempts, holder, int(owners)))
            of.ids.append(entry_id.decode())
        assert is_final(queue) or not any(row.error for row in of.stream)

    def _lease(self, of: QueueView, reply: list[bytes | None]) -> None:
        token, until, step = (value or b"" for value in reply)
        of.token, of.live, of.step = token.decode(), int(until or 0) > self.now_ms, int(step or 0)

    def _parked(self, of: QueueView, reply: list[bytes]) -> None:
        for lane, due in zip(reply[::2], reply[1::2], strict=True):
            of.due[lane.decode()] = float(due) <= self.now_ms

    def _lane(self, of: QueueView, queue: str, lane: str, reply: list[bytes]) -> None:
        items = [unpack(item) for item in reply]
        of.lanes[lane] = [(read_fields(queue, item[3:]).thing, int(item[1])) for item in items]
        of.lane_ids[lane] = [item[0].decode() for item in items]

    def _dead(self, view: PartitionView, base: str, reply: Any) -> None:
        for entry_id, fields in reply:
            read = read_fields(base_of(base), fields)
            view.dead[base].append(Row(read.thing, read.error, read.attempts))
            view.dead_ids[base].append(entry_id.decode())


def _texts(reply: list[bytes]) -> set[str]:
    return {text.decode() for text in reply}


def _pairs(reply: list[bytes], *, keep_bytes: bool = False) -> dict[str, Any]:
    pairs = zip(reply[::2], reply[1::2], strict=True)
    return {name.decode(): value if keep_bytes else value.decode() for name, value in pairs}


def _counts(reply: list[bytes]) -> dict[str, int]:
    return {name: int(count) for name, count in _pairs(reply).items() if int(count)}
