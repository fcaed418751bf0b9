"""Waiting for a condition, with a deadline; nothing in the tests sleeps and hopes."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")

DEADLINE = 20.0
"""Seconds: far more than anything takes on a busy machine."""


async def until(
    condition: Callable[[], T | Awaitable[T]], deadline: float = DEADLINE, every: float = 0.01
) -> T:
    """The first truthy answer of the condition, plain or awaitable. Raises TimeoutError."""
    end = time.monotonic() + deadline
    while True:
        answer = condition()
        if inspect.isawaitable(answer):
            answer = await answer
        if answer:
            return answer  # type: ignore[return-value]
        if time.monotonic() > end:
            source = inspect.getsource(condition).strip() if inspect.isfunction(condition) else condition
            raise TimeoutError(f"not within {deadline} s: {source}")
        await asyncio.sleep(every)
