"""What is told of the broker when it is away, slow, or lets us do less."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import redis

from notifier.broker.connection import connect
from notifier.keys import Keys
from notifier.local.broker import EmbeddedBroker, free_port
from notifier.operations.exposition import exposition

KEYS = Keys()


async def test_a_user_who_may_not_ask_for_memory_is_told_the_rest(
    broker: EmbeddedBroker, redis_url: str
) -> None:
    with redis.Redis.from_url(redis_url) as client:
        client.acl_setuser("few", enabled=True, passwords=["+few"], keys=["*"], commands=["+@all", "-info"])
        try:
            async with connect(f"redis://few:few@127.0.0.1:{broker.port}/0") as restricted:
                told = (await exposition(restricted, KEYS, ("post",))).decode()
        finally:
            client.acl_deluser("few")
    assert "\nnotifier_broker_up 1.0\n" in told
    assert 'notifier_queue_entries{queue="post",state="dead"} 0.0' in told
    assert "notifier_broker_memory" not in told


async def test_of_a_broker_that_is_away_only_that_is_told() -> None:
    async with connect(f"redis://127.0.0.1:{free_port()}") as client:
        for queues in (True, False):
            told = (await exposition(client, KEYS, ("post",), queues=queues)).decode()
            assert "\nnotifier_broker_up 0.0\n" in told
            assert "notifier_queue_entries" not in told
            assert "\nnotifier_routed_total " in told


@pytest.mark.slow
async def test_a_broker_that_hangs_is_not_waited_for(tmp_path: Path) -> None:
    with EmbeddedBroker(tmp_path, persistent=False) as broker:
        async with connect(broker.url) as client:
            assert b"\nnotifier_broker_up 1.0\n" in await exposition(client, KEYS, ("post",))
            os.kill(broker.pid, signal.SIGSTOP)
            try:
                assert b"\nnotifier_broker_up 0.0\n" in await exposition(client, KEYS, ("post",))
            finally:
                os.kill(broker.pid, signal.SIGCONT)


async def test_without_a_limit_there_is_none(redis_url: str) -> None:
    async with connect(redis_url) as client:
        told = (await exposition(client, KEYS, ("post",))).decode()
        assert 'notifier_broker_memory_bytes{node="primary"}' in told
        assert "notifier_broker_memory_limit_bytes{" not in told
        with redis.Redis.from_url(redis_url) as admin:
            admin.config_set("maxmemory", 1 << 30)
        told = (await exposition(client, KEYS, ("post",))).decode()
        assert 'notifier_broker_memory_limit_bytes{node="primary"} 1.073741824e+09' in told
