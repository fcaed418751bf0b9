"""The channel `email` against servers that receive, refuse, hang, hang up, and speak TLS."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import ssl
import subprocess
import time
import unicodedata
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from email import message_from_bytes
from email.header import decode_header, make_header
from email.policy import compat32, default
from email.utils import unquote
from pathlib import Path
from typing import Any, Self

import pytest
from aiosmtpd.smtp import SMTP, AuthResult
from hypothesis import given, settings
from hypothesis import strategies as st

from channels import mime, smtp
from channels.email import EmailChannel, EmailSettings, ascii_domain, open_channel
from notifier.channel import (
    ChannelUnavailable,
    Delivery,
    InvalidAddress,
    PermanentFailure,
    TransientFailure,
)
from notifier.errors import ConfigurationError
from notifier.event import Recipient, encode_recipient
from notifier.local.broker import free_port
from notifier.local.listener import Listener
from notifier.local.mailbox import MailboxServer
from tests.support.waiting import DEADLINE, until

CONTENT = {"subject": "Ada liked your photo", "body": "<p>Hello</p>", "text": "Hello"}


def delivery(to: str = "bob@example.com", *, name: str | None = "Bob", event_id: str = "e1") -> Delivery:
    recipient = Recipient(id="bob", name=name)
    return Delivery.of(
        "email",
        event_id=event_id,
        event_type="like",
        to=encode_recipient(recipient).decode(),
        key=to.lower(),
        address=to,
    )


@asynccontextmanager
async def email(url: str, **settings: str) -> AsyncIterator[EmailChannel]:
    environ = {"NOTIFIER_SMTP_URL": url, "NOTIFIER_MAIL_FROM": "Notifier <no-reply@example.com>"}
    environ |= {f"NOTIFIER_{name.upper()}": value for name, value in settings.items()}
    channel = open_channel(environ)
    assert isinstance(channel, EmailChannel)
    await channel.open()
    try:
        yield channel
    finally:
        await channel.close()


@pytest.fixture
async def mailbox() -> AsyncIterator[MailboxServer]:
    async with MailboxServer() as server:
        yield server


class Scripted:
    """An SMTP server that answers each command with what `script` says for it.

    `HANG` answers nothing, `CLOSE` hangs up; `BODY` is the end of the data. A function is called with
    the number of the connection and of the mail on it, both from 1.
    """

    def __init__(self, **script: str | Callable[[int, int], str]) -> None:
        self.script = {
            "GREETING": "220 localhost", "EHLO": "250 localhost", "MAIL": "250 ok", "RCPT": "250 ok",
            "DATA": "354 go on", "BODY": "250 ok", "RSET": "250 ok", "QUIT": "221 bye", **script,
        }  # fmt: skip
        self.heard: list[str] = []
        self.hangs = False
        self.connections = 0
        self.most_open = 0
        self._listener = Listener(self._serve)

    @property
    def open_now(self) -> int:
        return self._listener.clients

    async def __aenter__(self) -> Self:
        self.url = f"smtp://127.0.0.1:{await self._listener.open()}"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._listener.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.most_open = max(self.most_open, self.open_now)
        await self._dialogue(reader, writer, self.connections)

    async def _dialogue(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, connection: int
    ) -> None:
        mails, verb = 0, "GREETING"
        while True:
            mails += verb == "MAIL"
            answer = self.script.get(verb, "500 what?")
            answer = answer(connection, mails) if callable(answer) else answer
            if answer == "CLOSE":
                return
            if answer == "HANG":
                self.hangs = True
            else:
                writer.write(answer.encode() + b"\r\n")
            if answer.startswith("354"):
                while (await reader.readline()) not in {b".\r\n", b""}:
                    pass
                verb = "BODY"
                self.heard.append(".")
                continue
            line = (await reader.readline()).decode()
            if not line or verb == "QUIT":
                return
            verb = line[:4].upper()
            self.heard.append(line.strip())


def time_passes() -> None:
    """More than any timeout for the timers of this test's loop, without a wait; and short timeouts are not
    needed, which would run out at another step on a busy machine."""
    loop = asyncio.get_running_loop()
    clock = loop.time
    loop.time = lambda: clock() + 21  # type: ignore[method-assign]


# The mail ------------------------------------------------------------------------------------


async def test_a_mail_arrives_with_both_parts_and_every_header(mailbox: MailboxServer) -> None:
    one = delivery(name="Böb")
    content = {"subject": "Grüße ☕", "body": "<p>Grüße</p>\n<p>.</p>", "text": "Grüße\n.\nBye"}
    async with email(mailbox.url) as channel:
        sent = await channel.send(one, content)
    assert sent.answer == "250 2.0.0 received"
    (mail,) = mailbox.mails
    assert (mail.to, mail.sender, mail.subject) == ("bob@example.com", "no-reply@example.com", "Grüße ☕")
    assert (mail.text, mail.html) == ("Grüße\n.\nBye", "<p>Grüße</p>\n<p>.</p>")
    assert mail.message_id == f"<{one.id}@example.com>"
    parsed = message_from_bytes(mail.raw, policy=default)
    assert parsed["To"] == "Böb <bob@example.com>"
    assert parsed["From"] == "Notifier <no-reply@example.com>"
    assert parsed["Auto-Submitted"] == "auto-generated"
    assert abs(parsed["Date"].datetime - datetime.now(UTC)) < timedelta(minutes=1)
    assert parsed.get_content_type() == "multipart/alternative"


async def test_a_repeated_delivery_has_the_same_message_id(mailbox: MailboxServer) -> None:
    async with email(mailbox.url) as channel:
        await channel.send(delivery(), CONTENT)
        await channel.send(delivery(), CONTENT)
        await channel.send(delivery(event_id="e2"), CONTENT)
    first, again, other = (mail.message_id for mail in mailbox.mails)
    assert first == again != other


WRITTEN = st.text(st.characters(exclude_categories=["Cs"]), max_size=120)


@settings(max_examples=60, deadline=None)
@given(name=WRITTEN, subject=WRITTEN, text=WRITTEN, html=WRITTEN)
def test_whatever_users_write_stays_in_its_place(name: str, subject: str, text: str, html: str) -> None:
    raw = mime.build(
        sender="no-reply@example.com",
        to=mime.address(name, "bob@example.com"),
        subject=subject,
        text=text,
        html=html,
        message_id="1@example.com",
        date=datetime.now(UTC),
    )
    assert raw.isascii()
    assert all(len(line) <= 998 for line in raw.split(b"\r\n"))
    assert b"\n" not in raw.replace(b"\r\n", b"")
    mail = message_from_bytes(raw, policy=default)
    assert not mail.defects
    assert {key.lower() for key in mail} <= {
        "from", "to", "subject", "date", "message-id", "auto-submitted", "mime-version", "content-type",
        "content-transfer-encoding",
    }  # fmt: skip
    (to,) = mail["To"].addresses
    assert to.addr_spec == "bob@example.com"
    # The parser of `default` does not join encoded words in a phrase as RFC 2047, section 6.2, says.
    shown = message_from_bytes(raw, policy=compat32)["To"].rpartition("<")[0].strip()
    assert decoded(shown) == seen(name)
    assert str(mail["Subject"]) == seen(subject)
    assert lines(mail.get_body(("html",))) == lines(html)
    plain = mail.get_body(("plain",))
    assert (plain is None) == (not text.strip())
    assert plain is None or lines(plain) == lines(text)


def decoded(phrase: str) -> str:
    if phrase.startswith('"'):
        return unquote(phrase)
    return str(make_header(decode_header(phrase)))


def seen(text: str) -> str:
    """On one line: joiners stay, other format characters go, whatever else can't be printed is a space."""
    kept = [char for char in text if char in "\u200c\u200d" or unicodedata.category(char) != "Cf"]
    plain = (char if char.isprintable() or char in "\u200c\u200d" else " " for char in kept)
    return " ".join("".join(plain).split())


