"""Whether the process lives and can do its work, and what it has counted."""

from __future__ import annotations

from typing import Final

from fastapi import APIRouter, Response

from notifier.api.access import SeesMetrics
from notifier.api.problems import responses
from notifier.api.shared import Parts
from notifier.broker import meta
from notifier.broker.scripts import ask
from notifier.errors import BrokerUnavailable
from notifier.operations.exposition import CONTENT_TYPE, exposition

router = APIRouter(tags=["health"])

_OK: Final = {
    "content": {
        "application/json": {
            "schema": {"type": "object", "properties": {"status": {"const": "ok"}}, "required": ["status"]},
            "example": {"status": "ok"},
        }
    }
}


# Load balancers and monitors ask with HEAD: as GET, and the server leaves the body out.
@router.head("/livez", include_in_schema=False)
@router.get(
    "/livez",
    summary="The process lives",
    response_model=None,
    responses={200: {"description": "It answers", **_OK}},
)
async def livez() -> dict[str, str]:
    """200, whatever the broker does, and however many connections there are."""
    return {"status": "ok"}


@router.head("/readyz", include_in_schema=False, response_model=None)
@router.get(
    "/readyz",
    summary="The broker can be reached",
    response_model=None,
    responses={200: {"description": "It can do its work", **_OK}, **responses(503)},
)
async def readyz(parts: Parts) -> dict[str, str]:
    """503 while the broker is away, while the server is stopping, and once the number of partitions has been
    changed behind its back. Templates do not matter."""
    if parts.stopping.is_set():
        raise BrokerUnavailable("the server is stopping")
    [reply] = await ask(parts.runtime.client, meta.lookup(parts.runtime.keys))
    meta.check(parts.runtime.keys, reply)
    return {"status": "ok"}


@router.head("/metrics", include_in_schema=False, dependencies=[SeesMetrics], response_class=Response)
@router.get(
    "/metrics",
    summary="What has been counted, for Prometheus",
    dependencies=[SeesMetrics],
    response_class=Response,
    responses={
        200: {
            "description": "Metrics",
            "content": {CONTENT_TYPE: {"schema": {"type": "string"}}},
        },
        **responses(401, 403),
    },
)
async def metrics(parts: Parts) -> Response:
    """Those of this process, and what lies in the queues, which every process of the API tells alike. While
    the broker is away the queues are left out."""
    text = await exposition(parts.runtime.client, parts.runtime.keys, tuple(parts.channels))
    return Response(text, media_type=CONTENT_TYPE)
