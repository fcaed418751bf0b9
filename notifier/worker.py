"""A worker process: any mix of roles over one connection pool, until it is told to stop."""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack

import structlog

from notifier import metrics
from notifier.alerts import Alerter
from notifier.broker.cancelling import Tasks, cancel_until_done
from notifier.broker.connection import Client
from notifier.broker.consumer import Consumer
from notifier.broker.handler import Handler
from notifier.broker.reader import DueReader, Reader, open_reader
from notifier.channel import Channel
from notifier.dead_letters import Graveyard, SecondTry
from notifier.delivering import Deliveries, Limits, Policy
from notifier.errors import ConfigurationError, TemplateError
from notifier.keys import EVENTS, Keys, dlq_of
from notifier.policy import RetryPolicy
from notifier.publisher import AsyncPublisher
from notifier.recipients import Recipients
from notifier.rendering import TemplateFolder
from notifier.router import Router
from notifier.settings import Settings
from notifier.tracing import Tracing

log = structlog.get_logger(__name__)

ROUTER, DEAD_LETTERS, ALL = "router", "dead_letters", "all"
_LOOK_AT_TEMPLATES = 1.0


def known_roles(channels: Mapping[str, Channel]) -> tuple[str, ...]:
    return (ROUTER, *channels, DEAD_LETTERS)


def chosen_roles(asked: Sequence[str], channels: Mapping[str, Channel]) -> tuple[str, ...]:
    """The roles in the order of the way of an event. Raises ConfigurationError for an unknown one."""
    known = known_roles(channels)
    for role in asked:
        if role not in (*known, ALL):
            raise ConfigurationError("ROLE", f"{role} is not one of {', '.join((*known, ALL))}")
    return known if ALL in asked else tuple(role for role in known if role in asked)


class Worker:
    """Serves the queues of its roles. `run` returns when everything has been handed over."""

    def __init__(
        self,
        settings: Settings,
        client: Client,
        keys: Keys,
        channels: Mapping[str, Channel],
        templates: TemplateFolder,
        publisher: AsyncPublisher,
        roles: Sequence[str],
        tracing: Tracing | None = None,
    ) -> None:
        """`publisher` is for alerts. Raises ConfigurationError for an unknown role."""
        self.name = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"
        self.roles = chosen_roles(roles, channels)
        self.serving = False
        """Whether its channels are open and it takes part in the queues."""
        self._settings = settings
        self._client = client
        self._keys = keys
        self._channels = channels
        self._templates = templates
        self._publisher = publisher
        self._tracing = tracing

    async def run(self, stop: asyncio.Event) -> None:
        """Until `stop` is set. Raises ConfigurationError when a channel can't be opened.

        At the end the consumers hand over first, while channels and connections still work; then the
        runners go, then the channels, and the connections last.
        """
        async with AsyncExitStack() as stack:
            for channel in self._sending():
                await channel.open()
                stack.push_async_callback(channel.close)
            log.info("worker_started", worker=self.name, roles=list(self.roles))
            self.serving = True
            metrics.TEMPLATE_PROBLEMS.set(len(self._templates.problems))
            async with Tasks() as tasks:
                background = [tasks.create_task(self._watch_templates())]
                serving = []
                for consumer, handler in self._queues():
                    if isinstance(handler, Deliveries):
                        background.append(tasks.create_task(handler.run()))
                    serving.append(tasks.create_task(consumer.run(handler, stop)))
                if DEAD_LETTERS in self.roles:
                    background.append(tasks.create_task(self._alerter().run()))
                await asyncio.wait(serving)
                await cancel_until_done(*background)
        log.info("worker_stopped", worker=self.name)

    def _sending(self) -> list[Channel]:
        return [c for name, c in self._channels.items() if name in self.roles or DEAD_LETTERS in self.roles]

    def _queues(self) -> list[tuple[Consumer, Handler]]:
        settings = self._settings
        retry = RetryPolicy(settings.retry_attempts, settings.retry_base, settings.retry_max)
        queues: list[tuple[Consumer, Handler]] = []
        if ROUTER in self.roles:
            queues.append(self._router(EVENTS))
        queues += [self._deliveries(name, name, retry) for name in self._channels if name in self.roles]
        if DEAD_LETTERS in self.roles:
            queues.append(self._router(dlq_of(EVENTS)))
            queues += [self._deliveries(dlq_of(name), name, SecondTry()) for name in self._channels]
        return queues

    def _consumer(self, queue: str) -> Consumer:
        settings = self._settings
        reader: Reader
        if queue.endswith(dlq_of("")):
            reader = DueReader(self._client, self.name, settings.dlq_delay)
        else:
            reader = open_reader(self._client, self.name)
        return Consumer(
            self._client, self._keys, queue, self.name,
            lease_ttl=settings.lease_ttl, in_hand_limit=settings.in_hand, reader=reader,
            keep_traces=settings.trace_retention, watch=metrics.QueueWatch(queue),
        )  # fmt: skip

    def _router(self, queue: str) -> tuple[Consumer, Handler]:
        consumer = self._consumer(queue)
        return consumer, Router(
            self._keys, consumer, self._channels,
            catalogue=lambda: self._templates.catalogue,
            recipients=Recipients(self._client, self._keys, consumer.calls),
            graveyard=Graveyard(self._keys, EVENTS, final=queue != EVENTS),
            tracing=self._tracing,
        )  # fmt: skip

    def _deliveries(self, queue: str, name: str, policy: Policy) -> tuple[Consumer, Handler]:
        settings = self._settings
        consumer = self._consumer(queue)
        return consumer, Deliveries(
            self._keys, consumer, self._channels[name],
            render=self._templates.render,
            policy=policy,
            graveyard=Graveyard(self._keys, name, final=queue != name),
            limits=Limits(
                settings.concurrency, settings.send_timeout, settings.lease_ttl, settings.inbox_limit
            ),
            tracing=self._tracing,
        )  # fmt: skip

    def _alerter(self) -> Alerter:
        settings = self._settings
        queues = (EVENTS, *self._channels)
        return Alerter(
            self._client, self._keys, self._publisher, queues, settings.admins, settings.alert_interval
        )

    async def _watch_templates(self) -> None:
        """Picks up changed templates. What is broken keeps its last good version, and is told once."""
        told: list[str] = []  # of a folder that could not be read
        while True:
            await asyncio.sleep(_LOOK_AT_TEMPLATES)
            if await asyncio.to_thread(self._templates.changed):
                problems: Sequence[TemplateError] = await asyncio.to_thread(self._templates.reload)
                if told and told == [str(problem) for problem in problems]:
                    continue
            elif told:  # it is back, as it was
                problems = self._templates.problems
            else:
                continue
            log.info("templates_reloaded", problems=len(problems))
            metrics.TEMPLATE_PROBLEMS.set(len(problems))
            for problem in problems:
                log.error(
                    "template_broken", template=problem.template, line=problem.line, reason=problem.reason
                )
            is_unread = await asyncio.to_thread(self._templates.changed)
            told = [str(problem) for problem in problems] if is_unread else []
