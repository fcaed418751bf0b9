"""`notifier dev`: what is published arrives and is shown, restarts lose nothing, and nothing stays behind."""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import shutil
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis

from notifier import AsyncPublisher
from notifier.bootstrap import open_runtime
from notifier.errors import BrokerUnavailable, ConfigurationError
from notifier.event import Recipient, WebPushDevice
from notifier.local.broker import port_in_use
from notifier.local.dev import PORTS, Dev, Ready, Started
from notifier.local.dev_folder import FOLDER, dev_folder, push_keys
from notifier.local.happenings import Happening
from notifier.local.seeds import SEEDED, seed
from notifier.settings import Settings
from tests.support.ports import free_row
from tests.support.waiting import until

ROOT = Path(__file__).parent.parent.parent
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="needs prctl(2)")
LIKE: Mapping[str, Any] = {
    "id": "like-1",
    "type": "like",
    "recipient": "ada",
    "actor": {"id": "bob", "name": "Bob"},
    "data": {"photo_id": "p", "photo_title": "Sea", "url": "https://example.com/p"},
}


@pytest.fixture
def port() -> int:
    """The first of as many free ones in a row as it needs."""
    return free_row(PORTS + 1)


class Told(list[Started | Ready | Happening]):
    """All that a run has told."""

    @property
    def url(self) -> str:
        [ready] = [told for told in self if isinstance(told, Ready)]
        return ready.redis_url

    def arrived(self, *kinds: str) -> list[tuple[str, str, str]]:
        return [(t.kind, t.who, t.text) for t in self if isinstance(t, Happening) and t.kind in kinds]


@asynccontextmanager
async def running(folder: Path, port: int, templates: Path, **environ: str) -> AsyncIterator[Told]:
    """A run in this process, ready."""
    told, stop = Told(), asyncio.Event()
    dev = Dev(folder, {"NOTIFIER_TEMPLATES": str(templates), **environ}, port, told.append)
    task = asyncio.create_task(dev.run(stop))
    try:
        await until(lambda: task.done() or any(isinstance(one, Ready) for one in told))
        if not task.done():
            yield told
    finally:
        stop.set()
        await task


async def publish(url: str, **event: Any) -> bool:
    """Whether it was known already."""
    async with AsyncPublisher(url) as publisher:
        return (await publisher.publish({**LIKE, **event})).duplicate


ADA_LIKED = [
    ("inbox", "ada", "Bob liked your photo"),
    ("mail", "ada@example.com", "Bob liked your photo “Sea”"),
    ("push", "ada", "Bob liked your photo"),
]


# In this process.


async def test_an_event_for_ada_is_shown_as_mail_push_and_entry(
    tmp_path: Path, port: int, templates_folder: Path
) -> None:
    async with running(tmp_path, port, templates_folder) as told:
        await publish(told.url)
        await until(lambda: len(told.arrived("mail", "push", "inbox")) >= 3)
    assert sorted(told.arrived("mail", "push", "inbox")) == ADA_LIKED
    assert told.arrived("trouble", "dlq", "dead", "retry") == []
    parts = [one.name for one in told if isinstance(one, Started)]
    assert parts == ["broker", "mail server", "push service", "recipients", "worker", "API"]
    assert not any(port_in_use(port + number) for number in range(PORTS))


async def test_of_many_entries_for_one_all_are_shown_and_hold_up_nobody_else(
    tmp_path: Path, port: int, templates_folder: Path
) -> None:
    many = [{**LIKE, "id": f"like-{number}", "recipient": "somebody"} for number in range(300)]
    async with running(tmp_path, port, templates_folder) as told:
        async with AsyncPublisher(told.url) as publisher:
            await publisher.publish_many([*many, {**LIKE, "recipient": "else"}])
        await until(lambda: len(told.arrived("inbox")) == 301)
    assert {who for _, who, _ in told.arrived("inbox")} == {"somebody", "else"}


