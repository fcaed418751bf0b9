"""All keys of a server, or of every node of a cluster, that match a pattern: some at a time."""

from __future__ import annotations

from collections.abc import AsyncIterator

from notifier.broker.cluster import Cluster
from notifier.broker.connection import Client
from notifier.broker.failures import broker_errors, translate
from notifier.broker.line import Command, exchange_on_lent
from notifier.broker.scripts import ask


async def scan(client: Client, pattern: str, count: int = 1_000) -> AsyncIterator[list[bytes]]:
    """Pages of names; what is there all the time comes at least once. Raises BrokerError.

    `pattern` is as SCAN takes it. The server looks at about `count` keys for each page.
    """
    if isinstance(client, Cluster):
        await client.refresh_if_needed()
    nodes = list(client.primaries) if isinstance(client, Cluster) else [None]
    for node in nodes:
        cursor = b"0"
        while True:
            command: Command = ("SCAN", cursor, "MATCH", pattern, "COUNT", count)
            if node is None:
                [[cursor, names]] = await ask(client, command)
            else:
                assert isinstance(client, Cluster)
                with broker_errors():
                    [reply] = await exchange_on_lent(client.pool(node), [command])
                if isinstance(reply, Exception):
                    raise translate(reply)
                cursor, names = reply
            if names:
                yield names
            if cursor == b"0":
                break
