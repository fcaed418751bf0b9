"""What a provider says, as the log shows it."""

from __future__ import annotations

import pytest

from notifier.redaction import redacted, without_addresses


@pytest.mark.parametrize(
    ("said", "logged"),
    [
        ("550 5.1.1 no such mailbox <Gone.22@example.com>", "550 5.1.1 no such mailbox <<address>>"),
        ("user+tag@sub.example.com: unknown", "<address>: unknown"),
        ("451 4.7.1 try again later", "451 4.7.1 try again later"),
        (
            "410 from https://push.example.com/send/secret-token?x=1",
            "410 from https://push.example.com/…",
        ),
        ("see https://help.example.com for more", "see https://help.example.com for more"),
    ],
)
def test_addresses_and_endpoints_of_a_providers_answer_do_not_reach_the_log(said: str, logged: str) -> None:
    assert without_addresses(said) == logged


def test_a_recipient_is_the_same_digest_every_time_and_tells_nothing() -> None:
    assert redacted("ada") == redacted(b"ada") != redacted("ben")
    assert "ada" not in redacted("ada")
