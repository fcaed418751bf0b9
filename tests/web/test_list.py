"""The list: marks, filters, a thousand entries, and content that nobody trusts."""

from __future__ import annotations

import asyncio
import statistics
import sys
from typing import Any

import pytest
from playwright.async_api import Page, Route

from tests.support.waiting import until
from tests.web.conftest import BELL, ENTRIES, Stage, unread

pytestmark = [pytest.mark.slow, pytest.mark.timeout(90)]

HOSTILE = '<img src=x onerror="window.hurt=1"><script>window.hurt=1</script>&lt;b&gt;{{7*7}}'


async def opened(stage: Stage, count: int, **options: Any) -> Page:
    await stage.fill(count)
    page = await stage.open(**options)
    await page.click(BELL)
    await page.locator(ENTRIES).first.wait_for()
    return page


async def counted(page: Page, count: int) -> None:
    await page.wait_for_function(
        "n => document.querySelector('notifier-inbox').shadowRoot.querySelectorAll('li').length === n",
        arg=count,
    )


async def test_what_is_in_sight_becomes_seen_with_one_request_and_the_rest_does_not(stage: Stage) -> None:
    await stage.fill(25)
    page = await stage.open(viewport={"width": 800, "height": 600})
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url) if request.method == "POST" else None)
    await page.click(BELL)

    async def some_are_seen() -> bool:
        return (await stage.inbox.counts("ada")).unseen < 25

    await until(some_are_seen)
    await until(lambda: asked)  # the browser tells of it later than the broker
    counts = await stage.inbox.counts("ada")
    assert counts.unread == 25
    assert 15 <= counts.unseen <= 22
    assert [url.rpartition("/")[2] for url in asked] == ["seen"]


async def test_a_closed_panel_sees_nothing(stage: Stage) -> None:
    page = await opened(stage, 1)
    await until(lambda: _unseen(stage, 0))
    await page.keyboard.press("Escape")
    await stage.publish(2)
    await unread(page, 2)
    await page.reload()
    await unread(page, 2)
    assert (await stage.inbox.counts("ada")).unseen == 1


async def _unseen(stage: Stage, count: int) -> bool:
    return (await stage.inbox.counts("ada")).unseen == count


async def _unread(stage: Stage, count: int) -> bool:
    return (await stage.inbox.counts("ada")).unread == count


async def test_mark_all_as_read(stage: Stage) -> None:
    page = await opened(stage, 5)
    await page.get_by_role("button", name="Mark all as read").click()
    await unread(page, 0)
    await page.locator(f"{ENTRIES}.entry-unread").first.wait_for(state="detached")
    await until(lambda: _unread(stage, 0))
    await page.locator("notifier-inbox .badge").wait_for(state="hidden")


async def test_archive_moves_an_entry_and_back(stage: Stage) -> None:
    page = await opened(stage, 2)
    row = page.locator(ENTRIES, has_text="photo 1")
    await row.hover()
    await row.get_by_role("button", name="Archive").click()
    await counted(page, 1)
    await page.get_by_role("button", name="Archived", exact=True).click()
    await page.locator(ENTRIES, has_text="photo 1").hover()
    await page.get_by_role("button", name="Move to inbox").click()
    await counted(page, 0)
    await page.get_by_text("Nothing archived").wait_for()
    await page.get_by_role("button", name="All", exact=True).click()
    await counted(page, 2)


async def test_the_unread_filter_shows_the_unread(stage: Stage) -> None:
    page = await opened(stage, 3)
    row = page.locator(ENTRIES, has_text="photo 1")
    await row.hover()
    await row.get_by_role("button", name="Mark as read").click()
    await unread(page, 2)
    await until(lambda: _unread(stage, 2))  # which has the last word about what the filter shows
    await page.get_by_role("button", name="Unread", exact=True).click()
    await counted(page, 2)
    # What is read now stays where it is until the list is shown anew: nothing moves under the pointer.
    await page.locator(ENTRIES).first.hover()
    await page.locator(ENTRIES).first.get_by_role("button", name="Mark as read").click()
    await unread(page, 1)
    await counted(page, 2)


