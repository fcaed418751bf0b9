"""`notifier demo`: it shows what happens, notices what does not, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from channels.email import EmailChannel, EmailSettings
from notifier.channel import Delivery
from notifier.event import Recipient
from notifier.local import story
from notifier.local.evidence import Evidence, differences
from notifier.local.mailbox import Mail
from notifier.local.outcomes import outcome, rows
from notifier.local.story import Expected, Key
from notifier.local.worker_log import LogLine
from notifier.redaction import redacted

ROOT = Path(__file__).parent.parent.parent
COMMAND = (sys.executable, "-m", "notifier.cli", "demo")
LONGEST = 20.0
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc, and needs prctl(2)")


def environ(folder: Path, **more: str) -> Mapping[str, str]:
    (folder / "tmp").mkdir(exist_ok=True)
    return {
        "PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "PYTHONUTF8": "1",
        "TMPDIR": str(folder / "tmp"), **more,
    }  # fmt: skip


@contextmanager
def demo(folder: Path, *arguments: str | Path, **more: str) -> Iterator[subprocess.Popen[str]]:
    """In a folder of its own, with a folder of its own for temporary files."""
    (folder / "here").mkdir(exist_ok=True)
    process = subprocess.Popen(
        [*COMMAND, *map(str, arguments)],
        cwd=folder / "here", env=environ(folder, **more), text=True, encoding="utf-8",
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def left_behind(folder: Path) -> list[str]:
    return [path.name for name in ("here", "tmp") for path in (folder / name).iterdir()]


def wait_until(condition: Callable[[], object], deadline: float = 5.0) -> None:
    end = time.monotonic() + deadline
    while not condition():
        assert time.monotonic() < end, "not in time"
        time.sleep(0.01)


def children(pid: int) -> list[int]:
    found = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for path in found for child in path.read_text().split()]


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


@pytest.fixture
def broken_templates(tmp_path: Path, templates_folder: Path) -> Path:
    """With a template that can't be rendered."""
    copy = tmp_path / "templates"
    shutil.copytree(templates_folder, copy)
    push = copy / "direct_message" / "push.jinja"
    push.write_text(push.read_text().replace("data.preview", "data.no_such_name"))
    return copy


# The whole of it.


@pytest.mark.slow
def test_it_ends_well_whatever_the_environment_says_and_leaves_nothing(tmp_path: Path) -> None:
    began = time.monotonic()
    foreign = {
        "NOTIFIER_REDIS_URL": "redis://nobody.invalid:1/0",
        "NOTIFIER_CHANNELS": "no.such:channel",
        "NOTIFIER_TEMPLATES": "/no/such/folder",
        "NOTIFIER_SMTP_URL": "smtp://nobody.invalid",
        "NOTIFIER_RETRY_BASE": "no duration",
        "COLUMNS": "80",
    }
    with demo(tmp_path, **foreign) as process:
        out, err = process.communicate(timeout=LONGEST)
    assert (process.returncode, err) == (0, ""), out
    assert time.monotonic() - began < LONGEST
    table = [line.split() for line in out.partition("What became of each")[2].splitlines()]
    assert ["like", "jan", "push", "x2", "delivered", "2"] in [row[:6] for row in table]
    assert ["like-busy", "rosa", "email", "delivered", "(retried)", "2"] in [row[:6] for row in table]
    assert ["like-gone", "sam", "email", "dead", "2"] in [row[:5] for row in table]
    assert ["order-broken", "ada", "email", "delivered", "(redriven)", "3"] in [row[:6] for row in table]
    assert "11 e-mails, 12 pushes and 12 inbox entries" in out
    assert left_behind(tmp_path) == []


@pytest.mark.slow
def test_two_at_once_do_not_notice_each_other(tmp_path: Path) -> None:
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder in folders:
        folder.mkdir()
    with demo(folders[0], "--json") as one, demo(folders[1], "--json") as two:
        told = [json.loads(process.communicate(timeout=LONGEST)[0]) for process in (one, two)]
    for document in told:
        assert (document["ok"], document["differences"]) == (True, [])
        assert document["arrived"] == {"email": 11, "push": 12, "in_app": 12}
        assert all(step["ok"] for step in document["steps"])
        assert [row["attempts"] for row in document["deliveries"] if row["event"] == "order-broken"] == [
            3,
            1,
            1,
        ]


