"""What the model speaks of: who is told where, what a thing is called, and the shape in which the model and
the server are compared.

A thing is an accepted notification, `3@ada`, until it is routed; then each delivery of it is one,
`3@ada>post/email`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Final, NamedTuple

from notifier.broker.entries import DeliveryEntry
from notifier.channel import InvalidAddress
from notifier.dead_letters import is_dead_letter, split
from notifier.event import parse_body
from notifier.keys import EVENTS, Keys, dlq_of

KEYS: Final = Keys("mdl", partitions=2)
CHANNELS: Final = ("post", "box")
"""The deliveries of `post` are acknowledged; those of `box` go into the inbox with the commit."""
BASES: Final = (EVENTS, *CHANNELS)
DLQS: Final = tuple(dlq_of(base) for base in BASES)
QUEUES: Final = (*BASES, *DLQS)

ADDRESSES: Final = {
    "ada": (("post", "email"), ("post", "phone"), ("box", "inbox")),
    "bob": (("post", "email"),),
    "cyd": (("post", "email"), ("box", "inbox")),
}
"""Ada and Bob share a partition. Two addresses of one channel are two lanes."""
INVALID_ADDRESS: Final = InvalidAddress.__name__
"""The error of a delivery whose address is suppressed from then on."""
PEOPLE: Final = tuple(ADDRESSES)


def base_of(queue: str) -> str:
    return queue.removesuffix(dlq_of(""))


def is_final(queue: str) -> bool:
    """Whether what fails there is dead."""
    return queue != base_of(queue)


def event_thing(number: int, recipient: str) -> str:
    return f"{number}@{recipient}"


def delivery_thing(event: str, channel: str, key: str) -> str:
    return f"{event}>{channel}/{key}"


def recipient_of(thing: str) -> str:
    return thing.partition("@")[2].partition(">")[0]


def lane_of(thing: str) -> str:
    """The lane of a delivery; an event waits with all others for its recipient."""
    recipient, _, address = thing.partition("@")[2].partition(">")
    return f"{recipient}/{address.partition('/')[2]}" if address else recipient


class Read(NamedTuple):
    """What flat fields say."""

    thing: str
    error: str
    attempts: int


def read_fields(queue: str, fields: Sequence[bytes]) -> Read:
    """From the fields of an entry of this queue, with those of a failure before them or without."""
    error, attempts = "", 0
    if is_dead_letter(fields):
        failure, fields = split(fields)
        error, attempts = failure.error, failure.attempts
    if base_of(queue) == EVENTS:
        by_name = dict(zip(fields[::2], fields[1::2], strict=True))
        thing = event_thing(_number(by_name[b"event"]), by_name[b"to"].decode())
    else:
        entry = DeliveryEntry.of(fields)
        event = event_thing(_number(entry.event), entry.recipient.decode())
        thing = delivery_thing(event, base_of(queue), entry.key.decode())
    return Read(thing, error, attempts)


def _number(event: bytes) -> int:
    number = parse_body(event).data["n"]
    assert isinstance(number, int)
    return number


class Row(NamedTuple):
    """An entry of a stream. Without a holder nobody has read it."""

    thing: str
    error: str = ""
    attempts: int = 0
    holder: str = ""
    owners: int = 0


@dataclass(slots=True)
class QueueView:
    """One queue of one partition. What is not compared is known to the server alone."""

    stream: list[Row] = field(default_factory=list)
    lanes: dict[str, list[tuple[str, int]]] = field(default_factory=dict)
    due: dict[str, bool] = field(default_factory=dict)
    retries: dict[str, str] = field(default_factory=dict)
    token: str = ""
    live: bool = False
    step: int = 0
    ids: list[str] = field(default_factory=list, compare=False)
    lane_ids: dict[str, list[str]] = field(default_factory=dict, compare=False)
    last_read: str = field(default="0-0", compare=False)
    has_group: bool = field(default=False, compare=False)
    pending: dict[str, str] = field(default_factory=dict, compare=False)


@dataclass(slots=True)
class PartitionView:
    """All of one partition. `scheduled` has thing, queue and whether its time has come, in that order."""

    queues: dict[str, QueueView] = field(default_factory=lambda: {queue: QueueView() for queue in QUEUES})
    dead: dict[str, list[Row]] = field(default_factory=lambda: {base: [] for base in BASES})
    scheduled: list[tuple[str, str, bool]] = field(default_factory=list)
    unalerted: dict[str, int] = field(default_factory=dict)
    suppressed: set[str] = field(default_factory=set)
    inbox: set[str] = field(default_factory=set)
    dead_ids: dict[str, list[str]] = field(default_factory=lambda: {b: [] for b in BASES}, compare=False)
    scheduled_numbers: set[str] = field(default_factory=set, compare=False)


def differences(server: PartitionView, model: PartitionView) -> str:
    """Where they differ, one line for each place."""
    pairs: list[tuple[str, Any, Any]] = [("", server, model)]
    pairs += [(f"{queue}.", server.queues[queue], model.queues[queue]) for queue in QUEUES]
    return "\n".join(
        f"{where}{one.name}: the server has {getattr(got, one.name)}, the model {getattr(want, one.name)}"
        for where, got, want in pairs
        for one in fields(got)
        if one.compare and one.name != "queues" and getattr(got, one.name) != getattr(want, one.name)
    )
