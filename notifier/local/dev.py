"""`notifier dev`: every part of the service on this machine, until it is told to stop.

The parts are started in order, and stopped in reverse: the worker hands over while everything that it
sends to still stands, and the broker goes last.
"""

from __future__ import annotations

import asyncio
import base64
import secrets
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from notifier import settings as settings_module
from notifier.api.app import create_app
from notifier.api.connection import Limits
from notifier.api.server import listen, prepared
from notifier.bootstrap import Runtime, open_channels, open_runtime, open_templates, open_worker
from notifier.broker.cancelling import cancel_until_done
from notifier.channel import Channel, InboxEntry
from notifier.errors import ConfigurationError, EmbeddedServerFailed
from notifier.local import happenings
from notifier.local.broker import EmbeddedBroker, PortInUse, port_in_use
from notifier.local.causes import first_cause
from notifier.local.dev_folder import FOLDER, PushKeys, dev_folder, push_keys
from notifier.local.dev_page import DevPage
from notifier.local.happenings import Happening
from notifier.local.mailbox import Mail, MailboxServer
from notifier.local.peers import ADMIN, channel_environ, shipped_templates
from notifier.local.push_service import Push, PushService
from notifier.local.seeds import SEEDED, example, seed
from notifier.local.watched_inbox import WatchedInbox
from notifier.local.worker_log import LogLine, worker_log
from notifier.rendering import TemplateFolder
from notifier.rendering.files import fingerprint
from notifier.settings import Settings
from notifier.worker import ALL, Worker

_ON_PORTS: Final = ("the broker", "the mail server", "the push service", "the HTTP API")

PORTS: Final = len(_ON_PORTS)
"""How many it takes, in a row and in this order."""

_DEFAULTS: Final = {  # nobody wants to wait for minutes to see what a retry or an alert looks like
    "NOTIFIER_ADMINS": ADMIN,
    "NOTIFIER_RETRY_BASE": "1s",
    "NOTIFIER_DLQ_DELAY": "10s",
    "NOTIFIER_ALERT_INTERVAL": "10s",
}
_WATCH_BROKER: Final = 0.3
_STOP: Final = 20.0


@dataclass(frozen=True, slots=True)
class Started:
    """A part that runs now. `detail` is for people."""

    name: str
    detail: str
    ms: int


@dataclass(frozen=True, slots=True)
class Ready:
    """All parts run. `example` is an event for ada, as a line of JSON; `keys` are the API's, by scope."""

    redis_url: str
    example: str
    page_url: str
    keys: Mapping[str, str]


Told = Callable[[Started | Ready | Happening], None]


