"""docs/how-to/publish-over-http.md: each snippet publishes, also when the API is busy at first."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from notifier.local.listener import Listener
from tests.api.conftest import PUBLISH, Api, serving
from tests.api.events import pairs
from tests.docs.blocks import ROOT, blocks, commands

PAGE = ROOT / "docs/how-to/publish-over-http.md"
FILES = {block.info["file"]: block.text for block in blocks(PAGE) if "file" in block.info}
RUN = {"publish.py": [sys.executable], "publish.mjs": ["node"], "publish.go": ["go", "run"]}
EVENT_IDS = {"publish.py": "like-python", "publish.mjs": "like-node", "publish.go": "like-go"}
BUSY = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 0\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


async def run(url: str, folder: Path, *command: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr."""
    given = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=folder,
        env=given | {"NOTIFIER_API": url, "NOTIFIER_KEY": PUBLISH, "GOCACHE": str(folder / "go")},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    return process.returncode or 0, out.decode(), err.decode()


def test_what_the_page_publishes_can_be_rendered_too() -> None:
    """Who follows the page has a `notifier dev` that would show a dead letter."""
    bodies = [json.loads(body) for body in re.findall(r"-d '(.*)'", PAGE.read_text())]
    events = [event for body in bodies for event in (body if isinstance(body, list) else [body])]
    given = [event.get("data", event) for event in events if event.get("type", "like") == "like"]
    assert len(given) == 6
    assert all("photo_title" in data for data in given)
    assert all("photo_title" in program for program in FILES.values())


@asynccontextmanager
async def busy_at_first(api: Api) -> AsyncIterator[tuple[str, list[int]]]:
    """A proxy that cuts the first connection, and answers the second with 503. Yields its URL and a list with
    an entry for each connection."""
    upstream = urlsplit(api.url)
    came: list[int] = []

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        came.append(len(came))
        if len(came) == 1:
            await reader.readuntil(b"\r\n\r\n")
            writer.transport.abort()
        elif len(came) == 2:
            head = await reader.readuntil(b"\r\n\r\n")
            rows = head.lower().split(b"\r\n")
            await reader.readexactly(next(int(row[15:]) for row in rows if row.startswith(b"content-length")))
            writer.write(BUSY)
            await writer.drain()
        else:
            up_reader, up_writer = await asyncio.open_connection(upstream.hostname, upstream.port)
            back = asyncio.create_task(copy(up_reader, writer))
            await copy(reader, up_writer)
            up_writer.close()
            await back

    async with Listener(serve) as listener:
        yield f"http://127.0.0.1:{listener.port}", came


@pytest.mark.slow
@pytest.mark.parametrize("name", RUN)
async def test_each_client_publishes_although_the_api_is_away_and_busy_at_first(
    name: str, tmp_path: Path, redis_url: str
) -> None:
    program = RUN[name][0]
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")  # in CI too: Go is large
    (tmp_path / name).write_text(FILES[name])
    async with serving(redis_url) as api, busy_at_first(api) as (url, came):
        code, out, err = await run(url, tmp_path, *RUN[name], name)
    assert code == 0, err
    assert len(came) == 3
    assert EVENT_IDS[name] in out
    assert pairs(redis_url) == [(EVENT_IDS[name], "u-1042")]


@pytest.mark.slow
@pytest.mark.parametrize("name", RUN)
async def test_each_client_fails_at_once_when_it_is_refused(
    name: str, tmp_path: Path, redis_url: str
) -> None:
    program = RUN[name][0]
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")
    (tmp_path / name).write_text(FILES[name].replace('"u-1042"', '""'))
    async with serving(redis_url) as api:
        code, out, err = await run(api.url, tmp_path, *RUN[name], name)
    assert (code, out) == (1, "")
    assert "422" in err
    assert pairs(redis_url) == []


async def test_each_curl_prints_what_is_shown(tmp_path: Path, redis_url: str) -> None:
    if shutil.which("curl") is None:
        if os.environ.get("CI"):
            pytest.fail("CI must have curl")
        pytest.skip("curl is not installed")
    shown = [command for block in blocks(PAGE) if block.language == "console" for command in commands(block)]
    assert len(shown) == 5
    async with serving(redis_url) as api:
        for command in shown:
            code, out, err = await run(api.url, tmp_path, "sh", "-c", command.text)
            assert (code, err) == (0, ""), command.where
            assert out.strip() == command.output.strip(), command.where
