"""Reading FILE, or stdin as `-`, a line at a time, however long the file or the line."""

from __future__ import annotations

import select
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import RawIOBase
from pathlib import Path
from typing import Any, Final

from notifier.cli.context import CommandFailed

MAX_LINE: Final = 512 * 1024
"""In bytes: twice what an event may have, since JSON can be written in many ways."""

STDIN: Final = "-"
_BOM = b"\xef\xbb\xbf"
_BLOCK = 64 * 1024
_CHUNK_BYTES = 4 << 20
_PATIENCE = 0.1  # seconds: lines that come slowly through a pipe are not held back to fill a chunk


@dataclass(frozen=True, slots=True)
class Line:
    """`number` counts from 1, blank lines included. `content` is None when the line is too long."""

    number: int
    content: bytes | None


class Source:
    """An opened FILE. `name` is how messages call it; `size` is in bytes, or None for a pipe."""

    def __init__(self, raw: Any, name: str, size: int | None) -> None:
        self.name = name
        self.size = size
        self.read = 0
        self._raw: RawIOBase = raw

    def lines(self) -> Iterator[Line]:
        """Every line that is not blank, up to the first that is too long."""
        return (line for line in self._lines() if line is not None)

    def chunks(self, count: int) -> Iterator[list[Line]]:
        """Up to `count` lines, and not many more than 4 MiB, at a time; of a pipe, what has come."""
        chunk: list[Line] = []
        size = 0
        for line in self._lines():
            if line is not None:
                chunk.append(line)
                size += len(line.content or b"")
            if chunk and (line is None or len(chunk) == count or size >= _CHUNK_BYTES):
                yield chunk
                chunk, size = [], 0
        if chunk:
            yield chunk

    def _lines(self) -> Iterator[Line | None]:
        """None stands for a pause."""
        number = 0
        for raw in self._raw_lines():
            if raw is None:
                yield None
                continue
            number += 1
            if len(raw) > MAX_LINE:
                yield Line(number, None)
                return
            content = (raw.removeprefix(_BOM) if number == 1 else raw).strip()
            if content:
                yield Line(number, content)

    def _raw_lines(self) -> Iterator[bytes | None]:
        rest = b""
        while block := self._block():
            self.read += len(block)
            *lines, rest = (rest + block).split(b"\n")
            yield from lines
            if len(rest) > MAX_LINE:
                break
            if self.size is None and not select.select([self._raw], [], [], _PATIENCE)[0]:
                yield None
        if rest:
            yield rest

    def _block(self) -> bytes:
        try:
            return self._raw.read(_BLOCK) or b""
        except OSError as error:
            raise CommandFailed(f"notifier: {self.name}: {reason(error)}", 2) from None


@contextmanager
def opened(path: str) -> Iterator[Source]:
    """Raises CommandFailed, with exit code 2, for a file that can't be read."""
    if path == STDIN:
        if sys.stdin is None:
            raise CommandFailed("notifier: stdin is closed", 2)
        yield Source(getattr(sys.stdin.buffer, "raw", sys.stdin.buffer), "stdin", None)
        return
    try:
        raw = Path(path).open("rb", buffering=0)  # noqa: SIM115 - closed below; only opening may fail here
    except OSError as error:
        raise CommandFailed(f"notifier: {path}: {reason(error)}", 2) from None
    with raw:
        yield Source(raw, path, Path(path).stat().st_size if Path(path).is_file() else None)


def reason(error: OSError) -> str:
    """What the system says, such as: no such file or directory."""
    return (error.strerror or str(error)).lower()


def hint(content: bytes) -> str:
    """For a line that is not JSON, but looks like the first of an object on many lines."""
    return "; each line must hold one whole JSON object" if content in {b"{", b"["} else ""


def before(number: int, one: str, many: str) -> str:
    """`line 1 is stored`, `lines 1-6 are stored`: what became of the lines before this one."""
    if number <= 1:
        return ""
    return f"line 1 {one}" if number == 2 else f"lines 1-{number - 1} {many}"
