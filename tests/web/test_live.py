"""What happens is shown at once, in every tab, over one connection; what was missed comes later, and once."""

from __future__ import annotations

import asyncio
import statistics
import sys
import time
from datetime import timedelta
from importlib.resources import files

import pytest
from playwright.async_api import BrowserContext, Page, Route

from tests.support.waiting import until
from tests.web.conftest import BELL, ENTRIES, Stage, connection, unanswered, unread

pytestmark = [pytest.mark.slow, pytest.mark.timeout(90)]

SOURCE = str(files("notifier").joinpath("web/notifier-inbox.js"))


async def shows(page: Page, *numbers: int) -> None:
    """Until these entries are shown and no others, each once. Of what came within a millisecond either may
    be first."""
    expected = sorted(f"“photo {number}”" for number in numbers)
    found = page.locator(f"{ENTRIES} .entry-body")

    async def equal() -> bool:
        return sorted(await found.all_text_contents()) == expected

    await until(equal)


def streams(context: BrowserContext) -> list[str]:
    """Every stream that a page of this browser opens, from now on."""
    seen: list[str] = []
    context.on("request", lambda request: seen.append(request.url) if "/stream" in request.url else None)
    return seen


async def test_the_bell_changes_within_a_second_of_publishing(stage: Stage) -> None:
    page = await stage.open()
    took = []
    for number in range(5):
        began = time.monotonic()
        await stage.publish(number)
        await unread(page, number + 1)
        took.append(time.monotonic() - began)
    assert await page.locator("notifier-inbox .badge").text_content() == "5"
    assert await page.locator(BELL).get_attribute("aria-label") == "Notifications, 5 unread"
    assert statistics.median(took) < 1.0, took  # not all: for one or two the machine may stand still
    sys.stdout.write(f"from publishing to the bell: {', '.join(f'{one * 1000:.0f}' for one in took)} ms\n")


async def test_after_a_reload_all_is_as_it_was(stage: Stage) -> None:
    await stage.fill(3)
    page = await stage.open()
    await page.click(BELL)
    await page.locator(ENTRIES, has_text="photo 1").locator(".open").click()
    await page.wait_for_url("**/photos/1")
    await page.go_back()
    await page.reload()
    await unread(page, 2)
    await page.click(BELL)
    await shows(page, 2, 1, 0)
    unread_ones = await page.locator(f"{ENTRIES}.entry-unread .entry-body").all_text_contents()
    assert sorted(unread_ones) == ["“photo 0”", "“photo 2”"]


async def test_more_than_99_are_99_and_more(stage: Stage) -> None:
    await stage.fill(100)
    page = await stage.open()
    await unread(page, 100)
    assert await page.locator("notifier-inbox .badge").text_content() == "99+"


async def test_two_tabs_share_one_stream_and_tell_each_other(stage: Stage) -> None:
    context = await stage.context()
    seen = streams(context)
    first = await stage.open(context)
    second = await stage.open(context)
    await stage.publish(1)
    for page in (first, second):
        await unread(page, 1)
    await second.click(BELL)
    await second.locator(ENTRIES).locator(".open").click()
    await unread(first, 0)
    assert len(seen) == 1


async def test_when_the_leading_tab_closes_another_goes_on_where_it_was(stage: Stage) -> None:
    context = await stage.context()
    seen = streams(context)
    first, second = await stage.open(context), await stage.open(context)
    await second.click(BELL)
    await stage.publish(1)
    await shows(second, 1)
    await first.close()
    await stage.publish(2)
    await shows(second, 2, 1)
    await stage.publish(3)
    await shows(second, 3, 2, 1)
    assert len(seen) == 2


async def test_two_people_in_one_browser_see_nothing_of_each_other(stage: Stage) -> None:
    context = await stage.context()
    ada, bob = await stage.open(context), await stage.open(context, "/?as=bob")
    await stage.publish(1, "ada")
    await unread(ada, 1)
    await stage.publish(2, "bob")
    await unread(bob, 1)
    await bob.click(BELL)
    await shows(bob, 2)
    assert await ada.evaluate("document.querySelector('notifier-inbox').counts.total") == 1


async def test_offline_and_back_nothing_is_missed_and_nothing_comes_twice(stage: Stage) -> None:
    context = await stage.context()
    page = await stage.open(context)
    await page.click(BELL)
    await stage.publish(1)
    await shows(page, 1)
    await context.set_offline(True)
    await connection(page, "offline")
    assert await page.locator("notifier-inbox .notice").is_visible()
    for number in range(2, 6):
        await stage.publish(number)
    await until(lambda: _total(stage, 5))
    # What is marked meanwhile is sent later.
    await page.locator(ENTRIES).first.hover()
    await page.locator(ENTRIES).first.get_by_role("button", name="Mark as read").click()
    await context.set_offline(False)
    await connection(page, "live")
    await shows(page, 5, 4, 3, 2, 1)
    await unread(page, 4)
    await until(lambda: _is_read(stage, "like-1"))
    await page.locator("notifier-inbox .notice").wait_for(state="hidden")


