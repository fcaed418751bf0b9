"""From one number of partitions to another."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from notifier.broker.connection import Client
from notifier.broker.entries import WIRE_VERSION
from notifier.broker.meta import MAX_PARTITIONS
from notifier.broker.scanning import scan
from notifier.broker.scripts import Call, ask, script
from notifier.errors import BrokerError, InvalidInput
from notifier.keys import EVENTS, Keys
from notifier.operations.partitions.names import MOVING, Kind, Name, Names
from notifier.operations.partitions.parts import MOVES
from notifier.operations.partitions.server import Server
from notifier.operations.partitions.streams import move_streams

Progress = Callable[[str, int], None]
"""Told what has been moved since it was last told, and how many of it."""

_MOST_PASSES: Final = 5


class StillServed(BrokerError):
    """Workers live that would have to stop first. Nothing has changed."""

    def __init__(self, workers: Sequence[str]) -> None:
        self.workers = workers
        shown = ", ".join(workers[:5]) + (", ..." if len(workers) > 5 else "")
        super().__init__(f"these workers live: {shown}; stop all workers and the HTTP API, then try again")


@dataclass(frozen=True, slots=True)
class Layout:
    """What `ntf:meta` says. `changing` is the number that a change has begun to, and not finished."""

    partitions: int
    layout: int
    wire: str
    changing: int | None

    @property
    def is_done(self) -> bool:
        """A change to the number that there is: of two at once, older versions let the slower one begin.
        Everything has moved, and nothing but the note of it is left."""
        return self.changing == self.partitions


@dataclass(slots=True)
class Inventory:
    """How many keys of a layout there are, by what they are; names only of those whose number does not grow
    with recipients.

    `unknown` are keys in a partition that this version does not know how to move.
    """

    counts: Counter[str] = field(default_factory=Counter)
    streams: dict[str, list[Name]] = field(default_factory=dict)
    leases: dict[int, list[bytes]] = field(default_factory=dict)
    closed: set[int] = field(default_factory=set)
    unknown: list[str] = field(default_factory=list)

    def add(self, name: Name) -> None:
        if name.kind is Kind.LEASE:
            self.leases.setdefault(name.partition, []).append(name.key)
        elif name.kind is Kind.STREAM:
            self.streams.setdefault(name.suffix, []).append(name)
        elif name.rest == "moved":
            self.closed.add(name.partition)
        if called := _called(name):
            self.counts[called] += 1


@dataclass(frozen=True, slots=True)
class Moved:
    """What a change did. `resumed`: it went on with one that had begun before."""

    before: int
    after: int
    resumed: bool
    counts: Mapping[str, int]


async def look(client: Client, namespace: str) -> Layout | None:
    """None when nothing was ever started in this namespace. Raises BrokerError."""
    meta = Keys(namespace).meta()
    [[partitions, layout, wire, changing]] = await ask(
        client, ("HMGET", meta, "partitions", "layout", "wire", "changing")
    )
    if partitions is None:
        return None
    return Layout(int(partitions), int(layout or 1), (wire or b"").decode(), _number(changing))


def _number(text: Any) -> int | None:
    return None if text is None else int(text)


async def survey(client: Client, keys: Keys) -> Inventory:
    """Looks at all keys of a layout, without changing anything. Raises BrokerError."""
    inventory, names = Inventory(), Names(keys)
    async for page in scan(client, names.pattern):
        for key in page:
            try:
                name = names.of(key)
            except KeyError:
                inventory.unknown.append(key.decode(errors="backslashreplace"))
                continue
            if name:
                inventory.add(name)
    return inventory


async def living(client: Client, keys: Keys, leases: Mapping[int, Sequence[bytes]]) -> list[str]:
    """The workers that have said that they are alive, or hold a lease. Raises BrokerError."""
    [[seconds, micros]] = await ask(client, ("TIME",))
    now_ms = int(seconds) * 1_000 + int(micros) // 1_000
    found: set[str] = set()
    async for page in scan(client, f"{keys.workers('')}*"):
        for names in await ask(client, *(("ZRANGE", key, now_ms, "+inf", "BYSCORE") for key in page)):
            found |= {name.decode(errors="backslashreplace") for name in names}
    held = [lease for of_partition in leases.values() for lease in of_partition]
    for token, until in (
        await ask(client, *(("HMGET", key, "token", "until") for key in held)) if held else ()
    ):
        if token and int(until or 0) > now_ms:
            found.add(token.decode(errors="backslashreplace").rpartition("#")[0])
    return sorted(found)


async def change(client: Client, namespace: str, partitions: int, tell: Progress = lambda *_: None) -> Moved:
    """Moves everything to so many partitions. Whoever was interrupted calls it again.
    So does whoever finds a change that was done already, but is still noted as going on.

    Raises InvalidInput for a number that can't be, for a namespace without an installation or whose change to
    another number has begun, and when there are keys that it would have to leave behind; StillServed;
    PartitionsMoved when another process is at it; and BrokerError. After an InvalidInput or StillServed
    nothing has changed.
    """
    before = await checked(client, namespace, partitions)
    old = Keys(namespace, before.partitions, before.layout)
    if before.is_done:
        async with (server := Server(client, old)).held():
            await server.run([Call(script("partition_end"), [old.meta()], (partitions, ""))])
        return Moved(partitions, partitions, True, {})
    new = Keys(namespace, partitions, before.layout + 1)
    server = Server(client, old)
    async with server.held():
        begin = Call(script("partition_begin"), [old.meta()], (partitions, old.partitions, old.layout))
        [begun] = await server.run([begin])
        if begun is None or (int(begun[0]), int(begun[1])) != (old.partitions, old.layout):
            raise InvalidInput("partitions", "were changed by another process a moment ago")
        if int(begun[2]) != partitions:
            raise _other(int(begun[2]))
        inventory = await _closable(server, old, partitions)
        await _close(server, old, inventory)
        counts = await _move_all(server, old, new, tell)
        await server.ask(*(("DEL", new.taken(number)) for number in range(new.partitions)))
        await server.run([Call(script("partition_end"), [old.meta()], (partitions, new.layout))])
    return Moved(old.partitions, partitions, bool(before.changing), counts)


async def checked(client: Client, namespace: str, partitions: int) -> Layout:
    """The layout as it is, if it can be changed to this number, or this change be ended.

    Raises InvalidInput and BrokerError."""
    if not 1 <= partitions <= MAX_PARTITIONS:
        raise InvalidInput("partitions", f"must be from 1 to {MAX_PARTITIONS}")
    before = await look(client, namespace)
    if before is None:
        raise InvalidInput("partitions", f"can't be changed: {namespace} has no installation yet")
    if before.wire != WIRE_VERSION.decode():
        raise InvalidInput(
            "partitions", f"can't be changed: {namespace} holds wire format {before.wire}, not "
            f"{WIRE_VERSION.decode()}"
        )  # fmt: skip
    if before.changing not in {None, partitions}:
        assert before.changing is not None
        raise _other(before.changing)
    if before.partitions == partitions and not before.is_done:
        raise InvalidInput("partitions", f"are {partitions} already")
    return before


def _other(number: int) -> InvalidInput:
    return InvalidInput(
        "partitions",
        f"are being changed to {number}: finish that first (notifier partitions change {number})",
    )


async def _closable(server: Server, old: Keys, partitions: int) -> Inventory:
    """What is there, after making sure that it can be moved; else everybody may start again."""
    inventory = await survey(server.client, old)
    try:
        if inventory.unknown:
            shown = inventory.unknown[0]
            raise InvalidInput(
                "partitions", f"can't be changed: {len(inventory.unknown)} keys are unknown, such as {shown}"
            )
        if workers := await living(server.client, old, inventory.leases):
            raise StillServed(workers)
    except (InvalidInput, StillServed):
        if not inventory.closed:
            await server.run([Call(script("partition_end"), [old.meta()], (partitions, ""))])
        raise
    return inventory


async def _close(server: Server, old: Keys, inventory: Inventory) -> None:
    told = f"moved; {old.meta()} says where to"
    calls = []
    for number in range(old.partitions):
        events, suppressed = old.queue(EVENTS, number), old.suppressed(number)
        names = [old.moved(number), events, events + MOVING, suppressed, suppressed + MOVING]
        leases = [key.decode() for key in inventory.leases.get(number, ())]
        calls.append(Call(script("partition_close"), [*names, *leases], (told,)))
    for owner in await server.run(calls):
        if owner is not None:
            raise StillServed([owner.decode(errors="backslashreplace")])


async def _move_all(server: Server, old: Keys, new: Keys, tell: Progress) -> Counter[str]:
    counts: Counter[str] = Counter()

    def moved(what: str, count: int) -> None:
        if count:
            counts[what] += count
            tell(what, count)

    for _ in range(_MOST_PASSES):
        inventory = await survey(server.client, old)
        for suffix, sources in sorted(inventory.streams.items()):
            moved(suffix, await move_streams(server, new, sources))
        if not await _move_rest(server, old, new, moved):
            return counts
    raise BrokerError("something is added to the old partitions all the time; try again")


async def _move_rest(server: Server, old: Keys, new: Keys, moved: Progress) -> int:
    """Everything but streams, in one scan. Returns how many keys there were."""
    names, found = Names(old), 0
    async for page in scan(server.client, names.pattern, 500):
        groups: dict[tuple[Kind, str], list[Name]] = {}
        for name in filter(None, map(names.of, page)):
            if name.kind in MOVES:
                groups.setdefault((name.kind, _called(name)), []).append(name)
        for (kind, what), some in groups.items():
            moved(what, await MOVES[kind](server, new, some))
            found += len(some)
    return found


def _called(name: Name) -> str:
    """What people are told that it is."""
    if name.kind is Kind.STREAM:
        return name.suffix
    if name.kind is Kind.WHOLE:
        word = name.rest.partition(":")[0]
        return word if word in {"recipient", "inbox", "idempotency"} else "parked lanes"
    if name.kind is Kind.LEFT:  # these two make room under another name when their partition is closed
        return name.rest if name.rest in {EVENTS, "suppressed"} else ""
    if name.kind is Kind.LEASE:
        return ""
    return name.kind.name.lower()
