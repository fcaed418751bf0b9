"""The story of `notifier demo`, chapter by chapter. Each step is told when both sides have seen it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from notifier.local import story
from notifier.local.evidence import Arrival, Record, told
from notifier.local.stage import Stage
from notifier.local.steps import Look, NotAsExpected, Seen
from notifier.local.story import Expected, Key, Tried
from notifier.operations import dead_letters, mending, queues
from notifier.operations.dead_letters import Letter, Selection

_WORDS: Final = {
    "email": ("e-mail", "e-mails"),
    "push": ("push", "pushes"),
    "in_app": ("inbox", "inboxes"),
}
_EXPECTED: Final = story.expectations()


async def tell_all(stage: Stage) -> None:
    """All chapters, in order. What does not happen is told, and the story goes on."""
    for chapter in (_start, _each_type, _busy_mailbox, _missing_mailbox, _broken_template):
        await chapter(stage)


async def _start(stage: Stage) -> None:
    async def look() -> Seen | None:
        states = await queues.look(stage.runtime.client, stage.runtime.keys, story.CHANNELS)
        partitions = stage.runtime.keys.partitions
        served = all(s.served(partitions) and sum(s.dlq_owners.values()) == partitions for s in states)
        started = next((line for line in stage.log if line.event == "worker_started"), None)
        if not served or started is None:
            return None
        return Seen(" ".join(started.fields["roles"]))

    await stage.narrator.see("worker", look)


async def _each_type(stage: Stage) -> None:
    narrator = stage.narrator
    narrator.chapter = "One event of each type"
    began = time.monotonic()
    await stage.publish(*story.EACH_TYPE)
    number = sum(len(published.recipients) for published in story.EACH_TYPE)
    narrator.told("published", f"{len(story.EACH_TYPE)} events for {number} recipients", since=began)
    for published in story.EACH_TYPE:
        to = ", ".join(published.recipients)
        await narrator.see(f"{published.id} → {to}", _all_arrived(stage, published.id))
    began = time.monotonic()
    duplicate = await stage.publish(story.LIKE)
    said = "known by its id: not sent twice" if duplicate else "was taken for a new one"
    narrator.told(f"{story.LIKE.id} again", said, since=began, ok=duplicate)


async def _busy_mailbox(stage: Stage) -> None:
    narrator, busy, person = stage.narrator, story.TO_BUSY, story.ROSA
    narrator.chapter = f"A mailbox that is busy: {person.email} answers 451, then 250"
    key = Key(busy.id, person.id, "email")
    stage.mailbox.answers[person.email] = list(story.BUSY)
    await stage.publish(busy)

    def parked(record: Record) -> str:
        return f"“{record.reason}”: parked for {record.lines[0].fields['delay_ms']} ms"

    await narrator.see("refused for now", _tried(stage, key, ("parked",), parked))
    await narrator.see("push and inbox did not wait", _all_arrived(stage, busy.id, "push", "in_app"))
    await narrator.see("second attempt", _all_arrived(stage, busy.id, "email"))


async def _missing_mailbox(stage: Stage) -> None:
    narrator, gone, person = stage.narrator, story.TO_GONE, story.SAM
    narrator.chapter = f"A mailbox that does not exist: {person.email} answers 550"
    key = Key(gone.id, person.id, "email")
    stage.mailbox.always[person.email] = story.GONE
    await stage.publish(gone)
    await _dies(stage, key, "no retry: to the DLQ")
    await narrator.see("mailbox not used any more", _suppressed(stage, person))
    await narrator.see("administrator alerted", _all_arrived(stage, story.alert(1), since_published=False))


async def _broken_template(stage: Stage) -> None:
    narrator, order = stage.narrator, story.UNRENDERABLE
    narrator.chapter = f"A typo in {story.BREAKS}, mended while everything runs"
    key = Key(order.id, story.ADA.id, "email")
    template = stage.templates / story.BREAKS
    good = template.read_text(encoding="utf-8")
    await _rewrite(stage, template, story.typo(good), "typo written: data.order_nr")
    await stage.publish(order)
    await _dies(stage, key, "not rendered: to the DLQ")
    await narrator.see("push and inbox did not wait", _all_arrived(stage, order.id, "push", "in_app"))
    await narrator.see("administrator alerted", _all_arrived(stage, story.alert(2), since_published=False))
    await _rewrite(stage, template, good, "template mended")
    await narrator.see("redriven", _redriven(stage, key))
    arrived = _all_arrived(stage, order.id, "email", since_published=False)
    await narrator.see("delivered", arrived)


async def _dies(stage: Stage, key: Key, first_failure: str) -> None:
    """To the DLQ at once, one more try by the DLQ's worker, then dead."""

    async def dead() -> Seen | None:
        seen = await _tried(stage, key, ("dead-lettered", "dead"))()
        letters = [letter async for letter in _dead(stage, key)] if seen else []
        if not letters:
            return None
        return Seen(f"failed too: dead after {letters[0].failure.attempts} attempts")

    await stage.narrator.see(first_failure, _tried(stage, key, ("dead-lettered",)))
    await stage.narrator.see("the DLQ's worker tries again", dead)