def lines(part: Any) -> str:
    text = part if isinstance(part, str) else part.get_content()
    return text.replace("\r\n", "\n").replace("\r", "\n").strip("\n")


@pytest.mark.parametrize(
    "name", ["Bob\r\nBcc: eve@example.com", "x" * 70 + "\nBcc: eve@example.com", "ö\r\nBcc: e"]
)
def test_a_line_break_in_a_name_or_subject_makes_no_header(name: str) -> None:
    raw = mime.build(
        sender="a@example.com", to=mime.address(name, "bob@example.com"), subject=name, text="", html="x",
        message_id="1@example.com", date=datetime.now(UTC),
    )  # fmt: skip
    assert "Bcc" not in message_from_bytes(raw, policy=default)


@pytest.mark.parametrize(
    "to", ["a@b.com>\r\nRCPT TO:<eve@example.com", "a b@example.com", "a\x01@example.com", "a"]
)
async def test_a_malformed_mailbox_never_reaches_the_server(mailbox: MailboxServer, to: str) -> None:
    async with email(mailbox.url) as channel:
        with pytest.raises(PermanentFailure) as failure:
            await channel.send(delivery(to), CONTENT)
    assert not isinstance(failure.value, InvalidAddress)
    assert mailbox.mails == []


def test_building_a_mail_takes_a_fraction_of_a_millisecond() -> None:
    html = "<p>Grüße, this is a line of <b>text</b> in a mail of the usual size</p>\n" * 150
    times = []
    for _ in range(50):
        start = time.perf_counter()
        mime.build(
            sender="no-reply@example.com", to=mime.address("Böb", "bob@example.com"), subject="Grüße",
            text=html, html=html, message_id="1@example.com", date=datetime.now(UTC),
        )  # fmt: skip
        times.append(time.perf_counter() - start)
    assert min(times) < 0.001  # email.message takes 3 ms


