"""The end of tasks.

`asyncio.wait_for` of Python 3.11 swallows a cancellation that comes just as it is done (bpo-37658), and
redis-py and aiosmtplib wait with it. So one that is cancelled once may go on for ever.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from types import TracebackType
from typing import Any


async def cancel_until_done(*tasks: asyncio.Task[Any]) -> None:
    """Cancels the tasks, and waits for their end; more than once, as one may swallow it."""
    pending = set(tasks)
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=0.1)


class Tasks(asyncio.TaskGroup):
    """A task group that cancels its tasks until they are done: asyncio's own does it once, and waits."""

    def __init__(self) -> None:
        super().__init__()
        self._going: set[asyncio.Task[Any]] = set()

    def create_task(self, coro: Coroutine[Any, Any, Any], **options: Any) -> asyncio.Task[Any]:  # type: ignore[override]
        task: asyncio.Task[Any] = super().create_task(coro, **options)
        self._going.add(task)
        task.add_done_callback(self._going.discard)
        return task

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            while error is None and self._going:
                await asyncio.wait(self._going)
        except asyncio.CancelledError as cancelled:  # a task failed, or somebody cancels us
            kind, error, trace = type(cancelled), cancelled, cancelled.__traceback__
        while error is not None and self._going:
            with suppress(asyncio.CancelledError):  # `error` is raised, once they are done
                await cancel_until_done(*self._going)
        await super().__aexit__(kind, error, trace)
