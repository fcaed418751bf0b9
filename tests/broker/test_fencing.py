"""Whoever has lost a partition changes nothing there any more, whichever script it calls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

import notifier.broker
from notifier.broker.line import Argument
from notifier.broker.scripts import Call, run, script
from notifier.errors import Fenced
from notifier.keys import EVENTS, GROUP, Keys
from tests.support.failpoints import details, operations_of_commit
from tests.support.service import Service

KEYS = Keys()
TOKEN = "w1#1"
LANE = "ann/email"
LEASE, STREAM, DLQ = KEYS.lease("post", 0), KEYS.queue("post", 0), KEYS.dlq("post", 0)
PARKED, RETRIES, LIST = KEYS.parked("post", 0), KEYS.retries("post", 0), KEYS.lane("post", 0, LANE)
ROUTER, EVENTS_STREAM = KEYS.lease(EVENTS, 0), KEYS.queue(EVENTS, 0)
SCHEDULED, ITEMS = KEYS.scheduled(0), KEYS.scheduled_items(0)
HEAD = "1-1"  # the entry that waits first in the lane, and 1-1 is pending in both streams, too
READ, OF_ANOTHER, NEW = "1-1", "2-1", "3-1"

_ADD_DLQ = (1, 5, "XADD", DLQ, "*", "error", "Bad")
_ADD_INBOX = (1, 6, "INBOX.ADD", KEYS.tag(0) + ":inbox:ann", "d1", 1, "{}", 10)
_SCHEDULE = (1, 3, "SCHEDULE", 1, "4:post1:v1:1")
_KEEP = (2, 4, "LSET", LIST, 0, "3:1-1later", 4, "ZADD", PARKED, 9, LANE)


def _commit(*words: Argument) -> Call:
    return Call(script("commit"), (LEASE, STREAM, PARKED, RETRIES, SCHEDULED, ITEMS), (TOKEN, GROUP, *words))


def _route(name: str) -> Call:
    channels: Sequence[Argument] = (1, "post")
    entries: Sequence[Argument] = (1, READ)
    deliveries: Sequence[Argument] = ("{}", "1", "1\nd1\nping\nann\nann@example.com\nemail")
    return Call(
        script(name),
        (ROUTER, EVENTS_STREAM, KEYS.suppressed(0), STREAM),
        (TOKEN, GROUP, 1, *channels, *entries, "", "", "", "", *deliveries),
    )


CALLS: Mapping[str, Call] = {
    "commit ack": _commit("ack", 1, READ),
    "commit move, to the DLQ": _commit("move", READ, *_ADD_DLQ),
    "commit move, to an inbox": _commit("move", READ, *_ADD_INBOX),
    "commit move, for later": _commit("move", READ, *_SCHEDULE),
    "commit move, to nowhere": _commit("move", READ, 0),
    "commit pop, the lane waits": _commit("pop", LANE, LIST, HEAD, 0, *_ADD_DLQ),
    "commit pop, the next is in hand": _commit("pop", LANE, LIST, HEAD, "", 0),
    "commit keep": _commit("keep", LANE, LIST, HEAD, *_KEEP),
    "commit back": _commit("back", LANE),
    "commit trace": _commit("trace", KEYS.traces(0, 1), "f", "line\n", 1 << 45),
    "lanes_due": Call(
        script("lanes_due"), (LEASE, PARKED, RETRIES), (TOKEN, 9, 9, 60_000, KEYS.lane_prefix("post", 0))
    ),
    "lease_release": Call(script("lease_release"), (LEASE, STREAM), (TOKEN, GROUP, "w1")),
    "lease_renew": Call(script("lease_renew"), (LEASE, STREAM, PARKED), (TOKEN, 90_000, GROUP, "w1")),
    "lease_renew, without a group": Call(
        script("lease_renew"), (LEASE, STREAM, PARKED), (TOKEN, 90_000, "other", "w1")
    ),
    "mark, an entry": Call(script("mark"), (LEASE, STREAM, RETRIES), (TOKEN, GROUP, "w1", 2, READ, "")),
    "mark, a lane": Call(script("mark"), (LEASE, STREAM, RETRIES), (TOKEN, GROUP, "w1", 2, HEAD, LANE)),
    "promote": Call(script("promote"), (ROUTER, SCHEDULED, ITEMS), (TOKEN, 9, KEYS.tag(0) + ":")),
    "read_due": Call(script("read_due"), (LEASE, STREAM), (TOKEN, GROUP, "w1", 0, 9)),
    "recover": Call(script("recover"), (LEASE, STREAM), (TOKEN, GROUP, "w1", "-", 9, 1)),
    "route": _route("route"),
    "route_full": _route("route_full"),
}
"""Each would change something, if the partition were still the caller's."""

