"""What a consumer and whoever does the work of its queue know of each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

from notifier.broker.entries import Message
from notifier.broker.partition import Partition

Batch = Sequence[tuple[Partition, list[Message]]]


class Handler(Protocol):
    """Does the work of a queue. It must finish, park or leave alone whatever it is given.

    With `marks_owners` it calls `Consumer.mark` before it tries what earlier owners may have died of;
    otherwise whatever a dead owner had in hand is held against the whole of it.
    """

    marks_owners: bool

    async def accept(self, batch: Batch) -> None:
        """New messages in hand, oldest first in each partition."""

    async def due(self, partitions: Sequence[Partition], room: int) -> None:
        """The time of something in these partitions has come; take up to `room` more in hand."""

    async def drain(self, partition: Partition) -> None:
        """Start nothing more of this partition; return when nothing of it is running."""

    def forget(self, partition: Partition) -> None:
        """The partition is lost: drop what waits; what is running comes to nothing."""


LeaseChange = Literal["acquired", "released", "lost"]


class Watch(Protocol):
    """Is told what a consumer does, to count it. Times are seconds."""

    def leases(self, change: LeaseChange, count: int, held: int) -> None:
        """`count` leases were acquired, released or lost, and `held` are held now."""

    def committed(self, seconds: float) -> None:
        """A commit took so long, in one round trip for all partitions."""

    def renewed(self, seconds: float) -> None:
        """The renewal of all leases did."""


class Unwatched:
    """Nobody counts."""

    def leases(self, change: LeaseChange, count: int, held: int) -> None: ...

    def committed(self, seconds: float) -> None: ...

    def renewed(self, seconds: float) -> None: ...
