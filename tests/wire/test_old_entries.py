"""What earlier versions have left in a server is read by this one, and what this one leaves is read by them.

`golden/` holds what they wrote, see `tests/wire/record.py`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from notifier.broker.entries import Checked, DeliveryEntry, Message, checked_line, heads, pack, unpack
from notifier.dead_letters import Failure
from notifier.inbox import Inbox, decode_entry, encode_entry
from notifier.keys import Keys
from notifier.operations.dead_letters import Selection, find
from notifier.operations.mending import Result, mend_all
from notifier.recipients.profile import Profile, encode_profile
from tests.support.channels import BoxChannel, ScriptedChannel
from tests.support.ledger import Ledger, inbox_events, leftovers
from tests.support.service import Service, open_service
from tests.support.waiting import until
from tests.wire.record import PEOPLE, event, restore

GOLDEN = sorted((Path(__file__).parent / "golden").glob("*.json"))
ROLES = ("router", "post", "box", "dead_letters")


def read(path: Path) -> dict[str, Any]:
    keys: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return keys


@pytest.fixture(params=GOLDEN, ids=lambda path: path.stem)
def golden(request: pytest.FixtureRequest) -> dict[str, Any]:
    return read(request.param)


def expected(name: str) -> list[str]:
    """The events for a recipient, in the order in which they were accepted: those that are not dead."""
    first = {"bob": ["first-0-bob", "first-1-bob"], "cyd": ["second-0-cyd", "second-1-cyd"]}
    last = {"ada": ["foreign", "fifth-ada"], "bob": ["fifth-bob"]}
    waiting = [f"{time}-{n}-{name}" for time in ("third", "fourth") for n in range(2)]
    return [*first.get(name, []), *waiting, *last.get(name, [])]


async def deliver(service: Service, folder: Path) -> ScriptedChannel:
    """Everything is delivered, and left as a service leaves it."""
    post, box = ScriptedChannel(), BoxChannel(Ledger(folder / "boxed"))
    async with service.worker([post, box], ROLES):
        await until(lambda: all(_arrived(post, at, name) for at, name in enumerate(PEOPLE)))
        await until(lambda: service.nothing_left("events", "post", "box", "post:dlq"))
    return post


async def _left(service: Service, dead: int = 0) -> list[str]:
    """Without the counts of an alert: nobody is an administrator here."""
    found = await leftovers(service.client, service.keys, ("events", "post", "box"), dead=dead)
    return [one for one in found if ":unalerted " not in one]


def _arrived(post: ScriptedChannel, at: int, name: str) -> bool:
    return set(expected(name)) <= set(post.sent_to(f"{at}@example.com"))


@pytest.mark.slow
async def test_what_an_earlier_version_left_is_delivered_once_and_in_order(
    redis_url: str, tmp_path: Path, golden: dict[str, Any]
) -> None:
    with redis.Redis.from_url(redis_url) as client:
        restore(client, golden)
    async with open_service(redis_url, tmp_path) as service:
        post = await deliver(service, tmp_path)
        for at, name in enumerate(PEOPLE):
            sent = post.sent_to(f"{at}@example.com")
            in_order = [one for one in sent if not one.startswith("second")]  # these came from the DLQ
            assert in_order == [one for one in expected(name) if not one.startswith("second")]
            assert sorted(sent) == sorted(expected(name))
            boxed = await inbox_events(service.client, service.keys, name)
            dead = ["first-0-dan", "first-1-dan"] if name == "dan" else []
            assert [one for one in boxed if one[:3] != "old"] == sorted([*expected(name), *dead])
        page = await Inbox(service.client, service.keys).list("ada", page_size=100)
        [old] = [entry for entry in page.entries if entry.entry.id == "old-1"]
        assert old.read_ms
        await _dead_ones_can_be_redriven(service, post, tmp_path)
        again = await service.publisher.publish(event("fourth-0-ada", "ada"))
        assert again.duplicate
        assert await _left(service) == []


async def _dead_ones_can_be_redriven(service: Service, post: ScriptedChannel, folder: Path) -> None:
    letters = find(service.client, service.keys, Selection(("post",)))
    done = await mend_all(service.client, service.keys, "redrive", letters)
    assert done[Result.DONE] == 2
    box = BoxChannel(Ledger(folder / "boxed"))
    async with service.worker([post, box], ROLES):
        await until(lambda: len(post.sent_to("3@example.com")) == len(expected("dan")) + 2)
        await until(lambda: service.nothing_left("events", "post", "box", "post:dlq"))


@pytest.mark.slow
async def test_a_field_that_a_later_version_adds_is_passed_over(redis_url: str, tmp_path: Path) -> None:
    keys = read(GOLDEN[-1])
    for name, (kind, rows) in keys.items():
        if kind == "stream" and name.partition("}:")[2] in {"events", "post", "box"}:
            for _, words in rows:
                words += ["of_a_later_version", "whatever"]
    with redis.Redis.from_url(redis_url) as client:
        restore(client, keys)
    async with open_service(redis_url, tmp_path) as service:
        post = await deliver(service, tmp_path)
        assert await _left(service, dead=2) == []
    assert len(post.sent) == sum(len(expected(name)) for name in PEOPLE)


def streams(golden: dict[str, Any], *suffixes: str) -> Iterator[list[bytes]]:
    for name, (_, rows) in golden.items():
        if name.partition("}:")[2] in suffixes:
            for _, words in rows:
                yield [word.encode() for word in words]


def test_events_are_written_as_before(golden: dict[str, Any]) -> None:
    rows = list(streams(golden, "events"))
    assert len(rows) > 10
    for fields in rows:
        assert fields[::2] == [b"v", b"to", b"event"]
        version, _, body = fields[1::2]
        if checked := Checked.of(version, body):
            assert checked_line(*checked, body).encode() == version


def test_deliveries_are_written_as_before(golden: dict[str, Any]) -> None:
    rows = list(streams(golden, "post", "box"))
    assert len(rows) > 10
    for fields in rows:
        assert fields[::2] == [b"head", b"event"]
        entry = DeliveryEntry.of(fields)
        what = (entry.id.decode(), entry.type.decode(), entry.recipient.decode(), entry.to.decode())
        address = [(entry.key.decode(), entry.address.decode())]
        [head] = heads(what, int(entry.accepted_ms), entry.expires_ms.decode(), address)
        assert head.encode() == fields[1]


def test_dead_letters_are_written_as_before(golden: dict[str, Any]) -> None:
    rows = list(streams(golden, "post:dlq", "post:dead"))
    assert len(rows) == 4
    for fields in rows:
        by_name = dict(zip(fields[::2], fields[1::2], strict=True))
        texts = [by_name[name].decode() for name in (b"error", b"reason", b"answer")]
        numbers = [int(by_name[name]) for name in (b"attempts", b"first", b"last")]
        assert [_bytes(word) for word in Failure(*texts, *numbers).fields()] == fields[:12]  # type: ignore[arg-type]


def _bytes(word: Any) -> bytes:
    return word if isinstance(word, bytes) else str(word).encode()


def test_parked_and_scheduled_items_are_written_as_before(golden: dict[str, Any]) -> None:
    parked = [i.encode() for name, (_, items) in golden.items() if ":lane:" in name for i in items]
    scheduled = [
        item.encode()
        for name, (_, items) in golden.items()
        if name.endswith(":scheduled:items")
        for number, item in items
        if number != "last"
    ]
    assert (len(parked), len(scheduled)) == (2, 2)
    assert [Message.from_parked(item, b"bob/email", 1).parked_item() for item in parked] == parked
    assert [pack(unpack(item)) for item in scheduled] == scheduled


def test_profiles_and_inbox_entries_are_written_as_before(golden: dict[str, Any]) -> None:
    profiles = [row.encode() for name, (_, row) in golden.items() if ":recipient:" in name]
    inboxes = [rows for name, (_, rows) in golden.items() if name.endswith(":entries")]
    entries = [row.encode() for rows in inboxes for _, row in rows]
    assert min(len(profiles), len(entries)) >= 6
    assert [encode_profile(Profile(profile).parsed()) for profile in profiles] == profiles
    for entry in entries:
        again = encode_entry(decode_entry(entry))
        assert (again if isinstance(again, bytes) else again.encode()) == entry


def test_the_names_are_those_of_before(golden: dict[str, Any]) -> None:
    keys = Keys()
    assert {keys.meta(), keys.seen(keys.partition_of("ada"), "fifth-ada")} <= golden.keys()
    for name in PEOPLE:
        assert keys.recipient(name) in golden
        assert keys.queue("post", keys.partition_of(name)) in golden