STALE: Mapping[str, Mapping[str, str] | None] = {
    "another has it": {"token": "w2#2"},
    "we have it anew": {"token": "w1#2"},
    "it was given back": {"token": "", "until": "0"},
    "it is gone": None,
}


async def _contents(service: Service) -> dict[bytes, tuple[bytes, int]]:
    """Each key's value and when it expires."""
    client = service.client
    return {key: (await client.dump(key), await client.pexpiretime(key)) for key in await client.keys("*")}


async def _has_it(service: Service) -> None:
    for lease in (LEASE, ROUTER):
        await service.client.hset(lease, mapping={"token": TOKEN, "until": 1 << 45, "epoch": 2, "step": 0})


async def _fill(service: Service) -> None:
    client = service.client
    for stream in (STREAM, EVENTS_STREAM):
        await client.xgroup_create(stream, GROUP, "0", mkstream=True)
        for entry_id, reader in ((READ, "w1"), (OF_ANOTHER, "w0"), (NEW, "")):
            await client.xadd(stream, {"head": "x", "event": "{}"}, entry_id)
            if reader:
                await client.xreadgroup(GROUP, reader, {stream: ">"})
    await client.rpush(LIST, "3:1-1first", "3:1-2second")
    await client.zadd(PARKED, {LANE: 5})
    await client.hset(RETRIES, LANE, f"1 {TOKEN}")
    await client.zadd(SCHEDULED, {"0000000000000001": 5})
    await client.hset(ITEMS, mapping={"last": "1", "0000000000000001": "4:post4:head1:x"})


@pytest.mark.parametrize("name", CALLS)
async def test_who_has_lost_the_partition_is_told_so_and_changes_nothing(service: Service, name: str) -> None:
    await _fill(service)
    for why, lease in STALE.items():
        await _has_it(service)
        for key in (LEASE, ROUTER):
            if lease is None:
                await service.client.delete(key)
            else:
                await service.client.hset(key, mapping=dict(lease))
        before = await _contents(service)
        with pytest.raises(Fenced):
            await run(service.client, CALLS[name])
        assert await _contents(service) == before, why
    await _has_it(service)
    before = await _contents(service)
    await run(service.client, CALLS[name])
    assert await _contents(service) != before, "the call changes nothing for anybody, and so shows nothing"


def test_these_are_all_the_scripts_that_look_at_the_fence() -> None:
    names = [file.stem for file in (Path(notifier.broker.__file__).parent / "lua").glob("*.lua")]
    assert names
    # Others include fence.lua for the server's clock alone.
    fenced = {name for name in names if "error_reply('FENCED')" in script(name).source}
    assert {call.script.name for call in CALLS.values()} == fenced
    assert fenced == {name for name in names if script(name).source.count("owns(") > 1}


def test_these_are_all_the_operations_of_a_commit() -> None:
    commits = [call for call in CALLS.values() if call.script.name == "commit"]
    told = {detail.removeprefix("post ") for call in commits for detail in details([call])}
    assert {operation.split(" ")[0] for operation in told} == operations_of_commit()
    assert told >= {"move XADD dlq", "move INBOX.ADD", "move SCHEDULE"}
