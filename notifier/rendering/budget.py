"""What one rendering may spend: rounds of loops, characters, and time of the processor."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

from jinja2.exceptions import SecurityError

MAX_ROUNDS: Final = 100_000
MAX_SECONDS: Final = 2.0
MAX_PRINTED: Final = 16 * 1024 * 1024


class Budget:
    """Of one rendering, all of its blocks and the layout together."""

    __slots__ = ("_characters", "_deadline", "_rounds")

    def __init__(self) -> None:
        self._rounds = MAX_ROUNDS
        self._characters = MAX_PRINTED
        # Not the clock on the wall: a machine that is busy or was suspended is no fault of the template.
        self._deadline = time.thread_time() + MAX_SECONDS

    def spend(self, rounds: int, characters: int) -> None:
        """Raises SecurityError when nothing is left."""
        self._rounds -= rounds
        self._characters -= characters
        if self._rounds < 0:
            raise SecurityError(f"loops too often: more than {MAX_ROUNDS:,} rounds")
        if self._characters < 0:
            raise SecurityError(f"writes more than {MAX_PRINTED:,} characters, shown or not")
        if rounds and time.thread_time() > self._deadline:
            raise SecurityError(f"takes more than {MAX_SECONDS:g} s")


_CURRENT: ContextVar[Budget | None] = ContextVar("budget", default=None)


@contextmanager
def one_budget() -> Iterator[None]:
    """Everything that is rendered inside shares one budget."""
    token = _CURRENT.set(Budget())
    try:
        yield
    finally:
        _CURRENT.reset(token)


def spend(rounds: int = 1, characters: int = 0) -> bool:
    """True, so that it can stand in a condition. Raises SecurityError when the budget is used up.

    Outside of a rendering, such as when Jinja computes a constant while it compiles, it costs nothing.
    """
    budget = _CURRENT.get()
    if budget is not None:
        budget.spend(rounds, characters)
    return True
