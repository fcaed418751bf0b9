"""What happened to each event, recipient by recipient: accepted, routed, skipped, tried, delivered, dead.

That it was accepted is known to the dedup window, `Keys.seen`. What happened then is written with the
commits of the work itself: each adds its lines to a hash of the hour, `Keys.traces(partition, hour)`, as one
field, and the hash goes as a whole when its time is over. So a trace costs the way of an event next to
nothing; whoever asks for one pays, since the lines of an event are found by looking through the hours since.

A line has two to nine texts with tabs between them, the event's id and then those of `Step`, and ends with a
line feed. None of them is an address.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from datetime import timedelta
from functools import lru_cache
from typing import Any, Final, Literal, NamedTuple, get_args

from notifier.broker.connection import Client
from notifier.broker.scripts import Call, ask, run_all, script
from notifier.errors import BrokerError
from notifier.keys import Keys
from notifier.redaction import without_addresses

What = Literal["routed", "skipped", "delivered", "parked", "expired", "dead_lettered", "dead"]
"""`routed` names the places that deliveries go to; all others are of one place, or of none."""

HOUR_MS: Final = 3_600_000
_WHATS: Final = frozenset(get_args(What))
_AT_ONCE = 100  # calls in one round trip
_FIRST_COUNT = 20
_STEP_BYTES = 128 * 1024
_MAX_TEXT = 200
_BETWEEN = "\x1f"


class Step(NamedTuple):
    """One thing that happened to a notification. Times are Unix milliseconds of the server's clock.

    `places` are pairs of channel and address key, of a mailbox its domain only. `attempt` counts from 1, and
    is 0 where none was made. `until_ms` is when a parked lane is tried again. `reason` is why, or the event's
    type when it is routed; `answer` is the provider's own words.
    """

    recipient: str
    at_ms: int
    what: What
    places: tuple[tuple[str, str], ...] = ()
    attempt: int = 0
    until_ms: int = 0
    reason: str = ""
    answer: str = ""


def latest(steps: Iterable[Step]) -> dict[tuple[str, str], Step]:
    """The last step of each place, in the order in which the places came up. It is `routed` for one where
    nothing has been tried yet."""
    found: dict[tuple[str, str], Step] = {}
    for step in steps:
        for pair in step.places:
            found[pair] = step
    return found


def line(  # noqa: PLR0913 - one for each text
    event_id: str, recipient: str, at_ms: int, what: What, where: str, *, attempt: int = 0,
    until_ms: int = 0, reason: str = "", answer: str = "",
) -> bytes:  # fmt: skip
    """One line of a trace; see `Step` for what is what, and `places`."""
    begin = f"{event_id}\t{recipient}\t{at_ms}\t{what}\t{where}\t{attempt or ''}"
    if reason or answer:
        return f"{begin}\t{until_ms or ''}\t{_text(reason)}\t{_text(answer)}\n".encode()
    return f"{begin}\n".encode()


def routed(event_id: str, recipient: str, at_ms: int, where: str, event_type: str) -> bytes:
    """The line of an event that went on its way."""
    return f"{event_id}\t{recipient}\t{at_ms}\trouted\t{where}\t\t\t{event_type}\t\n".encode()


@lru_cache(maxsize=64)  # many are delivered in one millisecond
def delivered(at_ms: int, channel: bytes, key: bytes, attempt: int) -> bytes:
    """The line of a delivery about which the provider said nothing, which is the most frequent one; what
    comes behind the event's id, a tab, and the recipient."""
    if b"@" in key:
        key = shown(key.decode()).encode()
    return b"\t%d\tdelivered\t%b/%b\t%d\n" % (at_ms, channel, key, attempt)


def places(pairs: Iterable[tuple[str, str]]) -> str:
    """Of channels, whose names have no slash, and address keys."""
    return _BETWEEN.join([f"{channel}/{shown(key) if '@' in key else key}" for channel, key in pairs])


def shown(key: str) -> str:
    """An address key that is a mailbox, with its domain only."""
    return f"…@{key.rpartition('@')[2]}"


def _text(words: str) -> str:
    return _CONTROL.sub(" ", without_addresses(words[: 4 * _MAX_TEXT]))[:_MAX_TEXT] if words else ""


_CONTROL = re.compile(r"[\x00-\x1f\x7f]+")


