"""What KEDA and the HorizontalPodAutoscaler make of a ScaledObject, from the rendered object itself.

KEDA asks each trigger's URL and hands the number to an HPA of the target type AverageValue. The HPA takes the
largest wish, within the limits and the rates of `behavior`
(https://kubernetes.io/docs/tasks/run-application/horizontal-pod-autoscale).
"""

from __future__ import annotations

import math
import re
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families

from tests.support.manifests import Doc

_TOLERANCE = 0.1
_SELECTOR = re.compile(r'(?P<name>\w+)\{(?P<labels>(?:\w+="[^"]*",?)*)\}')


def metric(text: str, location: str) -> float:
    """The value that `valueLocation` names in a page of metrics. Raises LookupError."""
    found = _SELECTOR.fullmatch(location)
    assert found, location
    wanted = dict(re.findall(r'(\w+)="([^"]*)"', found["labels"]))
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == found["name"] and wanted.items() <= sample.labels.items():
                return float(sample.value)
    raise LookupError(location)


class Autoscaler:
    """Time runs `speed` times faster for it: it looks more often and waits less. Numbers stay the same."""

    def __init__(
        self,
        scaled: Doc,
        resolve: Callable[[str], str],
        *,
        speed: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.spec: Mapping[str, Any] = scaled["spec"]
        self.target: str = self.spec["scaleTargetRef"]["name"]
        self.pause: float = self.spec["pollingInterval"] / speed
        self._resolve = resolve
        self._speed = speed
        self._clock = clock
        behavior = self.spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
        self._up, self._down = behavior["scaleUp"], behavior["scaleDown"]
        self._wishes: deque[tuple[float, int]] = deque()
        self._changes: deque[tuple[float, int]] = deque()

    async def signals(self, client: httpx.AsyncClient) -> list[float]:
        """What each trigger tells now."""
        found = []
        for trigger in self.spec["triggers"]:
            given = trigger["metadata"]
            assert (trigger["type"], given["format"]) == ("metrics-api", "prometheus")
            answer = await client.get(self._resolve(given["url"]))
            answer.raise_for_status()
            found.append(metric(answer.text, given["valueLocation"]))
        return found

    def wish(self, signals: list[float], replicas: int) -> int:
        """How many replicas the numbers ask for, within the limits."""
        wishes = []
        for trigger, value in zip(self.spec["triggers"], signals, strict=True):
            assert trigger["metricType"] == "AverageValue"
            target = float(trigger["metadata"]["targetValue"])
            is_near = replicas and abs(value / (target * replicas) - 1) <= _TOLERANCE
            wishes.append(replicas if is_near else math.ceil(value / target))
        least, most = self.spec["minReplicaCount"], self.spec["maxReplicaCount"]
        return int(min(most, max(least, *wishes)))

    def decide(self, signals: list[float], replicas: int) -> int:
        """How many replicas there shall be now."""
        now, wish = self._clock() * self._speed, self.wish(signals, replicas)
        self._wishes.append((now, wish))
        window = self._down["stabilizationWindowSeconds"]
        while self._wishes[0][0] < now - window:
            self._wishes.popleft()
        if wish > replicas:
            decided = min(wish, replicas + self._left(self._up, now, replicas, 1))
        else:
            settled = min(replicas, max(wish for _, wish in self._wishes))
            decided = max(settled, replicas - self._left(self._down, now, replicas, -1))
        if decided != replicas:
            self._changes.append((now, decided - replicas))
        return decided

    def _left(self, rules: Mapping[str, Any], now: float, replicas: int, sign: int) -> int:
        """How many pods may still come or go; the policy that allows most counts."""
        allowed = []
        for policy in rules["policies"]:
            since = now - policy["periodSeconds"]
            changed = sum(abs(n) for at, n in self._changes if at > since and n * sign > 0)
            most = policy["value"]
            if policy["type"] == "Percent":
                most = math.ceil((replicas - sign * changed) * policy["value"] / 100)
            allowed.append(max(0, most - changed))
        return max(allowed)
