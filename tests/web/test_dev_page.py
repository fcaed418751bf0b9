"""The page of `notifier dev`: it publishes, shows what arrives, and does so for this machine only."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page

from notifier.local.dev import PORTS, Dev, Ready
from tests.support.ports import free_row
from tests.support.waiting import until

pytestmark = pytest.mark.slow


@pytest_asyncio.fixture(loop_scope="session")
async def dev(tmp_path: Path, templates_folder: Path) -> AsyncIterator[Ready]:
    """A run in this process, ready."""
    told: list[Any] = []
    stop = asyncio.Event()
    run = Dev(tmp_path, {"NOTIFIER_TEMPLATES": str(templates_folder)}, free_row(PORTS), told.append)
    task = asyncio.create_task(run.run(stop))
    try:
        await until(lambda: task.done() or any(isinstance(one, Ready) for one in told))
        yield next(one for one in told if isinstance(one, Ready))
    finally:
        stop.set()
        await task


@pytest_asyncio.fixture(loop_scope="session")
async def page(browser: Browser, dev: Ready) -> AsyncIterator[Page]:
    """The page, connected; it has to be without errors, and to keep its own policy."""
    context = await browser.new_context()
    tab = await context.new_page()
    errors: list[str] = []
    tab.on("pageerror", lambda error: errors.append(str(error)))
    tab.on("console", lambda line: errors.append(line.text) if "Content Security" in line.text else None)
    await tab.goto(dev.page_url)
    await tab.wait_for_function(
        """() => { const all = [...document.querySelectorAll('notifier-inbox')];  // made by the page's script
          return all.length && all.every((one) => one.connection === 'live'); }"""
    )
    yield tab
    await context.close()
    assert errors == []


async def test_a_click_publishes_and_the_inbox_beside_it_has_the_entry(page: Page) -> None:
    await page.get_by_role("button", name="Publish").click()
    await page.get_by_text("Accepted (202)").wait_for()
    await page.locator("notifier-inbox[inline] li", has_text="Ada Lovelace liked your photo").wait_for()


async def test_what_became_of_it_is_shown_for_each_channel(page: Page) -> None:
    await page.get_by_role("button", name="Publish").click()
    for channel in ("email", "push", "in_app"):
        await page.locator(".steps li[data-state=delivered]", has_text=channel).wait_for()


async def test_for_bob_it_comes_to_bob_in_german(page: Page) -> None:
    await page.get_by_role("radio", name="Bob Meyer").check(force=True)
    await page.get_by_role("button", name="Publish").click()
    await page.get_by_role("button", name="Bob", exact=True).click()
    await page.locator("notifier-inbox[inline] li", has_text="gefällt dein Foto").wait_for()
    assert await page.get_by_role("heading", name="Mitteilungen").count() >= 1


async def test_each_type_of_the_catalogue_has_its_sample(page: Page) -> None:
    for name in await page.locator("#type option").all_text_contents():
        await page.select_option("#type", name)
        event = json.loads(await page.input_value("#event"))
        assert (event["type"], event["recipient"]) == (name, "ada")
        assert event["data"]
        assert await page.locator("#channels span").count() >= 1


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ('{"type": "like",', "This is not JSON"),
        ('{"type": "like", "recipient": "ada", "actor": {"id": 5}}', "actor.id"),
        ('{"type": "like"}', "recipient"),
        ('{"type": "like", "recipient": "ada", "colour": 1}', "colour"),
    ],
)
async def test_what_is_wrong_is_shown_by_field(page: Page, text: str, shown: str) -> None:
    await page.fill("#event", text)
    await page.get_by_role("button", name="Publish").click()
    await page.locator("#result.bad", has_text=shown).wait_for()
    assert await page.get_attribute("#event", "aria-invalid") == "true"


async def test_the_page_holds_no_key_and_its_tokens_are_short_lived(page: Page, dev: Ready) -> None:
    source = await page.evaluate(
        "Promise.all(['/', '/dev.js', '/dev/types'].map((url) => fetch(url).then((r) => r.text())))"
    )
    assert len(source) == 3
    assert not any(secret in text for secret in dev.keys.values() for text in source)


@pytest.mark.parametrize("path", ["/", "/dev/types", "/dev/token?for=ada", "/v1/inbox", "/livez"])
async def test_another_name_for_this_machine_is_refused(dev: Ready, path: str) -> None:
    async with httpx.AsyncClient(base_url=dev.page_url) as client:
        for host in (
            "evil.example",
            "evil.example:80",
            "127.0.0.1.evil.example",
            "localhost.evil.example",
            "",
        ):
            answer = await client.get(path, headers={"Host": host})
            assert answer.status_code in {400, 421}, (host, answer.status_code)
            assert "Access-Control-Allow-Origin" not in answer.headers


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "none"},
    ],
)
async def test_another_site_can_neither_publish_nor_have_a_token(dev: Ready, headers: dict[str, str]) -> None:
    async with httpx.AsyncClient(base_url=dev.page_url) as client:
        event = {"type": "like", "recipient": "ada", "data": {}}
        assert (await client.post("/dev/events", json=event, headers=headers)).status_code == 403
        assert (await client.get("/dev/token?for=ada", headers=headers)).status_code == 403
        assert (await client.get("/dev/events/x", headers=headers)).status_code == 403


@pytest.mark.parametrize("path", ["/", "/dev.js", "/dev/types", "/dev/token"])
async def test_another_method_is_refused(dev: Ready, path: str) -> None:
    async with httpx.AsyncClient(base_url=dev.page_url) as client:
        assert (await client.delete(path)).status_code == 405


async def test_tokens_are_for_the_two_who_are_there(dev: Ready) -> None:
    async with httpx.AsyncClient(base_url=dev.page_url) as client:
        assert (await client.get("/dev/token?for=ada")).status_code == 200
        for query in ("", "?for=", "?for=eve"):
            assert (await client.get(f"/dev/token{query}")).status_code == 403


async def test_the_keys_that_it_prints_are_those_of_the_api(dev: Ready) -> None:
    async with httpx.AsyncClient(base_url=dev.page_url) as client:
        for scope, secret in dev.keys.items():
            answer = await client.post(
                "/v1/events",
                json={"type": "like", "recipient": "ada"},
                headers={"Authorization": f"Bearer {secret}"},
            )
            assert answer.status_code == (202 if scope == "publish" else 403)
