"""What a channel is, and what its `send` may say.

A channel is one file and one setting. `NOTIFIER_CHANNELS` names a factory, such as
`channels.email:open_channel`; it is called with the environment and returns a `Channel`.

`send` tries once and never retries by itself. It returns `Sent`, or raises an outcome:

DeliveryError
├── PermanentFailure          never going to work: dead letter queue at once
│   └── InvalidAddress        nor will anything else to this address: it is suppressed
├── TransientFailure          may work later: the lane is parked, with backoff
└── ChannelUnavailable        the provider is away or refuses us all: the breaker opens, and this
                              is not counted as an attempt
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

from notifier.event import Device, EventBody, Recipient, WebPushDevice, parse_body, parse_to


class DeliveryError(Exception):
    """An outcome other than delivered. `answer` is the provider's own words, if it said any."""

    def __init__(self, reason: str, *, answer: str = "") -> None:
        self.reason = reason
        self.answer = answer
        super().__init__(reason)


class PermanentFailure(DeliveryError):
    """No later try can work: 550, a malformed message, a template that does not render."""


class InvalidAddress(PermanentFailure):
    """The mailbox or device does not exist any more."""


class TransientFailure(DeliveryError):
    """A later try may work. `retry_after` is in seconds, when the provider named a time."""

    def __init__(self, reason: str, *, answer: str = "", retry_after: float | None = None) -> None:
        self.retry_after = retry_after
        super().__init__(reason, answer=answer)


class ChannelUnavailable(DeliveryError):
    """Nobody can be reached through this channel now. `retry_after` is in seconds."""

    def __init__(self, reason: str, *, answer: str = "", retry_after: float | None = None) -> None:
        self.retry_after = retry_after
        super().__init__(reason, answer=answer)


class Address(NamedTuple):
    """One place where a recipient can be reached.

    `key` is short and stable and never secret, and has no slash: it names the lane, and a suppressed
    address is remembered by it. `value` is what `send` needs, such as a mailbox or a subscription in JSON.
    """

    key: str
    value: str


def device_secret(device: Device) -> str:
    """The endpoint or token, which lets whoever knows it push to the device; with its kind."""
    secret = device.endpoint if isinstance(device, WebPushDevice) else device.token
    return f"{device.kind}:{secret}"


def device_key(device: Device) -> str:
    """The key of a device's address: its kind, and 12 hex digits that stand for the endpoint or token."""
    secret = device_secret(device).partition(":")[2]
    return f"{device.kind}-{hashlib.blake2b(secret.encode(), digest_size=6).hexdigest()}"


@dataclass(frozen=True, slots=True)
class InboxEntry:
    """An entry for the recipient's inbox. It is stored with the acknowledgement, exactly once."""

    id: str
    type: str
    title: str
    body: str
    url: str | None = None
    actor: Mapping[str, Any] | None = None
    data: Mapping[str, Any] = field(default_factory=dict)
    created_ms: int = 0


@dataclass(frozen=True, slots=True)
class Sent:
    """Delivered. `answer` is the provider's own words; `inbox` is stored with the same commit."""

    answer: str = ""
    inbox: InboxEntry | None = None


BlockKind = Literal["html", "text", "line"]


@dataclass(frozen=True, slots=True)
class Block:
    """A block that the channel's templates have: HTML, text, or one line of text.

    When a template leaves out a block with `derived_from`, it is made from that HTML block.
    """

    name: str
    kind: BlockKind
    required: bool = True
    derived_from: str | None = None
    max_length: int = 256 * 1024


