"""Telling a story in steps, each of which is told when it has happened, and not before."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

_LOOK_AGAIN: Final = 0.02


@dataclass(frozen=True, slots=True)
class Step:
    """`text` says what, `detail` what was seen of it, or what went wrong; `ms` how long it took."""

    chapter: str
    text: str
    detail: str
    ok: bool
    ms: int


@dataclass(frozen=True, slots=True)
class Seen:
    """That it has happened. Without `ms` a step took as long as it was waited for."""

    detail: str = ""
    ms: int | None = None


class NotAsExpected(Exception):
    """Something else happened, so waiting on is of no use."""


Look = Callable[[], Awaitable[Seen | None]]
"""Looks whether it has happened. None: not yet. Raises NotAsExpected."""


class Narrator:
    """`tell` is given each step. Waiting ends for all steps together `longest` seconds after the start."""

    def __init__(self, tell: Callable[[Step], None], *, longest: float, each: float) -> None:
        self.steps: list[Step] = []
        self.chapter = ""
        self._tell = tell
        self._each = each
        self._ends = time.monotonic() + longest
        self._news = asyncio.Event()

    def wake(self) -> None:
        """Something happened: whoever waits for a step should look again."""
        self._news.set()

    def told(self, text: str, detail: str = "", *, since: float, ok: bool = True) -> None:
        """A step that is over. `since` is when it began, by `time.monotonic`."""
        self._add(text, detail, ok, round((time.monotonic() - since) * 1000))

    async def see(self, text: str, look: Look) -> bool:
        """Waits for it. Whether it happened, in time and as expected."""
        began = time.monotonic()
        ends = min(began + self._each, self._ends)
        while True:
            self._news.clear()
            try:
                seen = await look()
            except NotAsExpected as difference:
                self.told(text, str(difference), since=began, ok=False)
                return False
            waited = time.monotonic() - began
            if seen is not None:
                self._add(text, seen.detail, True, round(waited * 1000) if seen.ms is None else seen.ms)
                return True
            if time.monotonic() > ends:
                self.told(text, f"did not happen within {waited:.1f} s", since=began, ok=False)
                return False
            try:
                async with asyncio.timeout(_LOOK_AGAIN):
                    await self._news.wait()
            except TimeoutError:
                continue  # the broker's side of it wakes nobody

    def _add(self, text: str, detail: str, ok: bool, ms: int) -> None:
        step = Step(self.chapter, text, detail, ok, ms)
        self.steps.append(step)
        self._tell(step)
