"""What can go wrong, as types that carry data.

NotifierError
├── InvalidInput              bad input; names the field
│   ├── InvalidEvent
│   └── InvalidRecipient
├── ConfigurationError        a setting, a template folder or a channel module is unusable
├── TemplateError             a template does not compile or render
└── BrokerError
    ├── BrokerUnavailable     no connection, not a primary, still loading, refused the password
    │   └── PartitionsMoved   the number of partitions is being changed, or was
    ├── BrokerFull            the server reached its memory limit
    ├── BacklogFull           a queue reached its limit; publish again later
    └── Fenced                another worker owns the partition now

Channels raise outcomes of their own: see `notifier.channel`.
"""

from __future__ import annotations


class NotifierError(Exception):
    """The root of everything that this package raises on purpose."""


class InvalidInput(NotifierError):
    """Input that can't be accepted, whatever the time or the state of the service.

    `field` is a path such as `recipients[3].email`; `reason` says what is wrong with it.
    """

    def __init__(self, field: str, reason: str) -> None:
        self.field = field
        self.reason = reason
        super().__init__(f"{field}: {reason}")

    def __reduce__(self) -> tuple[type[InvalidInput], tuple[str, str]]:
        return type(self), (self.field, self.reason)


class InvalidEvent(InvalidInput):
    """An event that breaks the model of `notifier.event`."""


class InvalidRecipient(InvalidInput):
    """A recipient's profile that breaks the model of `notifier.event.Recipient`."""


class ConfigurationError(NotifierError):
    """A setting that can't work. `setting` is the name that the operator can change."""

    def __init__(self, setting: str, reason: str) -> None:
        self.setting = setting
        self.reason = reason
        super().__init__(f"{setting}: {reason}")


class TemplateError(NotifierError):
    """A template that does not compile or render. `template` is its path below the folder."""

    def __init__(self, template: str, reason: str, line: int | None = None) -> None:
        self.template = template
        self.reason = reason
        self.line = line
        where = template if line is None else f"{template}:{line}"
        super().__init__(f"{where}: {reason}")


class UnusedTemplate(TemplateError):
    """It is for a channel that is not configured. Nothing is missing, unless the name is misspelt."""


class BrokerError(NotifierError):
    """The broker did not do what was asked. Nothing was dropped."""


class BrokerUnavailable(BrokerError):
    """No usable connection. Repeating a publish with the same event id is harmless."""


class EmbeddedServerFailed(BrokerUnavailable):
    """The server that `notifier dev` and `notifier demo` bring along did not start, or ended by itself."""


class PartitionsMoved(BrokerUnavailable):
    """The number of partitions is being changed, or was since this process read it."""


class BrokerFull(BrokerError):
    """The server is at its memory limit and took nothing."""


class BacklogFull(BrokerError):
    """The events queue of a partition is at its limit and took nothing.

    `waiting` and `limit` count events.
    """

    def __init__(self, partition: int, waiting: int, limit: int) -> None:
        self.partition = partition
        self.waiting = waiting
        self.limit = limit
        super().__init__(f"partition {partition} holds {waiting} events; the limit is {limit}")


class Fenced(BrokerError):
    """The lease moved to another worker; the change was not made."""
