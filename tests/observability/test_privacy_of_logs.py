"""Whatever happens to a delivery, the log has neither a name nor an address nor a text of anybody."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import redis

from notifier import Publisher
from notifier.keys import Keys
from notifier.redaction import redacted, traceback_without_addresses
from tests.observability.installation import Installation
from tests.support.topologies import wait

KEYS = Keys("ntf", 4)
SECRETS = ("grace.hopper", "Grace", "Hopper", "kompila", "harbour at dawn")
WHO = {"id": "grace.hopper", "name": "Grace Hopper", "email": "grace.hopper@kompila.example"}

CHANNEL = """
from notifier.channel import *

class Odd:
    name = "post"
    blocks = (Block("body", "text"),)

    def addresses(self, recipient):
        if recipient.locale == "xx":
            raise ValueError(f"nothing for {recipient.email}")
        return [Address("letterbox", recipient.email)] if recipient.email else []

    async def open(self): ...
    async def close(self): ...

    async def send(self, delivery, content):
        answer = f"<{delivery.address}> is not known here"
        match delivery.event.data["then"]:
            case "later": raise TransientFailure("try later", answer=answer)
            case "never": raise PermanentFailure(f"refused for {delivery.address}", answer=answer)
            case "gone": raise InvalidAddress("unknown", answer=answer)
            case "bug": raise ValueError(f"can't reach {delivery.address}")
        return Sent(answer)

def open_channel(environ):
    return Odd()
"""


def publish(url: str, *events: dict[str, Any]) -> None:
    with Publisher(url) as publisher:
        for number, event in enumerate(events):
            data = {"text": "harbour at dawn", "then": ""} | event.pop("data", {})
            publisher.publish({"id": f"e{number}", "type": "like", "recipient": WHO, "data": data} | event)


@pytest.mark.slow
def test_no_line_says_who_it_is_about(
    installation: Installation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "odd_channel.py").write_text(CHANNEL)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    worker = installation.start(
        "worker", "all",
        NOTIFIER_CHANNELS="odd_channel:open_channel", NOTIFIER_LOG_LEVEL="debug", NOTIFIER_LOG_FORMAT="json",
        NOTIFIER_RETRY_BASE="10ms", NOTIFIER_RETRY_ATTEMPTS="2", NOTIFIER_DLQ_DELAY="50ms",
        NOTIFIER_ADMINS="grace.hopper@kompila.example",
    )  # fmt: skip
    others = [{"data": {"then": then}} for then in ("", "later", "never", "bug")]
    publish(
        installation.url,
        *others,
        {"data": {"text": None}, "type": "nobody_knows_it"},
        {"recipient": WHO | {"preferences": {"like": {"post": False}}}},
        {"recipient": {"id": "grace.hopper"}},
        {"recipient": WHO | {"locale": "xx"}},
        {"expires_at": "2020-01-01T00:00:00Z"},
        {"data": {"then": "gone"}},
    )
    with redis.Redis.from_url(installation.url) as client:
        client.xadd(
            KEYS.queue("post", 1), {"head": "Grace Hopper, grace.hopper@kompila.example", "event": "{}"}
        )
        client.xadd(
            KEYS.queue("events", 1),
            {"v": "1", "to": '{"id": "grace.hopper", "email": "Hopper"}', "event": "{}"},
        )
    wanted = {
        "delivered", "delivery_parked", "delivery_dead_lettered", "delivery_dead", "delivery_skipped",
        "channel_raised", "routing_raised",
    }  # fmt: skip
    wait(lambda: wanted <= told(worker.log).keys(), "all has been said")
    text = worker.log.read_text()
    assert [secret for secret in SECRETS if secret in text] == []
    about = told(worker.log)["delivery_parked"]
    assert about.keys() >= {"queue", "partition", "event_id", "type", "recipient", "delivery", "attempt"}
    assert about["recipient"] == redacted("grace.hopper")
    assert about["partition"] == KEYS.partition_of("grace.hopper")
    assert "<address>" in told(worker.log)["channel_raised"]["exception"]


def told(log: Path) -> dict[str, dict[str, Any]]:
    """The last line of each event."""
    whole = log.read_text().rpartition("\n")[0]  # and not half of the one that is being written
    return {line["event"]: line for line in map(json.loads, whole.splitlines())}


@pytest.mark.parametrize(
    ("said", "left"),
    [
        ("ValueError: no grace@kompila.example here", "ValueError: no <address> here"),
        ("'grace+x@mail.kompila.example'", "'<address>'"),
        ("redis://***@redis.internal:6379 refused", "redis://***@redis.internal:6379 refused"),
        ("POST https://push.example/v1/abc-secret failed", "POST https://push.example/… failed"),
        ('File "/srv/app/x.py", line 3, in send', 'File "/srv/app/x.py", line 3, in send'),
        ("@decorator", "@decorator"),
    ],
)
def test_a_traceback_says_where_and_not_who(said: str, left: str) -> None:
    assert traceback_without_addresses(said) == left