async def test_a_mailbox_in_other_letters_needs_smtputf8(mailbox: MailboxServer) -> None:
    async with email(mailbox.url) as channel:
        await channel.send(delivery("jürgen@münchen.example"), CONTENT)
    assert mailbox.mails[0].to == "jürgen@xn--mnchen-3ya.example"
    async with Scripted() as server, email(server.url) as channel:
        with pytest.raises(PermanentFailure, match="SMTPUTF8"):
            await channel.send(delivery("jürgen@example.com"), CONTENT)
        await channel.send(delivery("juergen@münchen.example"), CONTENT)  # a domain alone does not
        assert "RCPT TO:<juergen@xn--mnchen-3ya.example>" in server.heard


# Settings ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("NOTIFIER_SMTP_URL", "http://localhost", "smtp://"),
        ("NOTIFIER_SMTP_URL", "smtp://", "no host"),
        ("NOTIFIER_SMTP_URL", "smtp://me:secret@host:99999", "not a URL"),
        ("NOTIFIER_SMTP_URL", "smtp://me:1/secret@host", "percent-encoded"),
        ("NOTIFIER_SMTP_URL", "smtp://me:1?secret@host", "percent-encoded"),
        ("NOTIFIER_SMTP_URL", "smtp://me:1#secret@host", "percent-encoded"),
        ("NOTIFIER_SMTP_URL", "smtp://host?starttls=maybe", "required, optional or never"),
        ("NOTIFIER_SMTP_URL", "smtp://host?tls=yes", "'tls'"),
        ("NOTIFIER_SMTP_URL", "smtp://host/path", "must look like"),
        ("NOTIFIER_MAIL_FROM", "nobody", "neither"),
        ("NOTIFIER_MAIL_FROM", "Me <nobody>", "neither"),
        ("NOTIFIER_MAIL_FROM", "Me <a@example.com>\nBcc: b@example.com", "neither"),
        ("NOTIFIER_MAIL_FROM", "jürgen@example.com", "neither"),
        ("NOTIFIER_SMTP_CONNECTIONS", "0", "greater than"),
        ("NOTIFIER_SMTP_CONNECTIONS", "many", "integer"),
        ("NOTIFIER_SMTP_TIMEOUT", "20", "duration"),
        ("NOTIFIER_SMTP_TIMEOUT", "0s", "greater than"),
        ("NOTIFIER_SMTP_TIMEOUT", "999999999w", "longer than ten years"),
    ],
)
def test_a_wrong_setting_is_named_and_not_shown(name: str, value: str, reason: str) -> None:
    with pytest.raises(ConfigurationError) as failure:
        open_channel({name: value})
    assert failure.value.setting == name
    assert reason in failure.value.reason
    assert "secret" not in str(failure.value)


