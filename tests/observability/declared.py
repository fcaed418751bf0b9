"""Every metric that the code declares, with its type and labels."""

from __future__ import annotations

from collections import Counter as Count
from types import ModuleType
from typing import Any, NamedTuple

from prometheus_client.metrics import MetricWrapperBase

from notifier import metrics
from notifier.api import events, middleware
from notifier.operations.exposition import BrokerMetrics, BrokerState
from notifier.operations.queues import QueueState

_MODULES: tuple[ModuleType, ...] = (metrics, middleware, events)


class Metric(NamedTuple):
    """As it is scraped: a counter ends with `_total`."""

    name: str
    kind: str
    labels: tuple[str, ...]


def _name(name: str, kind: str) -> str:
    return f"{name}_total" if kind == "counter" else name


def counted() -> list[Metric]:
    """What processes count, from the objects of the modules that declare it."""
    found = []
    for module in _MODULES:
        for thing in vars(module).values():
            if isinstance(thing, MetricWrapperBase):
                [family] = thing.describe()
                found.append(Metric(_name(family.name, family.type), family.type, tuple(thing._labelnames)))  # noqa: SLF001 - it has no other way to ask
            elif isinstance(thing, metrics.Histogram):
                found.append(Metric(thing.name, "histogram", (thing.label,)))
    return found


def seen() -> list[Metric]:
    """What lies in the broker."""
    queue = QueueState("events", 1, 1, 1, 1, True, 1, 1, 1, 1, Count(), Count())
    state = BrokerState(is_up=True, partitions=1, queues=[queue], memory={"primary": (1, 2)})
    found = []
    for family in BrokerMetrics(state).collect():
        labels: Any = family.samples[0].labels
        found.append(Metric(_name(family.name, family.type), family.type, tuple(labels)))
    return found


def series() -> set[str]:
    """Every name that a query may use, those of the client library included."""
    names = {
        "up", "process_start_time_seconds", "process_cpu_seconds_total", "process_resident_memory_bytes",
        "process_open_fds", "process_max_fds",
    }  # fmt: skip
    for metric in [*counted(), *seen()]:
        if metric.kind == "histogram":
            names |= {f"{metric.name}_{part}" for part in ("bucket", "sum", "count")}
        else:
            names.add(metric.name)
    return names
