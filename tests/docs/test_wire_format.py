"""What docs/reference/wire-format.md says is enough to publish from another language."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import subprocess
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import redis

from channels.in_app import open_channel
from notifier.bootstrap import open_runtime, open_templates, open_worker
from notifier.broker.entries import DELIVERY_FIELDS, EVENT_FIELDS, FAILURE_FIELDS, DeliveryEntry
from notifier.inbox import Inbox, StoredEntry
from notifier.keys import Keys
from notifier.settings import Settings
from tests.docs.blocks import ROOT
from tests.support.waiting import until

PAGE = (ROOT / "docs/reference/wire-format.md").read_text()
LIKE = {"type": "like", "data": {"photo_title": "Harbour", "url": "https://app.example.com/p/1"}}


@asynccontextmanager
async def working(url: str, templates: Path) -> AsyncIterator[Inbox]:
    """A worker with the channel in_app."""
    settings = Settings(redis_url=url, templates=templates)
    channels = {"in_app": open_channel({})}
    async with (
        open_runtime(settings) as runtime,
        open_worker(runtime, channels, open_templates(settings, channels), ["router", "in_app"]) as worker,
    ):
        stop = asyncio.Event()
        task = asyncio.create_task(worker.run(stop))
        try:
            yield runtime.inbox
        finally:
            stop.set()
            await task


async def arrived(inbox: Inbox, recipient: str, count: int = 1) -> list[StoredEntry]:
    async def entries() -> list[StoredEntry]:
        found = list((await inbox.list(recipient)).entries)
        return found if len(found) >= count else []

    return await until(entries)


def test_the_check_vectors_hold() -> None:
    rows = re.findall(r"^\| `(.+?)` \| (\d+) \| (\d+) \| `(\{ntf:\d\d\}:events)` \|$", PAGE, re.MULTILINE)
    assert len(rows) > 5
    keys = Keys("ntf", 16)
    for recipient, crc, partition, stream in rows:
        assert keys.partition_of(recipient) == int(partition) == int(crc) % 16
        assert zlib.crc32(recipient.encode()) == int(crc)
        assert keys.queue("events", int(partition)) == stream


def test_the_fields_stand_there_in_the_order_of_the_code() -> None:
    table = PAGE.partition("## 3.")[2].partition("```")[0]
    assert tuple(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == tuple(
        n.decode() for n in EVENT_FIELDS
    )
    internal = PAGE.partition("## Internal entries")[2]
    assert "fields `head` and `event`" in internal
    assert tuple(name.decode() for name in DELIVERY_FIELDS) == ("head", "event")
    lines = re.findall(r"^\| (\d) \| ", internal, re.MULTILINE)
    assert [int(line) for line in lines] == list(range(1, len(DeliveryEntry._fields) + 1))
    assert ", ".join(f"`{name.decode()}`" for name in FAILURE_FIELDS) in " ".join(internal.split())


async def test_the_entry_of_the_page_becomes_a_notification(redis_url: str, templates_folder: Path) -> None:
    [line] = re.findall(r"^XADD .*$", PAGE, re.MULTILINE)
    name, stream, entry_id, *fields = line.split(" ")
    assert dict(zip(fields[::2], fields[1::2], strict=True)).keys() == {"v", "to", "event"}
    async with working(redis_url, templates_folder) as inbox:
        with redis.Redis.from_url(redis_url) as client:
            client.execute_command(name, stream, entry_id, *fields)
        [stored] = await arrived(inbox, "ada")
    assert stored.entry.title == "Someone liked your photo"


# Node.


def node() -> str:
    found, package = shutil.which("node"), ROOT / ".peers/node_modules/redis"
    if found and package.is_dir():
        return found
    reason = "Node.js and the npm package redis in .peers are needed; `.ci/run` installs them"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture
def publish_from_node(redis_url: str, tmp_path: Path) -> Any:
    """Runs examples/publish.mjs with events on stdin; returns the lines that it prints."""
    program = node()
    shutil.copy(ROOT / "examples/publish.mjs", tmp_path)
    (tmp_path / "node_modules").symlink_to(ROOT / ".peers/node_modules")

    async def run(*events: dict[str, Any], once: bool = False) -> list[str]:
        arguments = ["--once", str(ROOT / "notifier/broker/lua")] if once else []
        done = await asyncio.to_thread(
            subprocess.run,
            [program, tmp_path / "publish.mjs", *arguments],
            input="\n".join(map(json.dumps, events)),
            env={"PATH": os.environ["PATH"], "NOTIFIER_REDIS_URL": redis_url},
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    return run


async def test_node_publishes_and_the_entry_arrives(
    publish_from_node: Any, redis_url: str, templates_folder: Path
) -> None:
    recipients = ["ada", {"id": "bob", "locale": "de"}, "{odd}", "用户-7"]
    async with working(redis_url, templates_folder) as inbox:
        await publish_from_node({**LIKE, "recipients": recipients, "actor": {"id": "u7", "name": "Grace"}})
        titles = [(await arrived(inbox, name))[0].entry.title for name in ("ada", "bob", "{odd}", "用户-7")]
    liked = "Grace liked your photo"
    assert titles == [liked, "Grace gefällt dein Foto", liked, liked]


async def test_node_with_the_script_publishes_once(
    publish_from_node: Any, redis_url: str, templates_folder: Path
) -> None:
    event = {**LIKE, "id": "like-👍", "recipients": ["ada", "bob"]}
    async with working(redis_url, templates_folder) as inbox:
        assert await publish_from_node(event, event, once=True) == ["accepted for 2", "accepted for 0"]
        assert len(await arrived(inbox, "ada")) == 1
    with redis.Redis.from_url(redis_url) as client:  # the same keys as ours, so both know each other's events
        assert client.hexists(Keys().seen(8, "like-👍"), "ada")