def test_the_settings_have_defaults_and_an_empty_one_is_unset() -> None:
    settings = EmailSettings.read({"NOTIFIER_SMTP_URL": "", "PATH": "/bin"})
    assert settings.server == smtp.SmtpServer("127.0.0.1", 25)
    assert (settings.sender, settings.connections, settings.timeout) == (None, 10, timedelta(seconds=20))


def test_the_url_says_all_of_the_server_and_the_password_shows_nowhere() -> None:
    url = "smtps://me%40x:p%3Ass@mail.example.com?ca=/etc/ca.pem"
    settings = EmailSettings.read({"NOTIFIER_SMTP_URL": url})
    server = settings.server
    assert (server.host, server.port, server.implicit_tls) == ("mail.example.com", 465, True)
    assert (server.user, server.password, server.ca) == ("me@x", "p:ss", "/etc/ca.pem")
    assert "p:ss" not in repr(settings)
    assert "p%3Ass" not in repr(EmailChannel(settings).settings)


async def test_sending_needs_a_sender_and_routing_does_not() -> None:
    channel = open_channel({})
    assert [one.value for one in channel.addresses(Recipient(id="b", email="Bob@Example.com"))] == [
        "Bob@Example.com"
    ]
    with pytest.raises(ConfigurationError) as failure:
        await channel.open()
    assert failure.value.setting == "NOTIFIER_MAIL_FROM"
    await channel.close()


async def test_a_file_of_certificates_that_is_missing_is_named() -> None:
    environ = {
        "NOTIFIER_SMTP_URL": "smtps://localhost?ca=/nowhere.pem",
        "NOTIFIER_MAIL_FROM": "a@example.com",
    }
    with pytest.raises(ConfigurationError, match="NOTIFIER_SMTP_URL"):
        await open_channel(environ).open()


def test_one_address_for_each_mailbox_whatever_its_case() -> None:
    channel = open_channel({})
    (address,) = channel.addresses(Recipient(id="b", email="Bob@Example.com"))
    assert (address.key, address.value) == ("bob@example.com", "Bob@Example.com")
    assert channel.addresses(Recipient(id="b")) == ()
    assert ascii_domain("b@EXAMPLE.com") == "b@EXAMPLE.com"


