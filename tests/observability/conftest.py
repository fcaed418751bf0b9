from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from notifier.local.broker import free_port
from tests.observability.installation import Installation


@pytest.fixture
def installation(redis_url: str, tmp_path: Path) -> Iterator[Installation]:
    """Nothing of it runs yet; what is started ends with the test."""
    running = Installation(redis_url, tmp_path, free_port)
    yield running
    running.close()