async def _total(stage: Stage, count: int) -> bool:
    return (await stage.inbox.counts("ada")).total == count


async def _is_read(stage: Stage, event_id: str) -> bool:
    page = await stage.inbox.list("ada", status="read")
    return [one.entry.data["photo_title"] for one in page.entries] == [
        f"photo {event_id.removeprefix('like-')}"
    ]


async def test_the_api_may_be_restarted_under_an_open_page(stage: Stage) -> None:
    page = await stage.open()
    await page.click(BELL)
    await stage.publish(1)
    await shows(page, 1)
    async with stage.restarting_api():
        await stage.publish(2)
        await until(lambda: _total(stage, 2))
    await connection(page, "live")
    await shows(page, 2, 1)
    await stage.publish(3)
    await shows(page, 3, 2, 1)


async def test_a_token_that_expires_is_renewed_and_nothing_is_missed(stage: Stage) -> None:
    stage.site.lifetime = timedelta(seconds=1)
    page = await stage.open()
    await page.click(BELL)
    for number in range(1, 3):
        given = stage.site.tokens
        await until(lambda given=given: stage.site.tokens > given)
        await stage.publish(number)
        await shows(page, *range(number, 0, -1))


async def test_who_is_signed_out_is_told_and_comes_back_with_one_click(stage: Stage) -> None:
    stage.site.lifetime = timedelta(seconds=1)
    await stage.fill(1)
    page = await stage.open()
    await page.click(BELL)
    await shows(page, 0)
    stage.site.signed_in = False
    await page.locator(ENTRIES).hover()
    await page.locator(ENTRIES).get_by_role("button", name="Mark as read").click()
    await connection(page, "denied")
    notice = page.locator("notifier-inbox .notice")
    assert "signed out" in (await notice.text_content() or "")
    clicked = asyncio.Event()

    async def later(route: Route) -> None:
        await clicked.wait()
        await route.continue_()

    await page.route("**/token?*", later)  # it tries by itself too, and then there would be no button
    stage.site.signed_in = True
    await notice.get_by_role("button", name="Try again").click()
    clicked.set()
    await connection(page, "live")
    await page.unroute("**/token?*")
    await until(lambda: _is_read(stage, "like-0"))  # it was kept


async def test_a_list_that_could_not_be_loaded_comes_with_the_connection(stage: Stage) -> None:
    await stage.fill(1)
    context = await stage.context()
    page = await context.new_page()
    async with stage.restarting_api():
        # The script comes from the API; this page has it from its cache, so to speak.
        await page.route("**/web/notifier-inbox.js", lambda route: route.fulfill(path=SOURCE))
        await page.goto(stage.site.url)
        await page.click(BELL)
        await page.get_by_text("No connection").wait_for()
    await connection(page, "live")
    await shows(page, 0)


async def test_a_page_that_is_left_while_the_list_is_loaded_has_no_error_and_comes_back(stage: Stage) -> None:
    await stage.fill(1)
    page = await stage.open()
    async with unanswered(page, "**/v1/inbox?*"):
        await page.click(BELL)
        await page.locator("notifier-inbox .bones").wait_for()
        await page.evaluate("dispatchEvent(new PageTransitionEvent('pagehide'))")
        assert await page.evaluate("document.querySelector('notifier-inbox').counts") is None
    await page.evaluate("dispatchEvent(new PageTransitionEvent('pageshow'))")
    await connection(page, "live")
    await page.click(BELL)
    await shows(page, 0)
    assert not stage.errors


async def test_when_somebody_else_has_signed_in_the_inbox_is_theirs(stage: Stage) -> None:
    stage.site.lifetime = timedelta(seconds=1)
    context = await stage.context()
    await stage.fill(1)  # before the stream, which would tell of it
    page = await stage.open(context)
    await unread(page, 1)
    await page.evaluate(
        """(name) => { window.told = []; const channel = new BroadcastChannel(name);
             channel.onmessage = ({ data }) => data.event && window.told.push(data); }""",
        f"notifier-inbox {stage.site.api_url}/ ada",
    )
    await context.route("**/token?*", lambda route: route.continue_(url=f"{stage.site.url}/token?as=bob"))
    await stage.publish(2, "bob")
    await stage.publish(3, "bob")
    await unread(page, 2)
    await page.click(BELL)
    await stage.publish(4, "bob")
    await shows(page, 4, 3, 2)
    # Other tabs, in which ada still is, hear nothing of bob.
    assert "photo" not in await page.evaluate("JSON.stringify(window.told)")


