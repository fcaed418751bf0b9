"""Moving what is no stream: a key as a whole, or what of it belongs to each recipient. Every step may be done
again: what is copied is copied to the same place, and only then deleted where it was."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any

from notifier.broker.failures import translate
from notifier.broker.line import Command
from notifier.broker.scripts import Call, script
from notifier.keys import Keys
from notifier.operations.partitions.names import MOVING, Kind, Name, owner_of_lane, target, text
from notifier.operations.partitions.server import Server
from notifier.operations.partitions.streams import place, recipient_of_item

_AT_ONCE = 25  # keys of a step: an inbox or a lane may be large
_STEP = 500  # fields or members of a step


async def move_whole(server: Server, new: Keys, names: Sequence[Name]) -> int:
    """Profiles, inboxes, lanes, answers to idempotent requests. Returns how many keys there were."""
    moved = 0
    for at in range(0, len(names), _AT_ONCE):
        some = names[at : at + _AT_ONCE]
        asked = [c for name in some for c in (("DUMP", name.key), ("PEXPIRETIME", name.key))]
        found = await server.ask(*asked)
        restores: list[Command] = []
        for name, dump, expires_ms in zip(some, found[::2], found[1::2], strict=True):
            if dump is not None:
                there = target(new, place(new, name.owner, name.partition), name.rest)
                restores.append(("RESTORE", there, max(0, expires_ms), dump, "ABSTTL"))
        for reply in await server.try_all(restores):
            # A key that is there had come there when somebody died over the next step.
            if isinstance(reply, Exception) and "BUSYKEY" not in str(reply):
                raise translate(reply)
        await server.ask(*(("UNLINK", name.key) for name in some))
        moved += len(restores)
    return moved


async def move_seen(server: Server, new: Keys, names: Sequence[Name]) -> int:
    """Who has had an event within the dedup window."""
    asked = [c for name in names for c in (("HKEYS", name.key), ("PEXPIRETIME", name.key))]
    found = await server.ask(*asked)
    commands: list[Command] = []
    for name, recipients, expires_ms in zip(names, found[::2], found[1::2], strict=True):
        by_target: dict[int, list[Any]] = {}
        for recipient in recipients:
            by_target.setdefault(place(new, text(recipient), name.partition), []).extend((recipient, ""))
        for partition, pairs in by_target.items():
            key = target(new, partition, name.rest)
            commands += (("HSET", key, *pairs), *_expiring(key, expires_ms))
    await server.ask(*commands)
    await server.ask(*(("UNLINK", name.key) for name in names))
    return len(names)


async def move_traces(server: Server, new: Keys, name: Name) -> int:
    """What happened to the events of an hour: a field holds lines of several recipients."""
    [expires_ms] = await server.ask(("PEXPIRETIME", name.key))
    cursor, moved = b"0", 0
    while True:
        [[cursor, row]] = await server.ask(("HSCAN", name.key, cursor, "COUNT", 50))
        commands: list[Command] = []
        targets: set[bytes] = set()
        for field, lines in zip(row[::2], row[1::2], strict=True):
            by_target: dict[int, list[bytes]] = {}
            for line in lines.splitlines(keepends=True):
                words = line.split(b"\t", 2)
                owner = text(words[1]) if len(words) > 2 else None
                by_target.setdefault(place(new, owner, name.partition), []).append(line)
            for partition, of_target in by_target.items():
                key = target(new, partition, name.rest)
                mark = b"%d.%d.%b" % (new.layout, name.partition, field)  # others may have this field too
                commands.append(("HSET", key, mark, b"".join(of_target)))
                targets.add(key)
        commands += [command for key in targets for command in _expiring(key, expires_ms)]
        await server.ask(*commands)
        moved += len(row) // 2
        if cursor == b"0":
            await server.ask(("UNLINK", name.key))
            return moved


async def move_suppressed(server: Server, new: Keys, name: Name) -> int:
    rest = name.rest.removesuffix(MOVING)

    def step(row: Sequence[bytes]) -> Iterable[tuple[Command, Command]]:
        for field, value in zip(row[::2], row[1::2], strict=True):
            owner = owner_of_lane(text(field).partition(":")[2])
            key = target(new, place(new, owner, name.partition), rest)
            yield ("HSET", key, field, value), ("HDEL", name.key, field)

    return await _step_by_step(server, "HSCAN", name, step)


async def move_retries(server: Server, new: Keys, name: Name) -> int:
    def step(row: Sequence[bytes]) -> Iterable[tuple[Command, Command]]:
        for lane, owners in zip(row[::2], row[1::2], strict=True):
            key = target(new, place(new, owner_of_lane(text(lane)), name.partition), name.rest)
            yield ("HSET", key, lane, owners), ("HDEL", name.key, lane)

    return await _step_by_step(server, "HSCAN", name, step)


async def move_parked(server: Server, new: Keys, name: Name) -> int:
    def step(row: Sequence[bytes]) -> Iterable[tuple[Command, Command]]:
        for lane, due_ms in zip(row[::2], row[1::2], strict=True):
            key = target(new, place(new, owner_of_lane(text(lane)), name.partition), name.rest)
            yield ("ZADD", key, due_ms, lane), ("ZREM", name.key, lane)

    return await _step_by_step(server, "ZSCAN", name, step)


async def move_scheduled(server: Server, new: Keys, name: Name) -> int:
    """Items keep their time; of one partition also their numbers, by which those of one time are in order."""
    due_key, items_key = name.key.removesuffix(b":items"), name.key
    [[seconds, _]] = await server.ask(("TIME",))
    # Numbers go on above all that came before: nobody schedules a thousand a second for years.
    last = int(seconds) * 1_000
    await server.ask(*(("HSETNX", new.scheduled_items(p), "last", last) for p in range(new.partitions)))
    cursor, moved = b"0", 0
    while True:
        [[cursor, row]] = await server.ask(("HSCAN", items_key, cursor, "COUNT", _STEP))
        items = dict(zip(row[::2], row[1::2], strict=True))
        numbers = [number for number in items if number != b"last"]
        items = dict(zip(row[::2], row[1::2], strict=True))
        if numbers:
            await _move_items(server, new, name, items, numbers)
        moved += len(numbers)
        if cursor == b"0":
            await server.ask(("UNLINK", items_key, due_key))
            return moved


async def _move_items(
    server: Server, new: Keys, name: Name, items: Mapping[bytes, bytes], numbers: Sequence[bytes]
) -> None:
    due_key = name.key.removesuffix(b":items")
    [dues] = await server.ask(("ZMSCORE", due_key, *numbers))
    commands: list[Command] = []
    for number, due_ms in zip(numbers, dues, strict=True):
        if due_ms is None:
            continue  # it was taken off the times already, so it has come to its new place
        partition = place(new, recipient_of_item(items[number]), name.partition)
        mark = b"%b-%d" % (number, name.partition)
        commands += (
            ("HSET", new.scheduled_items(partition), mark, items[number]),
            ("ZADD", new.scheduled(partition), due_ms, mark),
        )
    await server.ask(*commands)
    await server.ask(("ZREM", due_key, *numbers), ("HDEL", name.key, *numbers))


async def move_unalerted(server: Server, new: Keys, name: Name) -> int:
    [counts] = await server.ask(("HGETALL", name.key))
    partition = name.partition % new.partitions
    names = (new.unalerted(partition), new.taken(partition))
    source = f"{name.rest}:{name.partition}"
    if counts:
        await server.run([Call(script("partition_count"), names, (source, *_flat(counts)))])
    await server.ask(("UNLINK", name.key))
    return len(counts) // 2 if isinstance(counts, list) else len(counts)


def _flat(counts: Any) -> list[bytes]:
    return list(counts) if isinstance(counts, list) else [word for pair in counts.items() for word in pair]


async def _step_by_step(
    server: Server,
    scan: str,
    name: Name,
    step: Callable[[Sequence[bytes]], Iterable[tuple[Command, Command]]],
) -> int:
    """Puts what a scan brings at its new place, and then takes it off here: nobody adds to it any more."""
    cursor, moved = b"0", 0
    while True:
        [[cursor, row]] = await server.ask((scan, name.key, cursor, "COUNT", _STEP))
        pairs = list(step(row))
        await server.ask(*(put for put, _ in pairs))
        await server.ask(*(take for _, take in pairs))
        moved += len(pairs)
        if cursor == b"0":
            return moved


def _expiring(key: bytes, expires_ms: int) -> Iterable[Command]:
    """Whichever of several sources lasts longest counts."""
    if expires_ms > 0:
        yield ("PEXPIREAT", key, expires_ms, "NX")
        yield ("PEXPIREAT", key, expires_ms, "GT")


async def drop(server: Server, _: Keys, names: Sequence[Name]) -> int:
    """Leases: whoever held one is gone."""
    await server.ask(*(("UNLINK", name.key) for name in names))
    return 0


Move = Callable[[Server, Keys, Sequence[Name]], Awaitable[int]]


def _each(move: Callable[[Server, Keys, Name], Awaitable[int]]) -> Move:
    async def move_all(server: Server, new: Keys, names: Sequence[Name]) -> int:
        return sum([await move(server, new, name) for name in names])

    return move_all


MOVES: Mapping[Kind, Move] = {
    Kind.WHOLE: move_whole,
    Kind.SEEN: move_seen,
    Kind.TRACES: _each(move_traces),
    Kind.SUPPRESSED: _each(move_suppressed),
    Kind.PARKED: _each(move_parked),
    Kind.RETRIES: _each(move_retries),
    Kind.SCHEDULED: _each(move_scheduled),
    Kind.UNALERTED: _each(move_unalerted),
    Kind.LEASE: drop,
}
"""How what is no stream is moved. Each returns how many there were."""
