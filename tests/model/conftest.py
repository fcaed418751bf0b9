"""The servers that the scripts are held against: each with its data on disk, so that it can crash."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from notifier.local.broker import EmbeddedBroker
from tests.support.topologies import binary_of


def _redis_7() -> Path:
    """Debian's server. Skips where there is none, and fails where there has to be one."""
    found = shutil.which("redis-server")
    version = subprocess.check_output([found, "--version"], text=True) if found else ""
    if found and " v=7.0." in version:
        return Path(found)
    reason = f"needs redis-server 7.0 on the PATH; found {version.strip() or 'none'}"
    if "CI" in os.environ:
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session", params=["valkey-9.1", "redis-7.0", "redis-8.2"])
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[EmbeddedBroker]:
    binary = _redis_7() if request.param == "redis-7.0" else binary_of(request.param)
    with EmbeddedBroker(tmp_path_factory.mktemp("model"), persistent=True, binary=binary) as started:
        yield started
