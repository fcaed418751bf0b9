"""Ids for events whose producer gave none: they sort by the time at which they were made."""

from __future__ import annotations

import os
import time
from collections import deque
from functools import lru_cache
from typing import Final

_random: deque[str] = deque()
# Made in advance, since each call to the kernel takes longer than the rest; a fork must not share it.
os.register_at_fork(after_in_child=_random.clear)


def uuid7() -> str:
    """A version 7 UUID (RFC 9562, section 5.7): 48 bits of Unix milliseconds, then random."""
    try:
        random = _random.pop()
    except IndexError:
        digits = os.urandom(10 * 256).hex()
        _random.extend(
            f"-7{digits[i : i + 3]}-{_VARIANT[digits[i + 3]]}{digits[i + 4 : i + 7]}-{digits[i + 7 : i + 19]}"
            for i in range(0, len(digits), 20)
        )
        random = _random.pop()
    return _time_digits(time.time_ns() // 1_000_000) + random


_VARIANT: Final = {digit: "89ab"[place % 4] for place, digit in enumerate("0123456789abcdef")}


@lru_cache(maxsize=1)
def _time_digits(now_ms: int) -> str:
    digits = f"{now_ms:012x}"
    return f"{digits[:8]}-{digits[8:]}"
