"""A circuit breaker for one channel of one worker.

Closed: everybody may send. When the provider is unavailable it opens: nobody sends until a pause has
passed, then one probe goes out; if that works it closes, else it stays open for longer.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from datetime import timedelta

FIRST_PAUSE = timedelta(milliseconds=500)
LONGEST_PAUSE = timedelta(seconds=30)
_LONGEST_ASKED = 600.0  # seconds; a provider that names a longer time is asked again before it is over


class Breaker:
    """`changed` is told True when it opens and False when it closes."""

    def __init__(
        self,
        *,
        first_pause: timedelta = FIRST_PAUSE,
        longest_pause: timedelta = LONGEST_PAUSE,
        changed: Callable[[bool], None] = lambda _: None,
    ) -> None:
        self.is_open = False
        self._first = first_pause.total_seconds()
        self._longest = longest_pause.total_seconds()
        self._pause = self._first
        self._changed = changed
        self._probe_at = 0.0
        self._probing = False
        self._closed = asyncio.Event()

    async def admitted(self) -> bool:
        """Returns when the caller may send: at once, after the breaker has closed, or (True) as the probe."""
        while self.is_open:
            wait = self._probe_at - time.monotonic()
            if wait <= 0 and not self._probing:
                self._probing = True
                return True
            try:
                async with asyncio.timeout(max(wait, 0.01) if not self._probing else None):
                    await self._closed.wait()
            except TimeoutError:
                continue
        return False

    def worked(self) -> None:
        """An attempt reached the provider, whatever came of it."""
        if self.is_open:
            self.is_open = False
            self._probing = False
            self._pause = self._first
            self._closed.set()
            self._changed(False)

    def unavailable(self, retry_after: float | None) -> None:
        """An attempt did not reach the provider. `retry_after` is in seconds."""
        if self.is_open and not self._probing:
            return  # one of those that were under way when it opened
        self._probing = False
        asked = min(retry_after or 0.0, _LONGEST_ASKED)
        pause = max(self._pause * random.uniform(0.8, 1.2), asked)  # noqa: S311 - jitter
        self._probe_at = time.monotonic() + pause
        self._pause = min(2 * self._pause, self._longest)
        if not self.is_open:
            self.is_open = True
            self._closed.clear()
            self._changed(True)
        else:
            self._let_others_look()

    def abandoned(self) -> None:
        """The probe was not sent after all; somebody else may."""
        if self.is_open and self._probing:
            self._probing = False
            self._let_others_look()

    def _let_others_look(self) -> None:
        # Wakes those that wait without a time limit because a probe was out.
        waiting, self._closed = self._closed, asyncio.Event()
        waiting.set()
