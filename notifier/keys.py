"""Every name in the server is made here, and nowhere else.

All keys of a partition share one hash tag, so one script can change them together and Redis
Cluster keeps them in one slot:

    {ntf:07}:events              stream    events waiting for the router
    {ntf:07}:email               stream    deliveries waiting for the e-mail worker
    {ntf:07}:email:dlq           stream    undeliverable, waits for its second try
    {ntf:07}:email:dead          stream    gave up; kept until redriven or discarded
    {ntf:07}:email:lease         hash      token, until (ms), epoch, step, claimed: who may settle it
    {ntf:07}:email:parked        zset      lane -> due (ms)
    {ntf:07}:email:lane:<lane>   list      what waits in a parked lane, oldest first
    {ntf:07}:email:retries       hash      lane -> owners that its head has outlived
    {ntf:07}:scheduled           zset      number -> due (ms)
    {ntf:07}:scheduled:items     hash      number -> the entry to add
    {ntf:07}:seen:<event>        hash      recipient -> nothing: accepted within the dedup window
    {ntf:07}:trace:<hour>        hash      number of a commit -> what happened; see `notifier.event_traces`
    {ntf:07}:recipient:<id>      string    profile, JSON
    {ntf:07}:inbox:<id>:changes  stream    what changed in the inbox of late; also a sharded channel
    {ntf:07}:inbox:<id>...       see `notifier.inbox`
    {ntf:07}:suppressed          hash      <channel>:<lane> -> why this address is not used
    {ntf:07}:idempotency:<digest>  string  the answer to a request with an Idempotency-Key, for a day
    {ntf:07}:unalerted           hash      <channel> -> dead since the last alert
    {ntf:07}:absent                        never exists; see `notifier.broker.dispatch.guarded`
    {ntf:07}:moved               string    the recipients have gone to the partitions of another layout
    {ntf:2:07}:...                         the same names, after the number of partitions was changed once
    {ntf:2:07}:taken             hash      source -> the last entry taken over from there, while it is changed
    ntf:meta                     hash      partitions, wire version, layout; changing: the next number
    ntf:changing                 string    whoever changes the number of partitions
    ntf:workers:<queue>          zset      worker -> seen alive until (ms)
    ntf:alert:<channel>          string    exists for a minute after an alert
    ntf:device:<digest>          set       ids of the recipients who registered this device
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field

GROUP = "workers"
"""The one consumer group of every queue."""

EVENTS = "events"
"""The queue that publishers write to."""

RESERVED = frozenset(
    {"events", "scheduled", "seen", "trace", "recipient", "inbox", "suppressed", "idempotency", "unalerted"}
    | {"absent", "moved", "taken", "router", "dead_letters", "all", "api"}
)
"""Words that can't be the name of a channel: they are keys or roles already."""


def dlq_of(queue: str) -> str:
    """The queue name of a queue's dead letter queue."""
    return f"{queue}:dlq"


def absent(key: str) -> str | None:
    """The key that never exists, in the partition of `key`; None for a key of the whole namespace."""
    tag, brace, _ = key.partition("}")
    return f"{tag}{brace}:absent" if brace else None


@dataclass(frozen=True, slots=True)
class Keys:
    """Names below one namespace, for a fixed number of partitions."""

    namespace: str = "ntf"
    partitions: int = 16
    layout: int = 1
    """Counts the numbers of partitions that the installation has had. Each has names of its own, so that
    nobody who knows only an earlier one can take part by mistake."""
    _tags: tuple[str, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        begin = self.namespace if self.layout == 1 else f"{self.namespace}:{self.layout}"
        tags = tuple(f"{{{begin}:{partition:02d}}}" for partition in range(self.partitions))
        object.__setattr__(self, "_tags", tags)

    def partition_of(self, recipient_id: str) -> int:
        """CRC-32 (ISO 3309, as in zlib) of the UTF-8 id, modulo the number of partitions."""
        return zlib.crc32(recipient_id.encode()) % self.partitions

    def tag(self, partition: int) -> str:
        return self._tags[partition]

    # Queues; `queue` is "events", a channel, or "<channel>:dlq".

    def queue(self, queue: str, partition: int) -> str:
        return f"{self.tag(partition)}:{queue}"

    def dlq(self, queue: str, partition: int) -> str:
        return f"{self.tag(partition)}:{queue}:dlq"

    def dead(self, queue: str, partition: int) -> str:
        return f"{self.tag(partition)}:{queue}:dead"

    def lease(self, queue: str, partition: int) -> str:
        return f"{self.tag(partition)}:{queue}:lease"

    def parked(self, queue: str, partition: int) -> str:
        return f"{self.tag(partition)}:{queue}:parked"

    def lane_prefix(self, queue: str, partition: int) -> str:
        return f"{self.tag(partition)}:{queue}:lane:"

    def lane(self, queue: str, partition: int, lane: str) -> str:
        return f"{self.tag(partition)}:{queue}:lane:{lane}"

    def retries(self, queue: str, partition: int) -> str:
        return f"{self.tag(partition)}:{queue}:retries"

    # One of each in a partition.

    def scheduled(self, partition: int) -> str:
        return f"{self.tag(partition)}:scheduled"

    def scheduled_items(self, partition: int) -> str:
        return f"{self.tag(partition)}:scheduled:items"

    def suppressed(self, partition: int) -> str:
        return f"{self.tag(partition)}:suppressed"

    def unalerted(self, partition: int) -> str:
        return f"{self.tag(partition)}:unalerted"

    def moved(self, partition: int) -> str:
        return f"{self.tag(partition)}:moved"

    def taken(self, partition: int) -> str:
        return f"{self.tag(partition)}:taken"

    def traces(self, partition: int, hour: int) -> str:
        """`hour` is the number of hours since 1970."""
        return f"{self.tag(partition)}:trace:{hour}"

    # One of each for an event, in each partition that has recipients of it.

    def seen(self, partition: int, event_id: str) -> str:
        return f"{self._tags[partition]}:seen:{event_id}"

    # One of each for a recipient.

    def recipient(self, recipient_id: str) -> str:
        return self.recipient_prefix(self.partition_of(recipient_id)) + recipient_id

    def recipient_prefix(self, partition: int) -> str:
        """What comes before the id in `recipient`."""
        return f"{self._tags[partition]}:recipient:"

    def inbox(self, recipient_id: str) -> str:
        return f"{self.tag(self.partition_of(recipient_id))}:inbox:{recipient_id}"

    def idempotency(self, digest: str) -> str:
        return f"{self.tag(self.partition_of(digest))}:idempotency:{digest}"

    # One of each in the namespace.

    def meta(self) -> str:
        return f"{self.namespace}:meta"

    def changing(self) -> str:
        return f"{self.namespace}:changing"

    def workers(self, queue: str) -> str:
        return f"{self.namespace}:workers:{queue}"

    def alert(self, channel: str) -> str:
        return f"{self.namespace}:alert:{channel}"

    def device(self, digest: str) -> str:
        return f"{self.namespace}:device:{digest}"
