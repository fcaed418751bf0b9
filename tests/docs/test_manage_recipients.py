"""docs/how-to/manage-recipients.md is followed to the letter."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from notifier.local.dev import PORTS
from tests.docs.blocks import ROOT
from tests.docs.reader import DEV_PORT, Reader
from tests.support.ports import free_row

API_PORT = 8080


@pytest.mark.slow
@pytest.mark.timeout(150)
def test_a_reader_can_manage_recipients(tmp_path: Path) -> None:
    for tool in ("curl", "jq"):
        if shutil.which(tool) is None:
            if os.environ.get("CI"):
                pytest.fail(f"CI must have {tool}")
            pytest.skip(f"no {tool} is installed")
    first = free_row(PORTS + 1)
    ports = {DEV_PORT + n: first + n for n in range(PORTS)} | {API_PORT: first + PORTS}
    with Reader(tmp_path, ports) as reader:
        assert reader.follow(ROOT / "docs/how-to/manage-recipients.md") >= 20