@pytest.mark.slow
def test_a_template_that_fails_makes_it_fail_and_is_named(tmp_path: Path, broken_templates: Path) -> None:
    log = tmp_path / "worker.log"
    with demo(tmp_path, "--templates", broken_templates, "--log", log) as process:
        out, err = process.communicate(timeout=LONGEST)
    assert (process.returncode, err) == (1, "")
    why = "direct_message/push.jinja:2: no_such_name is missing"
    assert f"✗ direct_message → ada         push: dead-lettered ({why})" in out
    wrong = out.partition("not everything went as expected:")[2]
    assert (
        f"direct_message → ada, push: expected delivered, but it was dead-lettered, then dead ({why})"
        in wrong
    )
    assert "push: expected 12 in all, but 11 arrived" in wrong
    assert "delivery_dead_lettered" in log.read_text()
    assert left_behind(tmp_path) == []


@LINUX
@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 143)]
)
def test_a_signal_ends_it_and_all_that_it_started(tmp_path: Path, number: signal.Signals, code: int) -> None:
    with demo(tmp_path) as process:
        assert process.stdout is not None
        while "published" not in process.stdout.readline():
            assert process.poll() is None
        started = children(process.pid)
        assert started
        process.send_signal(number)
        _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (code, "")
    assert [pid for pid in started if is_running(pid)] == []
    assert left_behind(tmp_path) == []


@LINUX
@pytest.mark.slow
def test_the_broker_dies_with_a_demo_that_is_killed(tmp_path: Path) -> None:
    with demo(tmp_path) as process:
        wait_until(lambda: children(process.pid), 20)
        [broker] = children(process.pid)
        process.kill()
        wait_until(lambda: not is_running(broker), 20)


@pytest.mark.slow
def test_steps_come_through_a_pipe_as_they_happen_and_a_closed_one_ends_it(tmp_path: Path) -> None:
    with demo(tmp_path) as process:
        assert process.stdout is not None
        assert process.stdout.readline()
        assert process.poll() is None
        process.stdout.close()
        process.stdout = None
        assert process.wait(LONGEST) == 1
        assert process.stderr is not None
        assert process.stderr.read() == ""
    assert left_behind(tmp_path) == []


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--templates", "nowhere"), "notifier: --templates: there is no folder nowhere\n"),
        (
            ("--templates", "."),
            "notifier: --templates: . has no templates for course_launched, direct_message, ",
        ),
        (("--log", "no/such/folder/file"), "No such file or directory"),
    ],
)
def test_what_it_can_not_play_with_is_one_line(tmp_path: Path, arguments: Any, says: str) -> None:
    with demo(tmp_path, *arguments) as process:
        _, err = process.communicate(timeout=LONGEST)
    assert process.returncode == 2
    assert says in err
    assert err.count("\n") == 1
    assert left_behind(tmp_path) == []


def test_a_file_that_can_not_be_copied_is_one_line(tmp_path: Path, templates_folder: Path) -> None:
    templates = tmp_path / "mine"
    shutil.copytree(templates_folder, templates)
    (templates / "like" / "dangling").symlink_to("nowhere")
    with demo(tmp_path, "--templates", str(templates)) as process:
        _, err = process.communicate(timeout=LONGEST)
    assert process.returncode == 2
    assert err.startswith(f"notifier: --templates: {templates} can't be copied: [Errno 2] No such file")
    assert err.count("\n") == 1


# How it knows.

PERSON = Recipient(id="ada", email="ada@example.com")
KEY = Key("like", "ada", "email")
ONCE = (Expected(KEY, ("delivered",), 1),)


@pytest.fixture
def evidence() -> Evidence:
    """Of one event, for one person with a mailbox."""
    found = Evidence()
    found.know([EmailChannel(EmailSettings.read({}))], [PERSON])
    found.publish("like", "like")
    return found


