"""The end of tasks."""

from __future__ import annotations

import asyncio
from typing import Any


async def cancel_until_done(*tasks: asyncio.Task[Any]) -> None:
    """Cancels the tasks, and waits for their end.

    More than once: `asyncio.wait_for` of Python 3.11, with which redis-py writes, swallows a cancellation
    that comes just as it is done.
    """
    pending = set(tasks)
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=0.1)
