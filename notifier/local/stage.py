"""Where `notifier demo` plays: every part of the service, running, with its peers on this machine."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from notifier.bootstrap import (
    Runtime,
    open_async_publisher,
    open_channels,
    open_runtime,
    open_templates,
    open_worker,
)
from notifier.broker.cancelling import Tasks
from notifier.broker.scripts import ask
from notifier.event import Recipient, WebPushDevice
from notifier.local import story
from notifier.local.broker import EmbeddedBroker
from notifier.local.evidence import Evidence
from notifier.local.mailbox import Mail, MailboxServer
from notifier.local.peers import channel_environ
from notifier.local.push_service import Push, PushService, vapid_keys
from notifier.local.steps import Narrator
from notifier.local.worker_log import LogLine, worker_log
from notifier.publisher import AsyncPublisher
from notifier.settings import Settings
from notifier.worker import ALL, Worker

_LOOK_INTO_INBOXES: Final = 0.1
_LOOK_FOR_ENTRY: Final = 0.004
_STOP: Final = 5.0


@dataclass(slots=True)
class Stage:
    """What the chapters play with. `published_at` is when each event was published."""

    narrator: Narrator
    templates: Path
    evidence: Evidence = field(default_factory=Evidence)
    log: list[LogLine] = field(default_factory=list)
    published_at: dict[str, datetime] = field(default_factory=dict)
    mailbox: MailboxServer = field(init=False)
    push: PushService = field(init=False)
    runtime: Runtime = field(init=False)
    publisher: AsyncPublisher = field(init=False)
    _stop: asyncio.Event = field(default_factory=asyncio.Event)
    _entry_told: asyncio.Event = field(default_factory=asyncio.Event)
    _entries_told: int = 0
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.mailbox = MailboxServer(on_mail=self._mail)
        self.push = PushService(on_push=self._push)

    @property
    def began_at(self) -> dict[str, datetime]:
        """From when on a delivery counts: published, or for an alert, the death that it tells of."""
        deaths = (line.at for line in self.log if line.event == "delivery_dead")
        return self.published_at | {story.alert(n): at for n, at in enumerate(deaths, start=1)}

    async def publish(self, *events: story.Published) -> bool:
        """Publishes them, and expects to hear of them. Whether all of them were known already."""
        for published in events:
            self.evidence.publish(published.id, published.id)
            self.published_at.setdefault(published.id, datetime.now(UTC))
        accepted = await self.publisher.publish_many([published.event for published in events])
        return all(one.duplicate for one in accepted)

    async def end(self) -> bool:
        """Stops the worker as SIGTERM does. Whether it stopped in time; then nothing more can happen."""
        self.leave()
        _, running = await asyncio.wait(self._tasks, timeout=_STOP)
        for task in running:
            task.cancel()
        await self._look_into_inboxes()
        return not running

    def leave(self) -> None:
        """Tells everything that runs to come to its end."""
        self._stop.set()
        self._entry_told.set()

    # What happens.

    def heard(self, line: LogLine) -> None:
        self.log.append(line)
        self.evidence.heard(line)
        if line.event == "delivered" and line.fields.get("queue") == "in_app":
            self._entries_told += 1
            self._entry_told.set()
        self.narrator.wake()

    def _mail(self, mail: Mail) -> None:
        self.evidence.mail(mail)
        self.narrator.wake()

    def _push(self, push: Push) -> None:
        self.evidence.push(push)
        self.narrator.wake()

    async def _watch_inboxes(self) -> None:
        # Not ended by cancelling it: on Python 3.11 a command of redis-py may swallow that (wait_for).
        while not self._stop.is_set():
            due = self._entries_told > self.evidence.arrived("in_app")  # told before it is committed
            try:
                async with asyncio.timeout(_LOOK_FOR_ENTRY if due else _LOOK_INTO_INBOXES):
                    await self._entry_told.wait()
            except TimeoutError:
                pass
            self._entry_told.clear()
            if await self._look_into_inboxes():
                self.narrator.wake()

    async def _look_into_inboxes(self) -> bool:
        new = False
        for owner in (*(person.id for person in story.PEOPLE), story.ADMIN):
            page = await self.runtime.inbox.list(owner, archived="include", page_size=100)
            new = self.evidence.inbox(owner, page.entries, datetime.now(UTC)) or new
        return new

    def play(self, worker: Worker, tasks: asyncio.TaskGroup) -> None:
        """Lets the worker run."""
        self._tasks = [
            tasks.create_task(worker.run(self._stop)),
            tasks.create_task(self._watch_inboxes()),
        ]


def _settings(redis_url: str, templates: Path) -> Settings:
    return Settings(
        redis_url=redis_url,
        templates=templates,
        admins=(story.ADMIN,),
        retry_base=timedelta(milliseconds=300),
        dlq_delay=timedelta(milliseconds=600),
        alert_interval=timedelta(seconds=1),
    )


@asynccontextmanager
async def open_stage(
    folder: Path, templates: Path, narrator: Narrator, log_file: Path | None
) -> AsyncIterator[Stage]:
    """Starts one part after the other in `folder`; stops them in reverse.

    The worker picks up what changes in `templates`. Raises OSError when `log_file` can't be written.
    """
    narrator.chapter = "Everything starts, on this machine only"
    stage = Stage(narrator, templates)
    async with AsyncExitStack() as parts:
        parts.enter_context(worker_log(stage.heard, log_file))
        began = time.monotonic()
        broker = parts.enter_context(EmbeddedBroker(folder, persistent=False))
        settings = _settings(broker.url, templates)
        stage.runtime = await parts.enter_async_context(open_runtime(settings))
        stage.publisher = await parts.enter_async_context(open_async_publisher(settings))
        narrator.told("broker", await _version(stage.runtime, broker.port), since=began)

        began = time.monotonic()
        await parts.enter_async_context(stage.mailbox)
        await parts.enter_async_context(stage.push)
        ports = f"on ports {stage.mailbox.port} and {stage.push.port}"
        narrator.told("mail server, push service", ports, since=began)

        began = time.monotonic()
        vapid = vapid_keys()
        people = [_profile(person, stage.push, vapid.public) for person in story.PEOPLE]
        for person in people:
            await stage.runtime.recipients.put(person)
        narrator.told(f"{len(people)} recipients", "each with mailbox, device and inbox", since=began)

        channels = open_channels(settings, channel_environ(stage.mailbox, vapid.private))
        stage.evidence.know(channels.values(), [*people, Recipient(id=story.ADMIN, email=story.ADMIN)])
        folder_of = open_templates(settings, channels)
        worker = await parts.enter_async_context(open_worker(stage.runtime, channels, folder_of, [ALL]))
        tasks = await parts.enter_async_context(Tasks())
        stage.play(worker, tasks)
        try:
            yield stage
        finally:
            stage.leave()


async def _version(runtime: Runtime, port: int) -> str:
    [told] = await ask(runtime.client, ("INFO", "server"))
    server = dict(line.split(":", 1) for line in told.decode().splitlines() if ":" in line)
    return f"Valkey {server.get('valkey_version', server['redis_version'])} on port {port}"


def _profile(person: story.Person, push: PushService, application_key: str) -> Recipient:
    devices: tuple[WebPushDevice, ...] = tuple(push.subscribe(application_key) for _ in range(person.devices))
    return Recipient(
        id=person.id, name=person.name, email=person.email,
        locale=person.locale, time_zone=person.time_zone, devices=devices,
    )  # fmt: skip
