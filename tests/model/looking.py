"""The look at server and model after every step, and the end of every example."""

from __future__ import annotations

import sys

from hypothesis.stateful import invariant

from notifier.keys import EVENTS
from notifier.operations.queues import look
from tests.model.delivery_holding import DeliveryHolding
from tests.model.holding import Holding
from tests.model.invariants import check, places
from tests.model.machine import Machine
from tests.model.router_holding import RouterHolding
from tests.model.things import CHANNELS, KEYS, QUEUES, differences


class Looking(Machine):
    # What must hold.

    @invariant()
    def the_server_is_as_the_model_says(self) -> None:
        self.views = self.world.look()
        for view, model in zip(self.views, self.models, strict=True):
            check(view, model)
            assert view == model.view(), differences(view, model.view())
        self._the_counts_are_right()

    def _the_counts_are_right(self) -> None:
        for row in self.world.wait(look(self.world.client, KEYS, CHANNELS)):
            of = [model.queues[row.queue] for model in self.models]
            dlq = [model.queues[f"{row.queue}:dlq"] for model in self.models]
            in_hand = sum(bool(entry.holder) for queue in of for entry in queue.entries)
            assert row.in_hand == in_hand
            assert row.waiting == sum(len(queue.entries) for queue in of) - in_hand
            assert row.parked == sum(len(items) for queue in of for items in queue.lanes.values())
            assert row.parked_lanes == sum(len(queue.lanes) for queue in of)
            assert row.dlq == sum(len(queue.entries) for queue in dlq)
            assert row.dead == sum(len(model.dead[row.queue]) for model in self.models)
            if row.queue == EVENTS:
                assert row.scheduled == sum(len(model.scheduled) for model in self.models)
            for owners, queues in ((row.owners, of), (row.dlq_owners, dlq)):
                live = sorted(q.lease.token.rpartition("#")[0] for q in queues if q.lease.live)
                assert sorted(name for name, count in owners.items() for _ in range(count)) == live

    # The end.

    def teardown(self) -> None:
        try:
            if sys.exc_info()[0] is None:  # what has failed already need not come to a good end
                self._finish()
        finally:
            for holding in self.holdings:
                holding.close()
            self.world.close()

    def _finish(self) -> None:
        """All workers crash, and one that comes then brings everything to its end."""
        for worker in list(self.workers):
            self.crash(worker)
        worker = self.workers[0]
        everywhere = [(queue, number) for number in range(KEYS.partitions) for queue in QUEUES]
        for queue, number in everywhere:
            self.expire(queue, number)
            self.acquire(worker, queue, number)
        for _ in range(20):
            if not self.is_anything_waiting():
                break
            for number in range(KEYS.partitions):
                self.let_time_pass(number)
            for holding in list(self.holdings):
                self._finish_one(holding)
        for holding in list(self.holdings):
            holding.drain()
            holding.release()
            self.drop(holding)
        self.the_server_is_as_the_model_says()
        self._everything_has_come_to_an_end()

    def _everything_has_come_to_an_end(self) -> None:
        for view, model in zip(self.views, self.models, strict=True):
            dead = [row.thing for rows in view.dead.values() for row in rows]
            assert sorted(places(view)) == sorted(dead), f"something is left: {view}"
            for of in view.queues.values():
                assert (of.token, of.live, of.lanes, of.due, of.retries) == ("", False, {}, {}, {})
            for thing in model.accepted:
                for one in model.routed.get(thing, [thing]):
                    assert one in model.settled or one in dead

    def _finish_one(self, holding: Holding) -> None:
        """A worker whose channel takes everything."""
        self.catch_up(holding)
        if isinstance(holding, RouterHolding):
            if holding.queue == EVENTS:
                holding.promote(100)
            holding.read(100)
            if holding.waiting:
                holding.route(100)
        elif isinstance(holding, DeliveryHolding):
            holding.lanes_due(100, 100, held=True)
            holding.read(100)
            while holding.ready:
                holding.attempt(holding.ready[0], "delivered")
        if holding.has_unsent:
            holding.flush()
