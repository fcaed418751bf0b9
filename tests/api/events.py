"""What lies in the events queues, for tests that publish by HTTP."""

from __future__ import annotations

import json
from typing import Any

import redis

from notifier.keys import Keys


def waiting(redis_url: str) -> list[tuple[dict[str, Any], str]]:
    """Each event that waits, and the id of its recipient; oldest first."""
    keys, found = Keys(), []
    with redis.Redis.from_url(redis_url) as client:
        for partition in range(keys.partitions):
            for entry, fields in client.xrange(keys.queue("events", partition)):
                order = tuple(map(int, entry.split(b"-")))
                to = fields[b"to"].decode()
                found.append(
                    (order, json.loads(fields[b"event"]), json.loads(to)["id"] if to[0] == "{" else to)
                )
    return [(event, to) for _, event, to in sorted(found, key=lambda row: row[0])]


def pairs(redis_url: str) -> list[tuple[str, str]]:
    """The (event id, recipient id) of each."""
    return [(event["id"], to) for event, to in waiting(redis_url)]
