"""Other servers than the one that comes with the project."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest


def redis_server() -> Path:
    """Redis 7.0, the oldest server that is supported, as Debian 12 ships it.

    Skips the test where there is none, and fails it in CI.
    """
    binary = shutil.which("redis-server")
    if binary is None:
        if os.environ.get("CI"):
            pytest.fail("CI must have redis-server")
        pytest.skip("no redis-server is installed")
    return Path(binary)
