"""Ends a process whose event loop hangs, so that its supervisor starts another one.

Code that blocks the loop also blocks the leases and the handling of signals: such a worker serves nothing
and can't be told to stop. Its leases run out, another worker takes over, and an entry that hangs each of its
owners is put aside as poison.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import structlog

EXIT_CODE: Final = 70
"""EX_SOFTWARE of sysexits.h."""
_LOOKS = 20

log = structlog.get_logger(__name__)


def stuck_after(lease_ttl: float) -> float:
    """Seconds after which a loop hangs; far above what a busy machine makes a loop wait."""
    return max(30.0, 6 * lease_ttl)


@contextmanager
def watched_loop(bound: float) -> Iterator[None]:
    """While inside, the process ends with EXIT_CODE when the running loop stands still for `bound` seconds.

    Raises RuntimeError outside of a loop.
    """
    watchdog = _Watchdog(asyncio.get_running_loop(), bound)
    watchdog.start()
    try:
        yield
    finally:
        watchdog.stop()


class _Watchdog:
    def __init__(self, loop: asyncio.AbstractEventLoop, bound: float) -> None:
        self._loop = loop
        self._bound = bound
        self._pause = bound / _LOOKS
        self._ticks = 0
        self._timer: asyncio.TimerHandle | None = None
        self._stopped = threading.Event()
        self._watched = threading.get_ident()

    def start(self) -> None:
        self._tick()
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()

    def stop(self) -> None:
        self._stopped.set()
        if self._timer is not None:
            self._timer.cancel()

    def _tick(self) -> None:
        self._ticks += 1
        self._timer = self._loop.call_later(self._pause, self._tick)

    def _watch(self) -> None:
        # Only time that this thread was awake for counts. When the process is stopped, or its machine
        # suspended, one wait takes long, and the loop is not to blame.
        seen, still, before = self._ticks, 0.0, time.monotonic()
        while not self._stopped.wait(self._pause):
            now = time.monotonic()
            still += min(now - before, 2 * self._pause)
            before = now
            if self._ticks != seen:
                seen, still = self._ticks, 0.0
            elif still >= self._bound:
                self._end(still)

    def _end(self, seconds: float) -> None:
        frame = sys._current_frames().get(self._watched)  # noqa: SLF001 - the documented way to another thread
        stack = "".join(traceback.format_stack(frame)) if frame else ""
        _within(1.0, lambda: log.error("worker_stuck", seconds=round(seconds, 1), stack=stack))
        os._exit(EXIT_CODE)


def _within(seconds: float, action: Callable[[], None]) -> None:
    """The loop may hang because nobody reads its log; then there is nobody to tell it to."""
    thread = threading.Thread(target=action, daemon=True)
    thread.start()
    thread.join(seconds)
