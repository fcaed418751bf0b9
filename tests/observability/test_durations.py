"""Our own histogram, against that of the client library."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Histogram

from notifier import metrics

BUCKETS = (0.01, 0.05, 1.0, 30.0)
SECONDS = st.one_of(st.sampled_from(BUCKETS), st.floats(0, 100), st.floats(0, 0.02))


@given(st.lists(SECONDS, max_size=30))
def test_it_counts_as_that_of_the_client_library(observed: list[float]) -> None:
    registry = CollectorRegistry()
    theirs, ours = Histogram("h", "h", buckets=BUCKETS, registry=registry), metrics.Durations(BUCKETS)
    for seconds in observed:
        theirs.observe(seconds)
        ours.observe(seconds)
    total = 0
    for limit, count in zip(("0.01", "0.05", "1.0", "30.0", "+Inf"), ours.counts, strict=True):
        total += count
        assert registry.get_sample_value("h_bucket", {"le": limit}) == total
    assert registry.get_sample_value("h_sum") == ours.sum


def test_a_clock_that_went_back_counts_as_no_time_at_all() -> None:
    durations = metrics.Durations(BUCKETS)
    durations.observe(-5.0)
    assert (durations.counts, durations.sum) == ([1, 0, 0, 0, 0], 0.0)
