"""Ids for lines that have none, so that publishing a file again publishes no duplicate."""

from __future__ import annotations

from array import array
from hashlib import blake2b
from typing import Final

PREFIX: Final = "line-"
_SLOT_BITS = 22


class LineIds:
    """The id of a line is made of its content and of how many such lines came before it.

    So two identical lines of a file are two events, and the same line at the same place of a second run is
    the same event. Memory is bounded: lines are counted by 22 bits of their digest, in 16 MiB. Lines that
    share them are counted together, which gives other ids, but the same ones in every run.
    """

    def __init__(self) -> None:
        self._before: array[int] | None = None

    def next(self, content: bytes) -> str:
        """The id of the next line of the file."""
        if self._before is None:
            self._before = array("I", [0]) * (1 << _SLOT_BITS)
        digest = blake2b(content, digest_size=16).digest()
        slot = int.from_bytes(digest[:4], "big") >> (32 - _SLOT_BITS)
        number = self._before[slot]
        self._before[slot] += 1
        return f"{PREFIX}{digest.hex()}-{number}"
