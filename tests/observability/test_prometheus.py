"""A real Prometheus with the configuration of the how-to scrapes real processes and loads the rules."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from notifier.local.broker import end_with_parent, free_port
from tests.docs.blocks import ROOT, blocks
from tests.observability.installation import KEY, Installation
from tests.observability.rules import RULES, rules
from tests.support.topologies import wait

WATCH_IT = ROOT / "docs/how-to/watch-it.md"
OPERATOR = "o" * 32


def prometheus() -> str:
    """Skips the test where it is not installed, and fails it in CI."""
    found = shutil.which("prometheus")
    if found is None:
        if os.environ.get("CI"):
            pytest.fail("CI must have prometheus: .ci/run installs it")
        pytest.skip("prometheus is not installed")
    return found


@contextmanager
def scraping(config: dict[str, Any], folder: Path) -> Iterator[httpx.Client]:
    """Prometheus with this configuration; a client of its API."""
    file, port = folder / "prometheus.yml", free_port()
    file.write_text(yaml.safe_dump(config))
    parent = os.getpid()
    with (folder / "prometheus.log").open("wb") as said:
        process = subprocess.Popen(
            [
                prometheus(), f"--config.file={file}", f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stdin=subprocess.DEVNULL, stdout=said, stderr=said,
            preexec_fn=lambda: end_with_parent(parent),  # noqa: PLW1509 - no thread is needed in the child
        )  # fmt: skip
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}/api/v1", timeout=10, trust_env=False) as client:
            yield client
    finally:
        process.terminate()
        process.wait(20)


def asked(client: httpx.Client, path: str, **query: str) -> Any:
    """The data of an answer; nothing while Prometheus starts."""
    with suppress(httpx.TransportError):
        answer = client.get(path, params=query)
        if answer.status_code == 200:
            return answer.json()["data"]
    return None


def value(client: httpx.Client, query: str) -> float | None:
    data = asked(client, "/query", query=query)
    return float(data["result"][0]["value"][1]) if data and data["result"] else None


def shown_config() -> dict[str, Any]:
    [text] = [b.text for b in blocks(WATCH_IT) if b.language == "yaml" and "scrape_configs" in b.text]
    config: dict[str, Any] = yaml.safe_load(text)
    return config


@pytest.mark.slow
def test_it_scrapes_with_the_key_and_knows_every_rule(redis_url: str, tmp_path: Path) -> None:
    prometheus()
    installation = Installation(redis_url, tmp_path, free_port)
    closed = {"NOTIFIER_METRICS_OPEN": "false", "NOTIFIER_API_KEYS": f"publish:{KEY},operate:{OPERATOR}"}
    try:
        targets = [installation.start(*what, **closed) for what in (("api",), ("worker", "all"))]
        installation.publish(5)
        (tmp_path / "key").write_text(OPERATOR)
        config = shown_config()
        [job] = config["scrape_configs"]
        job["scrape_interval"] = "200ms"
        job["scrape_timeout"] = "200ms"
        job["authorization"]["credentials_file"] = str(tmp_path / "key")
        job["static_configs"] = [{"targets": [f"127.0.0.1:{target.port}" for target in targets]}]
        config["rule_files"] = [str(RULES)]
        config["global"] = {"evaluation_interval": "200ms"}
        with scraping(config, tmp_path) as client:
            wait(lambda: value(client, 'sum(up{job="notifier"})') == 2, "both are scraped")
            wait(lambda: value(client, "sum(notifier_delivery_seconds_count)") == 5, "five deliveries")
            added = 'max(notifier_queue_added_total{queue="events"})'
            wait(lambda: value(client, added) == 5, "five events")  # a scrape that came too late has no value
            wait(lambda: all(rule["health"] == "ok" for rule in loaded(client)), "each rule was evaluated")
            assert [rule["name"] for rule in loaded(client)] == [rule.name for rule in rules()]
            (tmp_path / "key").write_text(KEY)
            # One that came too late counts as down as well, with another error.
            refused = {"server returned HTTP status 403 Forbidden"}
            wait(lambda: errors(client) == refused, "another key is refused")
            wait(lambda: value(client, "sum(up)") == 0, "so both count as down")
    finally:
        installation.close()


def errors(client: httpx.Client) -> set[str]:
    """Those of the last scrapes."""
    data = asked(client, "/targets")
    return {target["lastError"] for target in data["activeTargets"]} if data else set()


def loaded(client: httpx.Client) -> list[dict[str, Any]]:
    data = asked(client, "/rules")
    found: list[dict[str, Any]] = (
        data["groups"][0]["rules"] if data and data["groups"] else [{"health": "unknown"}]
    )
    return found
