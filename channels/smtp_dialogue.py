"""One mail through an open SMTP connection (RFC 5321), and what the server's answers mean."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NoReturn

from aiosmtplib import (
    SMTP,
    SMTPDataError,
    SMTPException,
    SMTPRecipientRefused,
    SMTPResponseException,
    SMTPSenderRefused,
)

from notifier.channel import (
    ChannelUnavailable,
    DeliveryError,
    InvalidAddress,
    PermanentFailure,
    TransientFailure,
)

_ENHANCED = re.compile(r"^(?P<code>[245]\.\d{1,3}\.\d{1,3})\b|#(?P<late>[245]\.\d{1,3}\.\d{1,3})\b")
# A plain 550 to RCPT TO means an unknown mailbox (RFC 5321, section 4.2.3), unless its text tells of
# something else. Suppressing a good address is worse than trying a bad one again.
_OTHER_REASON = re.compile(
    r"\b(relay\w*|spam\w*|block\w*|black\w*|polic\w+|den(y|ied)|prohibit\w*|banned|not (allowed|permitted)"
    r"|authenticat\w*|sender\w*|reputation|rbl|dnsbl|spf|dkim|dmarc|quota|full|size|rate|limit\w*|virus\w*"
    r"|greylist\w*|try again)\b",
    re.IGNORECASE,
)
_UNKNOWN_MAILBOX = re.compile(
    r"\b(unknown|no such|not exist\w*|doesn'?t exist|invalid (mailbox|recipient|user)|not found)\b",
    re.IGNORECASE,
)
_SENDER_CODES = frozenset({"5.1.7", "5.1.8"})
_REFUSES_US = frozenset({421, 530, 534, 535, 538})


@dataclass(frozen=True, slots=True)
class Envelope:
    """What goes to the server: addresses of the envelope, and the mail's bytes."""

    sender: str
    recipient: str
    message: bytes

    @property
    def needs_utf8(self) -> bool:
        """Whether only a server with SMTPUTF8 (RFC 6531) can take it."""
        return not self.recipient.isascii()


class Stale(Exception):
    """A kept connection that the server had given up; nothing was sent on it."""


async def begin(client: SMTP, envelope: Envelope, *, is_kept: bool) -> None:
    """MAIL FROM. Raises a DeliveryError, or Stale when a kept connection may be to blame.

    All mails have the same sender, so a temporary refusal concerns all of them.
    """
    utf8 = envelope.needs_utf8
    if utf8 and not client.supports_extension("smtputf8"):
        raise PermanentFailure("the server has no SMTPUTF8, which this mailbox needs")
    try:
        await client.mail(envelope.sender, options=["SMTPUTF8"] if utf8 else [])
    except SMTPSenderRefused as error:
        if is_kept and error.code < 500:
            raise Stale from error
        answer = answer_text(error.code, error.message)
        if error.code < 500 or error.code in _REFUSES_US:
            raise ChannelUnavailable("the server takes no mail from us now", answer=answer) from error
        raise PermanentFailure("the server refused the sender", answer=answer) from error
    except (SMTPException, OSError) as error:
        client.close()
        if is_kept:
            raise Stale from error
        raise ChannelUnavailable(
            f"the server went away at MAIL FROM: {words(error)}", answer=answer_of(error)
        ) from error


async def transfer(client: SMTP, envelope: Envelope) -> str:
    """RCPT TO, DATA and the mail itself; the server's last answer. Raises a DeliveryError."""
    try:
        await client.rcpt(envelope.recipient, encoding="utf-8" if envelope.needs_utf8 else "ascii")
    except SMTPRecipientRefused as error:
        raise recipient_refused(error.code, error.message) from error
    except (SMTPException, OSError) as error:
        client.close()
        raise TransientFailure(
            f"the connection failed at RCPT TO: {words(error)}", answer=answer_of(error)
        ) from error
    try:
        response = await client.data(envelope.message)
    except SMTPDataError as error:
        _raise_data_refused(client, error)
    except (SMTPException, OSError) as error:
        client.close()
        raise TransientFailure(
            f"the connection failed before the server's answer to the mail, which may arrive twice: "
            f"{words(error)}",
            answer=answer_of(error),
        ) from error
    return answer_text(response.code, response.message)


def recipient_refused(code: int, text: str) -> DeliveryError:
    """What an answer to RCPT TO means. `text` may begin with an enhanced code (RFC 3463)."""
    answer = answer_text(code, text)
    if code in _REFUSES_US:
        return ChannelUnavailable("the server takes no mail from us now", answer=answer)
    if code < 500:
        return TransientFailure("the server refused the recipient for now", answer=answer)
    if _is_unknown_mailbox(code, text):
        return InvalidAddress("the mailbox does not exist", answer=answer)
    return PermanentFailure("the server refused the recipient", answer=answer)


def _is_unknown_mailbox(code: int, text: str) -> bool:
    found = _ENHANCED.search(text)
    if found is not None:
        enhanced = found["code"] or found["late"]
        # Servers that check the sender late answer RCPT TO with 5.1.0 and the word sender.
        return enhanced.startswith("5.1.") and enhanced not in _SENDER_CODES and "sender" not in text.lower()
    if _OTHER_REASON.search(text):
        return False
    return code == 550 or (code in {551, 553} and _UNKNOWN_MAILBOX.search(text) is not None)


def _raise_data_refused(client: SMTP, error: SMTPDataError) -> NoReturn:
    answer = answer_text(error.code, error.message)
    if error.code in _REFUSES_US:
        client.close()
        raise ChannelUnavailable("the server takes no mail from us now", answer=answer) from error
    if error.code < 500:
        if error.code < 400:
            client.close()  # out of step: what it says next can't be trusted
        raise TransientFailure("the server did not take the mail for now", answer=answer) from error
    raise PermanentFailure("the server refused the mail", answer=answer) from error


def answer_of(error: Exception) -> str:
    """What the server said, if the error came from an answer."""
    return answer_text(error.code, error.message) if isinstance(error, SMTPResponseException) else ""


def words(error: Exception) -> str:
    """The error in words, in one line."""
    return _clean(str(getattr(error, "message", error))) or type(error).__name__


def answer_text(code: int, text: str) -> str:
    """An answer in one line of at most 500 characters."""
    return _clean(f"{code} {text}")


def _clean(text: str) -> str:
    # aiosmtplib keeps bytes that are no UTF-8 as surrogates, which no queue could store.
    text = text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())[:500]
