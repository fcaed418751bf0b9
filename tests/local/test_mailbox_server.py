"""The mailbox server that `notifier demo` and `notifier dev` bring along, seen by an ordinary client."""

from __future__ import annotations

import asyncio
import smtplib
import socket
from collections.abc import Callable
from email.message import EmailMessage

import pytest

from notifier.local.arrivals import KEPT, Arrivals
from notifier.local.mailbox import Mail, MailboxServer


def post(port: int, *to: str, subject: str = "Hello") -> dict[str, tuple[int, bytes]]:
    """Send with the standard library's client; what was refused."""
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = "ada@example.com", ", ".join(to), subject
    message["Message-ID"] = "<1@example.com>"
    message.set_content("plain")
    message.add_alternative("<b>rich</b>", subtype="html")
    with smtplib.SMTP("127.0.0.1", port, timeout=5) as client:
        return client.send_message(message)


async def test_each_mailbox_gets_the_mail() -> None:
    shown: list[Mail] = []
    async with MailboxServer(on_mail=shown.append) as server:
        assert await asyncio.to_thread(post, server.port, "bob@example.com", "carol@example.com") == {}
        mail = await server.wait_for(lambda one: one.to == "carol@example.com", timeout=5)
    assert (mail.sender, mail.subject, mail.message_id) == ("ada@example.com", "Hello", "<1@example.com>")
    assert (mail.text, mail.html) == ("plain\n", "<b>rich</b>\n")
    assert mail.raw.startswith(b"From: ada@example.com")
    assert shown == server.mails
    assert [one.to for one in shown] == ["bob@example.com", "carol@example.com"]


async def test_answers_are_given_in_turn_and_then_the_mailbox_is_ordinary() -> None:
    async with MailboxServer() as server:
        server.answers["bob@example.com"] = ["451 4.7.1 later", "450 4.2.1 busy"]
        server.always["gone@example.com"] = "550 5.1.1 no such mailbox"
        codes = []
        for to in ["Bob@example.com"] * 3 + ["gone@example.com"] * 2:
            try:
                await asyncio.to_thread(post, server.port, to)
                codes.append(250)
            except smtplib.SMTPRecipientsRefused as refused:
                codes.append(next(iter(refused.recipients.values()))[0])
    assert codes == [451, 450, 250, 550, 550]
    assert [mail.to for mail in server.mails] == ["Bob@example.com"]


async def test_while_unavailable_everything_is_answered_421() -> None:
    async with MailboxServer() as server:
        server.unavailable = True
        with pytest.raises(smtplib.SMTPResponseException) as failure:
            await asyncio.to_thread(post, server.port, "bob@example.com")
        assert failure.value.smtp_code == 421
        server.unavailable = False
        await asyncio.to_thread(post, server.port, "bob@example.com")
    assert len(server.mails) == 1


async def test_it_stops_while_clients_are_connected_and_frees_its_port() -> None:
    async with MailboxServer() as server:
        _, writer = await asyncio.open_connection("127.0.0.1", server.port)
        async with asyncio.timeout(5):
            while server.connections == 0:
                await asyncio.sleep(0)
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", server.port)) != 0
    writer.close()


async def test_a_port_in_use_is_an_error() -> None:
    async with MailboxServer() as server:
        with pytest.raises(OSError, match="in use"):
            await MailboxServer(server.port).__aenter__()


async def test_waiting_ends_with_what_fits_or_in_time() -> None:
    arrivals: Arrivals[int] = Arrivals()
    arrivals.add(1)
    is_two: Callable[[int], bool] = (2).__eq__
    waiting = asyncio.create_task(arrivals.wait_for(is_two, 5))
    with pytest.raises(TimeoutError, match="1 came"):
        await arrivals.wait_for(is_two, 0.01)
    assert not waiting.done()
    arrivals.add(3)
    arrivals.add(2)
    assert await waiting == 2
    for number in range(KEPT + 5):
        arrivals.add(number)
    assert arrivals.items == list(range(5, KEPT + 5))