async def test_a_restart_keeps_events_profiles_and_browsers(
    tmp_path: Path, port: int, templates_folder: Path
) -> None:
    async with running(tmp_path, port, templates_folder) as told:
        assert not await publish(told.url)
        await until(lambda: len(told.arrived("mail", "push", "inbox")) >= 3)
        async with redis.asyncio.Redis.from_url(told.url) as client:
            [profile] = [key async for key in client.scan_iter(match="*:recipient:ada")]
            before = await client.get(profile)
    async with running(tmp_path, port, templates_folder) as told:
        assert await publish(told.url)  # known from before
        assert not await publish(told.url, id="like-2")
        await until(lambda: len(told.arrived("mail", "push", "inbox")) >= 3)
        async with redis.asyncio.Redis.from_url(told.url) as client:
            assert await client.get(profile) == before
    assert sorted(told.arrived("mail", "push", "inbox")) == ADA_LIKED


async def test_on_other_ports_and_with_new_keys_pushes_still_arrive(
    tmp_path: Path, port: int, templates_folder: Path
) -> None:
    async with running(tmp_path, port, templates_folder):
        pass
    (tmp_path / FOLDER / "push.json").unlink()
    async with running(tmp_path, port + 1, templates_folder) as told:
        await publish(told.url)
        await until(lambda: len(told.arrived("mail", "push", "inbox")) >= 3)
    assert sorted(told.arrived("mail", "push", "inbox")) == ADA_LIKED


async def test_a_broken_template_is_told_and_the_last_good_one_stays(
    tmp_path: Path, port: int, templates_folder: Path
) -> None:
    copy = tmp_path / "templates"
    shutil.copytree(templates_folder, copy)
    template = copy / "like" / "push.jinja"
    async with running(tmp_path, port, copy) as told:
        good = template.read_text()
        _rewrite(template, good.replace("endblock", "endblok", 1))
        await until(lambda: told.arrived("trouble"))
        [(_, who, text)] = told.arrived("trouble")
        assert (who, text.partition(" is broken: ")[0]) == ("template", "like/push.jinja:1")
        assert text.endswith("; a version that worked stays in use")
        await publish(told.url)
        await until(lambda: told.arrived("push"))
        _rewrite(template, good.replace("liked", "really liked"))
        await until(lambda: len([one for one in told.arrived("note") if one[1] == "templates"]) == 2)
        await publish(told.url, id="like-2")
        await until(lambda: ("push", "ada", "Bob really liked your photo") in told.arrived("push"))


def _rewrite(path: Path, text: str) -> None:
    """In one step: the worker may look at any time."""
    new = path.with_name(f".{path.name}")
    new.write_text(text)
    new.replace(path)


async def test_a_failure_is_told_all_the_way_to_the_alert(
    tmp_path: Path, port: int, templates_folder: Path
) -> None:
    quick = {"NOTIFIER_DLQ_DELAY": "100ms", "NOTIFIER_ALERT_INTERVAL": "1s"}
    async with running(tmp_path, port, templates_folder, **quick) as told:
        await publish(told.url, recipient="bob", data={})
        await until(lambda: any(who == "ops@example.com" for _, who, _ in told.arrived("mail")))
    assert {who for _, who, _ in told.arrived("dlq", "dead")} == {"like"}
    assert told.arrived("alert")
    assert told.arrived("push") == []


async def test_a_broker_that_ends_ends_the_run_with_the_reason(
    tmp_path: Path, port: int, templates_folder: Path
) -> None:
    run = running(tmp_path, port, templates_folder)
    told = await run.__aenter__()
    with redis.Redis.from_url(told.url) as client:
        os.kill(client.info("server")["process_id"], signal.SIGKILL)
    await until(lambda: not port_in_use(port + 1))
    with pytest.raises(BrokerUnavailable, match="the embedded server ended by itself"):
        await run.__aexit__(None, None, None)


async def test_templates_that_are_missing_are_an_error_and_everything_stops(
    tmp_path: Path, port: int
) -> None:
    with pytest.raises(ConfigurationError, match="NOTIFIER_TEMPLATES"):
        async with running(tmp_path, port, tmp_path / "nowhere"):
            pytest.fail("it runs")
    assert not (tmp_path / FOLDER).exists()
    assert not any(port_in_use(port + number) for number in range(PORTS))


