"""What a page may rely on when it takes the element in: its size, its manners, and several of them."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
from importlib.resources import files
from pathlib import Path

import pytest
from playwright.async_api import Page, Route

from tests.support.waiting import until
from tests.web.conftest import BELL, ENTRIES, Stage, connection, unread

ROOT = Path(__file__).parents[2]
SOURCE = files("notifier").joinpath("web/notifier-inbox.js")


def test_it_is_one_module_of_less_than_20_kb() -> None:
    source = SOURCE.read_bytes()
    assert len(source) < 20_000  # the file itself, whoever serves it and however
    assert not re.search(rb"\b(?:import|from)\s*[\"']|\bimport\s*\(", source)


def test_it_is_made_of_its_sources(tmp_path: Path) -> None:
    node, esbuild = shutil.which("node"), ROOT / ".peers/node_modules/esbuild"
    if node is None or not esbuild.is_dir():
        reason = "needs node, and esbuild in .peers: .ci/run installs it"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    built = tmp_path / "built.js"
    subprocess.run([node, ROOT / "web/build.mjs", built], check=True, timeout=30)
    assert built.read_bytes() == SOURCE.read_bytes(), "run `make web`"


def test_no_source_makes_elements_of_markup() -> None:
    sources = [*(ROOT / "web/inbox").glob("*.js"), *(ROOT / "notifier/web").glob("*.js")]
    assert len(sources) >= 9
    for path in sources:
        found = re.search(
            r"innerHTML|outerHTML|insertAdjacent|document\.write|\beval\b|new Function", path.read_text()
        )
        assert not found, path


async def inboxes(page: Page, *, attached: bool) -> None:
    """Adds a second one, or removes all."""
    await page.evaluate(
        """(attached) => {
          if (!attached) return document.querySelectorAll('notifier-inbox').forEach((one) => one.remove());
          const first = document.querySelector('notifier-inbox');
          const second = first.cloneNode();
          second.setAttribute('inline', '');
          document.querySelector('main').append(second);
        }""",
        attached,
    )


@pytest.mark.slow
async def test_several_on_a_page_share_what_they_know(stage: Stage) -> None:
    await stage.fill(2)
    context = await stage.context()
    seen: list[str] = []
    context.on("request", lambda request: seen.append(request.url) if "/stream" in request.url else None)
    page = await stage.open(context)
    await inboxes(page, attached=True)
    inline = page.locator("notifier-inbox[inline]")
    await inline.locator("li").nth(1).wait_for()
    await inline.locator("li").first.hover()
    await inline.get_by_role("button", name="Mark as read").first.click()
    await unread(page, 1)  # the bell's count, which is the other one's
    assert len(seen) == 1


@pytest.mark.slow
async def test_removed_it_leaves_nothing_running_and_put_back_it_works(stage: Stage) -> None:
    page = await stage.open()
    before = await page.evaluate("Object.keys(globalThis).length")
    async with page.expect_event("requestfailed", lambda request: "/stream" in request.url):
        await page.evaluate("(window.kept = document.querySelector('notifier-inbox')).remove()")
    locks = "navigator.locks.query().then(({ held, pending }) => held.length + pending.length)"

    async def none_is_held() -> bool:
        return await page.evaluate(locks) == 0

    await until(none_is_held)
    assert await page.evaluate("delete window.kept, Object.keys(globalThis).length") == before
    await page.reload()
    await connection(page, "live")
    await page.evaluate("document.querySelector('main').append(document.querySelector('notifier-inbox'))")
    await stage.publish(1)
    await unread(page, 1)


@pytest.mark.slow
async def test_a_function_may_give_the_token_set_before_the_element_is_known(stage: Stage) -> None:
    page = await (await stage.context()).new_page()
    token = stage.site.sign("ada", stage.site.lifetime)
    await page.add_init_script(
        "document.addEventListener('readystatechange', () => {"
        f" document.querySelector('notifier-inbox').getToken = async () => '{token}'; }}, {{ once: true }})"
    )
    await page.goto(f"{stage.site.url}/?token-url=/nothing")
    await connection(page, "live")
    assert stage.site.tokens == 0


@pytest.mark.slow
async def test_a_token_may_be_an_attribute_that_is_replaced(stage: Stage) -> None:
    page = await (await stage.context()).new_page()
    await page.goto(stage.site.url)
    change = """([name, value]) => { const one = document.querySelector('notifier-inbox');
      one.removeAttribute('token-url'); one.setAttribute(name, value); }"""
    await page.evaluate(change, ["token", stage.site.sign("bob", stage.site.lifetime)])
    await stage.publish(1, "bob")
    await unread(page, 1)
    await page.evaluate(change, ["token", stage.site.sign("ada", stage.site.lifetime)])
    await unread(page, 0)
    await page.evaluate(change, ["token", "no-token-at-all"])
    await connection(page, "denied")
    await page.evaluate(change, ["token", stage.site.sign("bob", stage.site.lifetime)])
    await unread(page, 1)


@pytest.mark.slow
async def test_an_answer_for_one_person_that_comes_late_is_not_shown_to_the_next(stage: Stage) -> None:
    await stage.fill(2)
    page = await stage.open(path="/?inline=")
    await page.locator(ENTRIES).nth(1).wait_for()
    asked, released, answered = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def hold(route: Route) -> None:
        answer = await route.fetch()
        asked.set()
        await released.wait()
        await route.fulfill(response=answer)
        answered.set()

    await page.route("**/v1/inbox?*", hold, times=1)
    await page.get_by_role("button", name="Unread", exact=True).click()
    await asked.wait()
    await page.evaluate("document.querySelector('notifier-inbox').setAttribute('token-url', '/token?as=bob')")
    await page.get_by_text("all caught up").wait_for()
    released.set()
    await answered.wait()
    await stage.publish(3, "bob")  # what comes after it is shown: the answer was taken, and did no harm
    await page.locator(ENTRIES, has_text="photo 3").wait_for()
    assert await page.locator(ENTRIES).count() == 1
    await unread(page, 1)


@pytest.mark.slow
async def test_texts_may_be_set_while_it_is_out_of_the_page(stage: Stage) -> None:
    await stage.fill(1)
    page = await stage.open(path="/?inline=")
    await page.locator(ENTRIES).wait_for()
    await page.evaluate("(window.kept = document.querySelector('notifier-inbox')).remove()")
    await page.evaluate("kept.messages = { title: 'Post' }")
    await page.evaluate("document.querySelector('main').append(kept)")
    await page.get_by_role("region", name="Post").wait_for()
    await page.locator(ENTRIES).wait_for()


@pytest.mark.slow
async def test_what_is_no_text_does_no_harm(stage: Stage) -> None:
    await stage.fill(1)
    page = await stage.open(path="/?inline=")
    await page.evaluate(
        "document.querySelector('notifier-inbox').setAttribute('messages', '{\"title\": null, \"all\": 7}')"
    )
    await page.get_by_role("button", name="7").wait_for()
    await page.get_by_role("region", name="Notifications").wait_for()
    await page.locator(ENTRIES).wait_for()
    assert not stage.errors


async def test_a_page_may_bring_the_script_along_twice(stage: Stage) -> None:
    page = await stage.open()
    await connection(page, "live")
    first = await page.evaluate("customElements.get('notifier-inbox').name")
    await page.evaluate("import(document.querySelector('script[src*=\"notifier-inbox.js\"]').src + '?again')")
    assert await page.evaluate("customElements.get('notifier-inbox').name") == first


@pytest.mark.slow
async def test_properties_and_parts_change_how_it_looks(stage: Stage) -> None:
    page = await stage.open()
    await page.click(BELL)
    await page.evaluate(
        """() => { const sheet = new CSSStyleSheet();
          sheet.replaceSync(`notifier-inbox { --notifier-background: rgb(1, 2, 3); --notifier-radius: 3px; }
                             notifier-inbox::part(title) { color: rgb(4, 5, 6); }`);
          document.adoptedStyleSheets = [sheet]; }"""
    )
    looks = "(e) => [getComputedStyle(e).backgroundColor, getComputedStyle(e).borderRadius]"
    assert await page.locator("notifier-inbox .panel").evaluate(looks) == ["rgb(1, 2, 3)", "3px"]
    title = page.locator("notifier-inbox h2")
    assert await title.evaluate("(e) => getComputedStyle(e).color") == "rgb(4, 5, 6)"


@pytest.mark.slow
async def test_without_locks_and_channels_each_tab_listens_for_itself(stage: Stage) -> None:
    context = await stage.context()
    await context.add_init_script("delete Navigator.prototype.locks")
    pages = [await stage.open(context), await stage.open(context)]
    await stage.publish(1)
    for page in pages:
        await unread(page, 1)
        await page.click(BELL)
        assert await page.locator(ENTRIES).count() <= 1
