"""docs/how-to/back-up-and-restore.md is followed to the letter, and what was in the backup is delivered."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis

from notifier.keys import Keys
from notifier.local.broker import EmbeddedBroker, free_port, server_binary
from notifier.publisher import Publisher
from tests.docs.blocks import ROOT
from tests.docs.reader import DEV_PORT, Reader
from tests.support.ledger import Ledger, judge
from tests.support.processes import worker_process
from tests.support.service import write_types
from tests.support.waiting import until

PEOPLE = [f"u{n}@example.com" for n in range(10)]
BEFORE = 20


@contextmanager
def publishing(publisher: Publisher) -> Iterator[dict[str, list[str]]]:
    """Events come in all the time; what has been accepted by then, for each recipient."""
    accepted: dict[str, list[str]] = {person: [] for person in PEOPLE}
    ends = threading.Event()

    def publish() -> None:
        number = BEFORE
        while not ends.is_set():
            for person in PEOPLE:
                publisher.publish(_event(person, number))
                accepted[person].append(f"{person}-{number}")
            number += 1
            ends.wait(0.1)

    thread = threading.Thread(target=publish)
    thread.start()
    try:
        yield accepted
    finally:
        ends.set()
        thread.join()


def _event(person: str, number: int) -> dict[str, object]:
    return {"id": f"{person}-{number}", "type": "ping", "recipient": {"id": person, "email": person}}


def _need_redis_cli() -> None:
    if shutil.which("redis-cli"):
        return
    if os.environ.get("CI"):
        pytest.fail("CI must have redis-cli")
    pytest.skip("no redis-cli is installed")


@pytest.mark.slow
async def test_what_was_in_the_backup_is_delivered_from_the_new_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _need_redis_cli()
    binaries = tmp_path / "binaries"
    binaries.mkdir()
    (binaries / "valkey-server").symlink_to(server_binary())
    monkeypatch.setenv("PATH", f"{binaries}{os.pathsep}{os.environ['PATH']}")
    ports = {6390: free_port(), 6391: free_port()}
    with EmbeddedBroker(tmp_path / "broker", persistent=True) as broker, Publisher(broker.url) as publisher:
        publisher.publish_many(_event(person, number) for number in range(BEFORE) for person in PEOPLE)
        with publishing(publisher) as later, Reader(tmp_path, {DEV_PORT: broker.port, **ports}) as reader:
            done = reader.follow(ROOT / "docs/how-to/back-up-and-restore.md")
            assert done >= 10
            for port in ports.values():
                await _delivers(tmp_path / str(port), f"redis://127.0.0.1:{port}/0", later)


async def _delivers(folder: Path, url: str, later: dict[str, list[str]]) -> None:
    """All that was accepted before the backup, and the first of what came meanwhile for each recipient."""
    folder.mkdir()
    write_types(folder / "types")
    with (
        redis.Redis.from_url(url) as client,
        # A lease that ran out while the machine stood still would make it deliver some twice.
        worker_process(url, folder, NOTIFIER_LEASE_TTL="1m") as worker,
    ):
        await until(lambda: _is_empty(client))
        worker.terminate()
        worker.wait(20)
    lines = Ledger(folder / "ledger").lines()
    sent = {(line.address, line.event_id) for line in lines}
    published = {
        person: [
            *(f"{person}-{number}" for number in range(BEFORE)),
            *(one for one in later[person] if (person, one) in sent),
        ]
        for person in PEOPLE
    }
    verdict = judge(published, lines)
    assert (verdict.breaches, verdict.duplicates) == ([], 0)
    for person in PEOPLE:  # a moment as a whole: nothing is missing before the last that is there
        numbers = [int(one.rpartition("-")[2]) for one in published[person]]
        assert numbers == list(range(len(numbers)))


def _is_empty(client: redis.Redis) -> bool:
    keys = Keys()
    queues = [keys.queue(name, number) for name in ("events", "post") for number in range(keys.partitions)]
    return not any(client.xlen(queue) for queue in queues)
