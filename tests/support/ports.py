"""Ports that stay free until they are used."""

from __future__ import annotations

import random

from notifier.local.broker import port_in_use


def free_row(count: int) -> int:
    """The first of so many free ports in a row."""
    while True:
        # Below those that the kernel gives to connections that go out, which come and go meanwhile.
        first = random.randrange(10_000, 30_000)
        if not any(port_in_use(first + n) for n in range(count)):
            return first
