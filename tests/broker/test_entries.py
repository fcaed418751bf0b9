"""The wire format."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifier.broker.entries import (
    EVENT_FIELDS,
    DeliveryEntry,
    MalformedEntry,
    Message,
    entry_ms,
    heads,
    pack,
    unpack,
    values,
)

WORDS = st.lists(st.binary(max_size=50), max_size=20)


@given(words=WORDS)
def test_any_strings_are_unpacked_as_they_were_packed(words: list[bytes]) -> None:
    assert unpack(pack(words)) == words


@given(words=WORDS, attempts=st.integers(0, 1_000), first_ms=st.integers(0, 10**15))
def test_a_parked_message_comes_back_whole(words: list[bytes], attempts: int, first_ms: int) -> None:
    message = Message(b"5-1", words)
    message.attempts, message.first_ms = attempts, first_ms
    back = Message.from_parked(message.parked_item(), b"ada/email", 2)
    assert (back.id, list(back.fields), back.attempts, back.first_ms) == (b"5-1", words, attempts, first_ms)
    assert (back.lane, back.deliveries, back.parked) == (b"ada/email", 2, True)


def test_fields_may_come_in_any_order_and_with_others_between_them() -> None:
    assert values([b"v", b"1", b"to", b"a", b"event", b"{}"], EVENT_FIELDS) == [b"1", b"a", b"{}"]
    assert values([b"event", b"{}", b"x", b"y", b"to", b"a", b"v", b"1"], EVENT_FIELDS) == [b"1", b"a", b"{}"]


@pytest.mark.parametrize("missing", [0, 1, 2])
def test_the_missing_field_is_named(missing: int) -> None:
    fields = [word for i, name in enumerate(EVENT_FIELDS) if i != missing for word in (name, b"x")]
    with pytest.raises(MalformedEntry) as caught:
        values(fields, EVENT_FIELDS)
    assert caught.value.field == EVENT_FIELDS[missing].decode()


def test_the_time_of_an_entry_is_in_its_id() -> None:
    assert entry_ms(b"1700000000000-3") == 1_700_000_000_000


def test_a_head_is_read_back_as_it_was_written() -> None:
    [head] = heads(("e1", "like", "ada", '{"id":"ada"}'), 5, "", [("email", "ada@example.com")])
    entry = DeliveryEntry.of([b"head", head.encode(), b"event", b"{}"])
    assert (entry.id, entry.type, entry.recipient, entry.to) == (b"e1", b"like", b"ada", b'{"id":"ada"}')
    assert (entry.key, entry.address) == (b"email", b"ada@example.com")
    assert (entry.accepted_ms, entry.expires_ms, entry.event) == (b"5", b"", b"{}")


@pytest.mark.parametrize("address", [("email", "a\nb"), ("a/b", "v"), ("k\ud800", "v"), ("k", "ü\udcff")])
def test_an_address_that_can_not_be_written_is_refused(address: tuple[str, str]) -> None:
    with pytest.raises(MalformedEntry):
        heads(("e1", "like", "ada", "ada"), 5, "", [address])


@pytest.mark.parametrize(
    "head",
    [b"", b"1", b"2\na\nb\nc\nd\ne\nf\n5\n", b"1\na\nb\nc\nd\ne\nf\nx\n", b"1\na\nb\nc\nd\ne\nf\n5\nx"],
)
def test_a_head_that_is_none_is_told_so(head: bytes) -> None:
    with pytest.raises(MalformedEntry):
        DeliveryEntry.of([b"head", head, b"event", b"{}"])
