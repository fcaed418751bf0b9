"""Redriving dead letters to the queue that they came from, and discarding them.

Each letter is moved or deleted by one step of one script, so two operators at once redrive it once. A
letter that the DLQ's worker is trying at this moment is left to it.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, Literal

from notifier.broker.connection import Client
from notifier.broker.scripts import Call, run_all, script
from notifier.errors import BrokerError
from notifier.keys import GROUP, Keys, dlq_of
from notifier.operations.dead_letters import Bounds, Letter, LetterId, Position, Selection, some

Action = Literal["redrive", "discard"]

BATCH: Final = 100
"""How many letters one call of a script takes."""


class Result(Enum):
    """What became of one letter."""

    DONE = "done"
    GONE = "gone"  # redriven, discarded or delivered meanwhile
    BUSY = "busy"  # the DLQ's worker is trying it now
    UNUSABLE = "unusable"  # holds nothing that could be queued; it can only be discarded


_RESULTS = {1: Result.DONE, 0: Result.GONE, -1: Result.BUSY, -2: Result.UNUSABLE}


async def mend(client: Client, keys: Keys, action: Action, letter_ids: Sequence[LetterId]) -> list[Result]:
    """Redrives or discards these, and says what became of each. Raises BrokerError.

    After an error some may have been dealt with; asking again is harmless.
    """
    by_stream: dict[tuple[str, int, str], list[int]] = {}
    for place, letter_id in enumerate(letter_ids):
        by_stream.setdefault((letter_id.queue, letter_id.partition, letter_id.state), []).append(place)
    batches = [places[i : i + BATCH] for places in by_stream.values() for i in range(0, len(places), BATCH)]
    calls = [_call(keys, action, [letter_ids[place] for place in places]) for places in batches]
    results = [Result.GONE] * len(letter_ids)
    replies = await run_all(client, calls) if calls else []
    for places, reply in zip(batches, replies, strict=True):
        _put(results, places, reply)
    return results


def _put(results: list[Result], places: Sequence[int], reply: Any) -> None:
    if isinstance(reply, BrokerError):
        raise reply
    for place, number in zip(places, reply, strict=True):
        results[place] = _RESULTS[number]


def _call(keys: Keys, action: Action, letter_ids: Sequence[LetterId]) -> Call:
    one = letter_ids[0]
    lease = keys.lease(dlq_of(one.queue), one.partition)
    names: tuple[str, ...] = (one.stream(keys), lease)
    if action == "redrive":
        queue, suppressed = keys.queue(one.queue, one.partition), keys.suppressed(one.partition)
        names = (one.stream(keys), queue, lease, suppressed)
    return Call(script(action), names, (GROUP, *(letter_id.entry for letter_id in letter_ids)))


async def mend_all(
    client: Client,
    keys: Keys,
    action: Action,
    letters: AsyncIterator[Letter],
    *,
    limit: int = 0,
    rate: float = 0.0,
    progress: Callable[[Counter[Result]], None] | None = None,
) -> Counter[Result]:
    """Redrives or discards all of `letters`, or the first `limit` of them, and counts the results.

    `rate` is in letters a second; 0 means as fast as possible. `progress` is told the counts so far after
    each batch. Raises BrokerError.
    """
    results: Counter[Result] = Counter()
    loop = asyncio.get_running_loop()
    started = loop.time()
    size = max(1, min(BATCH, int(rate / 10))) if rate else BATCH
    async for batch in _batches(letters, size, limit):
        if rate:
            await asyncio.sleep(started + results.total() / rate - loop.time())
        results.update(await mend(client, keys, action, batch))
        if progress:
            progress(results)
    return results


@dataclass(frozen=True, slots=True)
class Step:
    """A bounded part of a long job: what became of those that were selected, and where to go on, or None."""

    results: Counter[Result]
    after: Position | None


async def mend_some(
    client: Client,
    keys: Keys,
    action: Action,
    selection: Selection,
    bounds: Bounds,
    *,
    after: Position | None = None,
    rate: float = 0.0,
) -> Step:
    """Redrives or discards what is selected, until `bounds` are reached; then another call goes on.

    `rate` is in letters a second; it holds over calls that follow each other, since each takes its time
    before it returns. Raises BrokerError; then the same call may be made again.
    """
    results: Counter[Result] = Counter()
    size = max(1, min(BATCH, int(rate / 10))) if rate else BATCH
    async for letters, position in some(client, keys, selection, bounds, after, size):
        if letters:
            began = asyncio.get_running_loop().time()
            results.update(await mend(client, keys, action, [letter.id for letter in letters]))
            if rate:
                await asyncio.sleep(began + len(letters) / rate - asyncio.get_running_loop().time())
        after = position
    return Step(results, after)


async def _batches(letters: AsyncIterator[Letter], size: int, limit: int) -> AsyncIterator[list[LetterId]]:
    batch: list[LetterId] = []
    taken = 0
    async for letter in letters:
        batch.append(letter.id)
        taken += 1
        if len(batch) == size or taken == limit:
            yield batch
            batch = []
        if taken == limit:
            return
    if batch:
        yield batch