async def test_html_script_and_templates_in_names_and_bodies_stay_text(stage: Stage) -> None:
    page = await stage.open()
    await page.click(BELL)
    await stage.publish(1, data={"photo_title": HOSTILE}, actor={"name": HOSTILE})
    await page.locator(ENTRIES).wait_for()
    assert (
        await page.locator(f"{ENTRIES} [part=entry-title]").text_content()
    ) == f"{HOSTILE} liked your photo"
    assert HOSTILE[:60] in (await page.locator(f"{ENTRIES} .entry-body").text_content() or "")
    inside = "document.querySelector('notifier-inbox').shadowRoot.querySelectorAll('img, script, b').length"
    assert await page.evaluate(inside) == 0
    assert await page.evaluate("window.hurt") is None
    await page.locator("notifier-inbox .sr[role=status]", has_text="<script>").wait_for()


async def test_line_separators_in_a_text_do_not_break_the_stream(stage: Stage) -> None:
    # JSON leaves U+2028 and U+2029 as they are, and JavaScript's `.` takes them for the end of a line.
    page = await stage.open()
    await page.click(BELL)
    await stage.publish(1, data={"photo_title": "Har\u2028bour: \u2029"})
    await page.locator(ENTRIES, has_text="bour").wait_for()


@pytest.mark.parametrize(
    "link",
    [
        "javascript:alert(1)",
        "data:text/html,x",
        "//evil.example/x",
        "/\\evil.example",
        "JaVaScRiPt:1",
        " javascript:1",
        "",
        None,
    ],
)
async def test_a_link_that_could_do_harm_or_is_missing_is_none(stage: Stage, link: str | None) -> None:
    # The channel refuses them as well; so the page is told directly, as a broken server would.
    page = await opened(stage, 1)
    actor = {"name": "A", "image": link}
    never = {"seen_at": None, "read_at": None, "archived_at": None}
    entry = {"id": "z", "type": "x", "title": "Harm", "body": "", "url": link, "actor": actor, "data": {}}
    entry |= {"created_at": "2099-01-01T00:00:00.000Z", **never}
    name = f"notifier-inbox {stage.site.api_url}/ ada"
    await page.evaluate(
        "([name, data]) => new BroadcastChannel(name).postMessage({event: 'entry', data})", [name, entry]
    )
    row = page.locator(ENTRIES, has_text="Harm")
    await row.wait_for()
    assert await row.locator("a, img").count() == 0


async def test_a_link_is_followed_and_the_entry_is_read(stage: Stage) -> None:
    page = await opened(stage, 1)
    await page.locator(f"{ENTRIES} .open").click()
    await page.wait_for_url("**/photos/0")
    await unread(page, 0)


async def test_the_page_may_open_an_entry_itself(stage: Stage) -> None:
    page = await opened(stage, 1)
    await page.evaluate(
        """() => document.addEventListener('notifier-open', (event) => {
             event.preventDefault(); window.opened = event.detail.url; })"""
    )
    await page.locator(f"{ENTRIES} .open").click()
    await unread(page, 0)
    assert await page.evaluate("window.opened") == f"{stage.site.url}/photos/0"
    assert page.url == f"{stage.site.url}/"


async def test_a_click_for_a_new_tab_is_not_taken_by_the_page(stage: Stage) -> None:
    page = await opened(stage, 1)
    await page.evaluate(
        """() => document.addEventListener('notifier-open', (event) => {
             event.preventDefault(); window.opened = true; })"""
    )
    async with page.context.expect_page() as other:
        await page.locator(f"{ENTRIES} .open").click(modifiers=["Control"])
    await (await other.value).wait_for_url(f"{stage.site.url}/photos/0")
    await unread(page, 0)
    assert await page.evaluate("window.opened") is None


