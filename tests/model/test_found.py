"""What the model has found: each of these failed once."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from notifier.keys import EVENTS, GROUP, dlq_of
from notifier.local.broker import EmbeddedBroker
from notifier.operations.dead_letters import LetterId
from notifier.operations.mending import mend
from tests.model.delivery_holding import DeliveryHolding
from tests.model.router_holding import RouterHolding
from tests.model.test_scripts_model import Scripts
from tests.model.things import KEYS

ADA_AND_BOB = 0  # their partition


@pytest.fixture
def machine(server: EmbeddedBroker) -> Iterator[Scripts]:
    """At the end everything is delivered, and the server is as the model says."""
    made = Scripts(server)
    yield made
    made.teardown()


def publish(machine: Scripts, *event_ids: int) -> None:
    machine.events_are_published([(["bob"], event_id, None) for event_id in event_ids], [])


def router(machine: Scripts, worker: str, queue: str = EVENTS) -> RouterHolding:
    holding = machine.acquire(worker, queue, ADA_AND_BOB)
    assert isinstance(holding, RouterHolding)
    machine.catch_up(holding)
    return holding


def sender(machine: Scripts, worker: str) -> DeliveryHolding:
    holding = machine.acquire(worker, "post", ADA_AND_BOB)
    assert isinstance(holding, DeliveryHolding)
    machine.catch_up(holding)
    return holding


def deliveries(machine: Scripts, *event_ids: int) -> None:
    """Published and routed."""
    publish(machine, *event_ids)
    machine.serve("w1", EVENTS, ADA_AND_BOB, "delivered")


def test_who_dies_over_the_second_of_a_parked_lane_is_counted(machine: Scripts) -> None:
    """The count belonged to the first, and went with it: poison took one worker more than it should."""
    deliveries(machine, 1, 2)
    first = sender(machine, "w1")
    first.read(2)
    first.attempt(first.ready[0], "retry at once")
    first.flush()
    first.lanes_due(1, 2, held=True)
    first.attempt(first.ready[0], "delivered")
    first.flush()
    first.die_over(first.ready[0])
    machine.crash("w1")

    machine.expire("post", ADA_AND_BOB)
    machine.let_time_pass(ADA_AND_BOB)
    second = sender(machine, "w2")
    second.lanes_due(1, 2, held=True)
    assert second.ready[0].waiting[0].deliveries == 2
    machine.the_server_is_as_the_model_says()


def test_a_clean_stop_does_not_forget_who_died_before(machine: Scripts) -> None:
    """The second owner had not tried it, so that its release set the count back to none."""
    deliveries(machine, 1)
    first = sender(machine, "w1")
    first.read(1)
    first.die_over(first.ready[0])
    machine.crash("w1")

    machine.expire("post", ADA_AND_BOB)
    second = sender(machine, "w2")
    second.drain()
    second.release()
    machine.drop_the_gone()
    third = sender(machine, "w3")
    assert third.ready[0].waiting[0].deliveries == 2
    machine.the_server_is_as_the_model_says()


@pytest.mark.parametrize("action", ["redrive", "discard"])
def test_an_event_that_was_mended_is_not_routed_by_who_had_it_in_hand(machine: Scripts, action: str) -> None:
    """The DLQ's worker was slow, its lease ran out, an operator took the event; then the worker renewed the
    lease and routed the event all the same."""
    publish(machine, 1)
    events = router(machine, "w1")
    events.read(1)
    events.fail()
    events.flush()
    holding = router(machine, "w1", dlq_of(EVENTS))
    holding.read(1)
    machine.expire(dlq_of(EVENTS), ADA_AND_BOB)

    machine.the_server_is_as_the_model_says()
    [entry_id] = machine.views[ADA_AND_BOB].queues[dlq_of(EVENTS)].ids
    letter = LetterId(EVENTS, ADA_AND_BOB, "dlq", entry_id)
    entry = machine.models[ADA_AND_BOB].queues[dlq_of(EVENTS)].entries[0]
    [result] = machine.world.wait(mend(machine.world.client, KEYS, action, [letter]))  # type: ignore[arg-type]
    assert [result] == machine.models[ADA_AND_BOB].mend(action, EVENTS, "dlq", [entry])  # type: ignore[arg-type]

    holding.renew()
    if not holding.is_gone:
        holding.route(1)
    machine.drop_the_gone()
    machine.the_server_is_as_the_model_says()


def test_a_change_is_made_although_the_group_was_destroyed(machine: Scripts) -> None:
    """It was passed over, since the entry was not pending any more: the entry came a second time, after those
    behind it."""
    deliveries(machine, 1, 2)
    holding = sender(machine, "w1")
    holding.read(2)
    holding.attempt(holding.ready[0], "failed")
    machine.world.command("XGROUP", "DESTROY", KEYS.queue("post", ADA_AND_BOB), GROUP)
    holding.spec.destroy_group()
    holding.flush()
    machine.the_server_is_as_the_model_says()
    assert [row.thing for row in machine.views[ADA_AND_BOB].queues[dlq_of("post")].stream] == [
        "1@bob>post/email"
    ]
    holding.attempt(holding.ready[0], "delivered")
