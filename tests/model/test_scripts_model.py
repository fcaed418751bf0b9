"""The scripts against their model: whatever workers, publishers, operators and accidents do, in whatever
order, the server holds what the model says, and nothing is lost, doubled or out of order.

`make test` tries a few examples; with NOTIFIER_SOAK=1 they are many and long, and NOTIFIER_MODEL_EXAMPLES
says how many. In CI they are the same in every run, so that a red build is the fault of the change under
test and not of chance; the soak and every run elsewhere try new ones, and print how to repeat what failed.
"""

from __future__ import annotations

import os
from collections import Counter

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from notifier.local.broker import EmbeddedBroker
from tests.model.machine import RULES
from tests.model.operator_rules import OperatorRules, PublishingRules, RareRules
from tests.model.worker_rules import FateRules

SOAK = bool(os.environ.get("NOTIFIER_SOAK"))
HOUR = 3_600

PROFILE = settings(
    max_examples=int(os.environ.get("NOTIFIER_MODEL_EXAMPLES") or (1_500 if SOAK else 25)),
    stateful_step_count=60 if SOAK else 40,
    derandomize="CI" in os.environ and not SOAK,
    database=None,
    deadline=None,
    print_blob=True,
    report_multiple_bugs=False,
    suppress_health_check=list(HealthCheck),
)


class Scripts(FateRules, PublishingRules, OperatorRules, RareRules):
    """All rules together."""


@pytest.mark.slow
@pytest.mark.timeout(2 * HOUR if SOAK else 600)  # making a failing example small takes up to five minutes
def test_the_server_holds_what_the_model_says_after_every_step(server: EmbeddedBroker) -> None:
    reached: Counter[str] = Counter()
    run_state_machine_as_test(lambda: Scripts(server, reached), settings=PROFILE)  # type: ignore[arg-type]
    if PROFILE.derandomize or SOAK:  # what a few others reach is left to chance
        missed = {*RULES, "a stale commit"} - reached.keys()
        assert not missed, f"never done: {missed}; {reached}"
