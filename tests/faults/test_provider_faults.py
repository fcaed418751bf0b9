"""What a mail server may do to mails: none is lost, the order is kept, and nobody waits for another."""

from __future__ import annotations

import gc
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
from prometheus_client import REGISTRY

from channels.email import EmailChannel, open_channel
from notifier.broker.entries import Message
from tests.support.channels import ScriptedChannel
from tests.support.ledger import Line, Verdict, judge
from tests.support.mailbox import AccountingMailbox
from tests.support.service import Service, address_of, open_service, ping
from tests.support.waiting import until

PEOPLE = [f"u{i}" for i in range(20)]
COUNT = 200


@pytest.fixture
async def mailbox() -> AsyncIterator[AccountingMailbox]:
    async with AccountingMailbox() as mailbox:
        yield mailbox


@pytest.fixture
def email(mailbox: AccountingMailbox) -> EmailChannel:
    environ = {
        "NOTIFIER_SMTP_URL": f"{mailbox.url}?starttls=never",
        "NOTIFIER_MAIL_FROM": "App <app@example.com>",
    }
    return open_channel(environ)


@pytest.fixture
async def service(redis_url: str, tmp_path: Path) -> AsyncIterator[Service]:
    async with open_service(redis_url, tmp_path) as service:
        (tmp_path / "types" / "ping" / "email.jinja").write_text(
            "{% block subject %}{{ event.id }}{% endblock %}{% block body %}<p>Hi</p>{% endblock %}"
        )
        yield service


class Load:
    """So many events, in turn for twenty people."""

    def __init__(self, service: Service, mailbox: AccountingMailbox) -> None:
        self._service = service
        self._mailbox = mailbox
        self._published: dict[str, list[str]] = {address_of(u): [] for u in PEOPLE}

    async def publish(self, first: int, last: int) -> None:
        events = [ping(f"e{i}", PEOPLE[i % len(PEOPLE)]) for i in range(first, last)]
        for event in events:
            self._published[address_of(event["recipient"]["id"])].append(event["id"])
        await self._service.publish(*events)

    async def is_delivered(self) -> Verdict:
        wanted = sum(map(len, self._published.values()))
        await until(lambda: len(set(self._mailbox.taken)) == wanted, deadline=40)
        await until(lambda: self._service.nothing_left("events", "email"))
        assert await self._service.entries("email", "dlq") == []
        verdict = judge(self._published, [Line("sent", *mail, 0, 0.0) for mail in self._mailbox.taken])
        assert not verdict.breaches, verdict.breaches
        return verdict


@pytest.fixture
def load(service: Service, mailbox: AccountingMailbox) -> Load:
    return Load(service, mailbox)


ROLES = ("router", "email")


@pytest.mark.slow
async def test_a_server_that_is_down_costs_no_attempt_and_keeps_the_order(
    service: Service, mailbox: AccountingMailbox, email: EmailChannel, load: Load
) -> None:
    mailbox.unavailable = True
    assert _breaker_is_open() != 1.0
    async with service.worker([email], ROLES, retry_attempts=1):  # an attempt that counted would be the last
        await load.publish(0, COUNT)
        await until(lambda: _has_routed(service))
        await until(lambda: _breaker_is_open() == 1.0)  # so it was tried, in vain
        assert mailbox.taken == []
        assert await service.parked("email") == 0
        mailbox.unavailable = False
        verdict = await load.is_delivered()
    assert verdict.duplicates == 0
    await service.assert_at_baseline("events", "email")


def _breaker_is_open() -> float | None:
    return REGISTRY.get_sample_value("notifier_breaker_open", {"queue": "email"})


async def _has_routed(service: Service) -> bool:
    return not await service.waiting("events")


@pytest.mark.slow
async def test_a_server_that_comes_and_goes_costs_no_attempt_and_keeps_the_order(
    service: Service, mailbox: AccountingMailbox, email: EmailChannel, load: Load
) -> None:
    async with service.worker([email], ROLES, retry_attempts=1):
        for n in range(4):
            await load.publish(n * COUNT // 4, (n + 1) * COUNT // 4)
            await until(lambda n=n: len(mailbox.taken) > n * COUNT // 4)  # type: ignore[misc]
            mailbox.unavailable = True
            await load.publish(COUNT + n, COUNT + n + 1)  # so that somebody finds it so
            await until(lambda: _breaker_is_open() == 1.0)
            mailbox.unavailable = False
        await load.is_delivered()
    await service.assert_at_baseline("events", "email")


async def test_a_server_that_takes_half_of_the_mails_gets_the_others_later_and_in_order(
    service: Service, mailbox: AccountingMailbox, email: EmailChannel, load: Load
) -> None:
    mailbox.refuses = 0.5
    async with service.worker([email], ROLES, retry_attempts=100):
        await load.publish(0, COUNT)
        verdict = await load.is_delivered()
    assert mailbox.did["refused"] > COUNT / 4
    assert verdict.duplicates == 0
    await service.assert_at_baseline("events", "email")


async def test_a_server_that_closes_after_data_is_given_that_mail_again_and_no_other(
    service: Service, mailbox: AccountingMailbox, email: EmailChannel, load: Load
) -> None:
    mailbox.hangs_up = 10
    async with service.worker([email], ROLES, retry_attempts=100):
        await load.publish(0, COUNT)
        verdict = await load.is_delivered()
    assert mailbox.did["hung up after DATA"] == 10
    assert verdict.duplicates == 10
    await service.assert_at_baseline("events", "email")


@pytest.mark.slow
async def test_when_everyone_is_greylisted_memory_stays_flat_and_who_is_not_does_not_wait(
    service: Service, mailbox: AccountingMailbox, email: EmailChannel, load: Load
) -> None:
    in_hand, count = 50, 800
    for u in PEOPLE:
        mailbox.always[address_of(u)] = "451 4.7.1 greylisted, try again later"
    slow = {"retry_base": timedelta(milliseconds=200), "retry_max": timedelta(milliseconds=400)}
    async with service.worker([email], ROLES, retry_attempts=100, in_hand=in_hand, **slow):
        await load.publish(0, count)
        await until(lambda: _has_parked(service, count), deadline=40)
        assert _messages() <= 3 * in_hand
        await service.publish(ping("welcome", "newcomer"))
        await until(lambda: (address_of("newcomer"), "welcome") in mailbox.taken)
        mailbox.taken.clear()
        mailbox.always.clear()
        await load.is_delivered()
    await service.assert_at_baseline("events", "email")


async def _has_parked(service: Service, count: int) -> bool:
    return await service.parked("email") == count


def _messages() -> int:
    """How many are in this process, which is where the worker is."""
    gc.collect()
    return sum(isinstance(thing, Message) for thing in gc.get_objects())


async def test_an_address_that_takes_long_holds_up_no_other(service: Service) -> None:
    post = ScriptedChannel()
    gate = post.hold(address_of("slow"))
    async with service.worker([post], concurrency=4, in_hand=100):
        await service.publish(*(ping(f"s{i}", "slow") for i in range(30)))
        await until(lambda: post.at_once == 1)
        await service.publish(*(ping(f"e{i}", u) for i, u in enumerate(PEOPLE)))
        await until(lambda: len(post.sent) == len(PEOPLE))
        assert post.sent_to(address_of("slow")) == []
        gate.set()
        await until(lambda: len(post.sent_to(address_of("slow"))) == 30)
    assert post.sent_to(address_of("slow")) == [f"s{i}" for i in range(30)]
    await service.assert_at_baseline()
