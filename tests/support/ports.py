"""Ports that stay free until they are used."""

from __future__ import annotations

import os
import random

from notifier.local.broker import port_in_use

# Below those that `free_port` chooses from, and those that the kernel gives to connections that go out; and
# for each worker of xdist a stripe of its own: nobody else takes one between the choice and its use.
_FIRST, _STRIPE, _STRIPES = 10_000, 1_000, 5


def free_row(count: int) -> int:
    """The first of so many free ports in a row."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    low = _FIRST + worker % _STRIPES * _STRIPE
    while True:
        first = random.randrange(low, low + _STRIPE - count)
        if not any(port_in_use(first + n) for n in range(count)):
            return first
