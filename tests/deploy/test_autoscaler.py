"""The stand-in of KEDA and the HorizontalPodAutoscaler decides as they do, by what a ScaledObject says."""

from __future__ import annotations

import copy

import pytest

from tests.support.autoscaler import Autoscaler, metric
from tests.support.manifests import named, overlay

PAGE = """\
# HELP notifier_queue_entries What lies in a queue, by where it is.
# TYPE notifier_queue_entries gauge
notifier_queue_entries{queue="events",state="waiting"} 7.0
notifier_queue_entries{queue="email",state="in_hand"} 3.0
notifier_queue_entries{queue="email",state="waiting"} 1234.0
"""


class Controller:
    """An Autoscaler with a clock of its own; `replicas` follow what it decides."""

    def __init__(self, replicas: int = 2) -> None:
        self.now = 0.0
        self.replicas = replicas
        scaled = copy.deepcopy(named(overlay("production"), "ScaledObject", "notifier-email"))
        self.scaler = Autoscaler(scaled, str, speed=1, clock=lambda: self.now)

    def runs(self, seconds: int, waiting: float, oldest: float = 0) -> list[int]:
        """What it decides, looking each 15 seconds."""
        found = []
        for _ in range(0, seconds, 15):
            self.replicas = self.scaler.decide([waiting, oldest], self.replicas)
            found.append(self.replicas)
            self.now += 15
        return found


def test_a_metric_is_found_by_its_labels() -> None:
    assert metric(PAGE, 'notifier_queue_entries{queue="email",state="waiting"}') == 1234
    with pytest.raises(LookupError):
        metric(PAGE, 'notifier_queue_entries{queue="push",state="waiting"}')


@pytest.mark.parametrize(
    ("waiting", "oldest", "wish"),
    [(0, 0, 2), (499, 29, 2), (1_400, 0, 3), (0, 150, 5), (1_400, 150, 5), (10**6, 10**6, 8)],
)
def test_what_waits_and_how_long_it_has_waited_both_ask_for_workers(
    waiting: float, oldest: float, wish: int
) -> None:
    assert Controller().scaler.wish([waiting, oldest], 2) == wish


def test_a_tenth_more_or_less_changes_nothing() -> None:
    scaler = Controller().scaler
    assert scaler.wish([3_290, 0], 6) == scaler.wish([2_710, 0], 6) == 6
    assert scaler.wish([3_310, 0], 6) == 7


def test_four_come_at_a_time() -> None:
    assert Controller(1).runs(45, waiting=10_000) == [5, 8, 8]


def test_one_goes_a_minute_and_the_first_after_five() -> None:
    controller = Controller()
    controller.runs(60, waiting=2_900)
    decided = controller.runs(600, waiting=0)
    assert decided[:19] == [6] * 19
    assert [decided.count(n) for n in (5, 4, 3)] == [4, 4, 4]
    assert decided[-1] == 2


def test_a_backlog_that_comes_and_goes_within_five_minutes_moves_nobody() -> None:
    controller = Controller()
    controller.runs(60, waiting=2_900)
    for _ in range(5):
        assert set(controller.runs(120, waiting=0)) == {6}
        assert set(controller.runs(60, waiting=2_900)) == {6}
