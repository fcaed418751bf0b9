"""What is fixed in the broker, who serves the queues, and what waits in them."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Final

from notifier.broker.connection import Client
from notifier.broker.entries import WIRE_VERSION
from notifier.broker.meta import DEFAULT_PARTITIONS
from notifier.broker.scripts import ask
from notifier.channel import Channel, Finding
from notifier.keys import EVENTS, Keys, dlq_of
from notifier.operations import partitions as layouts
from notifier.operations import queues
from notifier.operations.dead_letters import Selection, find
from notifier.operations.doctor.findings import counted, error, ok, warning
from notifier.operations.queues import QueueState
from notifier.settings import Settings

_LETTERS: Final = 2_000
"""In how many dead letters their errors are looked at."""

_OLD: Final = timedelta(minutes=10)
_MANY_PARKED: Final = 10_000
_LONGEST_LEASE: Final = timedelta(minutes=5)


async def look(client: Client, settings: Settings, channels: Mapping[str, Channel]) -> AsyncIterator[Finding]:
    """Raises BrokerError."""
    layout = await layouts.look(client, settings.namespace)
    if layout is None:
        number = settings.partitions or DEFAULT_PARTITIONS
        yield ok(
            "installation", f"none in {settings.namespace} yet; the first start makes {number} partitions"
        )
        return
    for finding in _fixed(layout, settings):
        yield finding
    if layout.changing is not None:  # some lie under the old names, some under the new ones
        return
    keys = Keys(settings.namespace, layout.partitions, layout.layout)
    states = await queues.look(client, keys, tuple(channels))
    for state in states:
        yield _served(state, layout.partitions)
        for finding in _waiting(state, settings, layout.partitions):
            yield finding
    if not any(state.dlq_owners for state in states):
        means = "Dead letters get no second try, and nobody is alerted."
        level = error if any(state.dlq for state in states) else warning
        yield level("dead letter workers", "none", means, "notifier worker dead_letters")
    for finding in await _stuck(client, keys, [state.queue for state in states]):
        yield finding
    async for finding in _letters(client, keys, states):
        yield finding


def _fixed(layout: layouts.Layout, settings: Settings) -> Iterator[Finding]:
    wire = WIRE_VERSION.decode()
    if layout.wire != wire:
        means = "No process of this version starts."
        mend = "Use a version that speaks it, or another NOTIFIER_NAMESPACE."
        yield error("wire format", f"{layout.wire}; this version speaks {wire}", means, mend)
    else:
        yield ok("wire format", wire)
    if layout.changing is not None:
        means = "Nothing starts and nothing is published until that is done."
        mend = f"notifier partitions change {layout.changing}"
        yield error(
            "partitions", f"are being changed from {layout.partitions} to {layout.changing}", means, mend
        )
    elif settings.partitions not in {None, layout.partitions}:
        means = "No process starts with this setting."
        mend = f"Set NOTIFIER_PARTITIONS={layout.partitions}, or unset it."
        yield error(
            "partitions", f"{layout.partitions}, and the setting says {settings.partitions}", means, mend
        )
    else:
        yield ok("partitions", str(layout.partitions))


def _role(queue: str) -> str:
    return "router" if queue == EVENTS else queue


def _served(state: QueueState, partitions: int) -> Finding:
    owned = sum(state.owners.values())
    if owned == partitions:
        return ok(f"{state.queue} workers", f"{len(state.owners)}, all {partitions} partitions have an owner")
    if not owned:
        level = error if state.waiting or state.in_hand or state.parked else warning
        means = "What comes into this queue waits."
        return level(f"{state.queue} workers", "none", means, f"notifier worker {_role(state.queue)}")
    found = f"{counted(partitions - owned, 'partition')} of {partitions} without an owner"
    means = "For longer than NOTIFIER_LEASE_TTL, it means that workers can't take leases."
    mend = "Look again in a moment; then read the workers' log for lease_not_taken."
    return warning(f"{state.queue} workers", found, means, mend)


def _waiting(state: QueueState, settings: Settings, partitions: int) -> Iterator[Finding]:
    total, oldest = state.waiting + state.in_hand, timedelta(milliseconds=state.oldest_ms or 0)
    found = f"{total:,}" if not total else f"{total:,}, the oldest for {_time(oldest)}"
    if state.queue == EVENTS and settings.backlog_limit and total > settings.backlog_limit * partitions // 2:
        means = "At NOTIFIER_BACKLOG_LIMIT of a partition, publishing is refused (BacklogFull)."
        yield warning(f"{state.queue} waiting", found, means, "Start another worker with the role router.")
    elif oldest > _OLD:
        means = "More comes in than goes out, or the channel's provider is away (its breaker is open)."
        mend = f"Read the log of the role {_role(state.queue)} for channel_unavailable; start more workers."
        yield warning(f"{state.queue} waiting", found, means, mend)
    else:
        yield ok(f"{state.queue} waiting", found)
    if state.parked > _MANY_PARKED:
        means = "The provider says “later” to many; they retry by themselves, in order."
        yield warning(f"{state.queue} parked", f"{state.parked:,}", means, "Ask the provider, if it lasts.")
    elif state.parked:
        yield ok(f"{state.queue} parked", f"{state.parked:,} wait for a retry")


async def _stuck(client: Client, keys: Keys, names: Sequence[str]) -> list[Finding]:
    """Leases that would not run out as they should: the server's clock went back, or somebody wrote them."""
    every = [name for queue in names for name in (queue, dlq_of(queue))]
    held = [
        (queue, number, keys.lease(queue, number)) for queue in every for number in range(keys.partitions)
    ]
    [[seconds, _], *rows] = await ask(
        client, ("TIME",), *(("HMGET", lease, "token", "until") for _, _, lease in held)
    )
    limit = (int(seconds) + 2 * _LONGEST_LEASE.total_seconds()) * 1_000
    found = [
        lease
        for (_, _, lease), (token, until) in zip(held, rows, strict=True)
        if token and until and float(until) > limit
    ]
    if not found:
        return [ok("leases", "all run out in time")]
    means = "Nobody can take over these partitions should their owner die."
    mend = f"DEL {found[0]}" + (f" and {len(found) - 1} more" if len(found) > 1 else "")
    return [error("leases", f"{counted(len(found), 'lease')} end in the far future", means, mend)]


