"""Everybody can use it: by keyboard, by ear, in any colours, at any size, in any direction (WCAG 2.2 AA)."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Page

from tests.support.waiting import until
from tests.web.conftest import BELL, ENTRIES, Stage, connection, stand_still, unanswered, unread

pytestmark = [pytest.mark.slow, pytest.mark.timeout(90)]

AXE = Path(__file__).parents[2] / ".peers/node_modules/axe-core/axe.min.js"
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]

FOCUS = """() => {
  let element = document.activeElement;
  while (element?.shadowRoot?.activeElement) element = element.shadowRoot.activeElement;
  const text = element.getAttribute('aria-label') ?? element.textContent.trim();
  return element.matches('.panel') ? 'panel' : text;
}"""


def axe() -> str:
    """axe-core's source. Skips the test where it is not installed, and fails it in CI."""
    if not AXE.exists():
        if os.environ.get("CI"):
            pytest.fail("CI must have axe-core: .ci/run installs it")
        pytest.skip("needs axe-core in .peers: .ci/run installs it")
    return AXE.read_text()


async def violations(page: Page) -> list[str]:
    """What axe finds in the inbox: rule, and where."""
    options = {"runOnly": {"type": "tag", "values": RULES}}
    # As a debugger does it: the page's policy would not let us add a script.
    session = await page.context.new_cdp_session(page)
    await session.send("Runtime.evaluate", {"expression": axe()})
    result = await session.send(
        "Runtime.evaluate",
        {
            "expression": f"axe.run('notifier-inbox', {json.dumps(options)}).then((r) => JSON.stringify("
            "r.violations.map((v) => v.id + ': ' + v.nodes.map((n) => n.target.flat().join(' ') + ' ' "
            "+ n.failureSummary).join(' | '))))",
            "awaitPromise": True,
            "returnByValue": True,
        },
    )
    return list(json.loads(result["result"]["value"]))


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_axe_finds_nothing(stage: Stage, scheme: Any) -> None:
    await stage.fill(4)
    page = await stage.open(color_scheme=scheme)
    assert await violations(page) == []
    await page.click(BELL)
    await page.locator(ENTRIES).first.locator(".open").click(modifiers=["Alt"])
    await page.locator(ENTRIES).nth(1).hover()
    await page.get_by_role("button", name="Mark as read").nth(0).click()
    await page.wait_for_function(  # a panel that fades in has less contrast
        "() => document.querySelector('notifier-inbox').shadowRoot.getAnimations().length === 0"
    )
    assert await violations(page) == []
    await page.get_by_role("button", name="Archived", exact=True).click()
    await page.get_by_text("Nothing archived").wait_for()
    assert await violations(page) == []


async def test_everything_can_be_done_with_the_keyboard(stage: Stage) -> None:
    await stage.fill(3)
    page = await stage.open()
    await unread(page, 3)

    async def press(*keys: str) -> str:
        for key in keys:
            await page.keyboard.press(key)
        return str(await page.evaluate(FOCUS))

    assert await press("Tab") == "Harbour"
    assert await press("Tab") == "Notifications, 3 unread"
    await press("Enter")
    assert await page.locator(BELL).get_attribute("aria-expanded") == "true"
    assert await page.evaluate(FOCUS) == "panel"
    await page.locator(ENTRIES).nth(2).wait_for()
    order = [await press("Tab") for _ in range(8)]
    newest, second = [await page.locator(ENTRIES).nth(n).locator(".open").text_content() for n in range(2)]
    assert order == [
        "Mark all as read", "Close", "All", "Unread", "Archived", newest, "Mark as read", "Archive",
    ]  # fmt: skip
    # The list is one stop; arrows move in it.
    assert await press("Shift+Tab", "Shift+Tab") == newest
    assert await press("ArrowDown") == second
    assert await press("End", "Home") == newest
    assert await press("ArrowUp") == newest
    await press("Delete")
    await page.locator(ENTRIES).nth(2).wait_for(state="detached")
    assert "liked your photo" in str(await page.evaluate(FOCUS))
    await press("Tab", "Enter")
    await unread(page, 1)
    await press("Escape")
    assert await page.locator(BELL).get_attribute("aria-expanded") == "false"

    async def is_at_the_bell() -> bool:
        return bool(await page.evaluate(FOCUS) == "Notifications, 1 unread")

    await until(is_at_the_bell)  # for a moment the count may be that before the last mark
    assert await press("Tab") == "A button of the app"


async def test_the_focus_can_be_seen(stage: Stage) -> None:
    await stage.fill(1)
    page = await stage.open()
    await page.keyboard.press("Tab")
    await page.keyboard.press("Tab")
    await page.keyboard.press("Enter")
    await page.locator(ENTRIES).first.wait_for()
    style = """() => {
      let element = document.activeElement;
      while (element?.shadowRoot?.activeElement) element = element.shadowRoot.activeElement;
      const shown = element.matches('.open') ? element.closest('li') : element;
      return [shown.className, getComputedStyle(shown).outlineStyle, getComputedStyle(shown).outlineWidth];
    }"""
    for _ in range(8):
        await page.keyboard.press("Tab")
        name, line, width = await page.evaluate(style)
        assert (line, width) == ("solid", "2px"), name


