"""Each alert fires when its fault is there, on real processes before a real broker, and not without it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
import redis

from notifier import Publisher
from notifier.keys import Keys
from notifier.local.broker import EmbeddedBroker, free_port
from tests.observability.installation import KEY, Installation, Scrape
from tests.observability.rules import Alert, Moment, Played, check, promtool, rules

pytestmark = pytest.mark.slow

KEYS = Keys("ntf", 4)
ALL = ("worker", "all")


@pytest.fixture
def installation(redis_url: str, tmp_path: Path) -> Iterator[Installation]:
    promtool()
    running = Installation(redis_url, tmp_path, free_port)
    yield running
    running.close()


def of_queue(name: str, queue: str = "post") -> Alert:
    return Alert(name, (("queue", queue),))


def of_channel(name: str) -> Alert:
    return Alert(name, (("channel", "post"),))


def of_job(name: str) -> Alert:
    return Alert(name, (("job", "notifier"),))


class Story:
    """What is scraped before a fault, in it, and after it. `check` plays each scrape in the fault for two
    minutes, and the last of them for twenty, as it does the others."""

    def __init__(self, installation: Installation, before: Scrape, folder: Path) -> None:
        self._installation = installation
        self._folder = folder
        self._before = before
        self._during: list[Scrape] = []

    def look(self, condition: Callable[[Scrape], object] = lambda _: True) -> None:
        """Scrapes in the middle of the fault, as soon as the condition holds."""
        self._during.append(self._installation.until(condition, "the fault is seen"))

    def check(self, *firing: Alert, over: Callable[[Scrape], object] = lambda _: True) -> None:
        """Once `over` holds the fault is over. In it these alerts fired and no other, and now none does."""
        after = self._installation.until(over, "the fault is over")
        first = [Played(scrape, 2) for scrape in self._during[:-1]]
        played = [Played(self._before, 20), *first, Played(self._during[-1], 20), Played(after, 20)]
        end = sum(minutes for _, minutes in played)
        check(played, [Moment(19, ()), Moment(20 + 6.5, firing), Moment(end - 1, ())], self._folder)


def begin(installation: Installation, folder: Path) -> Story:
    """All is well: something was delivered, nothing waits, and everything has an owner."""
    installation.publish(3)
    before = installation.until(
        lambda seen: (
            seen.total("notifier_delivery_seconds_count") >= 3
            and seen.is_served
            and not seen.most("notifier_queue_oldest_seconds")
        ),
        "all is well",
    )
    return Story(installation, before, folder)


def test_an_old_entry(installation: Installation, tmp_path: Path) -> None:
    installation.start(*ALL)
    story = begin(installation, tmp_path)
    installation.begin("away")
    old = f"{int((time.time() - 400) * 1000)}-0"  # the server takes any id that is above the last one
    with redis.Redis.from_url(installation.url) as client:
        streams = [KEYS.queue("post", partition) for partition in range(KEYS.partitions)]
        stream = next(one for one in streams if not client.xinfo_stream(one)["entries-added"])
        event = b'{"id":"e1","type":"like","occurred_at":"2026-01-31T12:00:00Z","data":{"text":"hello"}}'
        head = b"1\ne1\nlike\nzoe\nzoe\nletterbox\nzoe\n1769860800000\n"
        client.xadd(stream, {b"head": head, b"event": event}, id=old)
    story.look(lambda seen: seen.most("notifier_breaker_open"))
    installation.end("away")
    story.check(
        of_queue("NotifierQueueOld"),
        of_queue("NotifierBreakerOpen"),
        over=lambda seen: not seen.most("notifier_queue_oldest_seconds"),
    )


def test_a_provider_that_is_away(installation: Installation, tmp_path: Path) -> None:
    installation.start(*ALL)
    story = begin(installation, tmp_path)
    installation.begin("away")
    installation.publish()
    # A scrape sees the broker a moment before the breaker: maybe when nothing had been routed yet.
    story.look(
        lambda seen: (
            seen.most("notifier_breaker_open", queue="post")
            and seen.most("notifier_queue_entries", queue="post")
        )
    )
    installation.end("away")
    story.check(of_queue("NotifierBreakerOpen"), over=lambda seen: not seen.most("notifier_breaker_open"))


def test_a_breaker_that_holds_nothing_up_wakes_nobody(installation: Installation, tmp_path: Path) -> None:
    installation.start(*ALL)
    story = begin(installation, tmp_path)
    installation.begin("away")
    soon = datetime.now(UTC) + timedelta(seconds=3)  # time enough for the first attempt
    with Publisher(installation.url) as publisher:
        publisher.publish({"type": "like", "recipient": "u1", "data": {"text": "hello"}, "expires_at": soon})
    installation.until(lambda seen: seen.most("notifier_breaker_open"), "it opens")
    story.look(
        lambda seen: (
            seen.most("notifier_breaker_open") and not seen.most("notifier_queue_entries", queue="post")
        )
    )
    story.check()


def test_nobody_serves_a_queue(installation: Installation, tmp_path: Path) -> None:
    installation.start("worker", "router", "dead_letters")
    post = installation.start("worker", "post")
    story = begin(installation, tmp_path)
    post.stop()
    installation.targets.remove(post)  # a process that was taken away on purpose is no target any more
    story.look(lambda seen: seen.most("notifier_partitions_without_owner", queue="post") == 4)
    installation.start("worker", "post")
    story.check(of_queue("NotifierNoOwner"), over=lambda seen: seen.is_served)


def test_many_dead_letters(installation: Installation, tmp_path: Path) -> None:
    installation.start(*ALL)
    story = begin(installation, tmp_path)
    installation.begin("refuses")
    installation.publish(15)
    story.look(lambda seen: seen.total("notifier_dead_letters_total") >= 15)
    story.check(of_queue("NotifierDeadLettersGrow"))


def test_a_few_dead_letters_among_many_deliveries_wake_nobody(
    installation: Installation, tmp_path: Path
) -> None:
    installation.start(*ALL)
    story = begin(installation, tmp_path)
    installation.publish(800)
    installation.until(lambda seen: seen.total("notifier_delivery_seconds_count") >= 803, "delivered")
    installation.begin("refuses")
    installation.publish(12)
    story.look(lambda seen: seen.total("notifier_dead_letters_total") >= 12)
    story.check()


def test_a_dead_delivery(installation: Installation, tmp_path: Path) -> None:
    installation.start(*ALL, NOTIFIER_DLQ_DELAY="100ms")
    story = begin(installation, tmp_path)
    installation.begin("refuses")
    installation.publish()
    story.look(lambda seen: seen.most("notifier_queue_entries", state="dead") == 1)
    installation.run("dlq", "discard", "--state", "dead", "--yes")
    story.check(of_queue("NotifierDead"))


def test_most_attempts_fail(installation: Installation, tmp_path: Path) -> None:
    installation.start(*ALL)
    story = begin(installation, tmp_path)
    installation.begin("busy")
    installation.publish(30)
    story.look(lambda seen: seen.total("notifier_parked_total") >= 30)  # chance may retry one at once
    story.check(of_channel("NotifierAttemptsFail"))


def test_a_template_that_does_not_render(installation: Installation, tmp_path: Path) -> None:
    installation.start(*ALL)
    story = begin(installation, tmp_path)
    installation.publish(other="the template wants `text`")
    story.look(lambda seen: seen.total("notifier_failed_total", outcome="TemplateError") >= 1)
    story.check(of_channel("NotifierTemplateErrors"))


def test_a_template_that_can_not_be_loaded(installation: Installation, tmp_path: Path) -> None:
    installation.start(*ALL)
    story = begin(installation, tmp_path)
    installation.template.write_text("{% block body %}")
    story.look(lambda seen: seen.most("notifier_template_problems"))
    installation.mend_template()
    story.check(
        Alert("NotifierTemplatesBroken"), over=lambda seen: not seen.most("notifier_template_problems")
    )


def test_a_broker_that_is_away_and_requests_that_fail(tmp_path: Path) -> None:
    promtool()
    with EmbeddedBroker(tmp_path / "broker", persistent=True) as broker:
        installation = Installation(broker.url, tmp_path, free_port)
        try:
            installation.start(*ALL)
            api = installation.start("api")
            story = begin(installation, tmp_path)
            broker.kill()
            for _ in range(2):
                refuse(api.port)
                story.look()
            broker.start()
            story.check(
                Alert("NotifierBrokerAway"),
                Alert("NotifierRequestsFail"),
                over=lambda seen: seen.total("notifier_broker_up") == 2 and seen.is_served,
            )
        finally:
            installation.close()


def refuse(port: int) -> None:
    answer = httpx.post(
        f"http://127.0.0.1:{port}/v1/events",
        json={"type": "like", "recipient": "u1"},
        headers={"Authorization": f"Bearer {KEY}"},
        timeout=20,
        trust_env=False,
    )
    assert answer.status_code == 503


def test_the_memory_of_the_broker_runs_out(installation: Installation, tmp_path: Path) -> None:
    installation.start(*ALL)
    with redis.Redis.from_url(installation.url) as client:
        client.config_set("maxmemory", 100 * client.info("memory")["used_memory"])
        story = begin(installation, tmp_path)

        def is_nearly_full(seen: Scrape) -> bool:
            """What is used goes up and down, so the limit goes after it."""
            used = seen.most("notifier_broker_memory_bytes", node="primary")
            if seen.is_served and used > 0.85 * seen.most("notifier_broker_memory_limit_bytes"):
                return True
            client.config_set("maxmemory", round(1.1 * used))
            return False

        story.look(is_nearly_full)
        client.config_set("maxmemory", 100 * client.info("memory")["used_memory"])
    story.check(Alert("NotifierBrokerMemory", (("node", "primary"),)), over=lambda seen: seen.is_served)


def test_nobody_tells_what_lies_in_the_queues(installation: Installation, tmp_path: Path) -> None:
    installation.start("worker", "router", "post")
    told = installation.start("worker", "dead_letters")
    story = begin(installation, tmp_path)
    installation.targets.remove(told)
    told.stop()
    story.look()
    installation.start("worker", "dead_letters")
    story.check(Alert("NotifierUnseen"), over=lambda seen: seen.is_served)


def test_a_process_that_does_not_answer(installation: Installation, tmp_path: Path) -> None:
    installation.start(*ALL)
    other = installation.start("worker", "post")
    story = begin(installation, tmp_path)
    other.stop()
    story.look(lambda seen: seen.is_served)
    other.start()
    story.check(of_job("NotifierTargetDown"), over=lambda seen: seen.is_served)


def test_a_process_that_starts_again_and_again(installation: Installation, tmp_path: Path) -> None:
    worker = installation.start(*ALL)
    story = begin(installation, tmp_path)
    for _ in range(3):
        worker.stop()
        worker.start()
        story.look(lambda seen: seen.is_served)
    story.check(of_job("NotifierRestarts"))


def test_every_alert_has_such_a_test() -> None:
    text = Path(__file__).read_text()
    assert [rule.name for rule in rules() if f'"{rule.name}"' not in text] == []
