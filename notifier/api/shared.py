"""What the routes share: the runtime, the publisher, and the sign that the server is stopping."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated

from fastapi import Depends, Request

from notifier.api.catalogue import CurrentCatalogue
from notifier.bootstrap import Runtime
from notifier.channel import Channel
from notifier.live import Live
from notifier.publisher import AsyncPublisher


@dataclass(frozen=True, slots=True)
class Shared:
    """`channels` are not opened: they say which queues there are. `stopping` is set at SIGTERM, before
    connections are waited for; `live` is stopped then. `catalogue` says what recipients can mute."""

    runtime: Runtime
    publisher: AsyncPublisher
    channels: Mapping[str, Channel]
    live: Live
    catalogue: CurrentCatalogue
    stopping: asyncio.Event = field(default_factory=asyncio.Event)


async def _shared(request: Request) -> Shared:
    shared: Shared = request.app.state.shared
    return shared


Parts = Annotated[Shared, Depends(_shared)]
"""A route's parameter `parts: Parts`."""
