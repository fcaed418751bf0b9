"""One SMTP server: where it is, and the connections to it that are kept."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
import ssl
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Final, Literal
from urllib.parse import parse_qsl, unquote, urlsplit

from aiosmtplib import (
    SMTP,
    SMTPException,
    SMTPHeloError,
)

from channels.smtp_dialogue import Envelope, Stale, answer_of, begin, transfer, words
from notifier.channel import ChannelUnavailable, DeliveryError

MAILS_PER_CONNECTION: Final = 500
IDLE_SECONDS: Final = 60.0
_UNREADABLE: Final = (
    "is not a URL with host and port; in a password, characters such as # / ? @ [ must be percent-encoded"
)

StartTls = Literal["required", "optional", "never"]


@dataclass(frozen=True, slots=True)
class SmtpServer:
    """Where to connect and how. `ca` is a PEM file to trust instead of the system's."""

    host: str = "127.0.0.1"
    port: int = 25
    implicit_tls: bool = False
    starttls: StartTls = "optional"
    user: str | None = None
    password: str = field(default="", repr=False)
    ca: str | None = None

    @property
    def is_local(self) -> bool:
        """Whether what is sent there stays on this machine."""
        with contextlib.suppress(ValueError):
            return ipaddress.ip_address(self.host).is_loopback
        return self.host == "localhost"


