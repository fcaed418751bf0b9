"""Each alert has a page, and what the pages tell to type works."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import yaml

from notifier.local.broker import EmbeddedBroker, free_port
from tests.docs.blocks import ROOT, blocks
from tests.docs.reader import DEV_PORT, Reader
from tests.observability.declared import series
from tests.observability.rules import RULES, promtool, rules

WATCH_IT = ROOT / "docs/how-to/watch-it.md"
RUNBOOKS = ROOT / "docs/runbooks"
PAGES = sorted(RUNBOOKS.glob("*.md"))

_WORDS = re.compile(r"\b[a-z_]+(?:_[a-z]+)+\b|\bup\b")
_NOT_SERIES = {"histogram_quantile", "on", "by", "absent", "label_replace"}


def metrics_of(query: str) -> set[str]:
    """The names of series in a query: neither labels nor functions."""
    query = query.replace("$__rate_interval", "5m")
    bare = re.sub(r"\{[^}]*\}|\b(?:by|on|without|ignoring) ?\([^)]*\)|\"[^\"]*\"", "", query)
    return {word for word in _WORDS.findall(bare) if word not in _NOT_SERIES}


def test_the_rules_are_sound() -> None:
    done = subprocess.run(
        [promtool(), "check", "rules", str(RULES)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_rules_ask_for_metrics_that_exist() -> None:
    for rule in rules():
        assert metrics_of(rule.expr) <= series(), rule.name
        assert metrics_of(rule.expr), rule.name


def test_every_alert_says_what_it_is_and_where_its_page_is() -> None:
    for rule in rules():
        assert rule.labels["severity"] in {"critical", "warning"}
        assert rule.annotations.keys() == {"summary", "description", "runbook"}
        assert (ROOT / rule.annotations["runbook"]).stem == rule.name
    assert {rule.name for rule in rules()} == {page.stem for page in PAGES}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_says_what_it_means_what_to_look_at_and_do_and_when_it_is_over(page: Path) -> None:
    text = page.read_text()
    assert text.startswith(f"# {page.stem}\n\n")
    assert re.findall(r"^## (.*)$", text, re.MULTILINE) == ["Look", "Do", "It is over"]
    assert len(text.partition("## Look")[0]) > 150


def test_the_how_to_lists_every_alert_with_its_severity() -> None:
    rows = re.findall(
        r"^\| \[(\w+)\]\(\.\./runbooks/(\w+)\.md\) \| (\w+) \|$", WATCH_IT.read_text(), re.MULTILINE
    )
    assert rows == [(rule.name, rule.name, rule.labels["severity"]) for rule in rules()]


def test_queries_of_the_pages_can_be_asked(tmp_path: Path) -> None:
    queries = [
        (block.where, block.text)
        for page in [*PAGES, WATCH_IT]
        for block in blocks(page)
        if block.language == "promql"
    ]
    assert len(queries) > 5
    for where, query in queries:
        assert metrics_of(query) <= series(), where
    asked = [{"record": f"asked:{number}", "expr": query} for number, (_, query) in enumerate(queries)]
    file = tmp_path / "asked.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "asked", "rules": asked}]}))
    done = subprocess.run(
        [promtool(), "check", "rules", str(file)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.usefixtures("redis_url")
@pytest.mark.timeout(120)
def test_what_the_pages_tell_to_type_works(tmp_path: Path, broker: EmbeddedBroker) -> None:
    with Reader(tmp_path, {DEV_PORT: broker.port}) as reader:
        for page in PAGES:
            if "```console" in page.read_text():
                assert reader.follow(page) >= 1, page


@pytest.mark.slow
@pytest.mark.usefixtures("redis_url")
def test_a_reader_can_follow_the_how_to(tmp_path: Path, broker: EmbeddedBroker) -> None:
    with Reader(tmp_path, {DEV_PORT: broker.port, 9464: free_port()}) as reader:
        assert reader.follow(WATCH_IT) >= 4


def test_the_scrape_configuration_of_the_how_to_is_sound(tmp_path: Path) -> None:
    [text] = [
        block.text
        for block in blocks(WATCH_IT)
        if block.language == "yaml" and "scrape_configs" in block.text
    ]
    (tmp_path / "alerts.yaml").write_text(RULES.read_text())
    (tmp_path / "key").write_text("k" * 32)
    (tmp_path / "prometheus.yaml").write_text(
        text.replace("/etc/prometheus/notifier-key", str(tmp_path / "key"))
    )
    done = subprocess.run(
        [promtool(), "check", "config", str(tmp_path / "prometheus.yaml")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