@pytest.mark.parametrize("taken", range(PORTS))
async def test_each_port_in_use_is_named(
    tmp_path: Path, port: int, templates_folder: Path, taken: int
) -> None:
    named = pytest.raises(ConfigurationError, match=f"--port: {port + taken}, for the .* is in use")
    with socket.create_server(("127.0.0.1", port + taken)), named:
        async with running(tmp_path, port, templates_folder):
            pytest.fail("it runs")
    assert not (tmp_path / FOLDER).exists()
    assert not any(port_in_use(port + number) for number in range(PORTS))


# What is kept.


async def test_a_profile_that_somebody_changed_keeps_what_it_has(redis_url: str) -> None:
    def device(origin: str) -> WebPushDevice:
        with_keys = {"endpoint": f"{origin}/push/x", "keys": {"p256dh": "B" * 87, "auth": "a" * 22}}
        return WebPushDevice.model_validate(with_keys)

    ours, old, real = map(device, ("http://127.0.0.1:2", "http://127.0.0.1:1", "https://push.example.com"))
    async with open_runtime(Settings(redis_url=redis_url)) as runtime:
        recipients = runtime.recipients
        changed = Recipient(id="ada", name="Somebody else", devices=(real, old))
        await recipients.put(changed)
        await seed(recipients, SEEDED[0], ours)
        assert await recipients.get("ada") == changed.model_copy(update={"devices": (real, ours)})
        without = Recipient(id="ada", devices=(real,))
        await recipients.put(without)
        await seed(recipients, SEEDED[0], ours)
        assert await recipients.get("ada") == without


def test_the_folder_is_for_one_at_a_time_and_for_no_repository(tmp_path: Path) -> None:
    with dev_folder(tmp_path) as folder:
        assert (folder / ".gitignore").read_text() == "*\n"
        named = f"is in use by another `notifier dev` .process {os.getpid()}"
        with pytest.raises(ConfigurationError, match=named), dev_folder(tmp_path):
            pytest.fail("a second one")
    with dev_folder(tmp_path):
        pass


def test_a_folder_that_can_not_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / FOLDER).write_text("a file")
    with pytest.raises(ConfigurationError, match="can't be used"), dev_folder(tmp_path):
        pytest.fail("it can")


def test_keys_stay_the_same_and_nobody_else_may_read_them(tmp_path: Path) -> None:
    first = push_keys(tmp_path, ["ada"])
    later = push_keys(tmp_path, ["ada", "bob"])
    assert (later.vapid, later.browsers["ada"]) == (first.vapid, first.browsers["ada"])
    assert set(later.browsers) == {"ada", "bob"}
    assert stat.S_IMODE((tmp_path / "push.json").stat().st_mode) == 0o600


@pytest.mark.parametrize("text", ["", "{", "[]", '{"vapid": {}}', '{"vapid": 1}', '{"browsers": {"ada": 1}}'])
def test_damaged_keys_are_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "push.json").write_text(text)
    with pytest.raises(ConfigurationError, match="is damaged; remove it for new keys"):
        push_keys(tmp_path, ["ada"])


# In a process of its own.


class Process:
    """`notifier dev`, and the lines that it has printed."""

    def __init__(self, folder: Path, port: int, *arguments: str) -> None:
        self.folder = folder
        self.lines: list[str] = []
        self.process = subprocess.Popen(
            [sys.executable, "-m", "notifier.cli", "dev", "--port", str(port), *arguments],
            cwd=folder, env=environ(folder), text=True, encoding="utf-8",
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.rstrip("\n"))

    def wait_for(self, condition: Callable[[str], bool]) -> str:
        end = time.monotonic() + 20
        while True:
            for line in list(self.lines):
                if condition(line):
                    return line
            assert time.monotonic() < end, self.lines
            assert self.process.poll() is None, (self.lines, self.process.stderr)
            time.sleep(0.01)

    def wait_until_ready(self) -> None:
        self.wait_for(lambda line: line.startswith("Ctrl-C stops everything"))

    def end(self) -> tuple[int, str]:
        """Exit code and stderr; it is killed if it does not end."""
        assert self.process.stderr is not None
        try:
            code = self.process.wait(20)
            return code, self.process.stderr.read()
        finally:
            self.process.kill()
            self.process.wait()
            self._reader.join()
            for stream in (self.process.stdout, self.process.stderr):
                assert stream is not None
                stream.close()


