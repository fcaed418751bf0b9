"""The how-tos for operators are typed as they stand there."""

from __future__ import annotations

from pathlib import Path

import pytest

from notifier.local.broker import EmbeddedBroker
from tests.docs.blocks import ROOT
from tests.docs.reader import DEV_PORT, Reader


@pytest.mark.slow
@pytest.mark.parametrize(("page", "least"), [("change-partitions.md", 3), ("upgrade.md", 2)])
def test_an_operator_can_follow_it(page: str, least: int, tmp_path: Path) -> None:
    with (
        EmbeddedBroker(tmp_path / "broker", persistent=True) as broker,
        Reader(tmp_path, {DEV_PORT: broker.port}) as reader,
    ):
        assert reader.follow(ROOT / "docs/how-to" / page) >= least
