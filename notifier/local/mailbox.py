"""An SMTP server on this machine that receives, and refuses as it is told.

It runs in the event loop of its caller. Nothing is stored but in memory, and nothing leaves the machine.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from types import TracebackType
from typing import Any, Final, Self, cast

from aiosmtpd.smtp import SMTP, Envelope, Session

from notifier.local.arrivals import Arrivals

_AWAY: Final = "421 4.3.2 the service is not available"


@dataclass(frozen=True, slots=True)
class Mail:
    """A mail as one mailbox received it. `text` and `html` are empty when it has no such part."""

    to: str
    sender: str
    subject: str
    text: str
    html: str
    message_id: str
    received_at: datetime
    raw: bytes = field(repr=False)


class MailboxServer:
    """A context manager; every mailbox exists unless `always` says otherwise.

    `answers` holds, for a mailbox, what its next RCPT TO commands are answered, in turn; `always` what
    all of them are. Mailboxes are written in lower case there. While `unavailable` is true, everything
    is answered 421.
    """

    def __init__(self, port: int | None = None, on_mail: Callable[[Mail], None] | None = None) -> None:
        self.answers: dict[str, list[str]] = {}
        self.always: dict[str, str] = {}
        self.unavailable = False
        self._port = port or 0
        self._arrivals: Arrivals[Mail] = Arrivals(on_mail)
        self._server: asyncio.Server | None = None
        self._dialogues: set[_Dialogue] = set()

    @property
    def url(self) -> str:
        return f"smtp://127.0.0.1:{self.port}"

    @property
    def port(self) -> int:
        return self._port

    @property
    def mails(self) -> list[Mail]:
        """The last 1,000, oldest first."""
        return self._arrivals.items

    @property
    def connections(self) -> int:
        """How many clients are connected now."""
        return len(self._dialogues)

    async def wait_for(self, predicate: Callable[[Mail], bool], timeout: float = 5.0) -> Mail:
        """The first mail that fits, come already or still to come. Raises TimeoutError."""
        return await self._arrivals.wait_for(predicate, timeout)

    async def __aenter__(self) -> Self:
        """Raises OSError when the port is in use."""
        loop = asyncio.get_running_loop()
        handler = _Handler(self)
        self._server = await loop.create_server(
            lambda: _Dialogue(handler, self._dialogues, loop), "127.0.0.1", self._port
        )
        self._port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._server is not None:
            self._server.close()
        # From Python 3.12 on wait_closed waits for the clients, who may like to stay.
        await self.disconnect_all()
        if self._server is not None:
            await self._server.wait_closed()
            self._server = None

    async def disconnect_all(self) -> None:
        """Close every connection without a word, as a server does with idle ones."""
        await asyncio.gather(*(dialogue.hang_up() for dialogue in list(self._dialogues)))

    def answer_to(self, mailbox: str) -> str | None:
        """What RCPT TO of this mailbox is answered now, if it is anything special."""
        mailbox = mailbox.lower()
        waiting = self.answers.get(mailbox)
        if waiting:
            return waiting.pop(0)
        return self.always.get(mailbox)

    def receive(self, envelope: Envelope) -> None:
        """One mail for each mailbox of the envelope."""
        raw = cast("bytes", envelope.original_content)
        parsed = message_from_bytes(raw, policy=default)
        for mailbox in envelope.rcpt_tos:
            self._arrivals.add(
                Mail(
                    to=mailbox,
                    sender=envelope.mail_from or "",
                    subject=str(parsed.get("Subject", "")),
                    text=_part(parsed, "plain"),
                    html=_part(parsed, "html"),
                    message_id=str(parsed.get("Message-ID", "")),
                    received_at=datetime.now(UTC),
                    raw=raw,
                )
            )


def _part(mail: EmailMessage, subtype: str) -> str:
    body = mail.get_body((cast("Any", subtype),))
    return "" if body is None else str(body.get_content()).replace("\r\n", "\n")


class _Dialogue(SMTP):
    """aiosmtpd's protocol without its thread; it knows when it is over."""

    def __init__(self, handler: _Handler, dialogues: set[_Dialogue], loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(
            handler, hostname="localhost", ident="notifier", enable_SMTPUTF8=True, loop=loop, timeout=600
        )
        self._dialogues = dialogues
        self._over = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._dialogues.add(self)
        super().connection_made(transport)

    def connection_lost(self, error: Exception | None) -> None:
        super().connection_lost(error)
        self._dialogues.discard(self)
        self._over.set()

    async def hang_up(self) -> None:
        if self.transport is not None:
            self.transport.close()
            await self._over.wait()
        if self._handler_coroutine is not None:
            await asyncio.gather(self._handler_coroutine, return_exceptions=True)


class _Handler:
    """The hooks of aiosmtpd, named by it."""

    # ruff: noqa: N802

    def __init__(self, server: MailboxServer) -> None:
        self._server = server

    async def handle_HELO(self, _smtp: SMTP, session: Session, _mail: Envelope, name: str) -> str:
        if self._server.unavailable:
            return _AWAY
        session.host_name = name
        return "250 localhost"

    async def handle_EHLO(
        self, _smtp: SMTP, session: Session, _mail: Envelope, name: str, responses: list[str]
    ) -> list[str]:
        if self._server.unavailable:
            return [_AWAY]
        session.host_name = name
        return responses

    async def handle_MAIL(
        self, _smtp: SMTP, _session: Session, mail: Envelope, sender: str, options: list[str]
    ) -> str:
        if self._server.unavailable:
            return _AWAY
        mail.mail_from = sender
        mail.mail_options.extend(options)
        return "250 2.1.0 ok"

    async def handle_RCPT(
        self, _smtp: SMTP, _session: Session, mail: Envelope, mailbox: str, options: list[str]
    ) -> str:
        answer = _AWAY if self._server.unavailable else self._server.answer_to(mailbox)
        if answer is not None and not re.match("2", answer):
            return answer
        mail.rcpt_tos.append(mailbox)
        mail.rcpt_options.extend(options)
        return answer or "250 2.1.5 ok"

    async def handle_DATA(self, _smtp: SMTP, _session: Session, mail: Envelope) -> str:
        if self._server.unavailable:
            return _AWAY
        self._server.receive(mail)
        return "250 2.0.0 received"