def _dead(stage: Stage, key: Key) -> AsyncIterator[Letter]:
    selection = Selection(queues=(key.channel,), states=("dead",), recipient=key.recipient)
    return dead_letters.find(stage.runtime.client, stage.runtime.keys, selection)


async def _rewrite(stage: Stage, template: Path, text: str, what: str) -> None:
    """Replaces the file in one step, as deployments do, and waits until the worker has picked it up."""
    written_at = datetime.now(UTC)
    new = template.with_name(f".{template.name}")
    new.write_text(text, encoding="utf-8")
    new.replace(template)

    async def reloaded() -> Seen | None:
        since = [line.event for line in stage.log if line.at > written_at]
        return Seen("picked up by the worker") if "templates_reloaded" in since else None

    await stage.narrator.see(what, reloaded)


def _tried(
    stage: Stage, key: Key, trail: tuple[Tried, ...], words: Callable[[Record], str] | None = None
) -> Look:
    """Whether its first attempts ended so."""

    async def look() -> Seen | None:
        record = stage.evidence.record(key)
        got = tuple(record.trail[: len(trail)])
        if got == trail:
            return Seen(words(record) if words else f"“{record.reason}”")
        if got != trail[: len(got)]:
            raise NotAsExpected(told(record))
        return None

    return look


def _all_arrived(stage: Stage, event: str, *channels: str, since_published: bool = True) -> Look:
    """Whether what is expected of the event has come about on these channels, or on all."""
    wanted = [e for e in _EXPECTED if e.key.event == event and (not channels or e.key.channel in channels)]

    async def look() -> Seen | None:
        records = stage.evidence.records
        found = [records.get(want.key, Record()) for want in wanted]
        came_about = [_came_about(want, record) for want, record in zip(wanted, found, strict=True)]
        if not all(came_about):
            return None
        arrivals = [arrival for record in found for arrival in record.arrivals]
        last = max(arrival.at for arrival in arrivals)
        ms = round((last - stage.published_at[event]).total_seconds() * 1000) if since_published else None
        return Seen(f"{_counted(arrivals)}: “{arrivals[0].title}”", ms)

    return look


def _came_about(want: Expected, record: Record) -> bool:
    trail, arrived = tuple(record.trail), len(record.arrivals)
    if trail != want.trail[: len(trail)] or arrived > want.arrivals:
        raise NotAsExpected(f"{want.key.channel}: {told(record)}")
    return trail == want.trail and arrived == want.arrivals


def _counted(arrivals: Sequence[Arrival]) -> str:
    counts = Counter(arrival.channel for arrival in arrivals)
    return ", ".join(
        _WORDS[channel][0] if count == 1 else f"{count} {_WORDS[channel][1]}"
        for channel, count in counts.items()
    )


def _suppressed(stage: Stage, person: story.Person) -> Look:
    async def look() -> Seen | None:
        found = await stage.runtime.suppressions.of(person.id)
        return Seen(f"{found[0].address_key} is suppressed") if found else None

    return look


def _redriven(stage: Stage, key: Key) -> Look:
    async def look() -> Seen | None:
        runtime = stage.runtime
        results = await mending.mend_all(runtime.client, runtime.keys, "redrive", _dead(stage, key))
        if results != {mending.Result.DONE: 1}:
            raise NotAsExpected(", ".join(f"{count} {result.value}" for result, count in results.items()))
        return Seen("1 delivery is back in its queue")

    return look


async def what_is_left(stage: Stage) -> list[str]:
    """What differs from the end as it must be: empty queues, and one dead delivery kept."""
    found = []
    for state in await queues.look(stage.runtime.client, stage.runtime.keys, story.CHANNELS):
        counts = {
            "waiting": state.waiting, "in hand": state.in_hand, "parked": state.parked,
            "scheduled": state.scheduled or 0, "in the DLQ": state.dlq, "dead": state.dead,
        }  # fmt: skip
        wanted = {"dead": story.DEAD.get(state.queue, 0)}
        found += [
            f"queue {state.queue}: expected {wanted.get(what, 0)} {what} at the end, but there are {count}"
            for what, count in counts.items()
            if count != wanted.get(what, 0)
        ]
    if unused := stage.mailbox.answers.get(story.ROSA.email):
        found.append(f"{story.ROSA.email}: was asked too seldom; it had still to answer {unused}")
    return found
