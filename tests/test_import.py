"""Profiles as JSON lines, on a real server."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import AsyncIterator, Iterable

import pytest
import redis.asyncio

from notifier.broker.connection import connect
from notifier.errors import BrokerFull, BrokerUnavailable
from notifier.event import parse_recipient
from notifier.keys import Keys
from notifier.local.broker import free_port
from notifier.recipients import Import, Recipients, Refusal, import_lines
from notifier.recipients.importing import MAX_LINE, MOST_TOLD

KEYS = Keys()


async def blocks(parts: Iterable[bytes]) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


async def imported(recipients: Recipients, *parts: bytes) -> Import:
    report = Import()
    await import_lines(recipients, blocks(parts), report)
    return report


async def test_each_line_is_stored_or_refused_on_its_own(recipients: Recipients) -> None:
    await recipients.put(parse_recipient({"id": "u1", "name": "Old"}))
    lines = b'{"id": "u1", "name": "New"}\n\nnonsense\n{"id": "u2", "age": 3}\r\n  \n{"id": "u3"}\n[]\n{}'
    report = await imported(recipients, lines)
    assert (report.stored, report.new, report.refused, report.done) == (2, 1, 4, 8)
    assert [(one.line, one.field) for one in report.refusals] == [
        (3, "recipient"), (4, "age"), (7, "recipient"), (8, "id"),
    ]  # fmt: skip
    names = [one and (one.id, one.name) for one in await recipients.get_many(["u1", "u2", "u3"])]
    assert names == [("u1", "New"), None, ("u3", None)]


@pytest.mark.parametrize("size", [1, 7, 64, 10_000])
async def test_lines_may_be_cut_anywhere(recipients: Recipients, size: int) -> None:
    names = [f"ü{i}" for i in range(50)]
    lines = "\n".join(json.dumps({"id": name}, ensure_ascii=False) for name in names)
    whole = b"\xef\xbb\xbf" + lines.encode()
    report = await imported(recipients, *(whole[i : i + size] for i in range(0, len(whole), size)))
    assert (report.stored, report.new, report.refused) == (50, 50, 0)
    assert None not in await recipients.get_many(names)


async def test_of_several_lines_with_one_id_the_last_one_counts(recipients: Recipients) -> None:
    lines = b"".join(b'{"id": "bo", "name": "%d"}\n' % i for i in range(1_200))
    report = await imported(recipients, lines)
    assert (report.stored, report.new) == (1_200, 1)
    stored = await recipients.get("bo")
    assert stored is not None
    assert stored.name == "1199"


async def test_many_lines_take_few_round_trips(client: redis.asyncio.Redis, recipients: Recipients) -> None:
    await recipients.put(parse_recipient({"id": "warm"}))
    await client.config_resetstat()
    lines = b"".join(b'{"id": "u%d"}\n' % i for i in range(2_000))
    report = await imported(recipients, lines)
    assert report.new == 2_000
    stats = await client.info("commandstats")
    assert stats["cmdstat_mget"]["calls"] <= 4 * KEYS.partitions
    assert stats["cmdstat_evalsha"]["calls"] == 2_000


async def test_a_line_that_is_too_long_is_refused_and_the_next_one_stored(recipients: Recipients) -> None:
    long = b'{"id": "u1", "name": "' + b"x" * (3 * MAX_LINE) + b'"}\n{"id": "u2"}\n'
    report = await imported(recipients, *(long[i : i + 65_536] for i in range(0, len(long), 65_536)))
    assert report.refusals == [Refusal(1, "recipient", f"has more than {MAX_LINE} bytes")]
    assert (report.stored, report.done) == (1, 2)
    last = await imported(recipients, b'{"id": "u3"}\n', b"x" * (MAX_LINE + 1))
    assert [(one.line, one.field) for one in last.refusals] == [(2, "recipient")]


async def test_a_profile_that_is_too_large_is_refused_alone(recipients: Recipients) -> None:
    devices = [{"kind": "fcm", "token": f"{i:04d}" + "t" * 4_000} for i in range(20)]
    large = json.dumps({"id": "large", "devices": devices}).encode()
    report = await imported(recipients, b'{"id": "u1"}\n' + large + b'\n{"id": "u2"}\n')
    assert (report.stored, [one.line for one in report.refusals]) == (2, [2])


async def test_devices_of_an_import_belong_to_the_imported(recipients: Recipients) -> None:
    phone = {"kind": "fcm", "token": "the-same-telephone"}
    await recipients.put(parse_recipient({"id": "ada", "devices": [phone]}))
    line = json.dumps({"id": "bo", "devices": [phone]}).encode()
    await imported(recipients, line)
    ada, bo = await recipients.get_many(["ada", "bo"])
    assert ada is not None
    assert bo is not None
    assert (len(ada.devices), len(bo.devices)) == (0, 1)


@pytest.mark.slow
async def test_memory_does_not_grow_with_what_is_refused_or_endless(recipients: Recipients) -> None:
    async def endless() -> AsyncIterator[bytes]:
        for _ in range(60):
            yield b"nonsense\n" * 500
        for _ in range(300):
            yield b"x" * 65_536

    report = Import()
    tracemalloc.start()
    try:
        await import_lines(recipients, endless(), report)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert report.refused == 30_001
    assert len(report.refusals) == MOST_TOLD
    assert peak < 8 << 20


async def test_what_was_stored_before_the_broker_failed_is_told(
    client: redis.asyncio.Redis, recipients: Recipients
) -> None:
    async def until_it_is_full() -> AsyncIterator[bytes]:
        yield b"".join(b'{"id": "u%d"}\n' % i for i in range(700))
        await client.config_set("maxmemory", 1)
        yield b"".join(b'{"id": "w%d"}\n' % i for i in range(700))

    report = Import()
    with pytest.raises(BrokerFull):
        await import_lines(recipients, until_it_is_full(), report)
    await client.config_set("maxmemory", 0)
    assert (report.stored, report.done) == (500, 500)
    assert await recipients.get("u499") is not None
    async with connect(f"redis://127.0.0.1:{free_port()}") as away:
        with pytest.raises(BrokerUnavailable):
            await imported(Recipients(away, KEYS), b'{"id": "u1"}')
