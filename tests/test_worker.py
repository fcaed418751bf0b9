"""A worker process: its roles, its start and its end."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import structlog.testing

from notifier.bootstrap import open_runtime, open_templates, open_worker
from notifier.channel import Channel, PermanentFailure, TransientFailure
from notifier.errors import BrokerUnavailable, ConfigurationError
from notifier.local.broker import EmbeddedBroker, free_port
from notifier.rendering import TemplateFolder
from notifier.settings import Settings
from notifier.worker import Worker, chosen_roles
from tests.support.channels import ScriptedChannel
from tests.support.servers import redis_server
from tests.support.service import Service, address_of, open_service, ping, write_types
from tests.support.waiting import DEADLINE, until

CHANNELS = {"post": ScriptedChannel("post"), "pigeon": ScriptedChannel("pigeon")}


def test_roles_are_put_in_the_order_of_the_way_of_an_event() -> None:
    assert chosen_roles(["dead_letters", "post", "router", "post"], CHANNELS) == (
        "router",
        "post",
        "dead_letters",
    )
    assert chosen_roles(["pigeon", "all"], CHANNELS) == ("router", "post", "pigeon", "dead_letters")


def test_an_unknown_role_is_told_with_those_that_there_are() -> None:
    with pytest.raises(ConfigurationError, match="sms is not one of router, post, pigeon, dead_letters, all"):
        chosen_roles(["sms"], CHANNELS)


async def test_a_worker_opens_and_closes_only_the_channels_that_it_sends_with(service: Service) -> None:
    post, pigeon = ScriptedChannel("post"), ScriptedChannel("pigeon")
    async with service.worker([post, pigeon], ["router", "post"]):
        await until(lambda: post.opened)
    assert (post.opened, post.closed) == (1, 1)
    assert (pigeon.opened, pigeon.closed) == (0, 0)
    async with service.worker([post, pigeon], ["dead_letters"]):
        await until(lambda: pigeon.opened)
    assert (post.opened, pigeon.opened, pigeon.closed) == (2, 1, 1)


class ShutChannel(ScriptedChannel):
    async def open(self) -> None:
        raise ConfigurationError("SHUT_KEY", "is missing")


async def test_a_channel_that_can_not_be_opened_stops_the_start_and_closes_the_others(
    service: Service,
) -> None:
    post = ScriptedChannel("post")
    with pytest.raises(ConfigurationError, match="SHUT_KEY"):
        async with service.worker([post, ShutChannel("shut")], ["all"]) as worker:
            await worker.task
    assert (post.opened, post.closed) == (1, 1)
    assert await service.owners("post") == {}


async def test_each_role_in_a_process_of_its_own_makes_the_same_way(service: Service) -> None:
    post = ScriptedChannel()
    async with (
        service.worker([post], ["router"]),
        service.worker([post], ["post"]),
        service.worker([post], ["dead_letters"]),
    ):
        await service.publish(ping("e0", "ada"))
        await until(lambda: post.sent_to(address_of("ada")) == ["e0"])


async def test_the_whole_way_on_the_oldest_server_that_is_supported(tmp_path: Path) -> None:
    post = ScriptedChannel()
    post.answers[address_of("ada")] = [TransientFailure("451"), PermanentFailure("550")]
    post.always[address_of("ben")] = PermanentFailure("550")
    with EmbeddedBroker(tmp_path / "redis", persistent=False, binary=redis_server()) as broker:
        async with open_service(broker.url, tmp_path) as service:
            async with service.worker([post], ["all"]) as first:
                await service.publish(*(ping(f"e{i}", "ada") for i in range(20)), ping("b0", "ben"))
                await until(lambda: len(post.sent_to(address_of("ada"))) == 20)
                await until(lambda: service.entries("post", "dead"))
                await first.stop()
            async with service.worker([post], ["all"]):
                await service.publish(
                    ping("e20", "ada", deliver_at=datetime.now(UTC) + timedelta(seconds=0.2))
                )
                await until(lambda: len(post.sent_to(address_of("ada"))) == 21)
                await until(lambda: service.nothing_left("events", "post", "post:dlq"))


async def test_a_broker_that_can_not_be_reached_at_the_start_is_told(service: Service) -> None:
    lost = Service(f"redis://127.0.0.1:{free_port()}", service.client, service.publisher, service.templates)
    with pytest.raises(BrokerUnavailable):
        async with lost.worker([ScriptedChannel()]):
            pytest.fail("it started")


async def test_another_number_of_partitions_is_refused_at_the_start(service: Service) -> None:
    await service.publish(ping("e0", "ada"))
    with pytest.raises(ConfigurationError, match="NOTIFIER_PARTITIONS: is 4, but this installation"):
        async with service.worker([ScriptedChannel()], partitions=4):
            pytest.fail("it started")


async def test_a_worker_starts_and_works_off_a_server_at_its_memory_limit(service: Service) -> None:
    post = ScriptedChannel()
    async with service.worker([post], ["router"]):
        await service.publish(*(ping(f"e{i}", "ada") for i in range(20)))
        await until(lambda: service.nothing_left("events"))
    await service.client.config_set("maxmemory", 1)
    async with service.worker([post], ["post"]):
        await until(lambda: len(post.sent) == 20)
        await until(lambda: service.nothing_left("post"))


async def test_a_template_that_is_added_while_it_runs_is_picked_up(service: Service) -> None:
    post, news = ScriptedChannel(), service.templates.with_name("news")
    with structlog.testing.capture_logs() as lines:
        async with service.worker([post], ["router", "post"]):
            news.mkdir()
            (news / "event.toml").write_text("")
            news.rename(service.templates / "news")  # at once: it may look at any time
            await until(lambda: any(line["event"] == "templates_reloaded" for line in lines))
            await service.publish(ping("e0", "ada", type="news"))
            await until(lambda: post.sent_to(address_of("ada")) == ["e0"])


async def test_a_templates_folder_that_is_away_is_told_once_and_so_is_its_return(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("notifier.worker._LOOK_AT_TEMPLATES", 0.01)
    looks, look = [0], TemplateFolder.changed

    def changed(folder: TemplateFolder) -> bool:
        looks[0] += 1
        return look(folder)

    monkeypatch.setattr(TemplateFolder, "changed", changed)
    away = service.templates.with_name("elsewhere")
    with structlog.testing.capture_logs() as lines:

        def told(event: str) -> int:
            return sum(line["event"] == event for line in lines)

        async with service.worker([ScriptedChannel()], ["router"]):
            service.templates.rename(away)
            await until(lambda: told("template_broken") == 1)
            since = looks[0]
            await until(lambda: looks[0] > since + 20)
            assert (told("template_broken"), told("templates_reloaded")) == (1, 1)
            away.rename(service.templates)
            await until(lambda: told("templates_reloaded") == 2)
            since = looks[0]
            await until(lambda: looks[0] > since + 20)
            assert (told("template_broken"), told("templates_reloaded")) == (1, 2)


async def test_two_workers_in_one_process_stop_one_after_the_other(service: Service) -> None:
    post, long = ScriptedChannel(), timedelta(seconds=10)  # a take-over would repeat what is counted
    async with (
        service.worker([post], ["all"], lease_ttl=long) as one,
        service.worker([post], ["all"], lease_ttl=long),
    ):
        await service.publish(*(ping(f"e{i}", f"u{i}") for i in range(50)))
        await one.stop()
        await until(lambda: len(post.sent) == 50)
        await until(lambda: service.nothing_left("events", "post"))
    assert len(post.attempts) == 50


async def test_a_worker_that_is_cancelled_ends_although_a_part_of_it_swallows_that(
    redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    swallowed, over = 0, asyncio.Event()

    async def deaf(_: Worker) -> None:
        nonlocal swallowed
        while not over.is_set():
            try:
                await over.wait()
            except asyncio.CancelledError:
                swallowed += 1
                if swallowed == 3:
                    raise

    monkeypatch.setattr(Worker, "_watch_templates", deaf)
    post = ScriptedChannel("post")
    channels: dict[str, Channel] = {"post": post}
    settings = Settings(redis_url=redis_url, templates=write_types(tmp_path / "types"))
    async with (
        open_runtime(settings) as runtime,
        open_worker(runtime, channels, open_templates(settings, channels), ["post"]) as worker,
    ):
        running = asyncio.create_task(worker.run(asyncio.Event()))
        await until(lambda: worker.serving)
        running.cancel()
        done, _ = await asyncio.wait([running], timeout=DEADLINE)
        over.set()  # so that it ends in any case
        await asyncio.wait([running])
        assert done == {running}
        assert running.cancelled()
    assert post.closed == 1
