"""A real Chromium before the whole service: broker, worker and API in this process, and an app's own site.

The site is another origin than the API, as in real life. It has a page with `<notifier-inbox>`, and signs
tokens as an app's backend does.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser, BrowserContext, Page, Route, async_playwright

from channels.in_app import InAppChannel
from notifier.api.access import Access
from notifier.bootstrap import open_runtime, open_worker
from notifier.channel import Channel
from notifier.inbox import Inbox
from notifier.local.broker import free_port
from notifier.publisher import AsyncPublisher
from notifier.rendering import TemplateFolder
from notifier.settings import Settings
from tests.api.conftest import Api, serving
from tests.support.service import QUICK
from tests.support.waiting import DEADLINE
from tests.web.site import Site

CHROMIUM = "/usr/bin/chromium"
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-component-update", "--disable-background-networking",
]  # fmt: skip

BELL = "notifier-inbox .bell"
ENTRIES = "notifier-inbox li"


def chromium() -> str:
    """Skips the test where there is none, and fails it in CI."""
    found = CHROMIUM if Path(CHROMIUM).exists() else shutil.which("chromium")
    if found is None:
        if os.environ.get("CI"):
            pytest.fail("CI must have chromium")
        pytest.skip("no chromium is installed")
    return found


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """These tests share a loop, since the browser that they share belongs to one."""
    for item in items:
        if Path(__file__).parent in item.path.parents and pytest_asyncio.is_async_test(item):
            item.add_marker(pytest.mark.asyncio(loop_scope="session"), append=False)


@pytest_asyncio.fixture(loop_scope="session", scope="session")
async def browser() -> AsyncIterator[Browser]:
    """One Chromium; each test has profiles of its own in it."""
    path = chromium()
    async with async_playwright() as playwright:
        running = await playwright.chromium.launch(executable_path=path, args=FLAGS)
        try:
            yield running
        finally:
            await running.close()


class Serving:
    """The API on one port, which can be stopped and started again."""

    def __init__(self, redis_url: str, environ: dict[str, str]) -> None:
        # While the API is away no connection that goes out is given this port, such as the page's to it.
        self.port = free_port()
        self._redis_url = redis_url
        self._environ = environ
        self._stack = AsyncExitStack()
        self.api: Api

    async def start(self) -> Api:
        self.api = await self._stack.enter_async_context(
            serving(self._redis_url, port=self.port, **self._environ)
        )
        return self.api

    async def stop(self) -> None:
        await self._stack.aclose()


@dataclass
class Stage:
    """What a test holds in its hands."""

    browser: Browser
    site: Site
    publisher: AsyncPublisher
    inbox: Inbox
    serving: Serving
    errors: list[str] = field(default_factory=list)
    contexts: list[BrowserContext] = field(default_factory=list)

    async def context(self, **options: Any) -> BrowserContext:
        """A browser profile of its own: what people call another device."""
        context = await self.browser.new_context(**options)
        self.contexts.append(context)
        context.set_default_timeout(15_000)
        context.on("weberror", lambda error: self.errors.append(str(error.error)))
        return context

    async def open(self, context: BrowserContext | None = None, path: str = "/", **options: Any) -> Page:
        """A tab with the app's page, connected."""
        context = context or await self.context(**options)
        page = await context.new_page()
        page.on(
            "console", lambda line: self.errors.append(line.text) if "Content Security" in line.text else None
        )
        await page.goto(self.site.url + path)
        await connection(page, "live")
        return page

    async def publish(self, number: int, recipient: str = "ada", **fields: Any) -> None:
        """A like, which becomes an entry titled `Bob liked photo <number>`."""
        await self.publisher.publish(self._event(number, recipient, **fields))

    def _event(self, number: int, recipient: str, **fields: Any) -> dict[str, Any]:
        data = {"photo_title": f"photo {number}", "url": f"{self.site.url}/photos/{number}"} | fields.pop(
            "data", {}
        )
        actor = {"id": "bob", "name": "Bob"} | fields.pop("actor", {})
        return {
            "id": f"like-{number}",
            "type": "like",
            "recipient": recipient,
            "actor": actor,
            "data": data,
            **fields,
        }

    async def fill(self, count: int, recipient: str = "ada") -> None:
        """Entries that are there before anybody looks."""
        await self.publisher.publish_many([self._event(number, recipient) for number in range(count)])
        while (await self.inbox.counts(recipient)).total < count:
            await asyncio.sleep(0.01)

    @asynccontextmanager
    async def restarting_api(self) -> AsyncIterator[None]:
        """The API is away until the block ends, then is back on its port."""
        await self.serving.stop()
        yield
        await self.serving.start()


