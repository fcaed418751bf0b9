"""What the documents tell readers to type is typed, and what they show is what comes out."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
import redis

from notifier.keys import Keys
from notifier.local.broker import EmbeddedBroker, free_port
from notifier.local.dev import PORTS
from tests.docs.blocks import ROOT
from tests.docs.reader import DEV_PORT, Reader
from tests.support.ports import free_row

DOCS = ROOT / "docs"
QUICK = {"NOTIFIER_DLQ_DELAY": "1s", "NOTIFIER_ALERT_INTERVAL": "1s"}
"""A reader may wait for ten seconds; a test need not."""


def ports() -> dict[int, int]:
    """Those that the documents name, with free ones for them."""
    first = free_row(PORTS + 1)
    return {DEV_PORT + n: first + n for n in range(PORTS)} | {9000: first + PORTS}


def need(*programs: str) -> None:
    """Skips the test where one is missing, and fails it in CI."""
    missing = [name for name in programs if shutil.which(name) is None]
    if missing and os.environ.get("CI"):
        pytest.fail(f"CI must have {', '.join(missing)}")
    if missing:
        pytest.skip(f"needs {', '.join(missing)}")


@pytest.mark.slow
@pytest.mark.timeout(150)
@pytest.mark.parametrize(
    "path",
    [
        "tutorial.md",
        "how-to/write-a-channel.md",
        "how-to/handle-dead-letters.md",
        "how-to/edit-templates.md",
        "how-to/embed-the-inbox.md",
    ],
)
def test_a_reader_can_follow_it_with_notifier_dev(path: str, tmp_path: Path) -> None:
    if "embed" in path:
        need("node", "curl", "openssl")
    with Reader(tmp_path, ports(), **QUICK) as reader:
        assert reader.follow(DOCS / path) >= 5


@pytest.mark.slow
def test_the_demo_prints_what_the_readme_shows(
    tmp_path: Path, broker: EmbeddedBroker, redis_url: str
) -> None:
    with Reader(tmp_path, {DEV_PORT: broker.port}) as reader:
        assert reader.follow(ROOT / "README.md") >= 2
    with redis.Redis.from_url(redis_url) as client:
        keys = Keys()
        [[_, fields]] = client.xrange(keys.queue("events", keys.partition_of("u42")))
    assert b'"type":"like"' in fields[b"event"]


@pytest.mark.usefixtures("redis_url")
@pytest.mark.parametrize("path", ["reference/events.md"])
def test_the_snippets_of_a_reference_run(path: str, tmp_path: Path, broker: EmbeddedBroker) -> None:
    with Reader(tmp_path, {DEV_PORT: broker.port}) as reader:
        assert reader.follow(DOCS / path) >= 1


@pytest.mark.slow
@pytest.mark.usefixtures("redis_url")
def test_a_reader_can_follow_the_way_to_production(tmp_path: Path, broker: EmbeddedBroker) -> None:
    with Reader(tmp_path, {DEV_PORT: broker.port, 8080: free_port()}) as reader:
        assert reader.follow(DOCS / "how-to/run-in-production.md") >= 6
