"""What the rules of the machine share: the server, the model, the workers and what they hold."""

from __future__ import annotations

import functools
import itertools
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Concatenate, ParamSpec, TypeVar

from hypothesis.stateful import RuleBasedStateMachine

from notifier.broker.partition import State
from notifier.keys import EVENTS, GROUP
from notifier.local.broker import EmbeddedBroker
from tests.model.delivery_holding import DeliveryHolding, Outcome
from tests.model.holding import LONG_PAST_MS, TTL_MS, Holding
from tests.model.partition_model import PartitionModel
from tests.model.router_holding import RouterHolding
from tests.model.things import DLQS, KEYS, QUEUES, PartitionView, base_of
from tests.model.world import World

T = TypeVar("T")
P = ParamSpec("P")
M = TypeVar("M", bound="Machine")

ACTIVE = (State.LIVE, State.RECOVERING)

RULES: set[str] = set()
"""The names of all that are counted."""


def pick(choices: Sequence[T], number: int) -> T:
    return choices[number % len(choices)]


def counted(function: Callable[Concatenate[M, P], None]) -> Callable[Concatenate[M, P], None]:
    """Stands under @rule: `reached` of the machine has how often it ran."""
    RULES.add(function.__name__)

    @functools.wraps(function)
    def run(machine: M, /, *args: P.args, **kwargs: P.kwargs) -> None:
        machine.reached[function.__name__] += 1
        function(machine, *args, **kwargs)

    return run


class Machine(RuleBasedStateMachine):
    """A worker that crashes is replaced by one of another name. A holding stays with its worker until the
    worker learns that it lost the lease: what it does until then must come to nothing."""

    def __init__(self, server: EmbeddedBroker, reached: Counter[str] | None = None) -> None:
        super().__init__()
        self.reached = Counter[str]() if reached is None else reached
        self.world = World(server)
        self.models = [PartitionModel() for _ in range(KEYS.partitions)]
        self.views: list[PartitionView] = []
        self.holdings: list[Holding] = []
        self._names = (f"w{number}" for number in itertools.count(1))
        self.workers = [next(self._names) for _ in range(3)]

    # Workers.

    def acquire(self, worker: str, queue: str, number: int, *, lost: bool = False) -> Holding | None:
        """Who holds it already does not ask."""
        if any((h.worker, h.queue, h.number) == (worker, queue, number) for h in self.holdings):
            return None
        names = KEYS.lease(queue, number), KEYS.queue(queue, number)
        got = self.world.script("lease_acquire", names, worker, TTL_MS, GROUP)
        token = self.models[number].queues[queue].acquire(worker)
        assert (got.decode() if got else None) == token
        if token is None or lost:
            return None
        kind = RouterHolding if base_of(queue) == EVENTS else DeliveryHolding
        holding = kind(self.world, self.models[number], worker, queue, number, token)
        self.holdings.append(holding)
        return holding

    def expire(self, queue: str, number: int) -> None:
        """The lease runs out."""
        lease = self.models[number].queues[queue].lease
        if lease.live:
            self.world.command("HSET", KEYS.lease(queue, number), "until", LONG_PAST_MS)
            lease.live = False

    def owner(self, queue: str, number: int) -> Holding | None:
        of = [h for h in self.holdings if (h.queue, h.number) == (queue, number) and h.is_rightful]
        return of[0] if of else None

    def drop_the_gone(self) -> None:
        for holding in [h for h in self.holdings if h.is_gone]:
            self.drop(holding)

    def drop(self, holding: Holding) -> None:
        self.holdings.remove(holding)
        holding.close()

    def crash(self, worker: str) -> None:
        for holding in [h for h in self.holdings if h.worker == worker]:
            self.drop(holding)
        self.workers[self.workers.index(worker)] = next(self._names)

    def routers(
        self, *states: State, but: Callable[[RouterHolding], Any] = lambda _: False
    ) -> list[RouterHolding]:
        return [
            h
            for h in self.holdings
            if isinstance(h, RouterHolding) and h.partition.state in (states or ACTIVE) and not but(h)
        ]

    def senders(self, *states: State) -> list[DeliveryHolding]:
        return [
            h
            for h in self.holdings
            if isinstance(h, DeliveryHolding) and h.partition.state in (states or ACTIVE)
        ]

    def readers(self, *states: State) -> list[Holding]:
        """A router waits for the answer to its step before it reads on."""
        return [*self.routers(*states, but=lambda h: h.unanswered), *self.senders(*states)]

    def catch_up(self, holding: Holding) -> None:
        """The worker renews and recovers, as far as it comes."""
        holding.renew()
        if holding.partition.state is State.RECOVERING:
            while holding.partition.state is State.RECOVERING:
                holding.recover(10)

    def serve(self, worker: str, queue: str, number: int, outcome: Outcome) -> None:
        """The owner, or else this worker if it gets the lease, does what is there to do."""
        holding = self.owner(queue, number) or self.acquire(worker, queue, number)
        if holding is None or holding.partition.state is State.DRAINING:
            return
        if isinstance(holding, RouterHolding) and holding.unanswered:
            holding.route(1)
        self.catch_up(holding)
        holding.read(4)
        if isinstance(holding, RouterHolding) and holding.waiting:
            holding.route(4)
        elif isinstance(holding, DeliveryHolding):
            self.try_all(holding, outcome)
        for _ in range(2):
            if holding.in_doubt or holding.has_unsent:
                holding.flush()
        self.drop_the_gone()

    def try_all(self, holding: DeliveryHolding, outcome: Outcome) -> None:
        for lane in list(holding.ready):
            holding.attempt(lane, outcome)

    def at_work(self) -> list[tuple[str, int]]:
        """Where something waits, if it does anywhere."""
        everywhere = [(queue, number) for number in range(KEYS.partitions) for queue in (*QUEUES, *DLQS)]
        return [place for place in everywhere if self.has_work(*place)] or everywhere

    def is_anything_waiting(self) -> bool:
        return any(self.has_work(queue, n) for n in range(KEYS.partitions) for queue in QUEUES)

    def has_work(self, queue: str, number: int) -> bool:
        model = self.models[number]
        of = model.queues[queue]
        return bool(of.entries or of.lanes or (queue == EVENTS and model.scheduled))

    # Time.

    def let_time_pass(self, number: int) -> None:
        """Everything in the partition that waits for its time is due."""
        model = self.models[number]
        for queue, of in model.queues.items():
            for lane in of.due:
                self.world.command("ZADD", KEYS.parked(queue, number), "XX", LONG_PAST_MS, lane)
                of.due[lane] = True
        for item in self.world.look()[number].scheduled_numbers:
            self.world.command("ZADD", KEYS.scheduled(number), "XX", LONG_PAST_MS, item)
        for scheduled in model.scheduled:
            scheduled.due = True