async def test_a_load_that_fails_says_so_and_can_be_tried_again(stage: Stage) -> None:
    await stage.fill(2)
    page = await stage.open()
    await page.route("**/v1/inbox?*", lambda route: route.abort())
    await page.click(BELL)
    alert = page.locator("notifier-inbox .notice")
    await alert.wait_for()
    assert "could not be loaded" in (await alert.text_content() or "")
    await page.unroute("**/v1/inbox?*")
    await alert.get_by_role("button", name="Try again").click()
    await counted(page, 2)


async def test_what_arrives_while_the_list_is_loaded_is_not_lost(stage: Stage) -> None:
    await stage.fill(1)
    page = await stage.open()
    asked, released = asyncio.Event(), asyncio.Event()

    async def hold(route: Route) -> None:
        answer = await route.fetch()
        asked.set()
        await released.wait()
        await route.fulfill(response=answer)

    await page.route("**/v1/inbox?*", hold)
    await page.click(BELL)
    await asked.wait()
    await stage.publish(1)
    await unread(page, 2)
    released.set()  # only now comes the answer, which does not have the new one
    await counted(page, 2)


SCROLL = """async (plain) => {
  let scroller = document.querySelector('notifier-inbox').shadowRoot.querySelector('.scroll');
  if (plain) {
    const { width, height } = scroller.getBoundingClientRect();
    scroller = document.body.appendChild(document.createElement('div'));
    scroller.style = `width: ${width}px; height: ${height}px; overflow: auto`;
    for (let n = 0; n < 1000; n += 1) {
      const row = scroller.appendChild(document.createElement('p'));
      row.style.height = '80px';
      row.textContent = 'x';
    }
  }
  const state = scroller.querySelector('.state');  // shows bones while the next page is loaded
  const long = [];
  const observer = new PerformanceObserver((list) => long.push(...list.getEntries().map((e) => e.duration)));
  observer.observe({ type: 'longtask' });
  const frames = [];
  let last;
  let still = 0;
  for (let n = 0; n < 2000 && still < 60; n += 1) {
    const now = await new Promise(requestAnimationFrame);
    if (last !== undefined) frames.push(now - last);
    last = now;
    const before = scroller.scrollTop;
    scroller.scrollTop += 400;
    still = scroller.scrollTop === before && !state?.querySelector('.bones') ? still + 1 : 0;
  }
  observer.disconnect();
  return { frames, long, rows: scroller.querySelectorAll('li').length };
}"""


@pytest.mark.timeout(200)
async def test_a_thousand_entries_scroll_smoothly(stage: Stage) -> None:
    page = await opened(stage, 1_000, viewport={"width": 1000, "height": 800})
    for _ in range(6):  # what else runs here can spoil a try, and make none better
        measured = await page.evaluate(SCROLL, False)
        median, p95 = _median_and_p95(measured["frames"])
        _, plain_p95 = _median_and_p95((await page.evaluate(SCROLL, True))["frames"])
        sys.stdout.write(
            f"{len(measured['frames'])} frames, median {median:.1f} ms, p95 {p95:.1f} ms, "
            f"long: {measured['long']}; a plain list's p95 {plain_p95:.1f} ms\n"
        )
        assert measured["rows"] == 1_000
        # Software rendering on a shared machine: 50 ms is what people begin to notice (a long task), three
        # frames to the millisecond. Where a list of bare paragraphs takes as long, the machine is busy.
        if median < max(34, 2 * plain_p95) and p95 < max(51, 2 * plain_p95):
            return
        await page.reload()
        await page.click(BELL)
        await page.locator(ENTRIES).first.wait_for()
    raise AssertionError(f"median {median:.1f} ms, p95 {p95:.1f} ms")


def _median_and_p95(frames: list[float]) -> tuple[float, float]:
    return statistics.median(frames), sorted(frames)[int(len(frames) * 0.95)]
