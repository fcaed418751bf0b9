"""The retry policy: it decides, and knows no server."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifier.channel import InvalidAddress, PermanentFailure, TransientFailure
from notifier.dead_letters import SecondTry
from notifier.policy import DeadLetter, Retry, RetryPolicy

SECOND = timedelta(seconds=1)
POLICY = RetryPolicy(attempts=8, base=SECOND, longest=60 * SECOND)


@pytest.mark.parametrize(("attempts", "seconds"), [(1, 1), (2, 2), (3, 4), (4, 8), (5, 16), (6, 32), (7, 60)])
def test_the_ceiling_doubles_with_each_attempt_up_to_the_longest(attempts: int, seconds: int) -> None:
    assert POLICY.decide(TransientFailure("x"), attempts, jitter=lambda: 1.0) == Retry(seconds * SECOND)
    assert POLICY.decide(TransientFailure("x"), attempts, jitter=lambda: 0.0) == Retry(timedelta())


def test_after_the_last_attempt_it_gives_up() -> None:
    assert isinstance(POLICY.decide(TransientFailure("x"), 7), Retry)
    assert POLICY.decide(TransientFailure("x"), 8) == DeadLetter(suppress=False)
    assert RetryPolicy(attempts=1).decide(TransientFailure("x"), 1) == DeadLetter(suppress=False)


def test_a_permanent_failure_is_never_retried_and_only_an_invalid_address_is_suppressed() -> None:
    assert POLICY.decide(PermanentFailure("x"), 1) == DeadLetter(suppress=False)
    assert POLICY.decide(InvalidAddress("x"), 1) == DeadLetter(suppress=True)


def test_what_the_provider_asked_for_is_the_least_and_the_longest_is_the_most() -> None:
    assert POLICY.decide(TransientFailure("x", retry_after=10), 1, jitter=lambda: 0.0) == Retry(10 * SECOND)
    assert POLICY.decide(TransientFailure("x", retry_after=10), 1, jitter=lambda: 1.0) == Retry(11 * SECOND)
    assert POLICY.decide(TransientFailure("x", retry_after=1e12), 1) == Retry(60 * SECOND)


@given(
    attempts=st.integers(1, 10_000),
    retry_after=st.none() | st.floats(0, 1e300),
    jitter=st.floats(0, 1),
    base=st.timedeltas(timedelta(), timedelta(days=100)),
)
def test_no_delay_is_negative_or_longer_than_the_longest(
    attempts: int, retry_after: float | None, jitter: float, base: timedelta
) -> None:
    policy = RetryPolicy(attempts=20_000, base=base, longest=timedelta(hours=1))
    decision = policy.decide(TransientFailure("x", retry_after=retry_after), attempts, lambda: jitter)
    assert isinstance(decision, Retry)
    assert timedelta() <= decision.delay <= timedelta(hours=1)


def test_the_second_try_of_a_dead_letter_is_the_last_one() -> None:
    assert SecondTry().decide(TransientFailure("x", retry_after=1), 1) == DeadLetter(suppress=False)
    assert SecondTry().decide(InvalidAddress("x"), 9) == DeadLetter(suppress=True)
