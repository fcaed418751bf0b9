"""A channel that fails while a file says so: `away`, `refuses` or `busy` in the folder TROUBLE."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from notifier.channel import (
    Address,
    Block,
    ChannelUnavailable,
    Delivery,
    DeliveryError,
    PermanentFailure,
    Sent,
    TransientFailure,
)
from notifier.event import Recipient

_TROUBLES: Mapping[str, type[DeliveryError]] = {
    "away": ChannelUnavailable,
    "refuses": PermanentFailure,
    "busy": TransientFailure,
}


class TroubledChannel:
    name = "post"
    blocks: Sequence[Block] = (Block("body", "text"),)

    def __init__(self, troubles: Path) -> None:
        self._troubles = troubles

    def addresses(self, recipient: Recipient) -> Sequence[Address]:
        return [Address("letterbox", recipient.id)]

    async def open(self) -> None:
        """Nothing to open."""

    async def close(self) -> None:
        """Nothing to close."""

    async def send(self, delivery: Delivery, content: Mapping[str, str]) -> Sent:
        for name, outcome in _TROUBLES.items():
            if (self._troubles / name).exists():
                raise outcome(name)
        return Sent()


def open_channel(environ: Mapping[str, str]) -> TroubledChannel:
    """The factory for `NOTIFIER_CHANNELS`."""
    return TroubledChannel(Path(environ["TROUBLE"]))
