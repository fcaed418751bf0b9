"""Changing the number of partitions as an operator does it: with processes that are killed, and others that
know nothing of it."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest
import redis
import redis.asyncio
from redis.exceptions import ResponseError

from notifier import keys as keys_module
from notifier.bootstrap import open_runtime, open_templates, open_worker
from notifier.broker.connection import connect
from notifier.errors import BrokerError, InvalidInput, PartitionsMoved
from notifier.event import parse_recipient
from notifier.keys import Keys
from notifier.local.broker import end_with_parent
from notifier.operations import partitions
from notifier.operations.partitions import server as holding
from notifier.operations.partitions.names import Names
from notifier.publisher import Publisher
from notifier.recipients import Recipients
from notifier.settings import Settings
from tests.support.channels import ScriptedChannel
from tests.support.ledger import Ledger, judge, leftovers
from tests.support.processes import worker_process
from tests.support.proxy import open_proxy
from tests.support.service import write_types
from tests.support.waiting import until

PEOPLE = [f"flaky{n}@example.com" if n % 4 == 0 else f"u{n}@example.com" for n in range(40)]
EACH = 15


def command(*words: str, url: str) -> subprocess.Popen[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("NOTIFIER_")}
    parent = os.getpid()
    return subprocess.Popen(
        [sys.executable, "-m", "notifier.cli", *words],
        env=kept | {"NOTIFIER_REDIS_URL": url},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: end_with_parent(parent),  # noqa: PLW1509 - no thread is needed in the child
    )


def ran(*words: str, url: str) -> tuple[int, str, str]:
    process = command(*words, url=url)
    out, err = process.communicate(timeout=30)
    return process.returncode, out, err


@contextmanager
def publishing(url: str) -> Iterator[Publisher]:
    with Publisher(url) as publisher:
        yield publisher


def events(first: int, last: int) -> list[dict[str, object]]:
    return [
        {"id": f"{person}-{n}", "type": "ping", "recipient": {"id": person, "email": person}}
        for n in range(first, last)
        for person in PEOPLE
    ]


@pytest.mark.slow
@pytest.mark.timeout(90)
async def test_killed_again_and_again_it_loses_nothing_and_keeps_every_order(
    redis_url: str, tmp_path: Path
) -> None:
    write_types(tmp_path / "types")
    ledger = Ledger(tmp_path / "ledger")
    with publishing(redis_url) as publisher, redis.Redis.from_url(redis_url) as client:
        publisher.publish_many(events(0, EACH))
        with worker_process(redis_url, tmp_path, ("router", "post"), NOTIFIER_RETRY_BASE="2s") as worker:
            await until(lambda: len(ledger.lines()) > 50)
            code, _, err = ran("partitions", "change", "7", url=redis_url)
            assert (code, err.count("\n")) == (1, 1)
            assert "these workers live" in err
            worker.kill()
        await until(lambda: ran("partitions", "change", "7", "--dry-run", url=redis_url)[0] == 0, every=0.3)

        killed = 0
        for seen in (1, 40):
            async with open_proxy(redis_url) as proxy:  # it gets on only while this loop runs
                process = command("partitions", "change", "7", url=proxy.url)
                await until(lambda: _has_ended_or_made(process, client, seen), every=0)  # noqa: B023
                process.send_signal(signal.SIGKILL)
                process.communicate()
            killed += process.returncode == -signal.SIGKILL
            client.delete("ntf:changing")  # which expires by itself, in ten seconds
            if seen == 1:
                _all_are_refused(redis_url, publisher)
        assert killed == 2
        code, out, err = ran("partitions", "change", "7", "--json", url=redis_url)
        assert (code, err) == (0, "")
        assert json.loads(out)["after"] == 7
        _old_ones_find_out(client, publisher)
        publisher.publish_many(events(EACH, EACH + 5))

        roles = ("router", "post", "dead_letters")
        with worker_process(redis_url, tmp_path, roles) as worker:
            everything = len(PEOPLE) * (EACH + 5)
            await until(lambda: len({(x.address, x.event_id) for x in ledger.lines()}) == everything, 40)
            worker.terminate()
            worker.wait(20)
    verdict = judge({p: [f"{p}-{n}" for n in range(EACH + 5)] for p in PEOPLE}, ledger.lines())
    assert verdict.breaches == []
    assert verdict.duplicates <= 1_000  # what the worker that was killed had in hand, and no more
    async with redis.asyncio.Redis.from_url(redis_url) as client_:
        assert await leftovers(client_, Keys("ntf", 7, 2), ("events", "post")) == []
    ledger.close()


def _has_ended_or_made(process: subprocess.Popen[str], client: redis.Redis, keys: int) -> bool:
    """It has ended, or made more than so many keys."""
    return process.poll() is not None or len(client.keys("{ntf:2:*")) > keys


def _all_are_refused(url: str, publisher: Publisher) -> None:
    with pytest.raises(PartitionsMoved):
        publisher.publish_many(events(0, 1))
    with Publisher(url) as other, pytest.raises(PartitionsMoved, match="being changed from 16 to 7"):
        other.publish_many(events(0, 1))
    for words in (["queues"], ["partitions", "change", "8"]):
        code, _, err = ran(*words, url=url)
        assert (code in {1, 2}, err.count("\n")) == (True, 1)
        assert "changed" in err
    code, out, _ = ran("partitions", "show", "--json", url=url)
    assert (code, json.loads(out)["changing_to"]) == (0, 7)


def _old_ones_find_out(client: redis.Redis, publisher: Publisher) -> None:
    """Whoever read the number of partitions before."""
    with pytest.raises(ResponseError, match="WRONGTYPE"):
        client.xadd(Keys().queue("events", 3), {"v": "1", "to": "ada", "event": "{}"})
    assert publisher.publish({"id": "after", "type": "ping", "recipient": "nobody"})


async def test_a_process_that_was_there_before_changes_nothing_behind_everybodys_back(redis_url: str) -> None:
    async with connect(redis_url) as client:
        await client.hset("ntf:meta", mapping={"partitions": 16, "wire": "1"})  # type: ignore[misc, union-attr]
        before = Recipients(client, Keys())
        await before.put(parse_recipient({"id": "ada", "name": "Ada"}))
        await partitions.change(client, "ntf", 4)
        with pytest.raises(PartitionsMoved, match="the number of partitions has changed"):
            await before.put(parse_recipient({"id": "ada", "name": "Bob"}))
        now = await Recipients(client, Keys("ntf", 4, 2)).get("ada")
        assert now is not None
        assert now.name == "Ada"


async def test_what_it_does_not_know_it_does_not_leave_behind(redis_url: str) -> None:
    async with connect(redis_url) as client:
        await client.hset("ntf:meta", mapping={"partitions": 16, "wire": "1"})  # type: ignore[misc, union-attr]
        await client.set("{ntf:03}:of:a:later:version", "1")  # type: ignore[union-attr]
        with pytest.raises(InvalidInput, match="of:a:later:version"):
            await partitions.change(client, "ntf", 4)
        found = await partitions.look(client, "ntf")
        assert found == partitions.Layout(16, 1, "1", None)


@pytest.mark.parametrize("number", [0, 1_025, 16])
async def test_a_number_that_can_not_be_changes_nothing(redis_url: str, number: int) -> None:
    async with connect(redis_url) as client:
        with pytest.raises(InvalidInput, match=r"no installation yet|from 1 to"):
            await partitions.change(client, "ntf", number)
        await client.hset("ntf:meta", mapping={"partitions": 16, "wire": "1"})  # type: ignore[misc, union-attr]
        with pytest.raises(InvalidInput, match=r"partitions: (must be from 1 to 1024|are 16 already)"):
            await partitions.change(client, "ntf", number)
        assert await partitions.look(client, "ntf") == partitions.Layout(16, 1, "1", None)


async def test_a_change_that_was_done_and_still_stands_there_is_ended(redis_url: str) -> None:
    """Of two at once, older versions let the slower one write down what it never began."""
    async with connect(redis_url) as client:
        stands = {"partitions": 8, "layout": 2, "wire": "1", "changing": 8}
        await client.hset("ntf:meta", mapping=stands)  # type: ignore[misc, union-attr]
        await client.set("{ntf:2:03}:of:a:later:version", "1")  # type: ignore[union-attr]
        with pytest.raises(InvalidInput, match="notifier partitions change 8"):
            await partitions.change(client, "ntf", 4)
        code, out, _ = await asyncio.to_thread(
            ran, "partitions", "change", "8", "--dry-run", "--json", url=redis_url
        )
        assert (code, json.loads(out)["keys"]) == (0, {})
        assert await partitions.change(client, "ntf", 8) == partitions.Moved(8, 8, True, {})
        assert await partitions.look(client, "ntf") == partitions.Layout(8, 2, "1", None)


async def test_one_that_died_is_followed_and_one_that_lives_is_not(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(holding, "PATIENCE", timedelta(milliseconds=300))
    async with connect(redis_url) as client:
        await client.hset("ntf:meta", mapping={"partitions": 16, "wire": "1"})  # type: ignore[misc, union-attr]
        await client.set("ntf:changing", "of one that lives")  # type: ignore[union-attr]
        with pytest.raises(BrokerError, match="another process is changing"):
            await partitions.change(client, "ntf", 4)
        monkeypatch.undo()  # the time that it holds what it has taken, too
        await client.pexpire("ntf:changing", 200)  # type: ignore[union-attr]
        assert (await partitions.change(client, "ntf", 4)).after == 4


@pytest.mark.parametrize("other", [4, 8])
async def test_of_two_at_once_the_slower_one_begins_nothing(redis_url: str, other: int) -> None:
    async with connect(redis_url) as client, connect(redis_url) as second, connect(redis_url) as third:

        async def both_wait() -> bool:
            return [row["cmd"] for row in await third.client_list()].count("set") == 2  # type: ignore[union-attr]

        await third.hset("ntf:meta", mapping={"partitions": 16, "wire": "1"})  # type: ignore[misc, union-attr]
        await third.set("ntf:changing", "of a third one")  # type: ignore[union-attr]
        both = asyncio.gather(
            partitions.change(client, "ntf", 4),
            partitions.change(second, "ntf", other),
            return_exceptions=True,
        )
        await until(both_wait)  # so both have read the number
        await third.delete("ntf:changing")  # type: ignore[union-attr]
        ended = await both
        [after] = [one.after for one in ended if isinstance(one, partitions.Moved)]
        [refused] = [one for one in ended if isinstance(one, InvalidInput)]
        assert "by another process a moment ago" in str(refused)
        assert await partitions.look(client, "ntf") == partitions.Layout(after, 2, "1", None)


async def test_a_worker_that_read_the_number_before_ends_and_says_why(redis_url: str, tmp_path: Path) -> None:
    settings = Settings(redis_url=redis_url, templates=write_types(tmp_path / "types"))
    channels = {"post": ScriptedChannel()}
    async with (
        open_runtime(settings) as runtime,
        open_worker(runtime, channels, open_templates(settings, channels), ["router"]) as worker,
    ):
        await partitions.change(runtime.client, "ntf", 4)
        with pytest.raises(BaseExceptionGroup) as raised:
            await worker.run(asyncio.Event())
    assert raised.value.subgroup(PartitionsMoved)


def test_every_key_that_is_documented_is_known_to_the_change() -> None:
    """Whoever adds a key to `notifier.keys` has to say how it moves, or the change would refuse to begin."""
    names = Names(Keys())
    documented = re.findall(r"^    \{ntf:07\}:(\S+)", keys_module.__doc__ or "", re.MULTILINE)
    assert len(documented) > 15
    for rest in documented:
        if rest == "absent":
            continue
        example = re.sub(
            r"<\w+>", "x", rest.removesuffix("...") + (":entries" if rest.endswith("...") else "")
        )
        name = names.of(f"{{ntf:07}}:{example}".encode())
        assert name is not None
        assert name.partition == 7