async def connection(page: Page, state: str) -> None:
    """Until the page's inbox says so."""
    await page.wait_for_function(
        "state => [...document.querySelectorAll('notifier-inbox')].every(one => one.connection === state)",
        arg=state,
    )


async def unread(page: Page, count: int) -> None:
    """Until the bell shows this number."""
    await page.wait_for_function(
        "count => document.querySelector('notifier-inbox').counts?.unread === count", arg=count
    )


async def stand_still(page: Page) -> None:
    """From now on the page's timers wait for `page.clock.run_for`."""
    await page.clock.install()
    await page.clock.pause_at(datetime.now().astimezone() + timedelta(seconds=10))


@asynccontextmanager
async def unanswered(page: Page, url: str) -> AsyncIterator[None]:
    """The first request for it has no answer until the block ends."""
    ended, aborted = asyncio.Event(), asyncio.Event()

    async def hold(route: Route) -> None:
        await ended.wait()
        await route.abort()
        aborted.set()

    await page.route(url, hold, times=1)
    yield
    ended.set()
    await aborted.wait()


@asynccontextmanager
async def open_stage(
    browser: Browser, redis_url: str, templates_folder: Path, *more: Channel, **environ: str
) -> AsyncIterator[Stage]:
    """Everything runs until the block ends. `more` are channels beside the inbox."""
    settings = Settings(redis_url=redis_url, templates=templates_folder, **QUICK)
    before = asyncio.all_tasks()
    async with AsyncExitStack() as stack:
        site = await stack.enter_async_context(Site())
        serving = Serving(redis_url, {"NOTIFIER_CORS_ORIGINS": site.url, **environ})
        stack.push_async_callback(serving.stop)
        access: Access = (await serving.start()).app.state.access
        site.api_url = f"http://127.0.0.1:{serving.port}"
        site.sign = lambda who, lifetime: access.tokens.sign(who, lifetime)[0]
        publisher = await stack.enter_async_context(AsyncPublisher(redis_url))
        runtime = await stack.enter_async_context(open_runtime(settings))
        channels: dict[str, Channel] = {one.name: one for one in (InAppChannel(), *more)}
        templates = TemplateFolder(templates_folder, {name: one.blocks for name, one in channels.items()})
        templates.load()
        worker = await stack.enter_async_context(
            open_worker(runtime, channels, templates, ["router", *channels])
        )
        stop = asyncio.Event()
        working = asyncio.create_task(worker.run(stop))
        stage = Stage(browser, site, publisher, runtime.inbox, serving)
        try:
            yield stage
        finally:
            for context in stage.contexts:
                await context.close()
            stop.set()
            await working
        assert stage.errors == []
    begun = asyncio.all_tasks() - before - {asyncio.current_task()}
    if begun:  # must end: on a loop that all share, a task that waits for ever speaks up in a later test
        _, pending = await asyncio.wait(begun, timeout=DEADLINE)
        for task in pending:
            task.cancel()
        assert not pending


@pytest_asyncio.fixture(loop_scope="session")
async def stage(browser: Browser, redis_url: str, templates_folder: Path) -> AsyncIterator[Stage]:
    async with open_stage(browser, redis_url, templates_folder) as running:
        yield running
