"""A slot that is half way from one node to another: whatever needs several of its keys is refused whole."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

import pytest

from notifier.broker.cluster import Cluster, ClusterLine
from notifier.broker.connection import connect, open_line
from notifier.broker.scripts import Call, ask, run, script
from notifier.broker.slots import slot_of
from notifier.channel import InboxEntry
from notifier.errors import BrokerUnavailable
from notifier.inbox import Inbox, encode_entry
from notifier.keys import GROUP, Keys
from tests.support.topologies import Clustered, binary_of, clustered, empty

pytestmark = pytest.mark.slow

KEYS = Keys()
ADA = KEYS.partition_of("ada")


@pytest.fixture(scope="module", params=["valkey-9.1", "redis-7.0", "redis-8.2"])
def nodes(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clustered]:
    with clustered(tmp_path_factory.mktemp("cluster"), binary_of(request.param)) as topology:
        yield topology


@pytest.fixture
def cluster(nodes: Clustered) -> Clustered:
    empty(nodes)
    return nodes


@pytest.fixture
async def client(cluster: Clustered) -> AsyncIterator[Cluster]:
    client = connect(cluster.url)
    assert isinstance(client, Cluster)
    async with client:
        yield client


@pytest.fixture
async def line(client: Cluster) -> AsyncIterator[ClusterLine]:
    """It does not wait for the slot to arrive, as a client does: what is refused is refused at once."""
    line = open_line(client)
    assert isinstance(line, ClusterLine)
    yield line
    await line.close()


@contextmanager
def _moving(cluster: Clustered, per_step: int) -> Iterator[Iterator[int]]:
    """The slot of Ada's partition is on its way; each step moves so many keys. At the end it has arrived."""
    slot = slot_of(KEYS.tag(ADA))
    source = cluster.owner_of_slot(slot)
    steps = cluster.move(slot, next(n for n in cluster.nodes if n is not source), per_step=per_step)
    next(steps)
    try:
        yield steps
    finally:
        for _ in steps:
            pass


def _entry(number: int) -> InboxEntry:
    return InboxEntry(id=f"e{number}", type="ping", title="t", body="b", created_ms=1_000 + number)


REFUSED = "Multiple keys request during rehashing"  # TRYAGAIN


async def test_an_inbox_is_not_split_in_two(cluster: Clustered, client: Cluster, line: ClusterLine) -> None:
    inbox, impatient = Inbox(client, KEYS), Inbox(line, KEYS)  # type: ignore[arg-type]
    for number in range(5):
        await inbox.add("ada", _entry(number))
    await inbox.mark("ada", "e3", "seen")
    with _moving(cluster, per_step=1) as steps:
        for keys in steps:
            assert keys == 1
            with pytest.raises(BrokerUnavailable, match=REFUSED):
                await impatient.add("ada", _entry(9))
            with pytest.raises(BrokerUnavailable, match=REFUSED):
                await impatient.counts("ada")
    assert await inbox.add("ada", _entry(5))
    page = await inbox.list("ada")
    assert [stored.entry.id for stored in page.entries] == ["e5", "e4", "e3", "e2", "e1", "e0"]


async def test_a_commit_is_not_done_by_half(cluster: Clustered, client: Cluster, line: ClusterLine) -> None:
    tag = KEYS.tag(ADA)
    keys = [f"{tag}:post{end}" for end in (":lease", "", ":parked", ":retries")]
    keys += [KEYS.scheduled(ADA), KEYS.scheduled_items(ADA)]
    await ask(
        client,
        ("HSET", keys[0], "token", "w#1"),
        ("XGROUP", "CREATE", keys[1], GROUP, "0", "MKSTREAM"),
        ("XADD", keys[1], "1-0", "head", "h"),
        ("XREADGROUP", "GROUP", GROUP, "w", "STREAMS", keys[1], ">"),
        ("ZADD", keys[2], 1, "lane"),
        ("HSET", keys[3], "lane", "1 w#1"),
        ("ZADD", keys[4], 1, "1"),
        ("HSET", keys[5], "1", "item"),
    )
    lane = KEYS.lane("post", ADA, "ada/email")
    commit = Call(script("commit"), keys, ("w#1", GROUP, "move", "1-0", 1, 3, "RPUSH", lane, "item"))
    with _moving(cluster, per_step=100) as steps:
        # Every key is still here that the call declares; the lane's would be a new one.
        with pytest.raises(BrokerUnavailable, match=REFUSED):
            await run(line, commit)
        assert (await ask(client, ("XLEN", keys[1])))[0] == 1
        assert sum(steps) == len(keys)
    await run(client, commit)
    assert await ask(client, ("XLEN", keys[1]), ("LRANGE", lane, 0, -1)) == [0, [b"item"]]


async def test_single_keys_are_found_wherever_they_are(cluster: Clustered, client: Cluster) -> None:
    names = [f"{KEYS.tag(ADA)}:recipient:{n}" for n in range(6)]
    await ask(client, *(("SET", name, name) for name in names))
    with _moving(cluster, per_step=2) as steps:
        for _ in steps:
            assert await ask(client, *(("GET", name) for name in names)) == [name.encode() for name in names]
    assert await ask(client, ("MGET", *names)) == [[name.encode() for name in names]]


async def test_a_script_is_taught_to_each_node(cluster: Clustered, client: Cluster) -> None:
    for node in cluster.nodes:
        node.ask("SCRIPT", "FLUSH")
    inbox = Inbox(client, KEYS)
    people = [f"u{n}" for n in range(30)]
    for u in people:
        assert await inbox.add(u, _entry(1))
    sizes = [node.ask("DBSIZE") for node in cluster.nodes]
    assert all(sizes)
    assert encode_entry(_entry(1)) == encode_entry((await inbox.list("u0")).entries[0].entry)
