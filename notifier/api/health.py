"""Whether the process lives and can do its work, and what it has counted."""

from __future__ import annotations

from fastapi import APIRouter

from notifier.api.problems import responses
from notifier.api.shared import Parts
from notifier.broker.scripts import ask
from notifier.errors import BrokerUnavailable

router = APIRouter(tags=["health"])


@router.get("/livez", summary="The process lives")
async def livez() -> dict[str, str]:
    return {"status": "ok"}


@router.get("/readyz", summary="The broker can be reached", responses=responses(503))
async def readyz(parts: Parts) -> dict[str, str]:
    """503 while the broker is away, or while the server is stopping. Templates do not matter."""
    if parts.stopping.is_set():
        raise BrokerUnavailable("the server is stopping")
    await ask(parts.runtime.client, ("HGET", parts.runtime.keys.meta(), "partitions"))
    return {"status": "ok"}
