"""The number of partitions changes, and nothing else does: whoever dies in the middle, and wherever."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import redis
import redis.asyncio

from notifier.broker.connection import connect
from notifier.keys import Keys
from notifier.operations import partitions
from notifier.operations.partitions.server import Server
from tests.partitions.contents import contents
from tests.partitions.installation import STRANGE, furnish

KINDS = {
    "recipient", "idempotency", "inbox", "seen", "trace", "suppressed", "unalerted", "parked", "retries",
    "lanes", "events", "post:dlq", "post:dead", "scheduled", "trace expires",
}  # fmt: skip


class Died(BaseException):
    """What a process that ends in the middle is played by."""


class Snapshot:
    """All keys of a server, to begin again with."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client
        self._keys = [(k, client.dump(k), client.pexpiretime(k)) for k in client.scan_iter(count=1_000)]

    def restore(self) -> None:
        self._client.flushall()
        pipeline = self._client.pipeline()
        for key, dump, expires_ms in self._keys:
            pipeline.restore(key, max(0, expires_ms), dump, absttl=True)
        pipeline.execute()


@pytest.fixture
async def client(redis_url: str) -> Any:
    with redis.Redis.from_url(redis_url) as client:
        yield client


@pytest.mark.slow
@pytest.mark.parametrize("number", [1, 7, 16 * 3])
async def test_everything_moves_to_its_recipients_new_partition(
    redis_url: str, tmp_path: Path, client: redis.Redis, number: int
) -> None:
    await furnish(redis_url, tmp_path, [*(f"u{n}" for n in range(12)), *STRANGE], Keys())
    before = contents(client, Keys())
    assert before.keys() >= KINDS
    async with connect(redis_url) as connection:
        moved = await partitions.change(connection, "ntf", number)
        assert (moved.before, moved.after, moved.resumed) == (16, number, False)
        after = contents(client, Keys("ntf", number, 2))
        assert {kind: after.get(kind) for kind in before} == before
        assert after.keys() == before.keys()
        # And on to a third one: nothing is bound to the first layout.
        await partitions.change(connection, "ntf", 16)
        assert contents(client, Keys("ntf", 16, 3)) == before
    left = {
        key.split(b"}:")[1]
        for key in client.scan_iter("{ntf:[0-9]*")
        if b"{ntf:2:" not in key and b"{ntf:3:" not in key
    }
    assert left == {b"moved", b"events", b"suppressed"}


@pytest.mark.slow
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
async def test_whoever_dies_at_any_call_loses_nothing(
    redis_url: str, tmp_path: Path, client: redis.Redis, monkeypatch: pytest.MonkeyPatch, *, after: bool
) -> None:
    old = Keys("ntf", 2)
    await furnish(redis_url, tmp_path, ["u1", "müller"], old)
    snapshot, before = Snapshot(client), contents(client, old)
    assert before.keys() >= KINDS
    calls = 0
    dies_at: int | None = None

    def watched(name: str) -> None:
        original = getattr(Server, name)

        async def call(self: Server, *args: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == dies_at and not after:
                raise Died
            answer = await original(self, *args)
            if calls == dies_at:
                raise Died
            return answer

        monkeypatch.setattr(Server, name, call)

    for name in ("ask", "run", "try_all"):
        watched(name)
    async with connect(redis_url) as connection:
        await partitions.change(connection, "ntf", 3)
        total = calls
        assert total > 50
        for number in range(1, total + 1):
            snapshot.restore()
            calls, dies_at = 0, number
            with pytest.raises(Died):
                await partitions.change(connection, "ntf", 3)
            dies_at = None
            found = await partitions.look(connection, "ntf")
            assert found
            if found.partitions == 2:
                await partitions.change(connection, "ntf", 3)
            assert contents(client, Keys("ntf", 3, 2)) == before, f"died at call {number}"