# Outcomes ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        ("550 5.1.1 no such user", InvalidAddress),
        ("550 5.1.10 recipient not found", InvalidAddress),
        ("553 sorry, no mailbox here by that name (#5.1.1)", InvalidAddress),
        ("550 Unrouteable address", InvalidAddress),
        ("550 No such user here", InvalidAddress),
        ("551 unknown user", InvalidAddress),
        ("550 5.7.1 blocked by policy", PermanentFailure),
        ("550 relay not permitted", PermanentFailure),
        ("550 blocked, see example.org", PermanentFailure),
        ("553 sorry, that domain isn't in my list of allowed rcpthosts (#5.7.1)", PermanentFailure),
        ("550 5.1.8 sender's domain not found", PermanentFailure),
        ("550 5.1.0 Sender address rejected: User unknown", PermanentFailure),
        ("552 5.2.2 mailbox full", PermanentFailure),
        ("554 5.7.1 rejected", PermanentFailure),
        ("450 4.2.1 busy", TransientFailure),
        ("451 4.7.1 greylisted", TransientFailure),
        ("452 4.2.2 mailbox full", TransientFailure),
        ("421 4.3.2 shutting down", ChannelUnavailable),
        ("530 5.7.0 authentication required", ChannelUnavailable),
    ],
)
async def test_what_an_answer_to_the_recipient_means(
    mailbox: MailboxServer, answer: str, kind: type[Exception]
) -> None:
    mailbox.always["bob@example.com"] = answer
    async with email(mailbox.url) as channel:
        with pytest.raises(kind) as failure:
            await channel.send(delivery(), CONTENT)
        assert type(failure.value) is kind
        assert failure.value.answer == answer  # type: ignore[attr-defined]
        await channel.send(delivery("carol@example.com"), CONTENT)  # the next mail is not affected
    assert [mail.to for mail in mailbox.mails] == ["carol@example.com"]


@pytest.mark.parametrize(
    ("step", "answer", "kind"),
    [
        ("GREETING", "554 no service for you", ChannelUnavailable),
        ("GREETING", "CLOSE", ChannelUnavailable),
        ("GREETING", "HANG", ChannelUnavailable),
        ("GREETING", "ssh-2.0", ChannelUnavailable),
        ("EHLO", "421 too busy", ChannelUnavailable),
        ("EHLO", "CLOSE", ChannelUnavailable),
        ("MAIL", "451 4.3.0 later", ChannelUnavailable),
        ("MAIL", "550 5.7.1 sender refused", PermanentFailure),
        ("MAIL", "530 5.7.0 authentication required", ChannelUnavailable),
        ("MAIL", "HANG", ChannelUnavailable),
        ("MAIL", "nonsense", ChannelUnavailable),
        ("RCPT", "CLOSE", TransientFailure),
        ("RCPT", "HANG", TransientFailure),
        ("RCPT", "nonsense", TransientFailure),
        ("DATA", "451 4.3.0 later", TransientFailure),
        ("DATA", "554 5.5.1 no valid recipients", PermanentFailure),
        ("DATA", "HANG", TransientFailure),
        ("BODY", "452 4.3.1 disk full", TransientFailure),
        ("BODY", "550 5.1.1 spam, says the filter", PermanentFailure),
        ("BODY", "421 4.3.2 shutting down", ChannelUnavailable),
        ("BODY", "CLOSE", TransientFailure),
        ("BODY", "HANG", TransientFailure),
        ("BODY", "nonsense", TransientFailure),
    ],
)
async def test_what_goes_wrong_at_each_step_means(step: str, answer: str, kind: type[Exception]) -> None:
    async with Scripted(**{step: answer}) as server, email(server.url) as channel:
        sending = asyncio.create_task(channel.send(delivery(), CONTENT))
        if answer == "HANG":
            await until(lambda: server.hangs)
            while not sending.done():
                time_passes()
                await asyncio.sleep(0)
        with pytest.raises(kind) as failure:
            await sending
        assert type(failure.value) is kind
        if step == "BODY" and answer in {"CLOSE", "HANG"}:
            assert "may arrive twice" in str(failure.value)
        server.script |= {"GREETING": "220 hi", "EHLO": "250 hi", "MAIL": "250 ok", "RCPT": "250 ok"}
        server.script |= {"DATA": "354 go on", "BODY": "250 ok"}
        assert (await channel.send(delivery(), CONTENT)).answer == "250 ok"  # and the next one gets through


async def test_nobody_listening_is_the_channel_unavailable() -> None:
    async with email(f"smtp://127.0.0.1:{free_port()}") as channel:
        with pytest.raises(ChannelUnavailable, match=r"127\.0\.0\.1"):
            await channel.send(delivery(), CONTENT)


