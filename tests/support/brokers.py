"""A server that may be killed."""

from __future__ import annotations

from notifier.local.broker import EmbeddedBroker


class DurableBroker(EmbeddedBroker):
    """Has all that it said yes to when it comes back. With `everysec` a write waits while an fsync is under
    way, for up to 2 s, and SIGKILL loses it although it was answered."""

    def _command(self) -> list[str]:
        return [*super()._command(), "--appendfsync", "always"]
