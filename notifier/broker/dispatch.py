"""Commands on their way through a cluster. No I/O: the asyncio client and the blocking one share it.

Commands are grouped by the node that serves their slot, and each node's go out together. What a node
refuses did not run, and is sent again to where the node says, or later. What a node did not answer may have
run, so it is left to the caller.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from redis.exceptions import (
    AskError,
    ClusterDownError,
    MovedError,
    ReadOnlyError,
    ResponseError,
    TryAgainError,
)

from notifier.broker.line import Command
from notifier.broker.slots import SlotMap, key_of, slot_of
from notifier.broker.url import Address
from notifier.errors import BrokerUnavailable
from notifier.keys import absent

REFRESH_EVERY: Final = 0.2
"""Seconds between two questions for the slot map, however much is refused meanwhile."""

_MOST_REDIRECTS: Final = 5
_ASKING: Final[Command] = ("ASKING",)


def patience_without_a_map(slots: SlotMap, give_up: float) -> float:
    """Seconds for each node that is asked once more when none answered in time, until `give_up` on the
    monotonic clock: a TLS handshake with a busy server may take long. 0 when there is a map to go on with."""
    if slots.primaries:
        return 0.0
    return max(0.0, give_up - time.monotonic()) / len(slots.to_ask())


def nobody_answered(slots: SlotMap) -> BrokerUnavailable:
    """With what each node said instead of the slot map."""
    why = "; ".join(slots.said.values())
    return BrokerUnavailable(f"the broker can't be reached: no node of the cluster answered: {why}")


@dataclass(frozen=True, slots=True)
class Parcel:
    """What goes to one node in one round trip."""

    node: Address
    places: Sequence[int]
    asks: frozenset[int]
    commands: Sequence[Command]


def guarded(command: Command) -> Command:
    """A script call that names one key more, which is never there.

    While a slot moves key by key (CLUSTER SETSLOT, MIGRATE), a node runs a call whose declared keys it still
    has, and refuses in the middle of it a key that has moved or that was never there: half a step. And to a
    call whose keys are all gone it says ASK, though what the script reaches beyond them has not moved yet.
    One key that is missing everywhere makes both nodes refuse the whole call with TRYAGAIN for as long as the
    slot moves. When a slot does not move, nobody looks for the key.
    """
    if command[0] not in {"EVALSHA", "EVAL"}:
        return command
    after = 3 + int(command[2])
    guard = absent(str(command[3])) if after > 3 else None
    if guard is None:
        return command
    return (*command[:2], after - 2, *command[3:after], guard, *command[after:])


class Dispatch:
    """One call's commands, and their replies so far."""

    def __init__(self, slots: SlotMap, commands: Sequence[Command], then: Command = ()) -> None:
        self.must_refresh = False
        """The map is known to be out of date."""
        self.refused: list[int] = []
        """What nobody takes at the moment; it may be sent again with `again`."""
        self._slots = slots
        self._commands = [guarded(command) for command in commands]
        self._slot = [None if (key := key_of(command)) is None else slot_of(key) for command in commands]
        self._then = then
        self._replies: list[Any] = [None] * len(commands)
        self._confirmed: list[Any] = []
        self._open = list(range(len(commands)))
        self._asks: dict[int, Address] = {}
        self._redirects = 0

    def parcels(self) -> list[Parcel]:
        """What is to be sent now; all of it is answered with `took` or `failed`. Empty: nothing more."""
        by_node: dict[Address, list[int]] = {}
        for place in self._open:
            node = self._asks.get(place) or self._slots.node_of(self._slot[place])
            if node is None:
                self._refuse(place, ClusterDownError("no node is known to serve this slot"))
            else:
                by_node.setdefault(node, []).append(place)
        asks, self._open, self._asks = frozenset(self._asks), [], {}
        return [self._parcel(node, places, asks) for node, places in by_node.items()]

    def _parcel(self, node: Address, places: Sequence[int], asks: frozenset[int]) -> Parcel:
        commands: list[Command] = []
        for place in places:
            if place in asks:
                commands.append(_ASKING)
            commands.append(self._commands[place])
        if self._then:
            commands.append(self._then)
        return Parcel(node, places, asks, commands)

    def took(self, parcel: Parcel, replies: Sequence[Any]) -> None:
        """The node's replies, one for each command of the parcel."""
        at = iter(replies)
        for place in parcel.places:
            if place in parcel.asks:
                next(at)
            reply = next(at)
            if isinstance(reply, ResponseError):
                self._error(place, reply, parcel.node)
            else:
                self._replies[place] = reply
        self._confirmed += at

    def _error(self, place: int, error: ResponseError, node: Address) -> None:
        if isinstance(error, AskError):  # or MOVED
            to = Address(error.host or node.host, error.port)
            if isinstance(error, MovedError):
                self._slots.moved(error.slot_id, to)
                self.must_refresh = True  # it is seldom one slot alone
            else:
                self._asks[place] = to
            self._redirects += 1
            if self._redirects <= _MOST_REDIRECTS * len(self._commands):
                self._open.append(place)
                return
        if isinstance(error, AskError | TryAgainError | ClusterDownError | ReadOnlyError):
            self._refuse(place, error)
        else:
            self._replies[place] = error

    def _refuse(self, place: int, error: Exception) -> None:
        self._asks.pop(place, None)
        self._replies[place] = error
        self.refused.append(place)
        if not isinstance(error, TryAgainError):
            self.must_refresh = True

    def failed(self, parcel: Parcel, error: Exception) -> None:
        """The node did not answer; what was sent to it may have run."""
        self._slots.silent([parcel.node])
        self.must_refresh = True
        for place in parcel.places:
            self._replies[place] = error
        if self._then:
            self._confirmed.append(error)

    def again(self) -> None:
        """Sends once more what was refused."""
        self._open += self.refused
        self.refused = []

    def replies(self) -> list[Any]:
        """In the order of the commands; with `then`, its least favourable reply comes last."""
        return [*self._replies, _least(self._confirmed)] if self._then else self._replies


def _least(replies: Sequence[Any]) -> Any:
    """Of WAIT the smallest number; of WAITAOF the smallest of each; an error before either."""
    for reply in replies:
        if isinstance(reply, Exception):
            return reply
    if not replies:
        return ClusterDownError("no node was asked")
    if isinstance(replies[0], list):
        return [min(column) for column in zip(*replies, strict=True)]
    return min(replies)