async def test_what_arrives_is_said_politely_and_once(stage: Stage) -> None:
    page = await stage.open()
    live = page.locator("notifier-inbox .sr[role=status]")
    await stage.publish(1)
    await live.filter(has_text="New notification: Bob liked your photo").wait_for()
    assert await live.evaluate("(e) => e.closest('[popover]')") is None  # one that is hidden says nothing
    await stand_still(page)  # what comes within 0.3 s is said at once, however slow the machine is
    await stage.publish(2)
    await stage.publish(3)
    await unread(page, 3)
    await page.clock.run_for(300)
    await live.filter(has_text="2 new notifications").wait_for()


async def test_names_and_roles(stage: Stage) -> None:
    await stage.fill(1)
    page = await stage.open()
    await page.get_by_role("button", name="Notifications, 1 unread", expanded=False).wait_for()
    await page.click(BELL)
    dialog = page.get_by_role("dialog", name="Notifications")
    await dialog.get_by_role("listitem").wait_for()
    assert await dialog.get_by_role("heading", name="Notifications", level=2).count() == 1
    assert await dialog.get_by_role("link", name="Unread: Bob liked your photo").count() == 1
    pressed = dialog.get_by_role("group", name="Show").get_by_role("button", pressed=True)
    assert await pressed.all_text_contents() == ["All"]


async def test_targets_have_24_pixels_or_more(stage: Stage) -> None:
    await stage.fill(2)
    page = await stage.open(viewport={"width": 390, "height": 800})
    await page.click(BELL)
    await page.locator(ENTRIES).nth(1).wait_for()
    sizes = await page.evaluate(
        """() => [...document.querySelector('notifier-inbox').shadowRoot.querySelectorAll('button, a')]
             .map((one) => (one.matches('.open') ? one.closest('li') : one).getBoundingClientRect())
             .filter(({ width }) => width).map(({ width, height }) => Math.min(width, height))"""
    )
    assert len(sizes) > 8
    assert min(sizes) >= 24


@pytest.mark.parametrize("viewport", [{"width": 640, "height": 400}, {"width": 320, "height": 256}])
async def test_at_200_and_400_percent_nothing_is_cut_off(stage: Stage, viewport: Any) -> None:
    # Zoom makes the window smaller in CSS pixels: 1280 by 800 at 200 %, and WCAG's 320 by 256 (1.4.10).
    await stage.fill(4)
    page = await stage.open(viewport=viewport)
    await page.click(BELL)
    await page.locator(ENTRIES).first.wait_for()
    box = await page.locator("notifier-inbox .panel").bounding_box()
    assert box is not None
    assert box["x"] >= 0
    assert box["y"] >= 0
    assert box["x"] + box["width"] <= viewport["width"]
    assert box["y"] + box["height"] <= viewport["height"]
    wide = "() => document.querySelector('notifier-inbox').shadowRoot.querySelector('.scroll')"
    assert await page.evaluate(f"({wide})().scrollWidth <= ({wide})().clientWidth")
    assert await page.evaluate(f"({wide})().clientHeight") >= 60
    assert not await page.evaluate("document.documentElement.scrollWidth > innerWidth")


async def test_on_a_phone_the_panel_is_the_whole_screen_and_the_page_behind_stays(stage: Stage) -> None:
    phone = {"width": 375, "height": 667}
    page = await stage.open(viewport=phone)
    await page.evaluate("document.body.style.height = '3000px'")
    await page.click(BELL)
    panel = page.locator("notifier-inbox .panel")
    assert await panel.bounding_box() == {"x": 0, "y": 0, **phone}
    await panel.get_by_text("all caught up").hover()
    await page.mouse.wheel(0, 500)
    frames = "new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done(scrollY))))"
    assert await page.evaluate(frames) == 0
    await panel.get_by_role("button", name="Close").click()
    assert not await panel.is_visible()


async def test_a_panel_in_the_page_scrolls_with_it(stage: Stage) -> None:
    page = await stage.open(path="/?inline=")
    await page.evaluate("document.body.style.height = '3000px'")
    for part in ("all caught up", "Archived"):
        await page.evaluate("scrollTo(0, 0)")
        await page.get_by_role("region").get_by_text(part).hover()
        await page.mouse.wheel(0, 500)
        await page.wait_for_function("() => scrollY > 0")


