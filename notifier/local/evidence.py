"""What really happened to each delivery, from two sides that know nothing of each other.

The workers' log says how each attempt ended. The far side, which is mailbox server, push service and
inboxes, has what arrived. Both are put together by the id that every delivery carries: a mail's
Message-ID, a push's Topic, the id of an inbox entry.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from notifier.channel import Channel, Delivery
from notifier.dead_letters import ALERT_TYPE
from notifier.event import Recipient, WebPushDevice
from notifier.inbox import StoredEntry
from notifier.keys import dlq_of
from notifier.local.mailbox import Mail
from notifier.local.push_service import Push
from notifier.local.story import Expected, Key, Tried, alert
from notifier.local.worker_log import LogLine
from notifier.redaction import redacted

_TRIED: Final[Mapping[str, Tried]] = {
    "delivered": "delivered",
    "delivery_parked": "parked",
    "delivery_dead_lettered": "dead-lettered",
    "delivery_dead": "dead",
    "delivery_expired": "expired",
}


@dataclass(frozen=True, slots=True)
class Arrival:
    """Something on the far side. `place` is the mailbox, the endpoint or the recipient of the inbox."""

    channel: str
    place: str
    title: str
    at: datetime


@dataclass(slots=True)
class Record:
    """What is known of one notification on one channel."""

    trail: list[Tried] = field(default_factory=list)
    lines: list[LogLine] = field(default_factory=list)
    arrivals: list[Arrival] = field(default_factory=list)

    @property
    def last_at(self) -> datetime | None:
        """When it arrived, or gave up."""
        times = [line.at for line in self.lines] if not self.arrivals else [a.at for a in self.arrivals]
        return max(times, default=None)

    @property
    def reason(self) -> str:
        """Why the last failed attempt failed: the provider's own words, or the worker's."""
        for line in reversed(self.lines):
            if line.event != "delivered":
                return str(line.fields.get("answer") or line.fields.get("reason") or "")
        return ""


class Evidence:
    """Collects both sides."""

    def __init__(self) -> None:
        self._channels: Sequence[Channel] = ()
        self._people: Sequence[Recipient] = ()
        self._by_digest: Mapping[str, str] = {}
        self._alerts = 0
        self._names: dict[str, str] = {}
        self._keys: dict[str, tuple[Key, str]] = {}  # delivery id -> what it is, and where it must arrive
        self._told: dict[Key, Record] = {}
        self._arrived: dict[str, list[Arrival]] = {}
        self._inbox_ids: set[tuple[str, str]] = set()
        self.strangers: list[str] = []

    def know(self, channels: Iterable[Channel], people: Iterable[Recipient]) -> None:
        """Who can be told something, and through what. `people` are whole profiles."""
        self._channels, self._people = tuple(channels), tuple(people)
        self._by_digest = {redacted(person.id): person.id for person in self._people}

    def publish(self, event_id: str, name: str) -> None:
        """This event is on its way; the evidence calls it `name`."""
        self._names[event_id] = name
        for person in self._people:
            for channel in self._channels:
                for address in channel.addresses(person):
                    delivery = Delivery.of(channel.name, event_id=event_id, to=person.id, key=address.key)
                    place = _place(person, channel.name, address.value)
                    self._keys[delivery.id] = Key(name, person.id, channel.name), place

    # What the workers say.

    def heard(self, line: LogLine) -> None:
        tried = _TRIED.get(line.event)
        if tried is None:
            return
        fields = line.fields
        event_id = str(fields.get("event_id", ""))
        if event_id not in self._names and fields.get("type") == ALERT_TYPE:
            self._alerts += 1
            self.publish(event_id, alert(self._alerts))
        recipient = self._by_digest.get(str(fields.get("recipient")))
        if event_id not in self._names or recipient is None:
            about = " ".join(f"{name}={value}" for name, value in fields.items())
            self.strangers.append(f"nobody asked for what a worker said: {line.event} {about}")
            return
        queue = str(fields["queue"]).removesuffix(dlq_of(""))
        record = self._told.setdefault(Key(self._names[event_id], recipient, queue), Record())
        record.trail.append(tried)
        record.lines.append(line)

    # What arrives.

    def mail(self, mail: Mail) -> None:
        delivery_id = mail.message_id.strip("<>").partition("@")[0]
        self._arrive(delivery_id, Arrival("email", mail.to, mail.subject, mail.received_at))

    def push(self, push: Push) -> None:
        title = str(push.payload.get("title", ""))
        self._arrive(push.topic or "", Arrival("push", push.endpoint, title, push.received_at))

    def inbox(self, recipient_id: str, entries: Iterable[StoredEntry], at: datetime) -> bool:
        """What the inbox holds now. Whether anything is new."""
        new = [s.entry for s in entries if (recipient_id, s.entry.id) not in self._inbox_ids]
        for entry in new:
            self._inbox_ids.add((recipient_id, entry.id))
            self._arrive(entry.id, Arrival("in_app", recipient_id, entry.title, at))
        return bool(new)

    def _arrive(self, delivery_id: str, arrival: Arrival) -> None:
        self._arrived.setdefault(delivery_id, []).append(arrival)

    # Both together.

    @property
    def records(self) -> dict[Key, Record]:
        found = {key: Record(list(told.trail), list(told.lines)) for key, told in self._told.items()}
        for delivery_id, arrivals in self._arrived.items():
            if delivery_id in self._keys:
                key, place = self._keys[delivery_id]
                arrived = [arrival for arrival in arrivals if arrival.place == place]
                found.setdefault(key, Record()).arrivals += arrived
        return found

    def record(self, key: Key) -> Record:
        return self.records.get(key, Record())

    def arrived(self, channel: str) -> int:
        """How much came through this channel, whatever it was."""
        return sum(a.channel == channel for arrivals in self._arrived.values() for a in arrivals)

    def astray(self) -> list[str]:
        """What arrived that nobody sent, or where nobody sent it."""
        found = []
        for delivery_id, arrivals in self._arrived.items():
            place = self._keys[delivery_id][1] if delivery_id in self._keys else None
            found += [
                f"nobody sent what arrived: {arrival.channel} at {arrival.place}, “{arrival.title}”"
                for arrival in arrivals
                if arrival.place != place
            ]
        return found


def _place(person: Recipient, channel: str, address: str) -> str:
    if channel == "push":
        return WebPushDevice.model_validate_json(address).endpoint
    return person.id if channel == "in_app" else address


def differences(expected: Sequence[Expected], evidence: Evidence) -> list[str]:
    """What is not as expected, one line each; empty when everything is, and nothing more happened."""
    records = evidence.records
    found = []
    for want in expected:
        record = records.pop(want.key, Record())
        if tuple(record.trail) != want.trail:
            found.append(f"{name_of(want.key)}: expected {_words(want.trail)}, but it was {told(record)}")
        if len(record.arrivals) != want.arrivals:
            found.append(
                f"{name_of(want.key)}: expected to arrive {_times(want.arrivals)}, "
                f"not {_times(len(record.arrivals))}"
            )
    found += [f"{name_of(key)}: expected nothing, but it was {told(r)}" for key, r in records.items()]
    for channel in sorted({want.key.channel for want in expected}):
        wanted = sum(want.arrivals for want in expected if want.key.channel == channel)
        if (arrived := evidence.arrived(channel)) != wanted:
            found.append(f"{channel}: expected {wanted} in all, but {arrived} arrived")
    return [*found, *evidence.strangers, *evidence.astray()]


def name_of(key: Key) -> str:
    """What messages call it."""
    return f"{key.event} → {key.recipient}, {key.channel}"


def told(record: Record) -> str:
    """What became of it, in words."""
    reason = f" ({record.reason})" if record.reason else ""
    return _words(record.trail) + reason


def _words(trail: Sequence[Tried]) -> str:
    return ", then ".join(trail) or "never tried"


def _times(count: int) -> str:
    return {0: "never", 1: "once", 2: "twice"}.get(count, f"{count} times")
