"""What two workers and an API tell adds up to what happened."""

from __future__ import annotations

import pytest

from tests.observability.installation import Installation

EVENTS = 300


@pytest.mark.slow
def test_the_sum_of_what_is_counted_and_the_maximum_of_what_is_seen_are_exact(
    installation: Installation,
) -> None:
    workers = [installation.start("worker", "all") for _ in range(2)]
    installation.start("api")
    installation.until(
        lambda seen: (
            seen.is_served
            and seen.most("notifier_leases", queue="post") == 2
            and seen.total("notifier_leases", queue="post") == 4
        ),
        "they share",
    )
    installation.publish(EVENTS)
    seen = installation.until(
        lambda seen: (
            seen.total("notifier_delivery_seconds_count") == EVENTS
            and not seen.most("notifier_queue_entries")
        ),
        "all is delivered",
    )
    assert seen.total("notifier_routed_total") == EVENTS
    assert seen.total("notifier_send_seconds_count", channel="post") == EVENTS
    assert seen.total("notifier_render_seconds_count", channel="post") == EVENTS
    assert seen.most("notifier_queue_added_total", queue="events") == EVENTS
    assert len(seen.values_of("notifier_queue_entries", {"queue": "post", "state": "waiting"})) == 3
    each = [worker.scrape().total("notifier_delivery_seconds_count") for worker in workers]
    assert sum(each) == EVENTS
    assert all(each), "both had a share of it"

    installation.targets.remove(workers[0])
    workers[0].stop()
    seen = installation.until(lambda seen: seen.total("notifier_leases", queue="post") == 4, "handed over")
    assert seen.total("notifier_lease_changes_total", queue="post", change="acquired") >= 4
    assert seen.values_of("notifier_broker_seconds_count", {"call": "renew"})


@pytest.mark.slow
def test_retries_parked_and_failed_attempts_are_counted_once(installation: Installation) -> None:
    installation.start("worker", "all", NOTIFIER_RETRY_BASE="20ms", NOTIFIER_RETRY_ATTEMPTS="3")
    installation.begin("busy")
    installation.publish(4)
    seen = installation.until(
        # The count comes with the failure; what lies in the queue, with the commit.
        lambda seen: seen.most("notifier_queue_entries", queue="post", state="dlq") == 4,
        "in the DLQ",
    )
    assert seen.total("notifier_dead_letters_total", queue="post") == 4
    assert seen.total("notifier_failed_total", channel="post", outcome="TransientFailure") == 12
    assert seen.total("notifier_parked_total", channel="post") == 8
    assert seen.total("notifier_retries_total", channel="post") == 8
    assert seen.total("notifier_delivery_seconds_count") == 0
