"""The short versions of `make soak`: another mix of faults at each run. One that fails has found something;
its seed brings the same faults again, though not to the millisecond."""

from __future__ import annotations

import random
import statistics
from pathlib import Path

import pytest

from tests.soak import takeover
from tests.soak.soak import soak


@pytest.mark.slow
@pytest.mark.timeout(180)
async def test_all_faults_at_once_under_load_leave_a_clean_ledger(tmp_path: Path) -> None:
    seed = random.randrange(10**6)
    outcome = await soak(tmp_path, 15, seed)
    assert not outcome.problems, "\n".join([f"NOTIFIER_SOAK_SEED={seed}", *outcome.problems, *outcome.lines])


@pytest.mark.slow
@pytest.mark.timeout(240)
async def test_a_killed_worker_is_replaced_within_its_lease_and_a_second(tmp_path: Path) -> None:
    for number in range(3):  # a busy machine can spoil a try; `make soak` judges a hundred kills
        (folder := tmp_path / str(number)).mkdir()
        found = await takeover.measure(folder, 5)
        assert not found.problems
        if statistics.median(found.latest) <= takeover.TTL + 1:
            return
    pytest.fail("\n".join(found.lines()))
