"""docs/reference/metrics.md has every metric of the code with its type and labels, and no other."""

from __future__ import annotations

import re

from notifier import metrics
from notifier.channel import DeliveryError
from tests.docs.blocks import ROOT
from tests.observability.declared import Metric, counted, seen

PAGE = (ROOT / "docs/reference/metrics.md").read_text()


def rows(text: str) -> list[Metric]:
    found = re.findall(r"^\| `(notifier_\w+)` \| (\w+) \| (.*?) \|", text, re.MULTILINE)
    return [Metric(name, kind, tuple(re.findall(r"`(\w+)`", labels))) for name, kind, labels in found]


def test_every_metric_is_documented_with_its_type_and_labels_and_no_other() -> None:
    assert sorted(rows(PAGE)) == sorted([*counted(), *seen()])


def test_what_is_seen_and_what_is_counted_are_told_apart() -> None:
    told_as_seen = {row.name for row in rows(PAGE.partition("## Queues")[2].partition("\n## ")[0])}
    assert told_as_seen == {metric.name for metric in seen()} - {"notifier_broker_up"}


def test_every_label_is_documented() -> None:
    table = PAGE.partition("## Labels")[2].partition("\n## ")[0]
    told = {
        name
        for cell in re.findall(r"^\| (`.*?) \|", table, re.MULTILINE)
        for name in re.findall(r"\w+", cell)
    }
    assert told == {label for metric in [*counted(), *seen()] for label in metric.labels}


def test_the_values_of_labels_that_the_code_fixes_are_documented() -> None:
    table = PAGE.partition("## Labels")[2].partition("\n## ")[0]
    values = dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", table, re.MULTILINE))
    assert set(re.findall(r"`(\w+)`", values["reason"])) == set(metrics.SKIPS)
    assert set(metrics.OUTCOMES) <= set(re.findall(r"`(\w+)`", values["outcome"]))


def test_every_outcome_of_a_channel_is_counted_from_the_start() -> None:
    def all_of(kind: type) -> set[str]:
        own = {kind.__name__} if kind.__module__ == "notifier.channel" else set()
        return own.union(*(all_of(one) for one in kind.__subclasses__()))

    assert set(metrics.OUTCOMES) == all_of(DeliveryError) - {"DeliveryError"} | {"TemplateError"}
