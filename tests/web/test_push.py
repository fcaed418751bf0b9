"""Web Push through a real service worker: registered, encrypted, shown, opened, and replaced.

Chromium's own push service is on the internet, so `PushManager` hands out a subscription of the push service
of these tests. All else is real: permission, worker, registration at the API, encryption, notification.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser, BrowserContext, Page, Worker

from channels.push import open_channel
from notifier.event import WebPushDevice
from notifier.local.http import Response
from notifier.local.push_service import PushService, vapid_keys
from tests.support.waiting import DEADLINE, until
from tests.web.conftest import Stage, connection, open_stage

pytestmark = [pytest.mark.slow, pytest.mark.timeout(90)]

PATH = "/?push=/notifier-push-worker.js"
SUBSCRIBE = """(() => {
  const json = SUBSCRIPTION;
  let given = null;
  PushManager.prototype.subscribe = async function ({ applicationServerKey, userVisibleOnly }) {
    if (!userVisibleOnly) throw new TypeError('a push that nobody sees');
    const text = atob(applicationServerKey.replace(/-/g, '+').replace(/_/g, '/'));
    const key = Uint8Array.from(text, (char) => char.charCodeAt(0)).buffer;
    return given = { endpoint: json.endpoint, options: { applicationServerKey: key }, toJSON: () => json,
                     unsubscribe: async () => { given = null; return true; } };
  };
  PushManager.prototype.getSubscription = async () => given;
})()"""


@dataclass
class Pushing:
    stage: Stage
    service: PushService
    device: WebPushDevice
    context: BrowserContext
    page: Page

    async def worker(self) -> Worker:
        """Ours, once it serves the page."""
        await until(lambda: self.context.service_workers)
        return self.context.service_workers[0]

    async def deliver(self, payload: Any) -> None:
        """As the browser does when its push service has something for it."""
        session = await self.context.new_cdp_session(self.page)
        found: list[dict[str, Any]] = []
        session.on(
            "ServiceWorker.workerRegistrationUpdated", lambda event: found.extend(event["registrations"])
        )
        await session.send("ServiceWorker.enable")
        await until(lambda: found)
        text = payload if isinstance(payload, str) else json.dumps(payload)
        where = {"origin": self.stage.site.url, "registrationId": found[0]["registrationId"]}
        await session.send("ServiceWorker.deliverPushMessage", {**where, "data": text})
        await session.detach()

    async def shown(self) -> list[dict[str, Any]]:
        """The notifications on the screen."""
        ask = """async () => {
          const [one] = await navigator.serviceWorker.getRegistrations();
          const all = await one.getNotifications();
          return all.map(({ title, body, tag, data }) => ({ title, body, tag, data }));
        }"""
        return list(await self.page.evaluate(ask))

    async def devices(self) -> list[str]:
        async with self.stage.serving.api.user("ada") as ada:
            return [one["kind"] for one in (await ada.get("/v1/inbox/devices")).json()["devices"]]


@pytest_asyncio.fixture(loop_scope="session")
async def pushing(browser: Browser, redis_url: str, templates_folder: Path) -> AsyncIterator[Pushing]:
    keys = vapid_keys()
    environ = {
        "NOTIFIER_VAPID_PRIVATE_KEY": keys.private,
        "NOTIFIER_VAPID_SUBJECT": "mailto:ops@example.com",
        "NOTIFIER_WEB_PUSH_ALLOW_HTTP": "true",
    }
    push = open_channel(environ)
    async with (
        PushService() as service,
        open_stage(browser, redis_url, templates_folder, push, **environ) as stage,
    ):
        device = service.subscribe(keys.public)
        context = await stage.context()
        await context.grant_permissions(["notifications"], origin=stage.site.url)
        subscription = device.model_dump(mode="json", exclude={"kind", "expirationTime"})
        await context.add_init_script(SUBSCRIBE.replace("SUBSCRIPTION", json.dumps(subscription)))
        page = await stage.open(context, PATH)
        yield Pushing(stage, service, device, context, page)


async def enable(page: Page) -> None:
    await page.click("notifier-inbox .bell")
    await page.get_by_role("button", name="Turn on push notifications").click()
    await page.get_by_role("button", name="Turn off push notifications").wait_for()


async def test_one_click_and_what_is_published_is_shown_by_the_worker(pushing: Pushing) -> None:
    await enable(pushing.page)
    assert await pushing.devices() == ["web_push"]
    await pushing.stage.publish(1)
    push = await pushing.service.wait_for(lambda one: one.endpoint == pushing.device.endpoint, DEADLINE)
    await pushing.deliver(push.payload)
    await until(pushing.shown)
    [shown] = await pushing.shown()
    assert (shown["title"], shown["body"]) == ("Bob liked your photo", "“photo 1”")
    assert shown["data"]["url"] == f"{pushing.stage.site.url}/photos/1"
    await pushing.deliver(push.payload)  # a repeated delivery is the same notification
    assert len(await pushing.shown()) == 1


async def test_turned_off_nothing_is_pushed_any_more(pushing: Pushing) -> None:
    await enable(pushing.page)
    await pushing.page.get_by_role("button", name="Turn off push notifications").click()
    await pushing.page.get_by_role("button", name="Turn on push notifications").wait_for()
    assert await pushing.devices() == []


@pytest.mark.parametrize(
    ("payload", "title", "url"),
    [
        ("no JSON at all", "Notification", None),
        ({"title": 5}, "Notification", None),
        ({"title": "A", "url": "javascript:alert(1)"}, "A", None),
        ({"title": "A", "url": "//evil.example"}, "A", None),
        ({"title": "<b>A</b>", "url": "https://app.example.com/x"}, "<b>A</b>", "https://app.example.com/x"),
    ],
)
async def test_whatever_is_pushed_something_harmless_is_shown(
    pushing: Pushing, payload: Any, title: str, url: str | None
) -> None:
    await enable(pushing.page)
    await pushing.deliver(payload)
    await until(pushing.shown)
    [shown] = await pushing.shown()
    assert (shown["title"], (shown["data"] or {}).get("url")) == (title, url)


CLICK = """async () => {
  // Only a person's click lets a worker open or focus a window, so both only tell of it here.
  const told = [];
  self.clients.openWindow = async (url) => { told.push(['open', url]); };
  WindowClient.prototype.focus = async function () { told.push(['focus', this.url]); };
  const [notification] = await self.registration.getNotifications();
  const event = new NotificationEvent('notificationclick', { notification });
  let done;
  event.waitUntil = (promise) => { done = promise; };
  self.dispatchEvent(event);
  await done;
  return [told, (await self.registration.getNotifications()).length];
}"""


async def test_a_click_opens_the_target_or_the_page_that_is_there_already(pushing: Pushing) -> None:
    await enable(pushing.page)
    site = pushing.stage.site.url
    worker = await pushing.worker()
    for url, expected in (
        (f"{site}/photos/1", ["open", f"{site}/photos/1"]),
        (f"{site}{PATH}", ["focus", f"{site}{PATH}"]),
        (None, ["focus", f"{site}{PATH}"]),
    ):
        await pushing.deliver({"title": "A", "id": str(url), **({"url": url} if url else {})})
        await until(pushing.shown)
        told, left = await worker.evaluate(CLICK)
        assert (told, left) == ([expected], 0)


async def test_a_subscription_that_the_browser_replaces_is_registered_again(pushing: Pushing) -> None:
    await enable(pushing.page)
    new = pushing.service.subscribe(None)
    worker = await pushing.worker()
    await worker.evaluate(
        """async (json) => {
          const event = new ExtendableEvent('pushsubscriptionchange');
          event.newSubscription = { endpoint: json.endpoint, toJSON: () => json };
          let done;
          event.waitUntil = (promise) => { done = promise; };
          self.dispatchEvent(event);
          await done;
        }""",
        new.model_dump(mode="json", exclude={"kind", "expirationTime"}),
    )
    assert await pushing.devices() == ["web_push", "web_push"]
    await pushing.stage.publish(1)
    assert await pushing.service.wait_for(lambda one: one.endpoint == new.endpoint, DEADLINE)


async def test_who_says_no_is_told_where_to_change_that(pushing: Pushing) -> None:
    await pushing.page.close()
    await pushing.context.clear_permissions()
    await pushing.context.add_init_script(
        "Object.defineProperty(Notification, 'permission', { get: () => 'denied' })"
    )
    page = await pushing.context.new_page()
    await page.goto(pushing.stage.site.url + PATH)
    await connection(page, "live")
    await page.click("notifier-inbox .bell")
    await page.get_by_text("blocked in your browser").wait_for()
    failed = await page.evaluate(
        "document.querySelector('notifier-inbox').enablePush().then(() => '', (error) => error.message)"
    )
    assert failed == "no permission"


async def test_the_worker_that_an_app_has_for_its_pages_stays(pushing: Pushing) -> None:
    worker = b"self.addEventListener('fetch', () => {});"
    pushing.stage.site.pages["/app-worker.js"] = Response(200, {"Content-Type": "text/javascript"}, worker)
    register = """() => { const policy = trustedTypes.createPolicy('app', { createScriptURL: (url) => url });
      return navigator.serviceWorker.register(policy.createScriptURL('/app-worker.js'))
        .then(() => navigator.serviceWorker.ready).then(() => true); }"""
    other = await pushing.context.new_page()
    await other.goto(f"{pushing.stage.site.url}/?theme=light")
    await other.evaluate(register)
    await enable(pushing.page)
    scripts = """() => navigator.serviceWorker.getRegistrations().then((all) =>
      all.map(({ active, scope }) => [new URL(active.scriptURL).pathname, new URL(scope).pathname]).sort())"""
    assert await pushing.page.evaluate(scripts) == [
        ["/app-worker.js", "/"],
        ["/notifier-push-worker.js", "/notifier-push-worker.js/"],
    ]
