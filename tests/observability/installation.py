"""An installation of real processes, and what Prometheus would scrape of it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families

from notifier import Publisher
from notifier.local.broker import end_with_parent
from tests.docs.blocks import ROOT
from tests.support.topologies import wait

Labels = tuple[tuple[str, str], ...]


class Scrape(dict[tuple[str, Labels], float]):
    """Name and labels of each series, with its value."""

    def values_of(self, name: str, labels: Mapping[str, str]) -> list[float]:
        wanted = set(labels.items())
        return [value for (one, has), value in self.items() if one == name and wanted <= set(has)]

    def total(self, name: str, **labels: str) -> float:
        """The sum over processes, and over the labels that are not given."""
        return sum(self.values_of(name, labels))

    def most(self, name: str, **labels: str) -> float:
        """The maximum over processes, and over the labels that are not given."""
        return max(self.values_of(name, labels), default=0.0)

    @property
    def is_served(self) -> bool:
        """Every partition of every queue has an owner."""
        unowned = self.values_of("notifier_partitions_without_owner", {})
        return bool(unowned) and not any(unowned)


KEY = "k" * 32
_JOB = "notifier"
_SETTINGS = {
    "NOTIFIER_CHANNELS": "tests.observability.troubled:open_channel",
    "NOTIFIER_API_KEYS": f"publish:{KEY}",
    "NOTIFIER_METRICS_OPEN": "true",
    "NOTIFIER_PARTITIONS": "4",
    "NOTIFIER_LEASE_TTL": "5s",  # no lease may run out while the machine stands still for a moment
    "NOTIFIER_RETRY_BASE": "1h",
    "NOTIFIER_DLQ_DELAY": "1h",
    "NOTIFIER_LOG_LEVEL": "warning",
}


@dataclass(slots=True)
class Target:
    """A process with a port, as Prometheus knows it: its `instance` outlives a restart."""

    arguments: tuple[str, ...]
    port: int
    environ: Mapping[str, str]
    log: Path
    process: subprocess.Popen[bytes] = field(init=False)

    def start(self) -> None:
        parent = os.getpid()
        with self.log.open("ab") as said:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "notifier.cli", *self.arguments, "--port", str(self.port)],
                cwd=ROOT,
                env=self.environ,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                preexec_fn=lambda: end_with_parent(parent),  # noqa: PLW1509 - no thread is needed in the child
            )
        wait(lambda: self._status("/readyz") == 200, f"{self.arguments} is ready: {self.log.read_text()}")

    def _status(self, path: str) -> int:
        with suppress(httpx.TransportError):
            return self.get(path).status_code
        assert self.process.poll() is None, self.log.read_text()
        return 0

    def get(self, path: str) -> httpx.Response:
        return httpx.get(f"http://127.0.0.1:{self.port}{path}", timeout=10, trust_env=False)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        self.process.send_signal(number)
        self.process.wait(20)

    def scrape(self) -> Scrape:
        """Its series with the labels that Prometheus adds, and `up`."""
        mine = {"job": _JOB, "instance": f"127.0.0.1:{self.port}"}
        found = Scrape()
        try:
            text = self.get("/metrics").raise_for_status().text
        except httpx.TransportError:
            text = ""
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                found[sample.name, _sorted({**sample.labels, **mine})] = sample.value
        found["up", _sorted(mine)] = float(bool(text))
        return found


def _sorted(labels: Mapping[str, str]) -> Labels:
    return tuple(sorted(labels.items()))


class Installation:
    """Processes on one broker, with one event type and the channel of `tests.observability.troubled`."""

    def __init__(self, url: str, folder: Path, free_port: Any) -> None:
        self.url = url
        self.template = folder / "types" / "like" / "post.jinja"
        self.targets: list[Target] = []
        self._folder = folder
        self._free_port = free_port
        self._troubles = folder / "troubles"
        self._troubles.mkdir()
        self.template.parent.mkdir(parents=True)
        self.mend_template()

    def mend_template(self) -> None:
        self.template.write_text("{% block body %}{{ data.text }}{% endblock %}")

    def environ(self, **settings: str) -> dict[str, str]:
        mine = {
            "NOTIFIER_REDIS_URL": self.url,
            "NOTIFIER_TEMPLATES": str(self.template.parent.parent),
            "TROUBLE": str(self._troubles),
        }
        kept = {name: value for name, value in os.environ.items() if not name.startswith("NOTIFIER_")}
        return kept | _SETTINGS | mine | settings

    def start(self, *arguments: str, **settings: str) -> Target:
        """`notifier worker ROLE…` or `notifier api`, which answers when this returns."""
        log = self._folder / f"process-{len(self.targets)}.log"
        target = Target(arguments, self._free_port(), self.environ(**settings), log)
        self.targets.append(target)
        target.start()
        return target

    def begin(self, trouble: str) -> None:
        (self._troubles / trouble).touch()

    def end(self, trouble: str) -> None:
        (self._troubles / trouble).unlink()

    def publish(self, count: int = 1, **data: str) -> None:
        with Publisher(self.url) as publisher:
            publisher.publish_many(
                {"type": "like", "recipient": f"u{n}", "data": data or {"text": "hello"}}
                for n in range(count)
            )

    def run(self, *arguments: str) -> Any:
        """A command that prints JSON."""
        done = subprocess.run(
            [sys.executable, "-m", "notifier.cli", *arguments, "--json"],
            cwd=ROOT, env=self.environ(), capture_output=True, text=True, check=True, timeout=30,
        )  # fmt: skip
        return [json.loads(line) for line in done.stdout.splitlines()]

    def scrape(self) -> Scrape:
        """Of all processes together."""
        found = Scrape()
        for target in self.targets:
            found.update(target.scrape())
        return found

    def until(self, condition: Callable[[Scrape], object], what: str) -> Scrape:
        """The first scrape for which the condition holds."""
        found = Scrape()

        def holds() -> object:
            nonlocal found
            found = self.scrape()
            return condition(found)

        wait(holds, what)
        return found

    def close(self) -> None:
        for target in self.targets:
            target.process.send_signal(signal.SIGCONT)
            target.process.kill()
            target.process.wait()
