"""The catalogue of the templates folder, for processes that render nothing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import structlog

from notifier.catalogue import Catalogue, read_catalogue
from notifier.channel import Channel
from notifier.errors import ConfigurationError
from notifier.rendering.files import Fingerprint, fingerprint, snapshot

log = structlog.get_logger(__name__)

_LOOK_EVERY: Final = 5.0  # seconds


class CurrentCatalogue:
    """What event types there are, read again when a file has changed.

    An API that has no templates works too: there is nothing to choose from then.
    """

    def __init__(self, folder: Path, channels: Mapping[str, Channel]) -> None:
        self._folder = folder
        self._templated = {name: bool(channel.blocks) for name, channel in channels.items()}
        self._read: Fingerprint | None = None
        self._catalogue = Catalogue()
        self._looked = float("-inf")
        self._lock = asyncio.Lock()

    async def current(self) -> Catalogue:
        """At most five seconds old."""
        async with self._lock:
            if time.monotonic() - self._looked > _LOOK_EVERY:
                await asyncio.to_thread(self._look)
                self._looked = time.monotonic()
        return self._catalogue

    def _look(self) -> None:
        try:
            if fingerprint(self._folder) == self._read:
                return
            found = snapshot(self._folder)
        except ConfigurationError as error:
            if self._read is None:
                log.warning("no_catalogue", reason=str(error))
                self._read = frozenset()
            return  # as while it is being replaced: the last one stays
        self._read = found.fingerprint
        self._catalogue, _ = read_catalogue(found.sources, self._templated, self._catalogue)
