"""Many profiles as JSON lines: a block of bytes at a time, however many there are."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Final

from notifier.errors import InvalidRecipient
from notifier.event import Recipient
from notifier.recipients.profile import MAX_PROFILE_BYTES, encode_profile, parse_profile
from notifier.recipients.store import Recipients

MAX_LINE: Final = 4 * MAX_PROFILE_BYTES
"""In bytes: JSON can be written in many ways."""

MOST_TOLD: Final = 1_000
"""So many refusals are told one by one; the rest is counted."""

_BATCH = 500  # profiles that are stored together
_BATCH_BYTES = 1 << 20
_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Refusal:
    """A line that is no profile, and what is wrong with it. Lines count from 1, blank ones included."""

    line: int
    field: str
    reason: str


@dataclass(slots=True)
class Import:
    """What has become of the lines up to number `done`; blank ones are neither stored nor refused."""

    done: int = 0
    stored: int = 0
    new: int = 0
    refused: int = 0
    refusals: list[Refusal] = field(default_factory=list)

    def refuse(self, line: int, error: InvalidRecipient) -> None:
        self.refused += 1
        if len(self.refusals) < MOST_TOLD:
            self.refusals.append(Refusal(line, error.field, error.reason))


async def import_lines(recipients: Recipients, blocks: AsyncIterator[bytes], report: Import) -> None:
    """Store each line's profile in place of an earlier one. `report` is kept up to date.

    Of several lines with one id the last one counts. Each line is for itself: one that is refused stops
    nothing. Raises BrokerError; what was stored until then is stored, and doing all of it again is harmless.
    """
    batch: list[Recipient] = []
    lines = _Lines()
    size = 0

    async def store() -> None:
        nonlocal size
        report.new += await recipients.put_many(batch)
        report.stored += len(batch)
        report.done = lines.number
        batch.clear()
        size = 0

    async def take(found: Iterator[tuple[int, bytes | None]]) -> None:
        nonlocal size
        for number, line in found:
            try:
                batch.append(_parse(line))
            except InvalidRecipient as error:
                report.refuse(number, error)
                continue
            size += len(line or b"")
            if len(batch) == _BATCH or size > _BATCH_BYTES:
                await store()

    async for block in blocks:
        await take(lines.of(block))
    await take(lines.rest())
    await store()


def _parse(line: bytes | None) -> Recipient:
    if line is None:
        raise InvalidRecipient("recipient", f"has more than {MAX_LINE} bytes")
    recipient = parse_profile(line)
    encode_profile(recipient)
    return recipient


class _Lines:
    """Cuts blocks into lines. Holds one line at most, and no more of it than `MAX_LINE`."""

    def __init__(self) -> None:
        self.number = 0
        self._rest = b""
        self._is_too_long = False

    def of(self, block: bytes) -> Iterator[tuple[int, bytes | None]]:
        """The lines that are complete and not blank, with their numbers; None for one that is too long."""
        *complete, rest = (self._rest + block).split(b"\n")
        self._rest = b""
        for line in complete:
            yield from self._line(line)
        if len(rest) > MAX_LINE:
            self._is_too_long, rest = True, b""
        self._rest = rest

    def rest(self) -> Iterator[tuple[int, bytes | None]]:
        """The last line, when nothing ends it."""
        if self._rest or self._is_too_long:
            yield from self._line(self._rest)

    def _line(self, line: bytes) -> Iterator[tuple[int, bytes | None]]:
        self.number += 1
        if self._is_too_long or len(line) > MAX_LINE:
            self._is_too_long = False
            yield self.number, None
            return
        content = (line.removeprefix(_BOM) if self.number == 1 else line).strip()
        if content:
            yield self.number, content
