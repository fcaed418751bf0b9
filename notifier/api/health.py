"""Whether the process lives and can do its work, and what it has counted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

from fastapi import APIRouter, Response
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.registry import Collector

from notifier.api.access import SeesMetrics
from notifier.api.problems import responses
from notifier.api.shared import Parts
from notifier.broker.scripts import ask
from notifier.errors import BrokerError, BrokerUnavailable
from notifier.operations.queues import QueueState, look

router = APIRouter(tags=["health"])

_OK: Final = {
    "content": {
        "application/json": {
            "schema": {"type": "object", "properties": {"status": {"const": "ok"}}, "required": ["status"]},
            "example": {"status": "ok"},
        }
    }
}


@router.get(
    "/livez",
    summary="The process lives",
    response_model=None,
    responses={200: {"description": "It answers", **_OK}},
)
async def livez() -> dict[str, str]:
    return {"status": "ok"}


@router.get(
    "/readyz",
    summary="The broker can be reached",
    response_model=None,
    responses={200: {"description": "It can do its work", **_OK}, **responses(503)},
)
async def readyz(parts: Parts) -> dict[str, str]:
    """503 while the broker is away, and while the server is stopping. Templates do not matter."""
    if parts.stopping.is_set():
        raise BrokerUnavailable("the server is stopping")
    await ask(parts.runtime.client, ("HGET", parts.runtime.keys.meta(), "partitions"))
    return {"status": "ok"}


@router.get(
    "/metrics",
    summary="What has been counted, for Prometheus",
    dependencies=[SeesMetrics],
    response_class=Response,
    responses={
        200: {
            "description": "Metrics",
            "content": {CONTENT_TYPE_PLAIN_0_0_4: {"schema": {"type": "string"}}},
        },
        **responses(401, 403),
    },
)
async def metrics(parts: Parts) -> Response:
    """Those of this process, and what lies in the queues, which every process of the API tells alike. While
    the broker is away the queues are left out."""
    try:
        states = await look(parts.runtime.client, parts.runtime.keys, tuple(parts.channels))
    except BrokerError:
        states = []
    queues = CollectorRegistry()
    queues.register(_Queues(states))
    return Response(generate_latest() + generate_latest(queues), media_type=CONTENT_TYPE_PLAIN_0_0_4)


class _Queues(Collector):
    def __init__(self, states: Sequence[QueueState]) -> None:
        self._states = states

    def collect(self) -> Iterator[Any]:
        entries = GaugeMetricFamily(
            "notifier_queue_entries", "What lies in a queue, by where it is.", labels=["queue", "state"]
        )
        oldest = GaugeMetricFamily(
            "notifier_queue_oldest_seconds", "How long the oldest entry has waited.", labels=["queue"]
        )
        for state in self._states:
            for name in ("waiting", "in_hand", "parked", "scheduled", "dlq", "dead"):
                if (count := getattr(state, name)) is not None:
                    entries.add_metric([state.queue, name], count)
            oldest.add_metric([state.queue], (state.oldest_ms or 0) / 1000)
        yield entries
        yield oldest
