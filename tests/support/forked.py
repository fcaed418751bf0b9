"""What forked processes do. Each function is one process's life."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import redis.asyncio.connection
import redis.connection
import structlog

from notifier.bootstrap import (
    Runtime,
    open_async_publisher,
    open_publisher,
    open_runtime,
    open_worker,
    settle_memory,
)
from notifier.channel import Channel, InboxEntry, device_key
from notifier.event import FcmDevice, parse_recipient
from notifier.operations import exposition, queues
from notifier.operations.dead_letters import Selection, count, find, get
from notifier.operations.mending import mend_all
from notifier.recipients import Devices
from notifier.rendering import TemplateFolder
from notifier.settings import Settings
from tests.support.channels import BoxChannel, LedgerChannel
from tests.support.failpoints import is_inside_a_point
from tests.support.ledger import Ledger

QUICK: Mapping[str, Any] = {
    "lease_ttl": timedelta(milliseconds=400),
    "retry_base": timedelta(milliseconds=10),
    "retry_max": timedelta(milliseconds=50),
    "dlq_delay": timedelta(milliseconds=50),
    "alert_interval": timedelta(milliseconds=200),
    "in_hand": 10,
    "concurrency": 4,
    "admins": ("ops@example.com",),
}
"""Below what settings allow: the processes share one clock, and one machine."""

CHANNELS = ("post", "box")


def get_ready() -> None:
    """Called once, before the first fork."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.INFO))
    settle_memory()
    for connection in (redis.asyncio.connection.AbstractConnection, redis.connection.AbstractConnection):
        _watch(connection)


def _watch(connection: Any) -> None:
    """A command that went out beside the points would be one that no test can die at."""
    plain = connection.send_packed_command

    def send_packed_command(self: Any, command: Any, *args: Any, **named: Any) -> Any:
        if not is_inside_a_point():
            sys.stderr.write(f"UNLISTED {command!r:.200}\n")
        return plain(self, command, *args, **named)

    connection.send_packed_command = send_packed_command


def _settings(place: Mapping[str, str], more: Mapping[str, Any]) -> Settings:
    durations = {
        name: timedelta(seconds=value) if isinstance(QUICK.get(name), timedelta) else value
        for name, value in more.items()
    }
    found = Settings(
        redis_url=place["url"], namespace=place["namespace"], templates=Path(place["templates"]), partitions=2
    )
    return found.model_copy(update=QUICK | durations)


def _channels(place: Mapping[str, str]) -> dict[str, Channel]:
    ledger = Ledger(Path(place["ledger"]))
    mended = "mended" in place
    channels: list[Channel] = [LedgerChannel(ledger, unstuck=mended, mended=mended), BoxChannel(ledger)]
    return {channel.name: channel for channel in channels}


async def work(place: Mapping[str, str], roles: Sequence[str] = ("all",), **more: Any) -> None:
    """A worker, until SIGTERM."""
    settings, channels = _settings(place, more), _channels(place)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    templates = TemplateFolder(settings.templates, {name: c.blocks for name, c in channels.items()})
    templates.load()
    async with (
        open_runtime(settings) as runtime,
        open_worker(runtime, channels, templates, roles) as worker,
    ):
        await worker.run(stop)


async def publish(place: Mapping[str, str], events: Sequence[Mapping[str, Any]], *, blocking: bool) -> None:
    """Publishes all in one call."""
    settings = _settings(place, {})
    if blocking:
        with open_publisher(settings) as publisher:
            publisher.publish_many(events)
        return
    async with open_async_publisher(settings) as publisher:
        await publisher.publish_many(events)


async def mend(place: Mapping[str, str], action: Any, state: Any) -> None:
    """Looks, and redrives or discards all that lie in `state`."""
    async with open_runtime(_settings(place, {})) as runtime:
        await queues.look(runtime.client, runtime.keys, CHANNELS)
        await exposition.exposition(runtime.client, runtime.keys, CHANNELS, queues=False)
        selection = Selection(("events", *CHANNELS), (state,))
        await count(runtime.client, runtime.keys, selection)
        async for letter in find(runtime.client, runtime.keys, selection):
            await get(runtime.client, runtime.keys, letter.id)
            break
        letters = find(runtime.client, runtime.keys, selection)
        await mend_all(runtime.client, runtime.keys, action, letters)


async def administer(place: Mapping[str, str], recipient: str) -> None:
    """Every call about one recipient and one inbox; at the end nothing of them is left."""
    async with open_runtime(_settings(place, {})) as runtime:
        await runtime.recipients.put(parse_recipient({"id": recipient, "name": "Ada"}))
        await runtime.recipients.get(recipient)
        await _use_device(runtime, recipient)
        await _use_inbox(runtime, recipient)
        await runtime.traces.get("one")
        await runtime.recipients.delete(recipient)


async def _use_device(runtime: Runtime, recipient: str) -> None:
    """A device changes hands, and is suppressed and used again."""
    device = FcmDevice(kind="fcm", token="a-token-of-two")
    devices = Devices(runtime.recipients, runtime.suppressions, CHANNELS)
    await devices.add("before", device)
    await devices.add(recipient, device)
    owners = [name for name in ("before", recipient) if await devices.of(name)]
    if owners != [recipient]:
        raise AssertionError(f"{owners} have the device")
    await runtime.suppressions.add(recipient, "post", device_key(device), "by hand")
    await runtime.suppressions.page()
    await runtime.suppressions.delete(recipient)


async def _use_inbox(runtime: Runtime, recipient: str) -> None:
    await runtime.inbox.add(recipient, InboxEntry("one", "ping", "", "", created_ms=1))
    page = await runtime.inbox.list(recipient)
    if len(page.entries) != 1:
        raise AssertionError(f"{len(page.entries)} entries of one id in process {os.getpid()}")
    await runtime.inbox.mark_some(recipient, ["one"], "seen")
    await runtime.inbox.mark_all(recipient, "read")
    await runtime.inbox.delete(recipient)
