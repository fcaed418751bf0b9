"""`notifier doctor` finds each thing that can be wrong, says how to mend it, and shows no secret."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import socket
import struct
import termios
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import redis
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult

from notifier.keys import Keys
from notifier.local.broker import EmbeddedBroker, free_port
from notifier.local.push_service import vapid_keys
from notifier.operations.doctor import examination, server
from notifier.settings import Settings
from tests.cli.conftest import Cli, Outcome, Start, wait_for

GOOD_KEY = "j6Tq0vNcZ3xWm9LsRyB4hKdPe7UgA1Fo"
PASSWORD = "hunter2-of-the-mail-server"


class _Sink:
    async def handle_DATA(self, *_: Any) -> str:  # noqa: N802 - aiosmtpd's name
        raise AssertionError("nobody is sent anything")


class _OneUser:
    def __call__(self, server: Any, session: Any, envelope: Any, mechanism: str, data: Any) -> AuthResult:
        return AuthResult(success=data.password == PASSWORD.encode(), handled=False)


@pytest.fixture
def mail() -> Iterator[str]:
    """A mail server on this machine that wants a login; `user:password@` goes before it."""
    port = free_port()
    controller = Controller(
        _Sink(), hostname="127.0.0.1", port=port, authenticator=_OneUser(), auth_require_tls=False,
        ready_timeout=20,
    )  # fmt: skip
    controller.start()
    yield f"127.0.0.1:{port}"
    controller.stop()


def working(mail: str) -> dict[str, str]:
    keys = vapid_keys()
    return {
        "smtp_url": f"smtp://ops:{PASSWORD}@{mail}",
        "mail_from": "ops@notifier.test",
        "vapid_private_key": keys.private,
        "vapid_subject": "mailto:ops@notifier.test",
        "admins": "ops@notifier.test",
        "api_keys": f"publish:{GOOD_KEY},operate:{GOOD_KEY[::-1]}x",
        "token_keys": "hs256:tXWkqmHDtTDdG2DAjUXJ4PVuU0xjPtp5YhVtmXDUYA8=",
    }


def found(outcome: Outcome, level: str) -> dict[str, dict[str, str]]:
    assert not outcome.err
    named = [(f["section"], f["what"]) for f in outcome.json["findings"] if f["level"] == "ok"]
    assert len(named) == len(set(named))
    for finding in outcome.json["findings"]:
        assert bool(finding["means"]) == bool(finding["mend"]) == (finding["level"] != "ok"), finding
    return {f["what"]: f for f in outcome.json["findings"] if f["level"] == level}


@pytest.mark.slow
def test_a_healthy_installation_has_nothing_to_mend(
    cli: Cli, start: Start, mail: str, tmp_path: Path
) -> None:
    with EmbeddedBroker(tmp_path / "broker", persistent=True) as broker:
        with redis.Redis.from_url(broker.url) as client:
            client.config_set("maxmemory", "100mb")
        settings = working(mail) | {"redis_url": broker.url}
        worker = start("worker", "all", **settings)
        outcomes = [cli("doctor", "--json", **settings)]

        def is_well() -> bool:
            """Once the worker serves everything; and a busy machine may be slow for a moment."""
            outcomes.append(cli("doctor", "--json", **settings))
            told = outcomes[-1].json
            return not told["errors"] and not told["warnings"] and "leases" in found(outcomes[-1], "ok")

        wait_for(is_well, "nothing to mend", 35)
        outcome = outcomes[-1]
        assert outcome.code == 0
        everything = found(outcome, "ok")
        assert everything.keys() >= {
            "environment", "NOTIFIER_API_KEYS", "NOTIFIER_TOKEN_KEYS", "reachable", "version", "role",
            "appendonly", "last saves", "maxmemory-policy", "memory", "NOTIFIER_DURABILITY", "clocks",
            "round trip", "rights", "wire format", "partitions", "events workers", "email waiting", "leases",
            "dead letters", "templates", "mail server", "VAPID key", "inboxes", "time zones",
        }  # fmt: skip
        assert "logged in" in everything["mail server"]["found"]
        people = cli("doctor", **settings)
        assert people.code == 0
        assert "0 errors, " in people.out
        for secret in (PASSWORD, GOOD_KEY, settings["vapid_private_key"], settings["token_keys"][6:]):
            assert secret not in people.out + outcome.out
        worker.check_running()


def test_all_wrong_settings_are_told_at_once_and_the_rest_is_looked_at(cli: Cli) -> None:
    outcome = cli(
        "doctor", "--json",
        lease_ttl="banana", partitions="0", smtp_ulr="smtp://x", vapid_subject="nobody", trace_retention="1d",
    )  # fmt: skip
    assert outcome.code == 1
    wrong = found(outcome, "error")
    assert wrong.keys() >= {"NOTIFIER_LEASE_TTL", "NOTIFIER_PARTITIONS", "NOTIFIER_VAPID_SUBJECT"}
    assert "NOTIFIER_SMTP_URL" in found(outcome, "warning")["NOTIFIER_SMTP_ULR"]["mend"]
    assert {"inboxes", "time zones", "reachable"} <= found(outcome, "ok").keys()
    assert "NOTIFIER_TRACE_RETENTION" not in {f["what"] for f in outcome.json["findings"]}


def test_a_wrong_place_of_the_broker_is_not_taken_for_the_usual_one(cli: Cli) -> None:
    outcome = cli("doctor", "--json", redis_url="redis://:sesame@host:bad", smtp_url="smtp://u:sesame@")
    wrong = found(outcome, "error")
    assert wrong.keys() >= {"NOTIFIER_REDIS_URL", "NOTIFIER_SMTP_URL", "broker", "queues"}
    assert "NOTIFIER_REDIS_URL is wrong" in wrong["broker"]["found"]
    assert not found(outcome, "warning").keys() & {"NOTIFIER_SMTP_URL", "NOTIFIER_REDIS_URL"}
    assert "sesame" not in outcome.out


def test_without_a_broker_it_looks_at_the_rest(cli: Cli) -> None:
    outcome = cli("doctor", "--json", redis_url=f"redis://:sesame@127.0.0.1:{free_port()}/0")
    assert outcome.code == 1
    assert "NOTIFIER_REDIS_URL" in found(outcome, "error")["reachable"]["mend"]
    assert {"templates", "time zones", "inboxes"} <= found(outcome, "ok").keys()
    assert "sesame" not in outcome.out


@pytest.mark.slow
def test_what_never_answers_is_given_up(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(examination, "PATIENCE", timedelta(seconds=1))
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        began = time.monotonic()
        outcome = cli(
            "doctor", "--json",
            redis_url=f"redis://127.0.0.1:{port}/0",
            smtp_url=f"smtp://127.0.0.1:{port}",
            mail_from="a@b.test",
        )  # fmt: skip
    assert time.monotonic() - began < 10
    wrong = {(f["section"], f["found"]) for f in outcome.json["findings"] if f["level"] == "error"}
    assert {("broker", "no answer within 1 s"), ("channel email", "no answer within 1 s")} <= wrong
    assert "time zones" in found(outcome, "ok")


def test_a_broker_that_evicts_or_keeps_nothing_is_an_error(cli: Cli, client: redis.Redis) -> None:
    before = client.config_get("maxmemory-policy")["maxmemory-policy"]
    client.config_set("maxmemory-policy", "allkeys-lru")
    try:
        outcome = cli("doctor", "--json", durability="fsync")
    finally:
        client.config_set("maxmemory-policy", before)
    wrong = found(outcome, "error")
    assert "CONFIG SET maxmemory-policy noeviction" in wrong["maxmemory-policy"]["mend"]
    assert "CONFIG SET appendonly yes" in wrong["appendonly"]["mend"]
    assert "fsync" in wrong["NOTIFIER_DURABILITY"]["found"]
    assert "maxmemory" in found(outcome, "warning")


def test_what_is_fixed_in_the_broker_has_to_fit(cli: Cli, client: redis.Redis) -> None:
    client.hset("ntf:meta", mapping={"partitions": 16, "wire": "0"})
    wrong = found(cli("doctor", "--json", partitions="8"), "error")
    assert "NOTIFIER_PARTITIONS=16" in wrong["partitions"]["mend"]
    assert wrong["wire format"]["found"].startswith("0;")
    client.hset("ntf:meta", "changing", "32")
    wrong = found(cli("doctor", "--json"), "error")
    assert wrong["partitions"]["mend"] == "notifier partitions change 32"


def test_of_a_change_of_partitions_that_was_interrupted_nothing_else_is_said(
    cli: Cli, client: redis.Redis
) -> None:
    client.hset("ntf:meta", mapping={"partitions": 16, "wire": "1", "changing": "32"})
    client.set(Keys().queue("events", 0), "moved; ntf:meta says where to")
    wrong = found(cli("doctor", "--json"), "error")
    assert wrong["partitions"]["mend"] == "notifier partitions change 32"
    client.flushdb()  # what is an error without any change is none of what it says of the change
    assert wrong.keys() - found(cli("doctor", "--json"), "error").keys() == {"partitions"}


def test_queues_that_nobody_serves_are_an_error_once_something_waits(cli: Cli, client: redis.Redis) -> None:
    assert cli("publish", "-q", "/dev/null").code in {0, 2}
    client.hset("ntf:meta", mapping={"partitions": 16, "wire": "1"})
    assert found(cli("doctor", "--json"), "warning")["events workers"]["mend"] == "notifier worker router"
    client.xadd(Keys().queue("events", 3), {"v": "1", "to": "a", "event": "{}"}, id="1700000000000-0")
    outcome = cli("doctor", "--json")
    assert found(outcome, "error")["events workers"]["found"] == "none"
    assert "channel_unavailable" in found(outcome, "warning")["events waiting"]["mend"]


def test_a_lease_that_never_ends_is_found(cli: Cli, client: redis.Redis) -> None:
    client.hset("ntf:meta", mapping={"partitions": 16, "wire": "1"})
    client.hset(Keys().lease("email", 4), mapping={"token": "gone#1", "until": 10**14})
    assert found(cli("doctor", "--json"), "error")["leases"]["mend"] == "DEL {ntf:04}:email:lease"


def test_types_without_templates_are_named(cli: Cli, client: redis.Redis, bury: Any) -> None:
    client.hset("ntf:meta", mapping={"partitions": 16, "wire": "1"})
    bury("events", error="UnknownType", kind="poke")
    bury("email", state="dead", error="PermanentFailure")
    outcome = cli("doctor", "--json")
    wrong = found(outcome, "error")["event type"]
    assert "poke" in wrong["found"]
    assert "notifier templates new" in wrong["mend"]
    assert "PermanentFailure 1" in found(outcome, "warning")["email dead"]["means"]


def test_a_broken_template_is_named(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "like").mkdir()
    (tmp_path / "like/in_app.jinja").write_text("{% block title %}{{ }}{% endblock %}")
    wrong = found(cli("doctor", "--json", templates=str(tmp_path)), "error")
    assert any(what.startswith("like/in_app.jinja:1") for what in wrong)
    wrong = found(cli("doctor", "--json", templates=str(tmp_path / "nowhere")), "error")
    assert "NOTIFIER_TEMPLATES" in wrong


def test_a_template_of_a_channel_that_is_not_configured_is_no_error(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "like").mkdir()
    (tmp_path / "like/pigeon.jinja").write_text("coo")
    outcome = cli("doctor", "--json", templates=str(tmp_path))
    assert found(outcome, "warning")["like/pigeon.jinja"]["found"] == "channel pigeon is not configured"
    assert "like/pigeon.jinja" not in found(outcome, "error")


def test_a_user_with_few_rights_is_told_which_are_missing(cli: Cli, client: redis.Redis) -> None:
    client.acl_setuser("dr", enabled=True, passwords=["+sesame"], keys=["{ntf:*"], categories=["+@all"], commands=["-config", "-zadd"])  # fmt: skip # noqa: E501
    try:
        port = client.connection_pool.connection_kwargs["port"]
        outcome = cli("doctor", "--json", redis_url=f"redis://dr:sesame@127.0.0.1:{port}/0")
    finally:
        client.acl_deluser("dr")
    refused = found(outcome, "error")
    told = str(refused)
    assert "ZADD" in told or "ntf:" in told
    assert "sesame" not in outcome.out


@pytest.mark.parametrize(
    ("change", "mend"),
    [
        ({"smtp_url": "smtp://ops:wrong-word-here@{mail}"}, "user and password"),
        ({"smtp_url": "smtp://{mail}?starttls=required"}, "certificate"),
        ({"smtp_url": "smtp://127.0.0.1:1"}, "host and port"),
        ({"mail_from": ""}, "NOTIFIER_MAIL_FROM"),
    ],
)
def test_a_mail_server_that_takes_nothing_is_told_with_its_reason(
    cli: Cli, mail: str, change: dict[str, str], mend: str
) -> None:
    settings = working(mail) | {name: value.format(mail=mail) for name, value in change.items()}
    outcome = cli("doctor", "--json", channels="channels.email:open_channel", **settings)
    [wrong] = [f for f in outcome.json["findings"] if f["section"] == "channel email"]
    assert wrong["level"] == "error"
    assert mend in wrong["mend"]
    assert "wrong-word-here" not in outcome.out
    assert outcome.code == 1


def test_weak_and_shared_keys_are_told_and_never_shown(cli: Cli) -> None:
    outcome = cli(
        "doctor", "--json", api_keys=f"publish:mysecretmysecret,operate:{GOOD_KEY},recipients:{GOOD_KEY}"
    )
    assert "publish (key 1)" in found(outcome, "error")["NOTIFIER_API_KEYS"]["found"]
    assert "operate and recipients" in found(outcome, "warning")["NOTIFIER_API_KEYS"]["found"]
    assert "mysecret" not in outcome.out
    assert GOOD_KEY not in outcome.out


CHANNELS = """
from notifier.channel import Sent
class Plain:
    blocks = ()
    def __init__(self, name): self.name = name
    def addresses(self, recipient): return ()
    async def open(self): pass
    async def send(self, delivery, content): return Sent()
    async def close(self): pass
