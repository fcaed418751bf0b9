"""What must hold after every step, whatever was done: read from the server, not from the model.

Of the model only the ledger is used: what was accepted, into which deliveries it was routed, and what was
settled how.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from tests.model.partition_model import PartitionModel
from tests.model.things import BASES, PartitionView, QueueView, lane_of


def check(view: PartitionView, ledger: PartitionModel) -> None:
    for queue, of in view.queues.items():
        where = f"in {queue}: {of}"
        nothing_is_acknowledged_and_left(of, where)
        a_lane_is_parked_if_and_only_if_it_has_items(of, where)
        a_lane_is_in_order(of, ledger, queue, where)
        only_parked_lanes_have_a_count_of_owners(of, where)
    what_is_scheduled_has_a_time_and_an_item(view)
    everything_is_in_one_place(view, ledger)
    the_inbox_has_what_was_delivered(view, ledger)
    the_unalerted_dead_are_not_more_than_the_dead_that_were(view, ledger)


def _number(entry_id: str) -> tuple[int, int]:
    milliseconds, _, sequence = entry_id.partition("-")
    return int(milliseconds), int(sequence)


def nothing_is_acknowledged_and_left(of: QueueView, where: str) -> None:
    """What the group has read is pending, or gone: else nobody would ever read it again."""
    read = {entry for entry in of.ids if _number(entry) <= _number(of.last_read)} if of.has_group else set()
    assert read == set(of.pending), f"read and pending are not the same {where}"


def a_lane_is_parked_if_and_only_if_it_has_items(of: QueueView, where: str) -> None:
    assert of.lanes.keys() == of.due.keys(), f"a list without a time, or a time without a list, {where}"


def a_lane_is_in_order(of: QueueView, ledger: PartitionModel, queue: str, where: str) -> None:
    """First what is parked, then what is in the stream, each in the order in which it was added."""
    strayed = {
        entry.thing
        for entry in (
            *ledger.queues[queue].entries,
            *(entry for items in ledger.queues[queue].lanes.values() for entry in items),
        )
        if entry.strayed
    }
    for lane, items in of.lanes.items():
        ids = [
            _number(entry_id)
            for (thing, _), entry_id in zip(items, of.lane_ids[lane], strict=True)
            if thing not in strayed
        ]
        ids += [
            _number(entry_id)
            for row, entry_id in zip(of.stream, of.ids, strict=True)
            if lane_of(row.thing) == lane and row.thing not in strayed
        ]
        assert ids == sorted(ids), f"{lane} is out of order {where}"


def only_parked_lanes_have_a_count_of_owners(of: QueueView, where: str) -> None:
    assert of.retries.keys() <= of.due.keys(), f"a count of owners is left behind {where}"


def what_is_scheduled_has_a_time_and_an_item(view: PartitionView) -> None:
    assert len(view.scheduled_numbers) == len(view.scheduled), "scheduled items and their times differ"


def places(view: PartitionView) -> Iterator[str]:
    """Each thing, once for each place where it lies."""
    for of in view.queues.values():
        yield from (row.thing for row in of.stream)
        yield from (thing for items in of.lanes.values() for thing, _ in items)
    for base in BASES:
        yield from (row.thing for row in view.dead[base])
    yield from (thing for thing, _, _ in view.scheduled)


def everything_is_in_one_place(view: PartitionView, ledger: PartitionModel) -> None:
    """Never lost, never in two places: not after it was settled or routed either."""
    found = Counter(places(view))
    expected: set[str] = set()
    for thing in ledger.accepted:
        expected.update(ledger.routed.get(thing, [thing]))
    for thing in expected:
        settled, count = ledger.settled.get(thing), found.pop(thing, 0)
        assert count == (settled is None), f"{thing} lies in {count} places, settled: {settled}"
    assert not found, f"nobody accepted {found}, or it was routed before"


def the_inbox_has_what_was_delivered(view: PartitionView, ledger: PartitionModel) -> None:
    delivered = {t for t, how in ledger.settled.items() if how == "delivered" and ">box/" in t}
    assert view.inbox == delivered


def the_unalerted_dead_are_not_more_than_the_dead_that_were(
    view: PartitionView, ledger: PartitionModel
) -> None:
    for base, count in view.unalerted.items():
        assert 0 < count <= ledger.died[base], f"{count} of {base} wait for an alert"
