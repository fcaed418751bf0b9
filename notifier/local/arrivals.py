"""What a local peer has received: the last of it, and a way to wait for more."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, Generic, TypeVar

T = TypeVar("T")

KEPT: Final = 1_000


class Arrivals(Generic[T]):
    """The last 1,000 things that came, oldest first."""

    def __init__(self, on_arrival: Callable[[T], None] | None = None) -> None:
        self.items: list[T] = []
        self._on_arrival = on_arrival
        self._waiting: set[asyncio.Event] = set()

    def add(self, item: T) -> None:
        self.items.append(item)
        del self.items[:-KEPT]
        for waiter in self._waiting:
            waiter.set()
        if self._on_arrival is not None:
            self._on_arrival(item)

    async def wait_for(self, predicate: Callable[[T], bool], timeout: float) -> T:
        """The first item, come already or still to come, for which `predicate` is true.

        Raises TimeoutError after `timeout` seconds.
        """
        arrived = asyncio.Event()
        self._waiting.add(arrived)
        try:
            async with asyncio.timeout(timeout):
                while True:
                    arrived.clear()
                    for item in self.items:
                        if predicate(item):
                            return item
                    await arrived.wait()
        except TimeoutError:
            raise TimeoutError(
                f"nothing that fits came within {timeout} s; of all, {len(self.items)} came"
            ) from None
        finally:
            self._waiting.discard(arrived)
