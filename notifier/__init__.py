"""Publish events to notifier.

from notifier import Publisher

with Publisher("redis://localhost:6379") as publisher:
    publisher.publish({"type": "like", "recipient": "u42"})
"""

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
