"""Publishing: at most once, in order, typed errors, and nothing half done."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import redis

from notifier import AsyncPublisher, Event, Publisher
from notifier.errors import BacklogFull, BrokerFull, BrokerUnavailable, ConfigurationError, InvalidEvent
from notifier.event import parse_body
from notifier.keys import Keys
from notifier.local.broker import EmbeddedBroker, free_port
from tests.support.servers import redis_server
from tests.support.waiting import until

KEYS = Keys()


@pytest.fixture(scope="module")
def old_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedBroker]:
    folder = tmp_path_factory.mktemp("redis")
    with EmbeddedBroker(folder, persistent=False, binary=redis_server()) as server:
        yield server


@pytest.fixture(params=["valkey", "redis"])
def url(request: pytest.FixtureRequest) -> str:
    """On both kinds of server."""
    if request.param == "valkey":
        return str(request.getfixturevalue("redis_url"))
    server: EmbeddedBroker = request.getfixturevalue("old_redis")
    with redis.Redis.from_url(server.url) as client:
        client.flushall()
        client.script_flush()
        client.config_set("maxmemory", 0)
    return server.url


def ping(event_id: str, recipient: Any = "ada", **fields: Any) -> dict[str, Any]:
    return {"id": event_id, "type": "ping", "recipient": recipient} | fields


def events_of(url: str, recipient: str = "ada") -> list[str]:
    """The ids that wait for this recipient, in order."""
    with redis.Redis.from_url(url) as client:
        rows = client.xrange(KEYS.queue("events", KEYS.partition_of(recipient)))
    return [parse_body(fields[b"event"]).id for _, fields in rows if fields[b"to"] == recipient.encode()]


# At most once.


def test_the_same_event_again_is_accepted_reported_and_added_once(url: str) -> None:
    with Publisher(url) as publisher:
        first, again = publisher.publish(ping("e1")), publisher.publish(ping("e1"))
    assert (first.id, first.recipients, first.duplicates, first.duplicate) == ("e1", ("ada",), (), False)
    assert (again.id, again.duplicates, again.duplicate) == ("e1", ("ada",), True)
    assert events_of(url) == ["e1"]


def test_of_many_publishers_racing_with_one_id_exactly_one_is_accepted(url: str) -> None:
    start = threading.Barrier(8)

    def race(_: int) -> list[bool]:
        with Publisher(url) as publisher:
            start.wait()
            return [publisher.publish(ping(f"e{i}")).duplicate for i in range(50)]

    with ThreadPoolExecutor(8) as threads:
        results = list(threads.map(race, range(8)))
    for of_one_id in zip(*results, strict=True):
        assert sorted(of_one_id) == [False] + [True] * 7
    assert sorted(events_of(url)) == sorted(f"e{i}" for i in range(50))


def test_duplicates_are_told_apart_by_recipient(url: str) -> None:
    with Publisher(url) as publisher:
        publisher.publish(ping("e1", "ben"))
        told = publisher.publish({"id": "e1", "type": "ping", "recipients": ["ada", "ben", "cem"]})
    assert told.recipients == ("ada", "ben", "cem")
    assert told.duplicates == ("ben",)
    assert not told.duplicate
    assert [events_of(url, u) for u in ("ada", "ben", "cem")] == [["e1"]] * 3


def test_ids_and_recipients_that_look_alike_when_joined_are_different(url: str) -> None:
    with Publisher(url, partitions=1) as publisher:
        told = [publisher.publish(ping(e, u)).duplicate for e, u in (("a:b", "c"), ("a", "b:c"))]
    assert told == [False, False]


def test_after_the_window_the_same_id_is_a_new_event(url: str) -> None:
    with Publisher(url, dedup_window=timedelta(milliseconds=1)) as publisher:
        publisher.publish(ping("e1"))
        while publisher.publish(ping("e1")).duplicate:
            pass
    assert set(events_of(url)) == {"e1"}


def test_without_a_window_nothing_is_remembered(url: str) -> None:
    with Publisher(url, dedup_window=timedelta()) as publisher:
        assert not publisher.publish(ping("e1")).duplicate
        assert not publisher.publish(ping("e1")).duplicate
    assert events_of(url) == ["e1", "e1"]
    with redis.Redis.from_url(url) as client:
        assert client.keys("*:seen:*") == []


# Many.


def test_a_thousand_recipients_get_one_event_each_in_one_call(url: str) -> None:
    people = [f"u{i}" for i in range(1_000)]
    with Publisher(url) as publisher:
        told = publisher.publish({"id": "e1", "type": "ping", "recipients": people})
        again = publisher.publish({"id": "e1", "type": "ping", "recipients": people})
    assert told.recipients == tuple(people)
    assert again.duplicate
    with redis.Redis.from_url(url) as client:
        found = [
            fields[b"to"].decode()
            for p in range(KEYS.partitions)
            for _, fields in client.xrange(KEYS.queue("events", p))
        ]
    assert sorted(found) == sorted(people)


def test_publish_many_keeps_the_order_of_each_recipient_over_calls_and_round_trips(url: str) -> None:
    filler = "x" * 40_000  # so that it takes several round trips
    events = [
        ping(f"e{i}", ("ada", "ben", "cem")[i % 3], data={"x": filler if i % 2 else ""}) for i in range(900)
    ]
    with Publisher(url) as publisher:
        told = publisher.publish_many(events)
    assert [accepted.id for accepted in told] == [f"e{i}" for i in range(900)]
    for number, recipient in enumerate(("ada", "ben", "cem")):
        assert events_of(url, recipient) == [f"e{i}" for i in range(number, 900, 3)]


def test_publish_many_checks_all_before_the_first_is_sent(url: str) -> None:
    with Publisher(url) as publisher:
        with pytest.raises(InvalidEvent) as caught:
            publisher.publish_many([ping("e1"), ping("e2"), {"type": "ping"}, ping("e4")])
        assert publisher.publish_many([]) == []
    assert caught.value.field == "events[2].recipient"
    assert events_of(url) == []


def test_an_event_may_be_a_model_a_mapping_or_json(url: str) -> None:
    with Publisher(url) as publisher:
        for source in (
            Event.model_validate(ping("e1")),
            ping("e2"),
            '{"id":"e3","type":"ping","recipient":"ada"}',
            b'{"id":"e4","type":"ping","recipient":"ada"}',
        ):
            publisher.publish(source)
    assert events_of(url) == ["e1", "e2", "e3", "e4"]


# Later.


def test_an_event_for_later_waits_outside_the_queue_until_it_is_due(url: str) -> None:
    due = datetime.now(UTC) + timedelta(hours=1)
    with Publisher(url) as publisher:
        publisher.publish(ping("e1", deliver_at=due))
        assert publisher.publish(ping("e1", deliver_at=due)).duplicate
        publisher.publish(ping("e2", deliver_at=datetime.now(UTC) - timedelta(hours=1)))
    assert events_of(url) == ["e2"]
    with redis.Redis.from_url(url) as client:
        [(_, score)] = client.zrange(KEYS.scheduled(KEYS.partition_of("ada")), 0, -1, withscores=True)
    assert score == int(due.timestamp() * 1000)


# Limits.


def test_a_full_backlog_is_refused_with_numbers_and_the_repetition_is_harmless(url: str) -> None:
    with Publisher(url, backlog_limit=3) as publisher:
        publisher.publish_many([ping(f"e{i}") for i in range(3)])
        with pytest.raises(BacklogFull) as caught:
            publisher.publish(ping("e3"))
        assert (caught.value.partition, caught.value.waiting, caught.value.limit) == (
            KEYS.partition_of("ada"),
            3,
            3,
        )
        assert events_of(url) == ["e0", "e1", "e2"]
        with redis.Redis.from_url(url) as client:
            assert not client.exists(KEYS.seen(KEYS.partition_of("ada"), "e3"))
            client.delete(KEYS.queue("events", KEYS.partition_of("ada")))  # as if it had been worked off
        assert not publisher.publish(ping("e3")).duplicate
    assert events_of(url) == ["e3"]


def test_a_server_at_its_memory_limit_takes_nothing_and_says_so(url: str) -> None:
    partition = KEYS.partition_of("ada")
    with Publisher(url) as publisher, redis.Redis.from_url(url) as client:
        publisher.publish(ping("e0"))
        client.config_set("maxmemory", 1)
        try:
            with pytest.raises(BrokerFull):
                publisher.publish(ping("e1"))
            with pytest.raises(BrokerFull):
                publisher.publish(ping("e2", deliver_at=datetime.now(UTC) + timedelta(hours=1)))
            with Publisher(url) as fresh, pytest.raises(BrokerFull):
                fresh.publish(ping("e1"))
            assert client.keys("*:seen:e[12]") == []
            assert client.zcard(KEYS.scheduled(partition)) == 0
        finally:
            client.config_set("maxmemory", 0)
        assert events_of(url) == ["e0"]
        assert not publisher.publish(ping("e1")).duplicate
    assert events_of(url) == ["e0", "e1"]


# Errors of the connection.


def test_an_unreachable_broker_is_told_as_such() -> None:
    with (
        Publisher(f"redis://127.0.0.1:{free_port()}") as publisher,
        pytest.raises(BrokerUnavailable, match="can't be reached"),
    ):
        publisher.publish(ping("e1"))


async def test_an_unreachable_broker_is_told_as_such_on_asyncio_too() -> None:
    async with AsyncPublisher(f"redis://127.0.0.1:{free_port()}") as publisher:
        with pytest.raises(BrokerUnavailable, match="can't be reached"):
            await publisher.publish(ping("e1"))


def test_a_wrong_password_is_told_as_such_and_never_repeated_in_the_message(url: str) -> None:
    with redis.Redis.from_url(url) as client:
        client.config_set("requirepass", "correct")
    host = url.removeprefix("redis://")
    try:
        for wrong in (f"redis://:wr0ng@{host}", url):
            with Publisher(wrong) as publisher, pytest.raises(BrokerUnavailable, match="password") as caught:
                publisher.publish(ping("e1"))
            assert "wr0ng" not in str(caught.value)
        with Publisher(f"redis://:correct@{host}") as publisher:
            publisher.publish(ping("e1"))
    finally:
        with redis.Redis.from_url(f"redis://:correct@{host}") as client:
            client.config_set("requirepass", "")


def test_a_user_without_the_right_is_told_as_such(url: str) -> None:
    host = url.removeprefix("redis://")
    with redis.Redis.from_url(url) as client:
        client.acl_setuser("looker", enabled=True, passwords=["+pw"], commands=["+get"], keys=["*"])
        try:
            with (
                Publisher(f"redis://looker:pw@{host}") as publisher,
                pytest.raises(BrokerUnavailable, match="permission"),
            ):
                publisher.publish(ping("e1"))
        finally:
            client.acl_deluser("looker")


def test_a_replica_is_no_broker(url: str) -> None:
    with Publisher(url) as publisher, redis.Redis.from_url(url) as client:
        publisher.publish(ping("e1"))
        client.replicaof("127.0.0.1", free_port())
        try:
            with pytest.raises(BrokerUnavailable):
                publisher.publish(ping("e2"))
        finally:
            client.replicaof("NO", "ONE")


def test_publishing_goes_on_after_the_server_was_restarted(tmp_path: Path) -> None:
    with EmbeddedBroker(tmp_path, persistent=True) as broker, Publisher(broker.url) as publisher:
        publisher.publish(ping("e1"))
        broker.stop()
        with pytest.raises(BrokerUnavailable):
            publisher.publish(ping("e2"))
        broker.start()
        told = publisher.publish_many([ping("e1"), ping("e2")])
        assert [accepted.duplicate for accepted in told] == [True, False]
        assert events_of(broker.url) == ["e1", "e2"]


def test_publishing_goes_on_after_the_server_forgot_the_scripts(url: str) -> None:
    with Publisher(url) as publisher, redis.Redis.from_url(url) as client:
        for i in range(3):
            publisher.publish(ping(f"e{i}"))
            client.script_flush()
    assert events_of(url) == ["e0", "e1", "e2"]


# Threads and tasks.


def test_a_hundred_threads_share_one_publisher(url: str) -> None:
    with Publisher(url) as publisher, ThreadPoolExecutor(100) as threads:
        told = list(threads.map(lambda i: publisher.publish(ping(f"e{i}", f"u{i}")), range(500)))
    assert [accepted.id for accepted in told] == [f"e{i}" for i in range(500)]
    assert not any(accepted.duplicate for accepted in told)


async def test_five_hundred_tasks_share_one_publisher(url: str) -> None:
    async with AsyncPublisher(url) as publisher:
        told = await asyncio.gather(*(publisher.publish(ping(f"e{i}", f"u{i}")) for i in range(500)))
    assert [accepted.id for accepted in told] == [f"e{i}" for i in range(500)]


# Durability.


def test_fsync_returns_when_the_event_is_on_the_disk(tmp_path: Path) -> None:
    with (
        EmbeddedBroker(tmp_path, persistent=True) as broker,
        Publisher(broker.url, durability="fsync", timeout=timedelta(seconds=20)) as publisher,
    ):
        publisher.publish_many([ping(f"e{i}") for i in range(10)])
        broker.kill()
        broker.start()
        assert events_of(broker.url) == [f"e{i}" for i in range(10)]


def test_a_repetition_writes_so_that_waiting_for_the_disk_covers_the_first_time(url: str) -> None:
    def writes(client: redis.Redis) -> int:
        return int(client.info("persistence")["rdb_changes_since_last_save"])

    with Publisher(url) as publisher, redis.Redis.from_url(url) as client:
        publisher.publish(ping("e1"))
        [seen] = client.keys("*:seen:*")
        left, before = client.pttl(seen), writes(client)
        assert publisher.publish(ping("e1")).duplicate
        assert writes(client) > before
        assert 0 < client.pttl(seen) <= left  # and the window is not prolonged


def test_fsync_on_a_server_that_keeps_nothing_is_refused_before_anything_is_taken(url: str) -> None:
    with Publisher(url, durability="fsync") as publisher, pytest.raises(ConfigurationError) as caught:
        publisher.publish(ping("e1"))
    assert caught.value.setting == "NOTIFIER_DURABILITY"
    assert "appendonly" in caught.value.reason
    assert events_of(url) == []


def test_replicas_without_a_replica_is_an_error_and_the_repetition_is_a_duplicate(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Publisher(url, durability="replicas") as publisher:
        monkeypatch.setattr(publisher, "_timeout_ms", 200)  # long before the connection gives up
        with pytest.raises(BrokerUnavailable, match="not confirmed as replicas"):
            publisher.publish(ping("e1"))
        with pytest.raises(BrokerUnavailable, match="not confirmed"):
            publisher.publish(ping("e1"))
    assert events_of(url) == ["e1"]


async def test_replicas_returns_when_a_replica_has_the_event(redis_url: str, tmp_path: Path) -> None:
    with EmbeddedBroker(tmp_path, persistent=False) as replica, redis.Redis.from_url(replica.url) as client:
        with redis.Redis.from_url(redis_url) as primary:
            primary.config_set("repl-diskless-sync-delay", 0)
            client.replicaof("127.0.0.1", redis_url.rpartition(":")[2].partition("/")[0])
            await until(lambda: primary.info("replication").get("slave0", {}).get("state") == "online")
        with Publisher(redis_url, durability="replicas") as publisher:
            publisher.publish(ping("e1"))
        assert events_of(replica.url) == ["e1"]


# Options.


def test_another_number_of_partitions_than_that_of_the_installation_is_refused(url: str) -> None:
    with Publisher(url, partitions=4) as publisher:
        publisher.publish(ping("e1"))
    with Publisher(url) as publisher:  # takes those of the installation
        publisher.publish(ping("e2"))
    with Publisher(url, partitions=8) as publisher, pytest.raises(ConfigurationError) as caught:
        publisher.publish(ping("e3"))
    assert caught.value.setting == "NOTIFIER_PARTITIONS"
    assert "is 8" in caught.value.reason
    assert "has 4" in caught.value.reason


@pytest.mark.parametrize(
    ("options", "setting"),
    [
        ({"partitions": 0}, "NOTIFIER_PARTITIONS"),
        ({"partitions": 1_025}, "NOTIFIER_PARTITIONS"),
        ({"durability": "maybe"}, "NOTIFIER_DURABILITY"),
    ],
)
def test_options_that_can_not_be_are_refused(options: dict[str, Any], setting: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Publisher("redis://127.0.0.1", **options)
    assert caught.value.setting == setting


@pytest.mark.parametrize(
    "url",
    ["http://x", "127.0.0.1:6379", "redis://", "redis://h:port", "redis+sentinel://h", "redis+cluster://h/1"],
)
def test_a_url_of_something_else_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Publisher(url)
    assert caught.value.setting == "NOTIFIER_REDIS_URL"