class Failing(Plain):
    def variables(self): return {"NOTIFIER_PIGEON"}
    async def check(self): raise RuntimeError("the secret is sesame")
def plain(environ): return Plain("plain")
def failing(environ): return Failing("failing")
"""


def test_a_channel_of_ones_own_may_check_itself_or_not(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "of_ones_own.py").write_text(CHANNELS)
    monkeypatch.syspath_prepend(tmp_path)
    outcome = cli(
        "doctor", "--json", channels="of_ones_own:plain,of_ones_own:failing,of_ones_own:absent", pigeon="x"
    )
    findings = {f["section"]: f for f in outcome.json["findings"] if f["section"].startswith("channel")}
    assert findings["channel plain"]["level"] == "ok"
    assert "RuntimeError" in findings["channel failing"]["found"]
    assert "sesame" not in outcome.out
    assert "absent" in found(outcome, "error")["NOTIFIER_CHANNELS"]["found"]
    assert not any(f["what"] == "NOTIFIER_PIGEON" for f in outcome.json["findings"])


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        ("redis_version:6.2.0", "version"),
        ("redis_version:7.4.0\nvalkey_version:7.2.5", "version"),
        ("redis_version:7.4.0\nrole:slave\nmaster_host:10.0.0.1", "role"),
        ("redis_version:7.4.0\nrole:master\nrdb_last_bgsave_status:err", "rdb_last_bgsave_status"),
        ("redis_version:7.4.0\nrole:master\naof_last_write_status:err", "aof_last_write_status"),
        ("redis_version:7.4.0\nmaxmemory:1000\nused_memory:990\nmaxmemory_policy:noeviction", "memory"),
    ],
)
def test_each_state_of_a_server_has_its_finding(fields: str, wrong: str) -> None:
    findings = server.look(server.parsed(fields.encode()), {}, Settings())
    assert wrong in {finding.what for finding in findings if finding.level == "error"}


def test_a_publish_that_waits_for_a_replica_needs_one() -> None:
    settings = Settings(durability="replicas")
    info = server.parsed(b"redis_version:7.4.0\nrole:master\nconnected_slaves:0")
    [wrong] = [f for f in server.look(info, {}, settings) if f.what == "NOTIFIER_DURABILITY"]
    assert wrong.level == "error"
    assert "Connect a replica" in wrong.mend


def test_bad_usage_is_two(cli: Cli) -> None:
    assert "--nonsense" in cli("doctor", "--nonsense").failed(2)


def test_on_a_terminal_of_80_columns_no_line_is_longer(start: Start) -> None:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 80, 0, 0))
    process = start("doctor", stdout=theirs, redis_url=f"redis://127.0.0.1:{free_port()}/0", smtp_ulr="x")
    os.close(theirs)
    shown = b""
    while True:
        try:
            piece = os.read(ours, 65_536)
        except OSError:
            break
        if not piece:
            break
        shown += piece
    os.close(ours)
    assert process.wait(30) == 1
    lines = re.sub(r"\x1b\[[0-9;]*m", "", shown.decode()).splitlines()
    assert len(lines) > 20
    assert max(map(len, lines)) <= 80
    assert b"\x1b[" in shown