async def test_a_server_that_is_away_is_used_again_when_it_is_back(mailbox: MailboxServer) -> None:
    async with email(mailbox.url) as channel:
        await channel.send(delivery(), CONTENT)
        mailbox.unavailable = True
        with pytest.raises(ChannelUnavailable) as failure:
            await channel.send(delivery(), CONTENT)
        assert failure.value.answer.startswith("421")
        mailbox.unavailable = False
        await channel.send(delivery(), CONTENT)
    assert len(mailbox.mails) == 2


async def test_an_answer_is_kept_short_and_printable() -> None:
    async with Scripted(BODY="250 \x1b[31mred \x00" + "x" * 2_000) as server, email(server.url) as channel:
        answer = (await channel.send(delivery(), CONTENT)).answer
    assert answer.isprintable()
    assert answer.startswith("250 [31mred xxx")
    assert len(answer) == 500


# Connections ---------------------------------------------------------------------------------


async def test_connections_are_kept_and_bounded() -> None:
    async with Scripted() as server, email(server.url, smtp_connections="3") as channel:
        await asyncio.gather(*(channel.send(delivery(event_id=str(n)), CONTENT) for n in range(30)))
        assert (server.connections, server.most_open) == (3, 3)


async def test_an_idle_connection_that_the_server_closed_costs_no_delivery(mailbox: MailboxServer) -> None:
    async with email(mailbox.url) as channel:
        await channel.send(delivery(), CONTENT)
        await mailbox.disconnect_all()
        await channel.send(delivery(), CONTENT)
    assert len(mailbox.mails) == 2


@pytest.mark.parametrize(
    "farewell", ["CLOSE", "421 4.4.2 idle for too long", "451 4.7.0 enough mails", "HANG"]
)
async def test_a_kept_connection_that_fails_at_the_first_command_is_replaced(farewell: str) -> None:
    def mail(connection: int, number: int) -> str:
        if (connection, number) != (1, 2):
            return "250 ok"
        if farewell == "HANG":
            time_passes()
        return farewell

    async with Scripted(MAIL=mail) as server, email(server.url) as channel:
        await channel.send(delivery(), CONTENT)
        await channel.send(delivery(), CONTENT)
        assert server.connections == 2
        assert [line for line in server.heard if line.startswith("RCPT")] == ["RCPT TO:<bob@example.com>"] * 2


async def test_a_kept_connection_that_fails_later_is_a_failure_of_the_delivery() -> None:
    def rcpt(connection: int, number: int) -> str:
        return "CLOSE" if (connection, number) == (1, 2) else "250 ok"

    async with Scripted(RCPT=rcpt) as server, email(server.url) as channel:
        await channel.send(delivery(), CONTENT)
        with pytest.raises(TransientFailure):
            await channel.send(delivery(), CONTENT)
        assert server.connections == 1


async def test_a_cancelled_delivery_leaves_no_half_dialogue_behind() -> None:
    def body(connection: int, _mail: int) -> str:
        return "HANG" if connection == 1 else "250 ok"

    async with Scripted(BODY=body) as server, email(server.url) as channel:
        task = asyncio.create_task(channel.send(delivery(event_id="1"), CONTENT))
        await until(lambda: "." in server.heard)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await channel.send(delivery(event_id="2"), CONTENT)
        assert server.connections == 2


async def test_a_connection_is_retired_after_its_share_of_mails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(smtp, "MAILS_PER_CONNECTION", 2)
    async with Scripted() as server, email(server.url) as channel:
        for number in range(5):
            await channel.send(delivery(event_id=str(number)), CONTENT)
        assert server.connections == 3
        await until(lambda: server.heard.count("QUIT") == 2)


async def test_an_idle_connection_is_closed_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(smtp, "IDLE_SECONDS", 0.05)
    async with Scripted() as server, email(server.url) as channel:
        await channel.send(delivery(), CONTENT)
        await until(lambda: not server.open_now)
        assert "QUIT" in server.heard