class Dev:
    """One run in the folder `parent`, with the settings of `environ`; `tell` is given all that happens."""

    def __init__(self, parent: Path, environ: Mapping[str, str], port: int, tell: Told) -> None:
        self._parent = parent
        self._environ = dict(environ)
        self._port = port
        self._tell = tell
        self._api_keys = {scope: secrets.token_urlsafe(24) for scope in ("publish", "recipients", "operate")}
        self._settings = _settings(environ, port, _own_keys(environ, self._api_keys))
        self._mailbox = MailboxServer(port + 1, on_mail=self._mail)
        self._push = PushService(port + 2, on_push=self._pushed)
        self._owners: dict[str, str] = {}
        self._worker_started = asyncio.Event()
        self._vital: list[asyncio.Task[Any]] = []
        self._folder: Path
        self._broker: EmbeddedBroker
        self._keys: PushKeys
        self._runtime: Runtime
        self._templates: TemplateFolder

    async def run(self, stop: asyncio.Event) -> None:
        """Until `stop` is set. Raises ConfigurationError and BrokerError, also when a part breaks down."""
        parts: tuple[tuple[str, Callable[[], AbstractAsyncContextManager[str]]], ...] = (
            ("broker", self._run_broker),
            ("mail server", self._run_mailbox),
            ("push service", self._run_push),
            ("recipients", self._run_recipients),
            ("worker", self._run_worker),
            ("API", self._run_api),
        )
        self._check()
        async with AsyncExitStack() as running:
            self._folder = running.enter_context(dev_folder(self._parent))
            running.enter_context(worker_log(self._heard))
            for name, part in parts:
                began = time.monotonic()
                detail = await running.enter_async_context(part())
                self._tell(Started(name, detail, round((time.monotonic() - began) * 1000)))
                if stop.is_set():
                    return
            page_url = f"http://127.0.0.1:{self._port + 3}/"
            self._tell(Ready(self._broker.url, example(self._templates), page_url, self._api_keys))
            await self._until(stop)

    def _check(self) -> None:
        """So that a start that can't succeed makes no folder. Raises ConfigurationError."""
        fingerprint(self._settings.templates)
        if (self._parent / FOLDER).exists():
            return  # the broker of a run that was killed may still have its port, and is ended later
        for number, what in enumerate(_ON_PORTS):
            if port_in_use(self._port + number):
                raise _in_use(what, self._port + number, self._port)

    async def _until(self, stop: asyncio.Event) -> None:
        stopping = asyncio.create_task(stop.wait())
        try:
            done, _ = await asyncio.wait([stopping, *self._vital], return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopping.cancel()
        for task in done:
            if error := task.exception():
                raise first_cause(error)

    # The parts, in the order in which they start.

    @asynccontextmanager
    async def _run_broker(self) -> AsyncIterator[str]:
        self._broker = EmbeddedBroker(self._folder / "broker", persistent=True, port=self._port)
        try:
            self._broker.start()
        except PortInUse as error:
            raise _in_use(_ON_PORTS[0], error.port, self._port) from None
        try:
            async with open_runtime(self._settings) as self._runtime, _watching(self._broker) as watching:
                self._vital.append(watching)
                yield f"{self._broker.url}, data in {FOLDER}/"
        finally:
            self._broker.stop()

    @asynccontextmanager
    async def _run_mailbox(self) -> AsyncIterator[str]:
        async with _on_port(_ON_PORTS[1], self._mailbox, self._port + 1, self._port):
            yield self._mailbox.url

    @asynccontextmanager
    async def _run_push(self) -> AsyncIterator[str]:
        async with _on_port(_ON_PORTS[2], self._push, self._port + 2, self._port):
            yield self._push.origin

    @asynccontextmanager
    async def _run_recipients(self) -> AsyncIterator[str]:
        self._keys = push_keys(self._folder, [person.id for person in SEEDED])
        for person in SEEDED:
            browser = self._keys.browsers[person.id]
            try:
                device = self._push.subscribe(self._keys.vapid.public, browser)
            except ValueError:
                raise ConfigurationError(
                    f"{FOLDER}/push.json", "is damaged; remove it for new keys"
                ) from None
            self._owners[device.endpoint] = person.id
            await seed(self._runtime.recipients, person, device)
        yield f"{' and '.join(person.id for person in SEEDED)}, each with mailbox, device and inbox"

    @asynccontextmanager
    async def _run_worker(self) -> AsyncIterator[str]:
        channels: dict[str, Channel] = open_channels(self._settings, self._channel_environ)
        self._templates = open_templates(self._settings, channels)
        for problem in self._templates.problems:
            then = "what needs it goes to the DLQ until it is mended"
            self._tell(happenings.template_broken(problem.template, problem.line, problem.reason, then))
        async with AsyncExitStack() as around:
            if "in_app" in channels:
                channels["in_app"] = watched = WatchedInbox(channels["in_app"], self._entered)
                await around.enter_async_context(_background(watched.watch(self._runtime.inbox)))
            worker = await around.enter_async_context(
                open_worker(self._runtime, channels, self._templates, [ALL])
            )
            async with self._serving(worker) as serving:
                started = asyncio.create_task(self._worker_started.wait())
                await asyncio.wait([serving, started], return_when=asyncio.FIRST_COMPLETED)
                started.cancel()
                if serving.done():
                    await serving  # raises, such as for a channel that can't be opened
                self._vital.append(serving)
                yield f"{' '.join(worker.roles)}; templates in {self._settings.templates}"

    @asynccontextmanager
    async def _run_api(self) -> AsyncIterator[str]:
        app = create_app(self._settings, self._channel_environ)
        app.add_middleware(
            DevPage,
            sign=app.state.access.tokens.sign,
            publish_key=self._api_keys["publish"],
            templates=self._templates,
        )
        try:
            listening = listen("127.0.0.1", self._port + 3)
        except ConfigurationError:
            raise _in_use(_ON_PORTS[3], self._port + 3, self._port) from None
        with listening:
            async with prepared(app, Limits()) as server:
                serving = asyncio.create_task(server.serve([listening]))
                self._vital.append(serving)
                try:
                    yield f"http://127.0.0.1:{self._port + 3}/"
                finally:
                    server.should_exit = True
                    await asyncio.wait([serving], timeout=_STOP)
                    server.force_exit = True
                    await asyncio.wait([serving], timeout=1)

    @property
    def _channel_environ(self) -> Mapping[str, str]:
        return self._environ | channel_environ(self._mailbox, self._keys.vapid.private)

    @asynccontextmanager
    async def _serving(self, worker: Worker) -> AsyncIterator[asyncio.Task[None]]:
        stop = asyncio.Event()
        serving = asyncio.create_task(worker.run(stop))
        try:
            yield serving
        finally:
            stop.set()
            # Without a broker there is nothing to hand over, nor anybody to hand it to.
            patience = _STOP if self._broker.exit_code is None else 0.0
            await asyncio.wait([serving], timeout=patience)
            await cancel_until_done(serving)
        if serving.done() and not serving.cancelled() and (error := serving.exception()):
            raise first_cause(error)

    # What happens.

    def _heard(self, line: LogLine) -> None:
        if line.event == "worker_started":
            self._worker_started.set()
        happening = happenings.of_log(line)
        if happening is not None:
            self._tell(happening)

    def _mail(self, mail: Mail) -> None:
        self._tell(Happening("mail", mail.to, mail.subject, mail.text))

    def _pushed(self, push: Push) -> None:
        payload = push.payload
        owner = self._owners.get(push.endpoint, "a device")
        link = payload.get("url")
        body = f"{payload.get('body', '')}\n{link}" if link else str(payload.get("body", ""))
        self._tell(Happening("push", owner, str(payload.get("title", "")), body))

    def _entered(self, recipient_id: str, entry: InboxEntry) -> None:
        body = f"{entry.body}\n{entry.url}" if entry.url else entry.body
        self._tell(Happening("inbox", recipient_id, entry.title, body))


def _own_keys(environ: Mapping[str, str], api_keys: Mapping[str, str]) -> Mapping[str, str]:
    """Ours, which are new each time, before those of the environment."""
    ours = {
        "NOTIFIER_API_KEYS": ",".join(f"{scope}:{secret}" for scope, secret in api_keys.items()),
        "NOTIFIER_TOKEN_KEYS": f"hs256:{base64.b64encode(secrets.token_bytes(32)).decode()}",
    }
    return {name: ",".join(filter(None, (text, environ.get(name)))) for name, text in ours.items()}


def _settings(environ: Mapping[str, str], port: int, keys: Mapping[str, str]) -> Settings:
    """The environment's, but for the broker; without a folder of templates here, those that come along."""
    given = {name: value for name, value in environ.items() if value}
    templates = Path("templates") if Path("templates").is_dir() else shipped_templates()
    ours = {"NOTIFIER_REDIS_URL": f"redis://127.0.0.1:{port}/0", **keys}
    return settings_module.load({**_DEFAULTS, "NOTIFIER_TEMPLATES": str(templates), **given, **ours})


def _in_use(what: str, port: int, first: int) -> ConfigurationError:
    return ConfigurationError(
        "--port", f"{port}, for {what}, is in use by another program; try --port {first + 10}"
    )


@asynccontextmanager
async def _on_port(
    what: str, server: AbstractAsyncContextManager[object], port: int, first: int
) -> AsyncIterator[None]:
    try:
        await server.__aenter__()
    except OSError:
        raise _in_use(what, port, first) from None
    try:
        yield
    finally:
        await server.__aexit__(None, None, None)


@asynccontextmanager
async def _background(work: Any) -> AsyncIterator[asyncio.Task[Any]]:
    """A task that runs meanwhile."""
    task = asyncio.create_task(work)
    try:
        yield task
    finally:
        await cancel_until_done(task)


@asynccontextmanager
async def _watching(broker: EmbeddedBroker) -> AsyncIterator[asyncio.Task[None]]:
    async def watch() -> None:
        while broker.exit_code is None:  # noqa: ASYNC110 - a process, not a coroutine, ends it
            await asyncio.sleep(_WATCH_BROKER)
        raise EmbeddedServerFailed(f"the embedded server ended by itself; see {broker.folder}/valkey.log")

    async with _background(watch()) as task:
        yield task
