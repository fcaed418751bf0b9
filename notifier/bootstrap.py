"""The one place that wires things: from settings to a running worker."""

from __future__ import annotations

import gc
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

from notifier.broker import meta, scripts
from notifier.broker.connection import Client, connect
from notifier.broker.scripts import run
from notifier.channel import Channel
from notifier.event_traces import Traces
from notifier.inbox import Inbox
from notifier.keys import Keys
from notifier.live import Live, open_live
from notifier.publisher import AsyncPublisher, Publisher
from notifier.recipients import Recipients, Suppressions
from notifier.registry import load_channels
from notifier.rendering import TemplateFolder
from notifier.settings import Settings
from notifier.tracing import Tracing, exporting
from notifier.worker import Worker


def settle_memory() -> None:
    """Tells the garbage collector that what is loaded now stays, and to look less often.

    A worker makes thousands of small objects at a time and drops them all. With Python's own threshold of
    700 the collector took a third of the time of a fan-out (151 us an event, 100 us with these).
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(200_000, 20, 100)


@dataclass(frozen=True, slots=True)
class Runtime:
    """What every part of a process shares."""

    settings: Settings
    client: Client
    keys: Keys

    @property
    def recipients(self) -> Recipients:
        return Recipients(self.client, self.keys)

    @property
    def suppressions(self) -> Suppressions:
        return Suppressions(self.client, self.keys)

    @property
    def traces(self) -> Traces:
        return Traces(self.client, self.keys, self.settings.trace_retention)

    @property
    def inbox(self) -> Inbox:
        return Inbox(self.client, self.keys, limit=self.settings.inbox_limit)


@asynccontextmanager
async def open_client(settings: Settings) -> AsyncIterator[Client]:
    """Only a client, for what must work whatever the installation is in the middle of."""
    client = connect(settings.redis_url)
    try:
        yield client
    finally:
        await client.aclose()


@asynccontextmanager
async def open_runtime(settings: Settings) -> AsyncIterator[Runtime]:
    """Connects. Raises BrokerError, or ConfigurationError when the number of partitions does not fit."""
    scripts.load_all()
    async with open_client(settings) as client:
        reply = await run(client, meta.claim(settings.namespace, settings.partitions))
        yield Runtime(settings, client, meta.keys(settings.namespace, settings.partitions, reply))


def open_streams(runtime: Runtime) -> AbstractAsyncContextManager[Live]:
    """Who listens to inboxes in this process."""
    settings = runtime.settings
    return open_live(
        runtime.client,
        runtime.keys,
        limit=settings.streams,
        limit_of_recipient=settings.streams_per_recipient,
    )


def open_channels(settings: Settings, environ: Mapping[str, str]) -> dict[str, Channel]:
    """The configured channels by name. Raises ConfigurationError."""
    return load_channels(settings.channels, environ)


def open_templates(settings: Settings, channels: Mapping[str, Channel]) -> TemplateFolder:
    """The templates, compiled. Raises ConfigurationError when there are none."""
    folder = TemplateFolder(settings.templates, {name: channel.blocks for name, channel in channels.items()})
    folder.load()
    return folder


def open_tracing(settings: Settings) -> AbstractContextManager[Tracing | None]:
    """Spans, if the settings want any. Raises ConfigurationError when OpenTelemetry is not installed."""
    return exporting() if settings.tracing else nullcontext()


def open_publisher(settings: Settings, tracing: Tracing | None = None) -> Publisher:
    return Publisher(settings.redis_url, **_publishing(settings), tracing=tracing)


def open_async_publisher(settings: Settings, tracing: Tracing | None = None) -> AsyncPublisher:
    return AsyncPublisher(settings.redis_url, **_publishing(settings), tracing=tracing)


def _publishing(settings: Settings) -> dict[str, Any]:
    same = ("namespace", "partitions", "dedup_window", "backlog_limit", "durability")
    return {name: getattr(settings, name) for name in same}


@asynccontextmanager
async def open_worker(
    runtime: Runtime, channels: Mapping[str, Channel], templates: TemplateFolder, roles: Sequence[str]
) -> AsyncIterator[Worker]:
    """A worker of these roles, not running yet. Raises ConfigurationError for an unknown role."""
    settings, client, keys = runtime.settings, runtime.client, runtime.keys
    with open_tracing(settings) as tracing:
        async with open_async_publisher(settings, tracing) as publisher:
            yield Worker(settings, client, keys, channels, templates, publisher, roles, tracing)
