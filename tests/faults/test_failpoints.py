"""A process dies before and after every broker call there is; somebody else finishes; the ledger is clean.

Each case is a process of its own that dies at its point without a word, and a namespace of its own. The
cases run beside each other, since most of what they do is to wait for a lease to run out.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path

import pytest
import redis

from notifier.local.broker import EmbeddedBroker
from tests.faults import scenes
from tests.faults.scenes import Scene
from tests.support.failpoints import Armed, call_sites, operations_of_commit
from tests.support.fork_server import ForkServer
from tests.support.topologies import wait

Scenario = Callable[[Scene, Armed], Awaitable[None]]

AT_ONCE = int(os.environ.get("NOTIFIER_FAILPOINTS_AT_ONCE", "6"))
HITS = int(os.environ.get("NOTIFIER_FAILPOINT_HITS", "1"))
"""At how many calls of a place a process dies, one case for each; there are more of them in `make soak`."""

_COMMITS = (
    "post ack",
    "post move RPUSH",  # the lane is parked
    "post move XADD dlq",
    "post pop",
    "post pop XADD dlq",  # from a parked lane
    "post keep LSET",  # parked once more
    "post trace",
    "post:dlq ack",
    "post:dlq move XADD dead",
    "box move INBOX.ADD",
    "events move XADD dlq",
    "events:dlq move XADD dead",
)

CASES: Mapping[str, Sequence[tuple[str, Scenario]]] = {
    "alerts.Alerter._unalerted": [("", scenes.mix)],
    "alerts.Alerter.tell": [("", scenes.mix)],
    "alerts.Alerter.tell#2": [("", scenes.alerting_in_vain)],
    "alerts.Alerter.tell#3": [("", scenes.mix)],
    "alerts.Alerter._errors": [("", scenes.mix)],
    "bootstrap.open_runtime": [("", scenes.mix)],
    "broker.committer.Committer._send": [
        *((commit, scenes.mix) for commit in _COMMITS),
        ("post back", scenes.giving_back),
        ("events move SCHEDULE", scenes.scheduling),
    ],
    "broker.consumer.Consumer.mark": [
        ("post mark entry", scenes.after_a_death),
        ("post mark lane", scenes.after_a_death_over_lanes),
    ],
    "broker.consumer.Consumer._recover": [
        *((f"{queue} recover", scenes.after_a_death) for queue in ("events", "post", "box")),
        ("post:dlq recover", scenes.after_a_death_in_the_dlq),
    ],
    "broker.leases.Leases._say_alive": [("", scenes.mix)],
    "broker.leases.Leases._renew": [(f"{q} lease_renew", scenes.mix) for q in ("events", "post", "post:dlq")],
    "broker.leases.Leases._acquire": [
        (f"{q} lease_acquire", scenes.mix) for q in ("events", "post", "post:dlq")
    ],
    "broker.leases.Leases.release": [
        ("events lease_release", scenes.stopping),
        ("post lease_release", scenes.stopping),
        ("post lease_release", scenes.sharing),
    ],
    "broker.leases.Leases.leave": [("", scenes.stopping)],
    "broker.reader.StreamReader.read": [(f"{q} XREADGROUP", scenes.mix) for q in ("events", "post", "box")],
    "broker.reader.DueReader.read": [(f"{q} read_due", scenes.mix) for q in ("events:dlq", "post:dlq")],
    "delivering.Deliveries._parked_lanes": [("post ZMSCORE", scenes.mix)],
    "delivering.Deliveries.due": [("post lanes_due", scenes.mix)],
    "inbox.Inbox._run": [
        (f"inbox {name}", scenes.administering)
        for name in ("inbox_add", "inbox_list", "inbox_mark_all", "inbox_delete")
    ],
    "inbox.Inbox.mark_some": [("inbox inbox_mark", scenes.administering)],
    "operations.dead_letters.get": [("", scenes.redriving_dead)],
    "operations.dead_letters.count": [("", scenes.redriving_dead)],
    "operations.dead_letters._until_ms": [("", scenes.redriving_dead)],
    "operations.dead_letters.walk": [("", scenes.redriving_dead)],
    "operations.dead_letters.walk#2": [("", scenes.redriving_dead)],
    "operations.exposition._look": [("", scenes.redriving_dead)],
    "operations.mending.mend": [
        ("post:dead redrive", scenes.redriving_dead),
        ("post:dlq redrive", scenes.redriving_dlq),
        ("post:dead discard", scenes.discarding_dead),
    ],
    "operations.queues.look": [("", scenes.redriving_dead)],
    "publisher.Publisher._open": [("", scenes.publishing)],
    "publisher.Publisher._publish": [("", scenes.publishing)],
    "publisher.AsyncPublisher._publish": [("", scenes.publishing_async)],
    "publisher.AsyncPublisher._publish#2": [("", scenes.publishing_async), ("", scenes.mix)],  # an alert's
    "recipients.owners.Owners.claim": [("", scenes.administering)],
    "recipients.owners.Owners.lost": [("", scenes.administering)],
    "recipients.owners.Owners.release": [("", scenes.administering)],
    "recipients.store.Recipients._store": [("", scenes.administering)],
    "recipients.store.Recipients._unschedule": [("", scenes.administering)],
    "recipients.store.Recipients.profiles": [("", scenes.administering), ("", scenes.mix)],
    "recipients.suppression.Suppressions._fields": [("", scenes.administering)],
    "recipients.suppression.Suppressions._remove": [("", scenes.administering)],
    "recipients.suppression.Suppressions.add": [("", scenes.administering)],
    "recipients.suppression.Suppressions.among": [("", scenes.administering)],
    "recipients.suppression.Suppressions.page": [("", scenes.administering)],
    "router.Router._insist": [("events route_full", scenes.routing_into_a_full_server)],
    "router.Router._send": [("events route", scenes.mix)],
    "router.Router.due": [("events promote", scenes.scheduling)],
    "event_traces.Traces.get": [("", scenes.administering)],
    "event_traces.Traces._look_through": [("", scenes.administering)],
    "event_traces.Traces._look_through#2": [("", scenes.administering)],
}
"""For each broker call what it may be about, and a scenario that comes there."""

HOLDING = {
    ("alerts.Alerter._unalerted", ""),
    ("broker.consumer.Consumer._recover", "post recover"),
    ("broker.consumer.Consumer._recover", "post:dlq recover"),
    ("broker.reader.DueReader.read", "events:dlq read_due"),
    ("broker.reader.DueReader.read", "post:dlq read_due"),
    ("broker.reader.StreamReader.read", "events XREADGROUP"),
    ("broker.reader.StreamReader.read", "post XREADGROUP"),
}
"""Who dies after one of these had something in the answer: an empty one is lost without harm."""


def _all() -> list[tuple[str, Armed, Scenario]]:
    found = []
    for site, kinds in CASES.items():
        for detail, scenario in kinds:
            for after, hit in itertools.product((False, True), range(1, HITS + 1)):
                words = f"{site} {detail or '-'} {scenario.__name__} {'after' if after else 'before'}"
                name = words.replace(" ", "/") + (f"/{hit}" if hit > 1 else "")
                holding = after and (site, detail) in HOLDING
                found.append((name, Armed(site, after, detail, hit, holding), scenario))
    return found


ALL = _all()


class Matrix:
    """Runs the cases that were chosen, in a thread with a loop of its own."""

    def __init__(self, url: str, folder: Path, chosen: Sequence[str]) -> None:
        self._url = url
        self._folder = folder
        self._chosen = chosen
        self._results: dict[str, Future[None]] = {name: Future() for name in chosen}
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))
        self._ends = threading.Event()
        self._thread.start()

    def result(self, name: str) -> None:
        self._results[name].result(timeout=50)

    def close(self) -> None:
        self._ends.set()
        self._thread.join()

    async def _run(self) -> None:
        turn = asyncio.Semaphore(AT_ONCE)
        by_name = {name: (armed, scenario) for name, armed, scenario in ALL}
        async with ForkServer() as server:

            async def play(number: int, name: str) -> None:
                armed, scenario = by_name[name]
                async with turn:
                    if self._ends.is_set():
                        return
                    try:
                        scene = Scene(server, self._url, self._folder / str(number), f"c{number}")
                        await scenes.run(scene, scenario, armed)
                    except BaseException as error:  # noqa: BLE001 - the case's test raises it
                        for log in (self._folder / str(number)).rglob("log"):
                            said = log.read_text(errors="replace")[-3_000:]
                            error.add_note(f"what the processes said last:\n{said}")
                        self._results[name].set_exception(error)
                    else:
                        self._results[name].set_result(None)

            await asyncio.gather(*(play(number, name) for number, name in enumerate(self._chosen)))


@pytest.fixture(scope="module")
def matrix(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Matrix]:
    folder = tmp_path_factory.mktemp("failpoints")
    chosen = [
        item.callspec.params["name"]
        for item in request.session.items
        if isinstance(item, pytest.Function) and item.function is test_a_process_that_dies_there_costs_nothing
    ]
    with EmbeddedBroker(folder / "broker", persistent=False) as broker:
        matrix = Matrix(broker.url, folder, chosen)
        yield matrix
        matrix.close()
        with redis.Redis.from_url(broker.url) as client:
            # Ours: whoever died or stopped has left none open.
            wait(lambda: len(client.client_list()) == 1, "only our connection is open")


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, _, _ in ALL])
def test_a_process_that_dies_there_costs_nothing(matrix: Matrix, name: str) -> None:
    try:
        matrix.result(name)
    except scenes.NotReached:
        if name.rpartition("/")[2].isdigit():
            pytest.skip("the scenario has not so many calls of it")
        raise


def test_every_broker_call_has_its_cases() -> None:
    assert set(CASES) == set(call_sites())
    assert len(call_sites()) == len(set(call_sites()))


def test_what_must_hold_something_is_among_the_cases() -> None:
    assert {(site, detail) for site, kinds in CASES.items() for detail, _ in kinds} >= HOLDING


def test_every_operation_of_the_commit_has_its_cases() -> None:
    told = {detail.split(" ")[1] for detail, _ in CASES["broker.committer.Committer._send"]}
    assert told == operations_of_commit()
