"""What `notifier dev` and `notifier demo` hear of the workers of their process."""

from __future__ import annotations

import structlog

from notifier.local.worker_log import LogLine, worker_log


def test_an_outage_is_heard_of_once_and_everything_else_each_time() -> None:
    heard: list[LogLine] = []
    with worker_log(heard.append):
        log = structlog.get_logger("outage")
        for partition in range(16):
            log.warning("lease_not_renewed", queue="email", partition=partition, error="MISCONF")
            log.info("delivery_parked", partition=partition)
        log.warning("lease_not_renewed", queue="push", partition=0, error="MISCONF")
    troubles = [(line.event, line.fields["queue"]) for line in heard if line.is_trouble]
    assert troubles == [("lease_not_renewed", "email"), ("lease_not_renewed", "push")]
    assert sum(line.event == "delivery_parked" for line in heard) == 16
