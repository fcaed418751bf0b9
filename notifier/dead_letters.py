"""What is written of a delivery that could not be made, and how it is read back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import structlog

from notifier import metrics
from notifier.broker.entries import FAILURE_FIELDS, FAILURE_WIDTH, MalformedEntry
from notifier.broker.line import Command
from notifier.channel import DeliveryError, InvalidAddress
from notifier.event_traces import What
from notifier.keys import Keys
from notifier.policy import DeadLetter
from notifier.redaction import without_addresses

log = structlog.get_logger(__name__)

ALERT_TYPE: Final = "system.dead_letters"
"""The event type of alerts about the dead. A failing alert never alerts."""

_MAX_TEXT = 500


@dataclass(frozen=True, slots=True)
class Failure:
    """Why an entry is in a DLQ. `first_ms` and `last_ms` are when the first and the last attempt failed."""

    error: str
    reason: str
    answer: str
    attempts: int
    first_ms: int
    last_ms: int

    def fields(self) -> list[bytes]:
        """The flat fields that stand before those of the entry."""
        texts = (
            self.error,
            self.reason[:_MAX_TEXT],
            self.answer[:_MAX_TEXT],
            str(self.attempts),
            str(self.first_ms),
            str(self.last_ms),
        )
        return [
            part for name, text in zip(FAILURE_FIELDS, texts, strict=True) for part in (name, text.encode())
        ]


def _add(stream: str, failure: Failure, fields: Sequence[bytes]) -> Command:
    return ("XADD", stream, "*", *failure.fields(), *fields)


def is_dead_letter(fields: Sequence[bytes]) -> bool:
    """Whether the flat fields begin with a failure."""
    return len(fields) >= FAILURE_WIDTH and tuple(fields[0:FAILURE_WIDTH:2]) == FAILURE_FIELDS


def split(fields: Sequence[bytes]) -> tuple[Failure, Sequence[bytes]]:
    """The failure, and the entry's own fields. Raises MalformedEntry."""
    if not is_dead_letter(fields):
        raise MalformedEntry("error", "is not a dead letter")
    error, reason, answer, attempts, first, last = (
        value.decode(errors="replace") for value in fields[1:FAILURE_WIDTH:2]
    )
    try:
        numbers = int(attempts), int(first), int(last)
    except ValueError:
        raise MalformedEntry("attempts", "or a time of the failure is not a number") from None
    return Failure(error, reason, answer, *numbers), fields[FAILURE_WIDTH:]


class Graveyard:
    """Where undeliverable entries of one queue go: to its DLQ, or after the second try to the dead.

    What goes to the dead is counted for the next alert, unless it is an alert itself.
    """

    def __init__(self, keys: Keys, queue: str, *, final: bool) -> None:
        self._keys = keys
        self._queue = queue
        self._final = final
        self.trace_as: What = "dead" if final else "dead_lettered"
        self._counter = (metrics.DEAD if final else metrics.DEAD_LETTERS).labels(queue)

    def commands(
        self, partition: int, event_type: bytes, failure: Failure, fields: Sequence[bytes]
    ) -> list[Command]:
        """What moves an entry there, for the commit that takes it off its stream."""
        if not self._final:
            return [_add(self._keys.dlq(self._queue, partition), failure, fields)]
        commands = [_add(self._keys.dead(self._queue, partition), failure, fields)]
        if event_type != ALERT_TYPE.encode():
            commands.append(("HINCRBY", self._keys.unalerted(partition), self._queue, 1))
        return commands

    def tell(self, failure: Failure, **about: object) -> None:
        """The log line and the metric of it."""
        self._counter.inc()
        log.error(
            "delivery_dead" if self._final else "delivery_dead_lettered",
            error=failure.error, reason=without_addresses(failure.reason),
            answer=without_addresses(failure.answer), **about,
        )  # fmt: skip


class SecondTry:
    """The policy of a DLQ's worker: one try, whatever it ends in."""

    def decide(self, failure: DeliveryError, attempts: int) -> DeadLetter:
        return DeadLetter(suppress=isinstance(failure, InvalidAddress))
