"""What an installation holds, whatever its number of partitions: what is said of whom, in which order.

`contents` reads every key of a layout, and fails when something lies in another partition than its
recipient's.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from typing import Any

import redis

from notifier.broker.entries import unpack
from notifier.keys import Keys

_NO_RECIPIENT = ""


def contents(client: redis.Redis, keys: Keys) -> dict[str, Any]:
    """By kind: streams as lists for each recipient, all else as mappings."""
    reader = _Reader(client, keys)
    for number in range(keys.partitions):
        prefix = f"{keys.tag(number)}:"
        for name in client.scan_iter(f"{prefix}*", count=1_000):
            reader.read(number, name, name.decode()[len(prefix) :])
    reader.found["unalerted"] = dict(reader.sums)
    return {kind: value for kind, value in reader.found.items() if value}


class _Reader:
    """Reads one key after the other into `found`."""

    def __init__(self, client: redis.Redis, keys: Keys) -> None:
        self._client = client
        self._keys = keys
        self.found: dict[str, Any] = defaultdict(dict)
        self.sums: Counter[str] = Counter()

    def read(self, number: int, name: bytes, rest: str) -> None:
        word = rest.partition(":")[0]
        if rest in {"scheduled", "moved"} or rest.endswith(":lease"):
            return
        if rest.endswith((":parked", ":retries")) or ":lane:" in rest:
            self._lanes(number, name, rest)
        else:
            getattr(self, f"_{word}", self._stream)(number, name, rest)

    def _recipient(self, number: int, name: bytes, rest: str) -> None:
        word, _, owner = rest.partition(":")
        self._at_home(number, owner)
        self.found[word][owner] = self._value(name), self._client.pexpiretime(name)

    _idempotency = _recipient

    def _inbox(self, number: int, name: bytes, rest: str) -> None:
        owner, _, part = rest.partition(":")[2].rpartition(":")
        self._at_home(number, owner)
        self.found["inbox"][owner, part] = self._value(name), self._client.pexpiretime(name)

    def _seen(self, number: int, name: bytes, rest: str) -> None:
        for recipient in self._client.hkeys(name):
            self._at_home(number, recipient.decode())
            self.found["seen"].setdefault(rest, set()).add(recipient)
        latest = self.found["seen expires"].get(rest, 0)
        self.found["seen expires"][rest] = max(latest, self._client.pexpiretime(name))

    def _trace(self, number: int, name: bytes, rest: str) -> None:
        for lines in self._client.hvals(name):
            for line in lines.splitlines():
                self._at_home(number, line.split(b"\t")[1].decode())
                self.found["trace"].setdefault(rest, Counter())[line] += 1
        self.found["trace expires"][rest] = self._client.pexpiretime(name)

    def _suppressed(self, number: int, name: bytes, rest: str) -> None:
        for field, value in self._client.hgetall(name).items():
            self._at_home(number, field.decode().partition(":")[2].rpartition("/")[0])
            self.found["suppressed"][field] = value

    def _unalerted(self, number: int, name: bytes, rest: str) -> None:
        self.sums.update({field.decode(): int(count) for field, count in self._client.hgetall(name).items()})

    def _lanes(self, number: int, name: bytes, rest: str) -> None:
        if ":lane:" in rest:
            queue, _, lane = rest.partition(":lane:")
            self._at_home(number, lane.rpartition("/")[0])
            self.found["lanes"][queue, lane] = self._client.lrange(name, 0, -1)
            return
        kind = rest.rpartition(":")[2]
        for lane, value in dict(self._value(name)).items():
            self._at_home(number, lane.decode().rpartition("/")[0])
            self.found[kind][rest, lane] = value

    def _stream(self, number: int, name: bytes, rest: str) -> None:
        for entry, fields in self._client.xrange(name):
            recipient = _recipient(fields)
            self._at_home(number, recipient)
            row = (entry.split(b"-")[0], tuple(fields.items()))
            self.found[rest].setdefault(recipient, []).append(row)

    def _scheduled(self, number: int, name: bytes, rest: str) -> None:
        items = self._client.hgetall(name)
        due = self._client.zrange(self._keys.scheduled(number), 0, -1, withscores=True)
        assert {member for member, _ in due} == items.keys() - {b"last"}
        for member, due_ms in due:
            queue, *words = unpack(items[member])
            recipient = _recipient(dict(zip(words[::2], words[1::2], strict=True)))
            self._at_home(number, recipient)
            self.found["scheduled"].setdefault(recipient, []).append((due_ms, queue, tuple(words)))

    def _at_home(self, number: int, recipient: str) -> None:
        home = self._keys.partition_of(recipient)
        assert recipient == _NO_RECIPIENT or home == number, (recipient, number)

    def _value(self, name: bytes) -> Any:
        read = {
            b"string": self._client.get,
            b"hash": self._client.hgetall,
            b"zset": lambda key: self._client.zrange(key, 0, -1, withscores=True),
            b"stream": self._client.xrange,
        }
        return read[self._client.type(name)](name)


def _recipient(fields: dict[bytes, bytes]) -> str:
    if b"head" in fields:
        return fields[b"head"].split(b"\n")[3].decode()
    to = fields.get(b"to", b"").decode()
    return json.loads(to)["id"] if to.startswith("{") else to
