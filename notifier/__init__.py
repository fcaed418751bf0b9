"""Publish events to notifier.

from notifier import Publisher

with Publisher("redis://localhost:6379") as publisher:
    publisher.publish({"type": "like", "recipient": "u42"})
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__all__ = [
    "Accepted",
    "Actor",
    "AsyncPublisher",
    "BacklogFull",
    "BrokerError",
    "BrokerFull",
    "BrokerUnavailable",
    "ConfigurationError",
    "Event",
    "InvalidEvent",
    "NotifierError",
    "PartitionsMoved",
    "Publisher",
    "Recipient",
]

if TYPE_CHECKING:
    from notifier.errors import (
        BacklogFull,
        BrokerError,
        BrokerFull,
        BrokerUnavailable,
        ConfigurationError,
        InvalidEvent,
        NotifierError,
        PartitionsMoved,
    )
    from notifier.event import Actor, Event, Recipient
    from notifier.publisher import Accepted, AsyncPublisher, Publisher
else:
    # Loaded when it is asked for: pydantic and redis take a fifth of a second, which every command would
    # spend before it can even say what becomes of Ctrl-C.
    _HOMES = dict.fromkeys(__all__, "errors") | {
        "Accepted": "publisher",
        "Actor": "event",
        "AsyncPublisher": "publisher",
        "Event": "event",
        "Publisher": "publisher",
        "Recipient": "event",
    }

    def __getattr__(name: str) -> Any:
        if name in _HOMES.values():  # `import notifier; notifier.errors`
            return import_module(f"notifier.{name}")
        if name not in _HOMES:
            raise AttributeError(f"module 'notifier' has no attribute {name!r}")
        value = globals()[name] = getattr(import_module(f"notifier.{_HOMES[name]}"), name)
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
