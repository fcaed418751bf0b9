"""What `notifier dev` tells of: what arrived, and what a worker has trouble with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, Literal

from notifier.local.worker_log import LogLine

Kind = Literal["mail", "push", "inbox", "retry", "dlq", "dead", "alert", "note", "trouble"]


@dataclass(frozen=True, slots=True)
class Happening:
    """`who` is a mailbox, a recipient or an event type; `body` is what there is to read beyond `text`."""

    kind: Kind
    who: str
    text: str
    body: str = ""
    at: datetime = field(default_factory=lambda: datetime.now(UTC))


def of_log(line: LogLine) -> Happening | None:
    """What a line of a worker's log is to people, if anything."""
    told = _TOLD.get(line.event)
    if told is not None:
        return told(line.fields)
    if not line.is_trouble:
        return None
    fields = " ".join(f"{name}={value}" for name, value in line.fields.items() if name != "exception")
    return Happening("trouble", line.event, fields, body=str(line.fields.get("exception", "")))


def template_broken(template: object, line: object, reason: object, then: str) -> Happening:
    where = template if line is None else f"{template}:{line}"
    return Happening("trouble", "template", f"{where} is broken: {str(reason).rstrip('.')}; {then}")


def _delivery(
    kind: Kind, then: Callable[[Mapping[str, Any]], str]
) -> Callable[[Mapping[str, Any]], Happening]:
    def told(fields: Mapping[str, Any]) -> Happening:
        why = fields.get("answer") or fields.get("reason") or fields.get("error")
        queue = str(fields["queue"]).partition(":")[0]
        return Happening(kind, str(fields.get("type", "event")), f"{queue}: {why}; {then(fields)}")

    return told


_TOLD: Final[Mapping[str, Callable[[Mapping[str, Any]], Happening]]] = {
    "delivery_parked": _delivery("retry", lambda fields: f"again in {fields['delay_ms'] / 1000:.1f} s"),
    "delivery_dead_lettered": _delivery("dlq", lambda _: "tried once more by the DLQ's worker"),
    "delivery_dead": _delivery("dead", lambda _: "kept; see `notifier dlq list`"),
    "dead_deliveries": lambda fields: Happening(
        "alert", str(fields["queue"]), f"{fields['count']} gave up; the administrators are told"
    ),
    "delivery_skipped": lambda fields: Happening(
        "note", str(fields.get("type", "event")), f"not by {fields['channel']}: {fields['reason']}"
    ),
    "template_broken": lambda fields: template_broken(
        fields["template"], fields.get("line"), fields["reason"], "a version that worked stays in use"
    ),
    "templates_reloaded": lambda _: Happening("note", "templates", "read again"),
}
