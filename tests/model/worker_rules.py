"""What workers do, and what happens to them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hypothesis import note
from hypothesis import strategies as st
from hypothesis.stateful import rule

from notifier.broker.partition import State
from notifier.keys import EVENTS
from tests.model.delivery_holding import DeliveryHolding, Outcome
from tests.model.holding import Holding
from tests.model.looking import Looking
from tests.model.machine import ACTIVE, counted, pick
from tests.model.router_holding import RouterHolding

picks = st.integers(0, 63)
rarely = st.sampled_from([False] * 7 + [True])
outcomes: st.SearchStrategy[Outcome] = st.sampled_from(
    ["delivered", "delivered", "retry at once", "retry at once", "retry later", "failed", "invalid address"]
)


@dataclass(frozen=True)
class Act:
    """One thing that a worker does; which one, is chosen among those that it may do at that moment."""

    holding: int
    choice: int
    count: int
    lane: int
    outcome: Outcome
    held: bool
    lost: bool


acts = st.builds(
    Act, picks, picks, st.integers(1, 3), picks, outcomes, held=st.booleans(), lost=rarely
)  # fmt: skip
few_acts = st.lists(acts, max_size=4)
Do = tuple[str, Callable[[Act], None]]


class WorkerRules(Looking):
    @rule(acts=st.lists(acts, min_size=1, max_size=6))
    @counted
    def workers_work(self, acts: list[Act]) -> None:
        self.work(acts)

    def work(self, acts: Sequence[Act]) -> None:
        """Comes with every rule: Hypothesis leaves out some rules of every example, and without this most
        examples would get nowhere."""
        for act in acts:
            if possible := self._possible():
                self.the_server_is_as_the_model_says()
                of, choices = pick(possible, act.holding)
                name, do = pick(choices, act.choice)
                note(f"  {of}: {name} {act}")
                self.reached[name] += 1
                do(act)
                self.drop_the_gone()

    def _possible(self) -> list[tuple[Holding | None, list[Do]]]:
        """For each holding what may be done there, the likely things more than once. Where nothing is to do
        but to renew, nothing is done while there is something elsewhere."""
        found: list[tuple[Holding | None, list[Do]]] = []
        for holding in self.holdings:
            do = self._commit(holding)
            if isinstance(holding, RouterHolding):
                do += self._route(holding)
            elif isinstance(holding, DeliveryHolding):
                do += self._deliver(holding)
            if holding.partition.state in ACTIVE and not getattr(holding, "unanswered", 0):
                do += self._read(holding)
            found.append((holding, [*do, ("renew", lambda _, of=holding: of.renew())]))  # type: ignore[misc]
        unserved = [place for place in self.at_work() if self.owner(*place) is None]
        if unserved and self.is_anything_waiting():
            found.append((None, [("take the lease", lambda act: self._take(unserved, act))]))
        return [one for one in found if one[0] is None or len(one[1]) > 1] or found

    def _take(self, places: list[tuple[str, int]], act: Act) -> None:
        self.acquire(pick(self.workers, act.lane), *pick(places, act.choice))

    def _commit(self, of: Holding) -> list[Do]:
        if of.in_doubt or of.has_unsent:
            return [("commit", lambda act: of.flush(lost=act.lost))] * 2
        return []

    def _read(self, of: Holding) -> list[Do]:
        if of.partition.state is State.RECOVERING:
            return [("recover", lambda act: of.recover(act.count, lost=act.lost))] * 3
        if of.spec.unread or not of.spec.has_group:
            return [("read", lambda act: of.read(act.count, waited=act.lane % 8 > 0, lost=act.lost))] * 2
        return []

    def _route(self, of: RouterHolding) -> list[Do]:
        if of.unanswered:
            return [("route again", lambda _: of.route(1))]
        do: list[Do] = []
        if of.waiting and of.partition.state in ACTIVE:
            do += [("route", lambda act: of.route(act.count, lost=act.lost, twice=act.held))] * 3
            do.append(("fail", lambda _: of.fail()))
            do.append(("postpone", lambda act: of.postpone(due=act.held)))
        if of.queue == EVENTS and of.model.scheduled and of.partition.state is State.LIVE:
            do.append(("promote", lambda act: of.promote(act.count)))
        return do

    def _deliver(self, of: DeliveryHolding) -> list[Do]:
        do: list[Do] = []
        if of.ready and of.partition.state in ACTIVE:
            do += [("try", lambda act: of.attempt(pick(of.ready, act.lane), act.outcome))] * 3
        if of.spec.due and of.partition.state is State.LIVE and of.partition.lists_are_settled:
            do += [("lanes due", lambda act: self._lanes_due(of, act))] * 2
        return do

    def _lanes_due(self, of: DeliveryHolding, act: Act) -> None:
        of.lanes_due(1 + act.lane % 3, act.count, held=act.held, lost=act.lost)

    @rule(worker=picks, where=picks, outcome=outcomes, acts=few_acts)
    @counted
    def a_queue_is_served_for_a_while(
        self, worker: int, where: int, outcome: Outcome, acts: list[Act]
    ) -> None:
        """So that there is something everywhere: one does what is there to do."""
        self.serve(pick(self.workers, worker), *pick(self.at_work(), where), outcome)
        self.work(acts)


class FateRules(WorkerRules):
    @rule(
        what=st.sampled_from(
            ["asks", "is replaced", "is replaced", "dies", "dies", "lets it run out", "drains"]
        ),
        holding=picks,
        other=picks,
        lost=rarely,
        acts=few_acts,
    )
    @counted
    def a_worker(self, what: str, holding: int, other: int, lost: bool, acts: list[Act]) -> None:
        busy = self._busy()
        if what == "asks" or not busy:
            self.acquire(pick(self.workers, other), *pick(self.at_work(), holding), lost=lost)
        elif what == "is replaced":
            self._another_takes_over(pick(busy, holding), other)
        elif what == "dies":
            self._dies(pick(busy, holding).worker, other)
        elif what == "drains":
            self._drains_or_releases(pick(busy, holding))
        else:
            of = pick(busy, holding)
            self.expire(of.queue, of.number)
        self.drop_the_gone()
        self.work(acts)

    @rule(where=picks, other=picks, outcome=outcomes, acts=few_acts)
    @counted
    def a_stale_owner_commits(self, where: int, other: int, outcome: Outcome, acts: list[Act]) -> None:
        """What it asked for while it was the owner comes to nothing."""
        queue, number = pick(self.at_work(), where)
        old = self.owner(queue, number) or self.acquire(pick(self.workers, other), queue, number)
        if old is not None and old.partition.state in ACTIVE:
            self._ask_for_something(old, outcome)
            if not old.is_gone and (old.in_doubt or old.has_unsent):
                self._another_takes_over(old, other)
                old.flush()
                self.reached["a stale commit"] += 1
            self.drop_the_gone()
        self.work(acts)

    def _ask_for_something(self, of: Holding, outcome: Outcome) -> None:
        if isinstance(of, RouterHolding) and of.unanswered:
            of.route(1)
        self.catch_up(of)
        of.read(4)
        if isinstance(of, RouterHolding) and of.waiting:
            of.fail()
        elif isinstance(of, DeliveryHolding):
            self.try_all(of, outcome)

    def _another_takes_over(self, old: Holding, other: int) -> None:
        """The one that held it does not know yet."""
        self.expire(old.queue, old.number)
        others = [name for name in self.workers if name != old.worker]
        new = self.acquire(pick(others, other), old.queue, old.number)
        if new is not None and other % 3:
            self.catch_up(new)

    def _dies(self, name: str, lane: int) -> None:
        """While it tries something, if it does."""
        tried = [(h, one) for h in self.senders() if h.worker == name for one in h.ready]
        if tried:
            of, one = pick(tried, lane)
            of.die_over(one)
        self.crash(name)

    def _drains_or_releases(self, of: Holding) -> None:
        """Of a lease that has run out something may be left unsettled."""
        if of.partition.state in ACTIVE and not getattr(of, "unanswered", 0):
            of.drain()
        elif of.partition.state is State.DRAINING:
            while of.spec.lease.live and not of.is_gone and (of.in_doubt or of.has_unsent):
                of.flush()
            if not of.is_gone:
                of.release()

    def _busy(self) -> Sequence[Holding]:
        busy = [h for h in self.holdings if self.has_work(h.queue, h.number)]
        return [*busy, *busy, *busy, *self.holdings]
