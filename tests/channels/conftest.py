"""What tests of several channels need."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.certificates import write_certificate


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A PEM file with a key and a certificate of 127.0.0.1 that nobody vouches for."""
    return write_certificate(tmp_path_factory.mktemp("tls") / "server.pem")