def environ(folder: Path) -> dict[str, str]:
    command = folder / "bin" / "notifier"
    if not command.exists():
        command.parent.mkdir(exist_ok=True)
        command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m notifier.cli "$@"\n')
        command.chmod(0o755)
    path = f"{command.parent}:{os.environ['PATH']}"
    return {"PATH": path, "PYTHONPATH": str(ROOT), "PYTHONUTF8": "1", "HOME": str(folder)}


@contextmanager
def process(folder: Path, port: int, *arguments: str) -> Iterator[Process]:
    run = Process(folder, port, *arguments)
    try:
        yield run
    finally:
        if run.process.poll() is None:
            run.process.kill()
            run.end()


@pytest.mark.slow
def test_what_it_says_to_type_works_and_the_mail_is_shown(tmp_path: Path, port: int) -> None:
    with process(tmp_path, port, "--verbose") as dev:
        dev.wait_until_ready()
        first = dev.lines.index("Publish from another terminal:")
        commands = dev.lines[first + 1 : dev.lines.index("Ctrl-C stops everything. What arrives:")]
        assert max(map(len, commands)) < 80  # a terminal breaks none, so they can be copied
        said = subprocess.run(
            ["sh", "-ec", "\n".join(commands)], env=environ(tmp_path), cwd=tmp_path,
            capture_output=True, text=True, timeout=20, check=True,
        )  # fmt: skip
        assert said.stdout == "Published 1 event\n"
        words = shlex.split("\n".join(commands))
        example = json.loads("".join(words[words.index("%s") + 1 : words.index("|")]))
        assert example["recipient"] == "ada"
        dev.wait_for(lambda line: " mail " in line and "ada@example.com" in line)
        dev.wait_for(lambda line: " push " in line)
        dev.wait_for(lambda line: " inbox " in line)
        dev.wait_for(lambda line: line.startswith("        ") and example["data"]["title"] in line)
        dev.process.send_signal(signal.SIGINT)
        assert dev.end() == (0, "")
    assert dev.lines[-1] == "Stopped. Data is kept in .notifier/"
    assert not any(port_in_use(port + number) for number in range(PORTS))


@LINUX
@pytest.mark.slow
def test_killed_it_leaves_no_broker_and_starts_again_with_its_data(tmp_path: Path, port: int) -> None:
    with process(tmp_path, port) as dev:
        dev.wait_until_ready()
        with redis.Redis(port=port) as client:
            client.set("kept", "yes")
            client.execute_command("WAITAOF", 1, 0, 5_000)
        dev.process.kill()
        dev.end()
        end = time.monotonic() + 20
        while any(port_in_use(port + number) for number in range(PORTS)):
            assert time.monotonic() < end, "something stayed behind"
            time.sleep(0.01)
    with process(tmp_path, port) as dev:
        dev.wait_until_ready()
        with redis.Redis(port=port) as client:
            assert client.get("kept") == b"yes"
        dev.process.terminate()
        assert dev.end() == (0, "")


@pytest.mark.slow
def test_a_second_one_in_the_folder_or_on_the_port_says_so_in_one_line(tmp_path: Path, port: int) -> None:
    other = tmp_path / "other"
    other.mkdir()
    with process(tmp_path, port) as dev:
        dev.wait_until_ready()
        with process(tmp_path, port) as second:
            code, err = second.end()
        assert (code, err.count("\n")) == (2, 1)
        assert err.startswith(
            f"notifier: .notifier/: is in use by another `notifier dev` (process {dev.process.pid})"
        )
        with process(other, port) as third:
            code, err = third.end()
        says = f"{port}, for the broker, is in use by another program; try --port {port + 10}"
        assert (code, err) == (2, f"notifier: --port: {says}\n")
        dev.process.terminate()
        assert dev.end() == (0, "")