def parse_smtp_url(url: str) -> SmtpServer:
    """`smtp[s]://user:pass@host:port?starttls=required|optional|never&ca=FILE`.

    Ports default to 25, or 465 with smtps. Raises ValueError, whose text never holds the password.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ValueError(_UNREADABLE) from None
    if parts.scheme not in {"smtp", "smtps"}:
        raise ValueError("must begin with smtp:// or smtps://")
    # A password that begins with digits, and then has one of these characters, passes for a port.
    if "@" in parts.path + parts.fragment + parts.query.partition("=")[0]:
        raise ValueError(_UNREADABLE)
    if not parts.hostname:
        raise ValueError("names no host")
    if parts.path not in {"", "/"} or parts.fragment or port == 0:
        raise ValueError("must look like smtp[s]://user:password@host:port")
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    starttls = options.pop("starttls", "optional")
    ca = options.pop("ca", None)
    if options:
        raise ValueError(f"has an unknown option {min(options)!r}; there are starttls and ca")
    if starttls not in {"required", "optional", "never"}:
        raise ValueError("starttls must be required, optional or never")
    implicit = parts.scheme == "smtps"
    return SmtpServer(
        host=parts.hostname,
        port=port or (465 if implicit else 25),
        implicit_tls=implicit,
        starttls=starttls,  # type: ignore[arg-type]  # one of the three, as just checked
        user=unquote(parts.username) if parts.username else None,
        password=unquote(parts.password or ""),
        ca=ca,
    )


@dataclass(slots=True)
class _Connection:
    client: SMTP
    mails: int = 0
    idle_since: float = 0.0

    @property
    def is_usable(self) -> bool:
        return (
            self.client.is_connected
            and self.mails < MAILS_PER_CONNECTION
            and time.monotonic() - self.idle_since < IDLE_SECONDS
        )


class SmtpConnections:
    """At most `limit` connections to one server, opened when needed and kept for the next mail.

    `timeout`, in seconds, is for each step: connecting, each command, the mail's body.
    """

    def __init__(self, server: SmtpServer, *, limit: int, timeout: float) -> None:
        self.server = server
        self._timeout = timeout
        self._slots = asyncio.Semaphore(limit)
        self._idle: deque[_Connection] = deque()
        self._tls: ssl.SSLContext | None = None
        self._local_name: str | None = None
        self._reaper: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Connects to nobody yet. Raises OSError when the file of certificates can't be read."""
        self._tls = await asyncio.to_thread(_tls_context, self.server)
        self._local_name = await asyncio.to_thread(socket.getfqdn)
        self._reaper = asyncio.create_task(self._close_idle_connections())

    async def close(self) -> None:
        """Says QUIT on every connection that is not in use."""
        if self._reaper is not None:
            self._reaper.cancel()
            await asyncio.gather(self._reaper, return_exceptions=True)
            self._reaper = None
        while self._idle:
            await asyncio.gather(*(_quit(self._idle.pop().client) for _ in range(len(self._idle))))

    async def deliver(self, envelope: Envelope) -> str:
        """Send one mail once; the server's answer. Raises a DeliveryError.

        A kept connection that fails before the server accepted MAIL FROM is replaced by a fresh one:
        nothing of this mail was said on it, so this is no second try.
        """
        async with self._slots:
            kept = await self._take_idle()
            if kept is not None:
                with contextlib.suppress(Stale):
                    return await self._deliver_on(kept, envelope)
            return await self._deliver_on(_Connection(await self._connect()), envelope)

    async def check(self) -> bool:
        """Connects as for a mail, and says QUIT. Whether it is encrypted. Raises ChannelUnavailable."""
        client = await self._connect()
        is_encrypted = client.get_transport_info("sslcontext") is not None
        await _quit(client)
        return is_encrypted

    async def _deliver_on(self, connection: _Connection, envelope: Envelope) -> str:
        client = connection.client
        try:
            await begin(client, envelope, is_kept=connection.mails > 0)
            answer = await transfer(client, envelope)
        except DeliveryError:
            await self._keep_or_close(connection, reset=True)
            raise
        except BaseException:
            # Cancelled in mid-dialogue, or given up by the server: the next answer would be this mail's.
            client.close()
            raise
        await self._keep_or_close(connection, reset=False)
        return answer

    async def _keep_or_close(self, connection: _Connection, *, reset: bool) -> None:
        client = connection.client
        connection.mails += 1
        try:
            if reset and client.is_connected:
                await client.rset(timeout=min(self._timeout, 5))
        except BaseException as error:
            client.close()
            if not isinstance(error, SMTPException | OSError):
                raise
        connection.idle_since = time.monotonic()
        if not connection.is_usable or self._reaper is None:
            await _quit(client)
        else:
            self._idle.append(connection)

    async def _take_idle(self) -> _Connection | None:
        while self._idle:
            connection = self._idle.pop()  # the one used last: the others may fall idle and be closed
            if connection.is_usable:
                return connection
            await _quit(connection.client)
        return None

    async def _close_idle_connections(self) -> None:
        while True:
            await asyncio.sleep(IDLE_SECONDS / 4)
            while self._idle and not self._idle[0].is_usable:
                await _quit(self._idle.popleft().client)

    async def _connect(self) -> SMTP:
        server = self.server
        client = SMTP(
            hostname=server.host,
            port=server.port,
            use_tls=server.implicit_tls,
            start_tls=False,
            timeout=self._timeout,
            local_hostname=self._local_name,
            tls_context=self._tls,
        )
        try:
            await client.connect()
            await _greet(client)
            await self._secure_and_log_in(client)
        except (SMTPException, OSError) as error:
            client.close()
            raise ChannelUnavailable(
                f"no usable connection to {server.host}:{server.port}: {words(error)}",
                answer=answer_of(error),
            ) from error
        except BaseException:
            client.close()
            raise
        return client

    async def _secure_and_log_in(self, client: SMTP) -> None:
        server, encrypted = self.server, self.server.implicit_tls
        wanted = server.starttls == "required" or (
            server.starttls == "optional" and client.supports_extension("starttls")
        )
        if wanted and not encrypted:
            await client.starttls()
            await _greet(client)
            encrypted = True
        if server.user is None:
            return
        if not encrypted and server.starttls != "never" and not server.is_local:
            # Whoever can change the traffic can take STARTTLS out of it, and would get the password.
            raise SMTPException("the server offers no STARTTLS, and the password is not sent in the clear")
        await client.login(server.user, server.password)


def _tls_context(server: SmtpServer) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=server.ca)
    if server.starttls == "optional" and not server.implicit_tls and server.user is None and not server.ca:
        # Opportunistic (RFC 7435): without TLS the mail would go in the clear, so a certificate that
        # nobody vouches for is no reason to stop. It is with a password, `required` and smtps.
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


async def _greet(client: SMTP) -> None:
    if client.is_ehlo_or_helo_needed:
        try:
            await client.ehlo()
        except SMTPHeloError:
            if not client.is_connected:
                raise
            await client.helo()


async def _quit(client: SMTP) -> None:
    try:
        if client.is_connected:
            await client.quit(timeout=2)
    except (SMTPException, OSError):
        pass  # it is being thrown away; the server may have been first
    finally:
        client.close()