async def _letters(client: Client, keys: Keys, states: Sequence[QueueState]) -> AsyncIterator[Finding]:
    names = [state.queue for state in states]
    if not any(state.dlq or state.dead for state in states):
        yield ok("dead letters", "none")
        return
    by_error: Counter[str] = Counter()
    types: Counter[str] = Counter()
    looked = 0
    async for letter in find(client, keys, Selection(names)):
        by_error[letter.failure.error] += 1
        if letter.failure.error == "UnknownType":
            types[letter.type] += 1
        looked += 1
        if looked == _LETTERS:
            break
    reasons = ", ".join(f"{name} {count}" for name, count in by_error.most_common(4))
    for state in states:
        if state.dlq:
            means = f"All attempts failed, and one more comes. Of all queues: {reasons}."
            mend = f"notifier dlq list --channel {state.queue}"
            yield warning(f"{state.queue} dlq", f"{state.dlq:,}", means, mend)
        if state.dead:
            means = f"Given up; kept until somebody decides. Of all queues: {reasons}."
            mend = f"notifier dlq list --channel {state.queue} --state dead, then redrive or discard"
            yield warning(f"{state.queue} dead", f"{state.dead:,}", means, mend)
    for name, count in types.most_common(5):
        means = f"{counted(count, 'event')} of this type wait, and nobody is told of them."
        mend = f"notifier templates new {name}, then notifier dlq redrive --type {name}"
        yield error("event type", f"{name} has no folder of templates", means, mend)


def _time(age: timedelta) -> str:
    seconds = int(age.total_seconds())
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "m")):
        if seconds >= size:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"
