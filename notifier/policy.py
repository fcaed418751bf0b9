"""What follows from a failed attempt. Pure: it decides, the worker acts."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from notifier.channel import DeliveryError, InvalidAddress, PermanentFailure, TransientFailure

MAX_OWNERS = 3
"""A delivery that has outlived so many owners is poison."""


@dataclass(frozen=True, slots=True)
class Retry:
    """Park the lane for `delay`."""

    delay: timedelta


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """Move it to the dead letter queue; `suppress` the address too when it can't ever work."""

    suppress: bool


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Exponential backoff with full jitter ("Exponential Backoff And Jitter", AWS, 2015).

    Before attempt n + 1 it waits between 0 and `base` * 2^(n-1), at most `longest`; but never less than
    what the provider asked for, and that is bounded by `longest` too.
    """

    attempts: int = 8
    base: timedelta = timedelta(seconds=5)
    longest: timedelta = timedelta(hours=1)

    def decide(
        self, failure: DeliveryError, attempts: int, jitter: Callable[[], float] = random.random
    ) -> Retry | DeadLetter:
        """What to do after `attempts` attempts, of which the last ended in `failure`.

        `jitter` returns a number from 0 to 1.
        """
        if isinstance(failure, PermanentFailure):
            return DeadLetter(suppress=isinstance(failure, InvalidAddress))
        if attempts >= self.attempts:
            return DeadLetter(suppress=False)
        # In seconds, as floats: a timedelta overflows long before.
        ceiling = min(self.longest.total_seconds(), self.base.total_seconds() * 2.0 ** min(attempts - 1, 60))
        delay = timedelta(seconds=ceiling * jitter())
        if isinstance(failure, TransientFailure) and failure.retry_after:
            asked = timedelta(seconds=min(failure.retry_after, self.longest.total_seconds()))
            # Some jitter on top: all that were told the same time should not come back at once.
            delay = max(delay, min(self.longest, asked * (1 + 0.1 * jitter())))
        return Retry(delay)