class Delivery:
    """A notification on its way to one address.

    `id` is the same at every try, and what providers are given to recognise a repetition; `attempt` counts
    from 1. Texts are decoded, and `event` and `recipient` parsed, when they are read.
    """

    __slots__ = ("_event", "_id", "_lines", "_recipient", "attempt", "channel")

    def __init__(self, channel: str, lines: tuple[bytes, ...], attempt: int) -> None:
        """`lines` are event, event id, type, recipient id, recipient, address key, address, and the time of
        acceptance in Unix milliseconds; others may follow."""
        self.channel = channel
        self.attempt = attempt
        self._lines = lines
        self._event: EventBody | None = None
        self._recipient: Recipient | None = None
        self._id: str | None = None

    @classmethod
    def of(  # noqa: PLR0913 - one for each line
        cls, channel: str, *, event: bytes = b"{}", event_id: str = "", event_type: str = "",
        to: str = "", key: str = "", address: str = "", accepted_ms: int = 0, attempt: int = 1,
    ) -> Delivery:  # fmt: skip
        """From plain values, to try a channel out. `to` is a recipient's id, or one in JSON."""
        recipient_id = parse_to(to.encode()).id if to else ""
        texts = (event_id, event_type, recipient_id, to, key, address, str(accepted_ms))
        return cls(channel, (event, *(text.encode() for text in texts)), attempt)

    @property
    def event_id(self) -> str:
        return self._lines[1].decode()

    @property
    def event_type(self) -> str:
        return self._lines[2].decode()

    @property
    def recipient_id(self) -> str:
        return self._lines[3].decode()

    @property
    def address_key(self) -> str:
        return self._lines[5].decode()

    @property
    def address(self) -> str:
        return self._lines[6].decode()

    @property
    def accepted_ms(self) -> int:
        """Unix milliseconds."""
        return int(self._lines[7])

    @property
    def id(self) -> str:
        """32 hex digits, made of event, recipient, channel and address."""
        if self._id is None:
            parts = (self.event_id, self.recipient_id, self.channel, self.address_key)
            digest = hashlib.blake2b("\0".join(parts).encode(), digest_size=16)
            self._id = digest.hexdigest()
        return self._id

    @property
    def event(self) -> EventBody:
        if self._event is None:
            self._event = parse_body(self._lines[0])
        return self._event

    @property
    def recipient(self) -> Recipient:
        """The recipient as the router saw them, without addresses."""
        if self._recipient is None:
            self._recipient = parse_to(self._lines[4])
        return self._recipient

    @property
    def expires_at(self) -> datetime | None:
        return self.event.expires_at


class Channel(Protocol):
    """A way to reach people. One instance serves one worker process."""

    @property
    def name(self) -> str:
        """The name of its queue, its role and its template file: `[a-z][a-z0-9_]*`."""

    @property
    def blocks(self) -> Sequence[Block]:
        """What its templates consist of. None at all: it needs no template and renders nothing."""

    def addresses(self, recipient: Recipient) -> Sequence[Address]:
        """Where the recipient can be reached; one delivery for each. Pure and fast."""

    async def open(self) -> None:
        """Open clients. Raises ConfigurationError when a setting that sending needs is unusable."""

    async def send(self, delivery: Delivery, content: Mapping[str, str]) -> Sent:
        """Try once. `content` holds the rendered blocks by name. Raises DeliveryError."""

    async def close(self) -> None:
        """Close clients."""


@runtime_checkable
class TakesDevices(Protocol):
    """What a channel may have beside the rest, when it reaches devices that register themselves."""

    def check_device(self, device: Device) -> None:
        """Raises InvalidRecipient for a device that nothing can be sent to, before it is stored."""

    def push_key(self) -> str | None:
        """The public key (RFC 8292) that a browser needs to subscribe, in base64url; None without one.

        Raises ConfigurationError.
        """


Level = Literal["ok", "warning", "error"]


@dataclass(frozen=True, slots=True)
class Finding:
    """What a look at one thing found. No text holds a secret.

    `what` names the thing in a word or two, `found` is how it is. Unless it is ok, `means` says what comes of
    that, and `mend` exactly what to do: a command, or a setting and its value.
    """

    level: Level
    what: str
    found: str
    means: str = ""
    mend: str = ""


@runtime_checkable
class ChecksItself(Protocol):
    """What a channel may have beside the rest, for `notifier doctor`."""

    def variables(self) -> Collection[str]:
        """The environment variables that it reads."""

    async def check(self) -> Sequence[Finding]:
        """How its settings and its provider are, between `open` and `close`; sends nothing to anybody."""


ChannelFactory = Callable[[Mapping[str, str]], Channel]
"""Takes the environment; checks its own settings (ConfigurationError); does no I/O."""
