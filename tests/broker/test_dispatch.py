"""How commands find their nodes, and what becomes of those that are refused; no server is needed."""

from __future__ import annotations

from typing import Any

import pytest
from redis.exceptions import AskError, MovedError, TryAgainError

from notifier.broker.dispatch import Dispatch, guarded
from notifier.broker.line import Command
from notifier.broker.scripts import Call, script
from notifier.broker.slots import SlotMap, key_of, slot_of
from notifier.broker.url import Address
from notifier.errors import BrokerUnavailable
from notifier.keys import Keys

A, B = Address("a", 1), Address("b", 2)
SET: Command = ("SET", "foo", "1")  # foo is in slot 12182, bar in 5061
GET: Command = ("GET", "bar")


@pytest.fixture
def slots() -> SlotMap:
    slots = SlotMap([A])
    slots.learn(A, [[0, 8000, [b"a", 1]], [8001, 16383, [b"b", 2]]])
    return slots


@pytest.mark.parametrize(
    ("key", "slot"),
    [
        ("foo", 12182),
        ("bar", 5061),
        ("{foo}bar", 12182),
        ("123456789", 0x31C3),
        ("{}foo", 9500),
        ("foo{bar", 15278),
    ],
)
def test_the_slot_of_a_key_is_the_servers(key: str, slot: int) -> None:
    assert slot_of(key) == slot_of(key.encode()) == slot


def test_every_command_of_the_service_has_its_key_where_it_is_looked_for() -> None:
    call = Call(script("mark"), ("{ntf:01}:post:lease", "x"), ("a",))
    assert key_of(call.command()) == key_of(call.teaching()) == "{ntf:01}:post:lease"
    assert key_of(("XREADGROUP", "GROUP", "g", "c", "COUNT", 1, "STREAMS", b"s", b">")) == b"s"
    assert key_of(("TIME",)) is None
    assert key_of(("ZMSCORE", "z", "m")) == "z"


def test_replies_come_in_the_order_of_the_commands(slots: SlotMap) -> None:
    dispatch = Dispatch(slots, [SET, GET, SET])
    _answer(dispatch, {B: [b"first", b"third"], A: [b"second"]})
    assert dispatch.replies() == [b"first", b"second", b"third"]


def test_what_has_moved_goes_to_its_new_node_and_later_commands_do_too(slots: SlotMap) -> None:
    dispatch = Dispatch(slots, [SET, GET])
    _answer(dispatch, {B: [MovedError("12182 a:1")], A: [b"2"]})
    [again] = dispatch.parcels()
    assert (again.node, again.commands) == (A, [SET])
    dispatch.took(again, [b"1"])
    assert dispatch.replies() == [b"1", b"2"]
    assert dispatch.must_refresh
    assert Dispatch(slots, [SET]).parcels()[0].node == A


def test_what_is_on_its_way_is_asked_for_once_at_the_other_node(slots: SlotMap) -> None:
    dispatch = Dispatch(slots, [SET, SET])
    _answer(dispatch, {B: [AskError("12182 a:1"), b"here"]})
    [again] = dispatch.parcels()
    assert (again.node, again.commands) == (A, [("ASKING",), SET])
    dispatch.took(again, [b"OK", b"there"])
    assert dispatch.replies() == [b"there", b"here"]
    assert Dispatch(slots, [SET]).parcels()[0].node == B


def test_what_nobody_takes_now_is_sent_again_when_asked_and_nothing_else_is(slots: SlotMap) -> None:
    dispatch = Dispatch(slots, [SET, GET])
    _answer(dispatch, {B: [TryAgainError("later")], A: [b"2"]})
    assert not dispatch.parcels()
    assert dispatch.refused == [0]
    assert isinstance(dispatch.replies()[0], TryAgainError)
    dispatch.again()
    _answer(dispatch, {B: [b"1"]})
    assert dispatch.replies() == [b"1", b"2"]


def test_two_nodes_that_point_at_each_other_are_given_up(slots: SlotMap) -> None:
    dispatch = Dispatch(slots, [SET])
    rounds = 0
    while parcels := dispatch.parcels():
        [parcel] = parcels
        dispatch.took(parcel, [MovedError(f"12182 {A if parcel.node == B else B}")])
        rounds += 1
    assert rounds < 10
    assert dispatch.refused == [0]


def test_what_was_not_answered_is_never_sent_again(slots: SlotMap) -> None:
    dispatch = Dispatch(slots, [SET, GET])
    for parcel in dispatch.parcels():
        if parcel.node == B:
            dispatch.failed(parcel, BrokerUnavailable("gone"))
        else:
            dispatch.took(parcel, [b"2"])
    assert not dispatch.parcels()
    assert not dispatch.refused
    assert isinstance(dispatch.replies()[0], BrokerUnavailable)


@pytest.mark.parametrize(
    ("replies", "least"),
    [((2, 1), 1), (([1, 0], [0, 2]), [0, 0]), ((1, BrokerUnavailable("x")), BrokerUnavailable)],
)
def test_every_node_confirms_and_the_least_counts(
    slots: SlotMap, replies: tuple[Any, Any], least: Any
) -> None:
    dispatch = Dispatch(slots, [SET, GET], ("WAIT", 1, 100))
    for parcel, reply in zip(dispatch.parcels(), replies, strict=True):
        assert parcel.commands[-1] == ("WAIT", 1, 100)
        dispatch.took(parcel, [b"OK", reply])
    last = dispatch.replies()[-1]
    assert last == least or isinstance(last, least)


def test_a_slot_that_nobody_serves_is_refused() -> None:
    slots = SlotMap([A])
    slots.learn(A, [[0, 8000, [b"", 1]]])
    dispatch = Dispatch(slots, [SET, GET])
    _answer(dispatch, {A: [b"2"]})  # a node that does not know its own host is where it was asked
    assert dispatch.refused == [0]
    assert dispatch.must_refresh


def test_a_script_declares_one_key_that_is_never_there() -> None:
    keys = Keys()
    call = Call(script("mark"), (keys.lease("post", 1), keys.queue("post", 1)), ("token", 1))
    name, sha, count, *rest = guarded(call.command())
    assert (name, sha, count) == ("EVALSHA", call.script.sha, 3)
    assert rest == [*call.keys, "{ntf:01}:absent", "token", 1]
    for alone in (Call(script("meta"), (keys.meta(),), (16,)).command(), SET):
        assert guarded(alone) == alone


def _answer(dispatch: Dispatch, replies: dict[Address, list[Any]]) -> None:
    parcels = dispatch.parcels()
    assert {parcel.node for parcel in parcels} == replies.keys()
    for parcel in parcels:
        dispatch.took(parcel, replies[parcel.node])
