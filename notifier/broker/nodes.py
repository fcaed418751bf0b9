"""What is asked of each data server: of the one, or of every primary of a cluster."""

from __future__ import annotations

import asyncio
from typing import Any

from notifier.broker.cluster import Cluster
from notifier.broker.connection import Client
from notifier.broker.failures import broker_errors, translate
from notifier.broker.line import TIMEOUT, Command, exchange_on_lent
from notifier.broker.scripts import ask
from notifier.broker.url import Address

ONLY = "primary"
"""What the one server is called that is no node of a cluster."""


async def ask_each(client: Client, command: Command) -> dict[str, Any]:
    """The raw reply of each node by its name. Raises BrokerError when one of them gives none."""
    if not isinstance(client, Cluster):
        [reply] = await ask(client, command)
        return {ONLY: reply}
    await client.refresh_if_needed()
    nodes = sorted(client.primaries)
    replies = await asyncio.gather(*(_ask(client, node, command) for node in nodes))
    return {f"{node.host}:{node.port}": reply for node, reply in zip(nodes, replies, strict=True)}


async def _ask(cluster: Cluster, node: Address, command: Command) -> Any:
    with broker_errors():
        async with cluster.pulse.watched(node), asyncio.timeout(TIMEOUT.total_seconds()):
            [reply] = await exchange_on_lent(cluster.pool(node), [command])
    if isinstance(reply, Exception):
        raise translate(reply)
    return reply