async def test_a_long_number_does_not_make_the_page_wider(stage: Stage) -> None:
    await stage.fill(100)
    page = await stage.open(viewport={"width": 320, "height": 568})
    await unread(page, 100)
    assert not await page.evaluate("document.documentElement.scrollWidth > innerWidth")


async def test_rows_are_whole_pixels_high_and_their_buttons_cover_no_text(stage: Stage) -> None:
    # A row ends where it is clipped: a part of a pixel would be a seam, or swallow the line below it.
    await stage.fill(2)
    page = await stage.open()
    await page.click(BELL)
    await page.locator(ENTRIES).nth(1).wait_for()
    heights = "(all) => all.map((one) => one.getBoundingClientRect().height % 1)"
    assert await page.locator(ENTRIES).evaluate_all(heights) == [0, 0]
    behind = "(one) => getComputedStyle(one).backgroundColor"
    assert await page.locator(f"{ENTRIES} .entry-actions").first.evaluate(behind) == "rgba(0, 0, 0, 0)"


async def test_that_there_is_nothing_to_show_is_said(stage: Stage) -> None:
    page = await stage.open()
    await page.click(BELL)
    await page.get_by_role("button", name="Archived", exact=True).click()
    await page.get_by_role("status").get_by_text("Nothing archived").wait_for()


async def test_right_to_left_is_a_mirror_image(stage: Stage) -> None:
    await stage.fill(1)
    page = await stage.open(path="/?dir=rtl&lang=ar", viewport={"width": 900, "height": 700})
    await page.click(BELL)
    row = page.locator(ENTRIES).first
    await row.wait_for()
    panel, bell = [await page.locator(f"notifier-inbox {one}").bounding_box() for one in (".panel", ".bell")]
    avatar, dot = [await row.locator(one).bounding_box() for one in (".avatar", ".entry-dot")]
    assert panel
    assert bell
    assert avatar
    assert dot
    assert panel["x"] <= bell["x"] + 1  # the bell is at the left edge there
    assert avatar["x"] > dot["x"]
    starts = [await row.locator(one).bounding_box() for one in (".entry-title", ".entry-body span", "time")]
    right = [box["x"] + box["width"] for box in starts if box]
    assert right[:2] == pytest.approx([right[2]] * 2, abs=1)  # English begins where the Arabic time does


async def test_nothing_moves_for_who_asked_for_that(stage: Stage) -> None:
    page = await stage.open(reduced_motion="reduce")
    async with unanswered(page, "**/v1/inbox?*"):
        await page.click(BELL)
        await page.locator("notifier-inbox .bones").first.wait_for()
        animations = "document.querySelector('notifier-inbox').shadowRoot.getAnimations().length"
        assert await page.evaluate(animations) == 0


async def test_in_forced_colors_what_is_unread_can_still_be_told(stage: Stage) -> None:
    await stage.fill(1)
    page = await stage.open(forced_colors="active")
    await page.click(BELL)
    dot = page.locator(f"{ENTRIES} .entry-dot")
    await dot.wait_for()
    colours = "(e) => [getComputedStyle(e).borderTopColor, getComputedStyle(e.closest('li')).backgroundColor]"
    shown, behind = await dot.evaluate(colours)
    assert shown != behind


async def test_it_speaks_the_language_of_the_page(stage: Stage) -> None:
    await stage.fill(1)
    page = await stage.open(path="/?lang=de")
    await page.evaluate(
        "async (url) => { document.querySelector('notifier-inbox').messages = (await import(url)).default; }",
        f"{stage.site.api_url}/web/notifier-inbox.de.js",
    )
    await page.click(BELL)
    await page.get_by_role("button", name="Alle als gelesen markieren").wait_for()
    assert await page.get_by_role("dialog", name="Mitteilungen").count() == 1
    await page.locator("notifier-inbox time", has_text="jetzt").wait_for()
    await page.evaluate("document.querySelector('notifier-inbox').messages = { title: 'Post' }")
    assert await page.get_by_role("dialog", name="Post").count() == 1
    await page.get_by_role("button", name="Mark all as read").wait_for()  # what is not translated is English
    await page.evaluate("document.querySelector('notifier-inbox').setAttribute('lang', 'en')")
    await page.locator("notifier-inbox time", has_text="now").wait_for()
    await page.evaluate(
        "document.querySelector('notifier-inbox').setAttribute('messages', JSON.stringify({ title: 'Mail' }))"
    )
    assert await page.get_by_role("dialog", name="Mail").count() == 1


async def test_a_language_that_is_not_there_is_english_with_its_own_numbers(stage: Stage) -> None:
    page = await stage.open(path="/?lang=not-a-language-at-all")
    await connection(page, "live")
    assert await page.locator(BELL).get_attribute("aria-label") == "Notifications"

    async def text(count: int) -> str:
        await stage.publish(count)
        await unread(page, count)
        return str(await page.locator(BELL).get_attribute("aria-label"))

    assert await text(1) == "Notifications, 1 unread"
