"""How queues and dead letters are shown to programs: by `--json` and by the HTTP API alike."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from pydantic_core import from_json

from notifier.operations.dead_letters import Letter
from notifier.operations.queues import QueueState

ADVICE: Final[Mapping[str, str]] = {
    "TemplateError": "Mend the template (notifier templates check), then redrive it.",
    "InvalidAddress": "The address does not exist any more and is passed over from now on. Correct the "
    "profile and discard this; or, if the provider was wrong, redrive it, and the address is used again.",
    "PermanentFailure": "The provider will never take it like this. Remove the cause that it names, then "
    "redrive it; or discard it.",
    "TransientFailure": "The provider failed at every attempt. Redrive it when the provider works again.",
    "ChannelUnavailable": "Nobody could be reached through this channel. Redrive it when it works again.",
    "UnknownType": "No folder of templates has this event type. Add one (notifier templates new), then "
    "redrive it; or discard it and mend the producer.",
    "InvalidEvent": "The producer sent what is no event. Mend the producer, and discard this.",
    "InvalidRecipient": "The recipient is not one, as the event or the stored profile says it. Correct it, "
    "then redrive it; or discard it.",
    "MalformedEntry": "The entry does not follow the wire format. Mend what wrote it, and discard this.",
    "Poison": "Workers died while they had it in hand. Look into their logs for the reason before redriving.",
}
_OTHERWISE: Final = "Remove the cause, then redrive it; or discard it."


def moment(milliseconds: int | None) -> str | None:
    """ISO 8601 in UTC, to the millisecond."""
    if milliseconds is None:
        return None
    try:
        when = datetime.fromtimestamp(milliseconds / 1000, UTC)
    except (ValueError, OverflowError, OSError):
        return str(milliseconds)
    return when.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def queue_view(state: QueueState, partitions: int) -> dict[str, Any]:
    return {
        "queue": state.queue,
        "waiting": state.waiting,
        "in_hand": state.in_hand,
        "parked": state.parked,
        "parked_lanes": state.parked_lanes,
        "parked_exact": state.parked_exact,
        "scheduled": state.scheduled,
        "dlq": state.dlq,
        "dead": state.dead,
        "oldest_seconds": None if state.oldest_ms is None else state.oldest_ms / 1000,
        "owners": dict(state.owners),
        "unowned_partitions": partitions - sum(state.owners.values()),
        "dlq_owners": dict(state.dlq_owners),
    }


def letter_view(letter: Letter, *, whole: bool = False) -> dict[str, Any]:
    """`whole` adds the event and the advice."""
    failure = letter.failure
    fields: dict[str, Any] = {
        "id": str(letter.id),
        "queue": letter.id.queue,
        "state": letter.id.state,
        "error": failure.error,
        "reason": failure.reason,
        "answer": failure.answer,
        "attempts": failure.attempts,
        "first_failed_at": moment(failure.first_ms or None),
        "last_failed_at": moment(failure.last_ms or None),
        "since": moment(letter.since_ms),
        "event_id": letter.event_id,
        "type": letter.type,
        "recipient": letter.recipient,
        "address_key": letter.address_key,
        "accepted_at": moment(letter.accepted_ms),
        "expires_at": moment(letter.expires_ms),
    }
    if whole:
        fields |= {"event": event_of(letter), "advice": advice(letter)}
    return fields


def advice(letter: Letter) -> str:
    """What an operator can do about it."""
    return ADVICE.get(letter.failure.error, _OTHERWISE)


def event_of(letter: Letter) -> Any:
    """The event as JSON, or as text when it is none."""
    try:
        return from_json(letter.event, allow_inf_nan=False)
    except (ValueError, RecursionError):
        return letter.event.decode(errors="backslashreplace")
