"""docs/how-to/embed-the-inbox.md: what it says to put into a page works there; its tables are complete."""

from __future__ import annotations

import gzip
import re

import pytest
from playwright.async_api import Page

from notifier.local.http import Response
from tests.docs.blocks import ROOT, blocks
from tests.web.conftest import BELL, ENTRIES, Stage, connection, stand_still, unread

PATH = ROOT / "docs/how-to/embed-the-inbox.md"
TEXT = PATH.read_text()
SOURCES = {path.name: path.read_text() for path in (ROOT / "web/inbox").iterdir()}


def block(page: str) -> str:
    [found] = [one.text for one in blocks(PATH) if one.info.get("page") == page]
    return found


def section(title: str) -> str:
    return TEXT.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


async def embedded(stage: Stage, number: int = 0) -> Page:
    """The page with one of the tags as the document has it, under the policy that it says is enough."""
    tag = [one.text for one in blocks(PATH) if one.language == "html"][number]
    script = f'<script type="module" src="{stage.site.api_url}/web/notifier-inbox.js"></script>'
    body = tag if "<script" in tag else f"{script}\n{tag}"
    html = f'<!doctype html><html lang="en"><title>App</title>\n{body}'
    headers = {"Content-Type": "text/html; charset=utf-8", "Content-Security-Policy": block("policy").strip()}
    known = {"https://notify.example.com": stage.site.api_url}
    for shown, real in known.items():
        html = html.replace(shown, real)
        headers = {name: value.replace(shown, real) for name, value in headers.items()}
    stage.site.pages["/"] = Response(200, headers, html.encode())
    return await stage.open()


@pytest.mark.slow
@pytest.mark.parametrize("number", [0, 1])
async def test_the_tag_works_under_the_policy(stage: Stage, number: int) -> None:
    page = await embedded(stage, number)
    await stage.publish(1)
    await unread(page, 1)
    await page.click(BELL)
    await page.locator(ENTRIES).wait_for()


@pytest.mark.slow
async def test_the_function_for_tokens(stage: Stage) -> None:
    page = await embedded(stage)
    await page.evaluate("document.querySelector('notifier-inbox').removeAttribute('token-url')")
    await page.evaluate(f"() => {{ {block('get-token')} }}")
    await connection(page, "live")
    await stage.publish(1)
    await unread(page, 1)


@pytest.mark.slow
async def test_an_app_that_opens_entries_itself(stage: Stage) -> None:
    page = await embedded(stage)
    await page.evaluate(f"() => {{ window.same = true; {block('open')} }}")
    await stage.publish(1)
    await page.click(BELL)
    await page.locator(ENTRIES).locator(".open").click()
    await page.wait_for_url("**/photos/1")
    assert await page.evaluate("window.same")  # it was not loaded anew


@pytest.mark.slow
async def test_looks_and_texts(stage: Stage) -> None:
    page = await embedded(stage)
    await page.evaluate(
        "(css) => { const s = new CSSStyleSheet(); s.replaceSync(css); document.adoptedStyleSheets = [s]; }",
        block("looks"),
    )
    await page.evaluate(f"() => {{ {block('messages')} }}")
    await page.evaluate("document.querySelector('notifier-inbox').lang = 'pl'")
    await page.click(BELL)
    await page.get_by_role("heading", name="Powiadomienia").wait_for()
    panel = page.locator("notifier-inbox .panel")
    assert await panel.evaluate("(e) => getComputedStyle(e).borderRadius") == "8px"
    await stand_still(page)  # what comes within 0.3 s is said at once, however slow the machine is
    for number in (1, 2):
        await stage.publish(number)
    await unread(page, 2)
    await page.clock.run_for(300)
    await page.locator("notifier-inbox .sr", has_text="2 nowe powiadomienia").wait_for()


def test_all_attributes_are_told() -> None:
    observed = re.search(r"observedAttributes = \[(.*?)\]", SOURCES["element.js"])
    assert observed
    read = set(re.findall(r'(?:get|has)Attribute\("([a-z-]+)"', "".join(SOURCES.values())))
    themed = {"theme"} if "[theme=" in SOURCES["inbox.css"] else set()
    told = re.findall(r"^\| `([a-z-]+)` \|", section("Attributes").partition("Properties:")[0], re.MULTILINE)
    assert sorted(told) == sorted(read | themed | set(re.findall(r'"([a-z-]+)"', observed[1])))


def test_all_events_are_told() -> None:
    sent = {f"notifier-{name}" for name in re.findall(r'_emit\("([a-z]+)"', "".join(SOURCES.values()))}
    assert set(re.findall(r"^\| `(notifier-[a-z]+)` \|", section("Attributes"), re.MULTILINE)) == sent


def test_all_properties_and_parts_are_told() -> None:
    looks = section("Looks")
    styled = set(re.findall(r"var\((--notifier-[a-z-]+)", SOURCES["inbox.css"]))
    table = "\n".join(line for line in looks.splitlines() if line.startswith("| `--"))
    assert set(re.findall(r"`(--notifier-[a-z-]+)`", table)) == styled
    made = " ".join(source for name, source in SOURCES.items() if name.endswith(".js"))
    elements = re.findall(r'\bh\((?:href \? "a" : )?"[a-z0-9]+", "([a-z -]+)"', made)
    rows = re.findall(r'\.part = [^;]*"(entry entry-unread)"', made)
    parts = {word for text in [*elements, *rows] for word in text.split()}
    parts |= {"tool", *re.findall(r'_tool\("([a-z-]+)"', made)}
    told = looks.partition("\nParts: ")[2].partition("\n\n")[0]
    assert set(re.findall(r"`([a-z-]+)`", told)) == parts - {"cut"}  # how long a body is


def test_all_texts_are_told_and_each_language_has_them() -> None:
    english = re.findall(r"^  (\w+):", SOURCES["messages.js"].partition("};")[0], re.MULTILINE)
    assert len(english) > 20
    for path in (ROOT / "notifier/web").glob("notifier-inbox.*.js"):
        assert re.findall(r"^  (\w+):", path.read_text(), re.MULTILINE) == english, path
    names = section("Texts").partition("The names: ")[2]
    assert set(re.findall(r"`(\w+)`", names)) == set(english)


@pytest.mark.slow
async def test_the_texts_in_german(stage: Stage) -> None:
    page = await embedded(stage)
    german = block("german").replace("https://notify.example.com", stage.site.api_url)
    german = re.sub(r"(?m)^import german from (.*);$", r"const german = (await import(\1)).default;", german)
    await page.evaluate(f"async () => {{ {german} }}")
    await page.click(BELL)
    await page.get_by_role("heading", name="Mitteilungen").wait_for()


def test_the_size_is_told() -> None:
    told = re.search(r"less than (\d+) kB, and (\d+) kB on\s+the wire", TEXT)
    assert told
    source = (ROOT / "notifier/web/notifier-inbox.js").read_bytes()
    assert len(source) < int(told[1]) * 1_000
    assert int(told[2]) == round(len(gzip.compress(source, 9)) / 1_000)


def test_the_readme_shows_the_same_tag() -> None:
    shown = [one.text for one in blocks(ROOT / "README.md") if one.language == "html"]
    [first, *_] = [one.text for one in blocks(PATH) if one.language == "html"]
    assert [one.split() for one in shown] == [first.split()]