async def test_what_was_clicked_is_read_also_behind_a_slow_mark(stage: Stage) -> None:
    await stage.fill(1)
    context = await stage.context()
    await context.add_init_script(  # the mark that it was seen is never answered
        """const ask = fetch; fetch = (url, options) => (/seen$/.test(url)
             ? (globalThis.asked = true, new Promise(() => {})) : ask(url, options))"""
    )
    page = await stage.open(context)
    await page.click(BELL)
    await page.wait_for_function("() => globalThis.asked")
    await page.locator(f"{ENTRIES} .open").click()
    await page.wait_for_url("**/photos/0")
    await until(lambda: _is_read(stage, "like-0"))


async def test_a_request_that_nobody_answers_is_given_up_and_made_again(stage: Stage) -> None:
    await stage.fill(1)
    page = await stage.open()
    async with unanswered(page, "**/v1/inbox/read"):
        await page.click(BELL)
        await page.locator(ENTRIES).hover()
        # Half a minute in half a second; only now, since what came before has to be answered.
        await page.evaluate(
            """() => { const { timeout } = AbortSignal;
                 AbortSignal.timeout = (ms) => timeout.call(AbortSignal, ms / 60); }"""
        )
        await page.locator(ENTRIES).get_by_role("button", name="Mark as read").click()
        await until(lambda: _is_read(stage, "like-0"))


async def test_a_tab_that_was_asleep_catches_up(stage: Stage) -> None:
    context = await stage.context()
    first, second = await stage.open(context), await stage.open(context)
    await second.click(BELL)
    await stage.publish(1)
    await shows(second, 1)
    # Frozen as browsers freeze hidden tabs (Page Lifecycle): no task of it runs.
    session = await context.new_cdp_session(second)
    await session.send("Page.setWebLifecycleState", {"state": "frozen"})
    await stage.publish(2)
    await unread(first, 2)
    await session.send("Page.setWebLifecycleState", {"state": "active"})
    await shows(second, 2, 1)


async def test_the_token_is_in_no_url_and_in_no_storage(stage: Stage) -> None:
    context = await stage.context()
    urls: list[str] = []
    context.on("request", lambda request: urls.append(request.url))
    page = await stage.open(context)
    await page.click(BELL)
    token = stage.site.sign("ada", stage.site.lifetime).split(".")[0]
    assert any("/v1/inbox" in url for url in urls)
    assert not any(token in url for url in urls)
    kept = "JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie])"
    assert await page.evaluate(kept) == '[{},{},""]'


async def test_a_mark_that_the_server_could_not_take_is_sent_again(stage: Stage) -> None:
    await stage.fill(1)
    page = await stage.open()
    await page.clock.install()
    failing = {"status": 503, "content_type": "application/problem+json", "body": "{}"}
    await page.route("**/v1/inbox/read", lambda route: route.fulfill(**failing))
    await page.click(BELL)
    await page.locator(ENTRIES).hover()
    async with page.expect_response("**/v1/inbox/read"):
        await page.locator(ENTRIES).get_by_role("button", name="Mark as read").click()
    await unread(page, 0)  # here it counts already
    assert (await stage.inbox.counts("ada")).unread == 1
    await page.unroute("**/v1/inbox/read")
    await page.clock.run_for(10_000)
    await until(lambda: _is_read(stage, "like-0"))


async def test_a_leading_tab_that_was_frozen_is_replaced_by_the_one_that_is_looked_at(stage: Stage) -> None:
    context = await stage.context()
    seen = streams(context)
    first = await stage.open(context)
    second = await stage.open(context)
    await second.clock.install()
    await second.reload()
    await connection(second, "live")
    session = await context.new_cdp_session(first)
    await session.send("Page.setWebLifecycleState", {"state": "frozen"})
    await stage.publish(1)
    await until(lambda: _total(stage, 1))
    assert len(seen) == 1
    await second.clock.run_for(80_000)  # without a word from the leader, which the server's heartbeat gives
    await unread(second, 1)
    assert len(seen) == 2
    await session.send("Page.setWebLifecycleState", {"state": "active"})
    await unread(first, 1)
    await stage.publish(2)
    for page in (first, second):
        await unread(page, 2)
    assert len(seen) == 2  # it follows now