async def test_closing_says_goodbye(mailbox: MailboxServer) -> None:
    async with email(mailbox.url) as channel:
        await asyncio.gather(*(channel.send(delivery(event_id=str(n)), CONTENT) for n in range(4)))
        assert mailbox.connections == 4
    await until(lambda: not mailbox.connections)


# TLS and passwords ---------------------------------------------------------------------------


class Guarded:
    """aiosmtpd with TLS, whose one user is `me` with the password `s3cret`."""

    def __init__(self, certificate: Path, *, implicit: bool = False, tls: bool = True) -> None:
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(certificate)
        self.implicit = implicit
        self.tls = tls
        self.encrypted: list[bool] = []
        self.logins: list[bool] = []
        self._protocols: list[SMTP] = []

    async def handle_DATA(self, server: SMTP, session: Any, _envelope: Any) -> str:  # noqa: N802 - aiosmtpd's name
        transport = server.transport
        assert transport is not None
        self.encrypted.append(session.ssl is not None or transport.get_extra_info("cipher") is not None)
        return "250 thanks"

    def _authenticate(
        self, _server: Any, _session: Any, _envelope: Any, _mechanism: str, data: Any
    ) -> AuthResult:
        good = (data.login, data.password) == (b"me", b"s3cret")
        self.logins.append(good)
        return AuthResult(success=good, handled=False)

    def _protocol(self) -> SMTP:
        protocol = SMTP(
            self,
            hostname="localhost",
            tls_context=self.context if self.tls and not self.implicit else None,
            authenticator=self._authenticate,
            auth_require_tls=self.tls and not self.implicit,
            loop=asyncio.get_running_loop(),
        )
        self._protocols.append(protocol)
        return protocol

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            self._protocol, "127.0.0.1", 0, ssl=self.context if self.implicit else None
        )
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for protocol in self._protocols:
            if protocol.transport is not None:
                protocol.transport.close()
        tasks = [one._handler_coroutine for one in self._protocols if one._handler_coroutine]  # noqa: SLF001
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._server.wait_closed()


@pytest.fixture
async def guarded(certificate: Path) -> AsyncIterator[Guarded]:
    async with Guarded(certificate) as server:
        yield server


async def test_a_mail_goes_through_starttls_with_a_password(guarded: Guarded, certificate: Path) -> None:
    async with email(f"smtp://me:s3cret@127.0.0.1:{guarded.port}?ca={certificate}") as channel:
        await channel.send(delivery(), CONTENT)
    assert (guarded.encrypted, guarded.logins) == ([True], [True])


async def test_a_mail_goes_through_implicit_tls_with_a_password(certificate: Path) -> None:
    async with Guarded(certificate, implicit=True) as server:
        async with email(f"smtps://me:s3cret@127.0.0.1:{server.port}?ca={certificate}") as channel:
            await channel.send(delivery(), CONTENT)
        assert (server.encrypted, server.logins) == ([True], [True])


async def test_a_wrong_password_makes_the_channel_unavailable_and_shows_nowhere(
    guarded: Guarded, certificate: Path
) -> None:
    async with email(f"smtp://me:wr0ng@127.0.0.1:{guarded.port}?ca={certificate}") as channel:
        with pytest.raises(ChannelUnavailable) as failure:
            await channel.send(delivery(), CONTENT)
    assert failure.value.answer.startswith("535")
    assert "wr0ng" not in str(failure.value) + failure.value.answer
    assert guarded.encrypted == []


async def test_no_password_goes_to_a_server_that_nobody_vouches_for(guarded: Guarded) -> None:
    async with email(f"smtp://me:s3cret@127.0.0.1:{guarded.port}") as channel:
        with pytest.raises(ChannelUnavailable, match="certificate"):
            await channel.send(delivery(), CONTENT)
    assert guarded.logins == []