class Traces:
    """Reads traces, and forgets people. Both raise BrokerError."""

    def __init__(self, client: Client, keys: Keys, retention: timedelta) -> None:
        """`retention` is how long they are kept; 0 for not at all."""
        self._client = client
        self._keys = keys
        self._hours = int(retention / timedelta(hours=1)) + 2 if retention else 0

    async def get(self, event_id: str) -> dict[str, list[Step]]:
        """The steps of each recipient that is known of, in the order of time: none at all, when the event
        waits or is scheduled. Empty, when nothing is known of the event (any more)."""
        partitions = range(self._keys.partitions)
        accepted = await ask(
            self._client, *(("HKEYS", self._keys.seen(number, event_id)) for number in partitions)
        )
        steps: dict[str, list[Step]] = {name.decode(): [] for names in accepted for name in names}
        # Whoever it was accepted for says where to look, as long as the dedup window knows.
        where = [number for number in partitions if accepted[number]] or partitions
        replies = await self._look_through("trace_find", where, event_id, _started_ms(event_id))
        # A scan may bring the same again.
        for found in dict.fromkeys(line for reply in replies for line in reply[2:]):
            if step := _step(found.decode(errors="replace").split("\t")[1:]):
                steps.setdefault(step.recipient, []).append(step)
        return {recipient: _in_order(of_recipient) for recipient, of_recipient in steps.items()}

    async def forget(self, recipient_id: str) -> bool:
        """Removes every step of this recipient. Whether there were any."""
        partition = self._keys.partition_of(recipient_id)
        replies = await self._look_through("trace_forget", [partition], recipient_id, 0)
        return any(reply[2] for reply in replies)

    async def _look_through(
        self, name: str, partitions: Sequence[int], what: str, since_ms: int
    ) -> list[Any]:
        """The replies of a script that looks through all hours, a part of each in every round trip."""
        [[seconds, _]] = await ask(self._client, ("TIME",))
        last = int(seconds) * 1000 // HOUR_MS
        first = max(last - self._hours + 1, since_ms // HOUR_MS)
        going = {
            self._keys.traces(number, hour): (b"0", _FIRST_COUNT)
            for number in partitions
            for hour in range(last, first - 1, -1)
        }
        replies: list[Any] = []
        while going:
            some = list(going)[:_AT_ONCE]
            calls = [Call(script(name), [key], (*going[key], what)) for key in some]
            for key, reply in zip(some, await run_all(self._client, calls), strict=True):
                if isinstance(reply, BrokerError):
                    raise reply
                cursor, size = reply[:2]
                count = going.pop(key)[1]
                replies.append(reply)
                if cursor != b"0":  # so much in the next step that the server is not held up by it
                    going[key] = (cursor, max(10, min(2_000, count * _STEP_BYTES // max(1, size))))
        return replies


def _in_order(steps: Iterable[Step]) -> list[Step]:
    """In the order of time, but what happened to a delivery after the step that made it: each queue of a
    partition has an estimate of the server's clock of its own, and they differ by some milliseconds."""
    left = sorted(steps, key=lambda step: (step.at_ms, step.what != "routed", step.attempt))
    found: list[Step] = []
    made: set[tuple[str, str]] = set()
    while left:
        first = left[0]
        lacking = set(first.places) - made
        if lacking and first.what not in {"routed", "skipped"}:
            makers = (step for step in left if step.what == "routed" and not lacking.isdisjoint(step.places))
            first = next(makers, first)
        left.remove(first)
        found.append(first)
        if first.what == "routed":
            made.update(first.places)
    return found


def _started_ms(event_id: str) -> int:
    """Before what a UUIDv7 says, nothing happened to the event; 0 for any other id."""
    if _UUID7.fullmatch(event_id):
        return max(0, int(event_id[:8] + event_id[9:13], 16) - HOUR_MS)  # clocks differ
    return 0


_UUID7 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")


def _step(words: list[str]) -> Step | None:
    """None for what a later version may have written."""
    if len(words) < 4 or not words[1].isdigit() or words[2] not in _WHATS:
        return None
    recipient, at_ms, what, where, *rest = words
    attempt, until_ms, reason, answer = [*rest, "", "", "", ""][:4]
    pairs = [name.partition("/") for name in where.split(_BETWEEN)] if where else []
    return Step(
        recipient, int(at_ms), what,  # type: ignore[arg-type]  # one of _WHATS
        tuple((channel, key) for channel, _, key in pairs),
        _number(attempt), _number(until_ms), reason, answer,
    )  # fmt: skip


def _number(text: str) -> int:
    return int(text) if text.isdigit() else 0
