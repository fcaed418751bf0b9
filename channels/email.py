"""The channel `email`: one mail for each delivery, over SMTP.

Settings:

NOTIFIER_SMTP_URL           smtp[s]://user:password@host:port, default smtp://127.0.0.1:25
                            ?starttls=optional   TLS when the server offers it (default)
                            ?starttls=required   refuse a server without it
                            ?starttls=never      and send even a password in the clear
                            ?ca=FILE             trust these certificates instead of the system's
NOTIFIER_MAIL_FROM          Name <mailbox>, or a mailbox; needed to send
NOTIFIER_SMTP_CONNECTIONS   how many at most, default 10
NOTIFIER_SMTP_TIMEOUT       for each step of the dialogue, default 20s

A mail whose connection was lost before the server's last answer is tried again, and may then arrive
twice: its Message-ID is the same, made of the delivery's id.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Final

import idna
from pydantic import BeforeValidator, Field
from pydantic_core import PydanticCustomError

from channels import mime
from channels.settings import ChannelSettings, Duration
from channels.smtp import SmtpConnections, SmtpServer, parse_smtp_url
from channels.smtp_dialogue import Envelope
from notifier.channel import (
    Address,
    Block,
    Channel,
    ChannelUnavailable,
    Delivery,
    Finding,
    PermanentFailure,
    Sent,
)
from notifier.errors import ConfigurationError
from notifier.event import Recipient

_MAILBOX = re.compile(r"([^\s@<>()\[\],;:\\\"]{1,64})@([^\s@<>()\[\],;:\\\"]{1,253})")
_NAMED = re.compile(r"(?P<name>[^<>]*)<(?P<mailbox>[^<>]+)>")


@dataclass(frozen=True, slots=True)
class Sender:
    """Whom mails are from. The mailbox is ASCII."""

    name: str | None
    mailbox: str

    @property
    def domain(self) -> str:
        return self.mailbox.rpartition("@")[2]


def _smtp_server(value: object) -> object:
    try:
        return parse_smtp_url(value) if isinstance(value, str) else value
    except ValueError as error:
        raise PydanticCustomError("smtp_url", "{reason}", {"reason": str(error)}) from None


def _sender(value: object) -> object:
    if not isinstance(value, str):
        return value
    named = _NAMED.fullmatch(value)
    name, text = (named["name"].strip().strip('"'), named["mailbox"].strip()) if named else ("", value)
    try:
        mailbox = ascii_domain(text)
    except ValueError:
        mailbox = ""
    if not mailbox.isascii() or not mailbox or not value.isprintable():
        raise PydanticCustomError("sender", "is neither `Name <name@example.com>` nor `name@example.com`")
    return Sender(name or None, mailbox)


class EmailSettings(ChannelSettings):
    server: Annotated[SmtpServer, BeforeValidator(_smtp_server)] = Field(
        SmtpServer(), validation_alias="NOTIFIER_SMTP_URL"
    )
    """`smtp[s]://user:password@host:port`; ports default to 25, or 465 with `smtps`. `?starttls=optional`
    (default), `required` or `never`; `?ca=FILE` trusts these certificates instead of the system's. A
    password goes out without TLS only with `starttls=never`, or to this machine"""
    sender: Annotated[Sender | None, BeforeValidator(_sender)] = Field(
        None, validation_alias="NOTIFIER_MAIL_FROM"
    )
    """`Name <name@example.com>` or `name@example.com`; needed to send"""
    connections: int = Field(10, ge=1, le=1_000, validation_alias="NOTIFIER_SMTP_CONNECTIONS")
    """connections at most, for each process"""
    timeout: Duration = Field(
        timedelta(seconds=20), gt=timedelta(0), validation_alias="NOTIFIER_SMTP_TIMEOUT"
    )
    """for each step of the dialogue"""


def ascii_domain(mailbox: str) -> str:
    """The mailbox with its domain in ASCII (RFC 5891). Raises ValueError when it is no mailbox.

    So only a local part in other letters needs a server with SMTPUTF8.
    """
    found = _MAILBOX.fullmatch(mailbox)
    if found is None or not mailbox.isprintable():
        raise ValueError("is not a mail address")
    local, domain = found.groups()
    # idna.IDNAError is a ValueError.
    return f"{local}@{domain if domain.isascii() else idna.encode(domain, uts46=True).decode()}"


class EmailChannel:
    """See the module. One instance has one pool of connections."""

    name: Final = "email"
    blocks: Final[Sequence[Block]] = (
        Block("subject", "line"),
        Block("body", "html"),
        Block("text", "text", required=False, derived_from="body"),
    )

    def __init__(self, settings: EmailSettings) -> None:
        self.settings = settings
        self._sender: Sender | None = None
        self._from = ""
        self._connections = SmtpConnections(
            settings.server, limit=settings.connections, timeout=settings.timeout.total_seconds()
        )

    def addresses(self, recipient: Recipient) -> Sequence[Address]:
        if recipient.email is None:
            return ()
        # A key has no slash, which a mailbox may have.
        key = recipient.email.lower().replace("/", "%2F")
        return (Address(key=key, value=recipient.email),)

    async def open(self) -> None:
        if self.settings.sender is None:
            raise ConfigurationError("NOTIFIER_MAIL_FROM", "is needed to send mail")
        self._sender = self.settings.sender
        self._from = mime.address(self._sender.name, self._sender.mailbox)
        try:
            await self._connections.open()
        except OSError as error:
            reason = f"has a file `ca` that can't be used: {error.strerror or error}"
            raise ConfigurationError("NOTIFIER_SMTP_URL", reason) from None

    async def send(self, delivery: Delivery, content: Mapping[str, str]) -> Sent:
        return Sent(answer=await self._connections.deliver(self.envelope(delivery, content)))

    def envelope(self, delivery: Delivery, content: Mapping[str, str]) -> Envelope:
        """The mail as it will be sent. Raises PermanentFailure for what can't be an address."""
        if self._sender is None:
            raise RuntimeError("the channel is not open")
        try:
            mailbox = ascii_domain(delivery.address)
        except ValueError:
            raise PermanentFailure("the recipient's mail address is malformed") from None
        message = mime.build(
            sender=self._from,
            to=mime.address(delivery.recipient.name, mailbox),
            subject=content["subject"],
            text=content.get("text", ""),
            html=content["body"],
            message_id=f"{delivery.id}@{self._sender.domain}",
            date=datetime.now(UTC),
        )
        return Envelope(self._sender.mailbox, mailbox, message)

    async def close(self) -> None:
        await self._connections.close()

    def variables(self) -> Collection[str]:
        """See `notifier.channel.ChecksItself`."""
        return self.settings.variables()

    async def check(self) -> Sequence[Finding]:
        """See `notifier.channel.ChecksItself`: connects as for a mail, and says goodbye."""
        server = self.settings.server
        where = f"{server.host}:{server.port}"
        try:
            is_encrypted = await self._connections.check()
        except ChannelUnavailable as failure:
            said = f"{failure.reason}{f' ({failure.answer})' if failure.answer else ''}"
            return [
                Finding("error", "mail server", said, "No mail goes out; the queue waits.", _mend(failure))
            ]
        how = "TLS" if is_encrypted else "no TLS"
        found = f"{where} answers, {how}, {'logged in' if server.user else 'without a login'}"
        if is_encrypted or server.is_local:
            return [Finding("ok", "mail server", found)]
        means = "Mails cross the network in the clear; whoever is on the way can read and change them."
        mend = "Add ?starttls=required to NOTIFIER_SMTP_URL, or use smtps://, if the server has TLS."
        return [Finding("warning", "mail server", found, means, mend)]


def _mend(failure: ChannelUnavailable) -> str:
    if failure.answer[:3] in {"530", "534", "535"}:
        return "Correct user and password in NOTIFIER_SMTP_URL (reserved characters as %40 and so on)."
    if "STARTTLS" in failure.reason or "ertificate" in failure.reason or "SSL" in failure.reason:
        return (
            "Use a server with a certificate that is trusted, or name its authority with ?ca=FILE in "
            "NOTIFIER_SMTP_URL."
        )
    return "Correct host and port in NOTIFIER_SMTP_URL, or let this machine reach them."


def open_channel(environ: Mapping[str, str]) -> Channel:
    """The factory behind `channels.email:open_channel`. Raises ConfigurationError."""
    return EmailChannel(EmailSettings.read(environ))