def line(event: str, recipient: str = "ada", **fields: object) -> LogLine:
    about = {"queue": "email", "event_id": "like", "type": "like", "recipient": redacted(recipient)}
    return LogLine(event, "info", about | fields, datetime.now(UTC))


def mail(event: str = "like", to: str = "ada@example.com") -> Mail:
    delivery = Delivery.of("email", event_id=event, to="ada", key="ada@example.com")
    return Mail(to, "", "Somebody likes it", "", "", f"<{delivery.id}@example.com>", datetime.now(UTC), b"")


def test_what_went_as_expected_differs_in_nothing(evidence: Evidence) -> None:
    evidence.heard(line("delivered"))
    evidence.mail(mail())
    assert differences(ONCE, evidence) == []


def test_a_mail_that_comes_twice_is_a_difference(evidence: Evidence) -> None:
    evidence.heard(line("delivered"))
    evidence.mail(mail())
    evidence.mail(mail())
    assert differences(ONCE, evidence) == [
        "like → ada, email: expected to arrive once, not twice",
        "email: expected 1 in all, but 2 arrived",
    ]


def test_a_worker_that_claims_a_delivery_is_not_believed_alone(evidence: Evidence) -> None:
    evidence.heard(line("delivered"))
    assert "like → ada, email: expected to arrive once, not never" in differences(ONCE, evidence)


def test_a_mail_at_the_wrong_mailbox_or_of_another_event_is_a_difference(evidence: Evidence) -> None:
    evidence.heard(line("delivered"))
    evidence.mail(mail(to="eve@example.com"))
    evidence.mail(mail(event="something else"))
    found = differences(ONCE, evidence)
    assert "nobody sent what arrived: email at eve@example.com, “Somebody likes it”" in found
    assert "nobody sent what arrived: email at ada@example.com, “Somebody likes it”" in found
    assert "like → ada, email: expected to arrive once, not never" in found


def test_one_attempt_more_than_expected_is_a_difference(evidence: Evidence) -> None:
    evidence.heard(line("delivery_parked", answer="451 busy"))
    evidence.heard(line("delivered"))
    evidence.mail(mail())
    assert differences(ONCE, evidence) == [
        "like → ada, email: expected delivered, but it was parked, then delivered (451 busy)"
    ]


def test_what_nobody_expected_is_a_difference(evidence: Evidence) -> None:
    evidence.heard(line("delivered"))
    evidence.mail(mail())
    evidence.heard(line("delivery_dead", recipient="eve", reason="gone"))
    [found] = differences(ONCE, evidence)
    assert found.startswith("nobody asked for what a worker said: delivery_dead")


def test_a_row_of_the_table_says_whether_it_was_expected(evidence: Evidence) -> None:
    began = datetime.now(UTC)
    evidence.heard(line("delivery_dead_lettered", reason="no"))
    evidence.heard(line("delivery_dead", reason="no"))
    [row] = rows(ONCE, evidence, {"like": began})
    assert (row.outcome, row.attempts, row.deliveries, row.ok) == ("dead", 2, 1, False)
    assert row.ms is not None
    assert 0 <= row.ms < 5_000


@pytest.mark.parametrize(
    ("trail", "words"),
    [
        ((), "not tried"),
        (("delivered", "delivered"), "delivered"),
        (("parked", "delivered"), "delivered (retried)"),
        (("parked", "dead-lettered", "delivered"), "delivered (2nd try)"),
        (("dead-lettered", "dead"), "dead"),
        (("dead-lettered", "dead", "delivered"), "delivered (redriven)"),
        (("parked",), "parked"),
    ],
)
def test_an_outcome_is_the_way_in_a_few_words(trail: Any, words: str) -> None:
    assert outcome(trail) == words


def test_every_shipped_type_is_published_and_every_recipient_expected(templates_folder: Path) -> None:
    shipped = {path.parent.name for path in templates_folder.glob("*/email.jinja")}
    assert {published.event["type"] for published in story.EACH_TYPE} == shipped - {"system.dead_letters"}
    expected = {(e.key.event, e.key.recipient) for e in story.expectations()}
    assert {(p.id, to) for p in story.EACH_TYPE for to in p.recipients} <= expected
