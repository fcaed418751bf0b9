"""A mail server that keeps account of what it took, and can be as bad as real ones are."""

from __future__ import annotations

import random
import re
from collections import Counter

from aiosmtpd.smtp import SMTP, Envelope

from notifier.local.mailbox import MailboxServer

_SUBJECT = re.compile(rb"^Subject: *(\S+)", re.MULTILINE | re.IGNORECASE)
GREYLISTED = "451 4.7.1 greylisted, try again later"


class AccountingMailbox(MailboxServer):
    """Every subject is an event id. `taken` are (mailbox, event id) in the order in which they came.

    `hangs_up` is in how many of the next mails it takes the mail and closes the connection without an answer;
    `refuses` which share of recipients it asks to come later.
    """

    def __init__(self) -> None:
        super().__init__()
        self.taken: list[tuple[str, str]] = []
        self.hangs_up = 0
        self.refuses = 0.0
        self.did: Counter[str] = Counter()

    def answer_to(self, mailbox: str) -> str | None:
        if self.refuses and random.random() < self.refuses:
            self.did["refused"] += 1
            return GREYLISTED
        return super().answer_to(mailbox)

    def receive(self, envelope: Envelope) -> None:
        found = _SUBJECT.search(envelope.original_content or b"")
        event_id = found[1].decode() if found else "without a subject"
        self.taken += [(mailbox, event_id) for mailbox in envelope.rcpt_tos]
        if self.hangs_up:
            self.hangs_up -= 1
            self.did["hung up after DATA"] += len(envelope.rcpt_tos)
            for dialogue in self._dialogues:
                if isinstance(dialogue, SMTP) and dialogue.envelope is envelope and dialogue.transport:
                    dialogue.transport.abort()