async def test_without_a_password_tls_is_used_as_offered(guarded: Guarded) -> None:
    async with email(f"smtp://127.0.0.1:{guarded.port}") as channel:
        await channel.send(delivery(), CONTENT)
    async with email(f"smtp://127.0.0.1:{guarded.port}?starttls=never") as channel:
        await channel.send(delivery(), CONTENT)
    assert guarded.encrypted == [True, False]


async def test_required_tls_is_required(certificate: Path) -> None:
    async with Guarded(certificate, tls=False) as server:
        async with email(f"smtp://127.0.0.1:{server.port}?starttls=required") as channel:
            with pytest.raises(ChannelUnavailable, match="STARTTLS"):
                await channel.send(delivery(), CONTENT)
        assert server.encrypted == []


async def test_a_password_leaves_this_machine_only_encrypted(certificate: Path) -> None:
    async with Guarded(certificate, tls=False) as server:
        # 127.1 is this machine to the resolver, and another one to us.
        async with email(f"smtp://me:s3cret@127.1:{server.port}") as channel:
            with pytest.raises(ChannelUnavailable, match="not sent in the clear"):
                await channel.send(delivery(), CONTENT)
        assert server.logins == []
        async with email(f"smtp://me:s3cret@127.0.0.1:{server.port}") as channel:
            await channel.send(delivery(), CONTENT)
        async with email(f"smtp://me:s3cret@127.1:{server.port}?starttls=never") as channel:
            await channel.send(delivery(), CONTENT)
        assert server.logins == [True, True]


# Postfix's sink -------------------------------------------------------------------------------


@pytest.fixture
def smtp_sink() -> Iterator[Callable[..., str]]:
    """Starts `smtp-sink` with the given options and returns its URL."""
    program = shutil.which("smtp-sink", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if program is None:
        if os.environ.get("CI"):
            pytest.fail("smtp-sink is missing: install Debian's postfix")
        pytest.skip("needs smtp-sink of Debian's postfix")
    with ExitStack() as stack:

        def start(*options: str) -> str:
            port = free_port()
            user = ["-u", "postfix"] if os.getuid() == 0 else []
            process = subprocess.Popen(
                [program, *user, *options, f"127.0.0.1:{port}", "100"],
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )  # fmt: skip
            stack.callback(process.wait)
            stack.callback(process.kill)
            deadline = time.monotonic() + DEADLINE
            while time.monotonic() < deadline:
                with socket.socket() as probe:
                    if probe.connect_ex(("127.0.0.1", port)) == 0:
                        return f"smtp://127.0.0.1:{port}"
            raise TimeoutError("smtp-sink did not start")

        yield start


async def test_five_hundred_mails_go_through_ten_connections(smtp_sink: Callable[..., str]) -> None:
    async with email(smtp_sink()) as channel:
        sent = await asyncio.gather(
            *(channel.send(delivery(f"u{n}@example.com", event_id=str(n)), CONTENT) for n in range(500))
        )
    assert {one.answer[:3] for one in sent} == {"250"}


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        (("-f", "rcpt"), PermanentFailure),
        (("-r", "rcpt"), TransientFailure),
        (("-q", "rcpt"), TransientFailure),
        (("-f", "."), PermanentFailure),
        (("-r", "."), TransientFailure),
        (("-q", "."), TransientFailure),
        (("-q", "mail"), ChannelUnavailable),
        (("-q", "connect"), ChannelUnavailable),
    ],
)
async def test_the_sink_refuses_and_hangs_up(
    smtp_sink: Callable[..., str], options: tuple[str, str], kind: type[Exception]
) -> None:
    async with email(smtp_sink(*options)) as channel:
        with pytest.raises(kind) as failure:
            await channel.send(delivery(), CONTENT)
        assert type(failure.value) is kind


def test_a_slash_in_a_mailbox_is_none_in_the_key() -> None:
    channel = open_channel({"NOTIFIER_MAIL_FROM": "app@example.com"})
    [address] = channel.addresses(Recipient(id="ada", email="A/b@example.com"))
    assert (address.key, address.value) == ("a%2Fb@example.com", "A/b@example.com")
