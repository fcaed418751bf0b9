"""Whatever is wrong: one clear line on stderr, the right exit code, and no traceback."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import redis

from notifier.cli.context import execute
from notifier.local.broker import EmbeddedBroker, free_port


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of a server that wants a password."""
    with EmbeddedBroker(tmp_path_factory.mktemp("locked"), persistent=False) as server:
        with redis.Redis.from_url(server.url) as client:
            client.config_set("requirepass", "right")
        yield server.port


EVENT = '{"type": "like", "recipient": "u1"}'


@pytest.fixture
def event_file(tmp_path: Path) -> Path:
    path = tmp_path / "one.jsonl"
    path.write_text(EVENT)
    return path


@pytest.mark.parametrize(
    "command", ["queues", "dlq list", "recipients show u1", "worker router", "publish FILE"]
)
def test_a_broker_that_is_away(cli: Any, command: str, event_file: Path) -> None:
    words = [str(event_file) if word == "FILE" else word for word in command.split()]
    said = cli(*words, redis_url=f"redis://127.0.0.1:{free_port()}").failed(1)
    assert said.startswith("notifier: NOTIFIER_REDIS_URL: the broker can't be reached: ")


@pytest.mark.parametrize("password", ["", ":wrong@"])
@pytest.mark.parametrize("command", ["queues", "publish FILE", "worker router"])
def test_a_wrong_password(cli: Any, locked: int, command: str, password: str, event_file: Path) -> None:
    words = [str(event_file) if word == "FILE" else word for word in command.split()]
    said = cli(*words, redis_url=f"redis://{password}127.0.0.1:{locked}").failed(1)
    assert "the server refused the user name or password" in said
    assert "wrong@" not in said


@pytest.mark.parametrize("command", ["queues", "publish FILE", "worker router"])
def test_a_database_that_the_server_does_not_have(
    cli: Any, locked: int, command: str, event_file: Path
) -> None:
    words = [str(event_file) if word == "FILE" else word for word in command.split()]
    said = cli(*words, redis_url=f"redis://:right@127.0.0.1:{locked}/99").failed(1)
    assert said.startswith(
        "notifier: NOTIFIER_REDIS_URL: the broker can't be reached: DB index is out of range"
    )


def test_the_right_password(cli: Any, locked: int) -> None:
    assert cli("queues", redis_url=f"redis://:right@127.0.0.1:{locked}").code == 0


@pytest.mark.parametrize("command", ["queues", "publish FILE", "worker router"])
def test_another_number_of_partitions(cli: Any, command: str, event_file: Path) -> None:
    cli("queues")
    words = [str(event_file) if word == "FILE" else word for word in command.split()]
    said = cli(*words, partitions="8").failed(2)
    assert said == "notifier: NOTIFIER_PARTITIONS: is 8, but this installation (ntf) has 16"


@pytest.mark.parametrize(
    ("channels", "told"),
    [
        ("email", "'email' is not of the form module:factory"),
        ("channels.nowhere:open_channel", "channels.nowhere:open_channel does not load: ModuleNotFoundError"),
        ("channels.email:nothing", "the module channels.email has no nothing"),
        ("broken_channel:open_channel", "broken_channel:open_channel does not load: ZeroDivisionError"),
    ],
)
@pytest.mark.parametrize("command", ["queues", "worker all", "templates check"])
def test_channels_that_can_not_be_loaded(
    cli: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, channels: str, told: str
) -> None:
    (tmp_path / "broken_channel.py").write_text("1 / 0\n")
    monkeypatch.syspath_prepend(tmp_path)
    said = cli(*command.split(), channels=channels).failed(2)
    assert said.startswith("notifier: NOTIFIER_CHANNELS: ")
    assert told in said


@pytest.mark.parametrize(
    "command", ["worker router", "templates check", "templates new x", "templates preview like"]
)
def test_a_templates_folder_that_is_missing(cli: Any, tmp_path: Path, command: str) -> None:
    missing = tmp_path / "none"
    said = cli(*command.split(), templates=str(missing)).failed(2)
    assert said == f"notifier: NOTIFIER_TEMPLATES: there is no folder {missing}"


@pytest.mark.parametrize(
    ("name", "value"),
    [("lease_ttl", "5"), ("redis_url", "http://x"), ("log_level", "loud"), ("partitions", "0")],
)
def test_settings_that_can_not_be(cli: Any, name: str, value: str) -> None:
    assert cli("queues", **{name: value}).failed(2).startswith(f"notifier: NOTIFIER_{name.upper()}: ")


@pytest.mark.parametrize(
    ("command", "told"),
    [
        ("nonsense", "No such command 'nonsense'"),
        ("publish", "Missing argument 'FILE'"),
        ("publish --fast x", "No such option: --fast"),
        ("queues --every soon", "'soon' is not a duration"),
        ("dlq list --state gone", "'gone' is not one of dlq, dead, all"),
        ("dlq list --channel sms", "'sms' is not one of events, email, push, in_app"),
        ("dlq list --older-than 3", "'3' is not a duration"),
        ("dlq list --recipient \udcff", "can't be a recipient's id"),
        ("dlq discard --recipient= --yes", "'' can't be a recipient's id"),
        ("dlq redrive --rate fast --all", "'fast' is not a rate"),
        ("dlq redrive --rate 0/s --all", "'0/s' is not a rate"),
        ("dlq redrive", "say which: by their ids, by a filter, or --all"),
        ("dlq discard", "say which: by their ids, by a filter, or --all"),
        ("dlq discard --all email:01:dlq:1-1", "give ids, or filters, not both"),
    ],
)
def test_wrong_usage(cli: Any, command: str, told: str) -> None:
    said = cli(*command.split()).failed(2)
    assert told in said
    assert said.endswith(" --help")


def test_what_is_no_utf_8_on_the_command_line(cli: Any) -> None:
    told = cli("worker", "router", "--port", "0", "--host", "\udcff").failed(2)
    assert "can't be the name of a host" in told
    assert "does not pass over" in cli("recipients", "unsuppress", "u1", "email", "\udcff").failed(1)
    assert "does not pass over" in cli("recipients", "unsuppress", "u1", "\udcff", "u1").failed(1)


def test_an_unknown_role(cli: Any) -> None:
    said = cli("worker", "router", "pigeon").failed(2)
    assert said == "notifier: ROLE: pigeon is not one of router, email, push, in_app, dead_letters, all"


def test_an_error_that_nobody_expected_is_one_line_and_a_traceback_only_for_debug(
    cli: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "odd_channel.py").write_text(
        "class Odd:\n    name, blocks = 'odd', 7\n    addresses = open = send = close = None\n"
        "def open_channel(environ):\n    return Odd()\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    said = cli("templates", "check", channels="odd_channel:open_channel").failed(1)
    assert said.startswith("notifier: TypeError: ")
    told = cli("templates", "check", channels="odd_channel:open_channel", log_level="debug")
    assert told.code == 1
    assert "Traceback" in told.err


def test_help_and_version(cli: Any) -> None:
    whole = cli("--help")
    assert whole.code == 0
    assert "NOTIFIER_REDIS_URL" in whole.out
    assert "Exit codes" in whole.out
    assert cli().out == whole.out
    assert "redrive" in cli("dlq").out
    assert cli("--version").out.startswith("notifier")


@pytest.mark.parametrize("command", ["queues", "dlq list --json", "--help"])
def test_a_reader_that_has_seen_enough_hears_no_complaint(
    cli: Any, bury: Any, standard_streams: Any, command: str
) -> None:
    bury()
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as closed:
        standard_streams(closed)
        outcome = cli(*command.split())
    assert (outcome.code, outcome.err) == (1, "")


def test_a_full_disk_is_told(cli: Any, standard_streams: Any) -> None:
    with Path("/dev/full").open("w") as full:
        standard_streams(full)
        assert cli("queues").failed(1) == "notifier: stdout: No space left on device"


def test_control_c_ends_a_command_with_130_and_without_a_word(start: Any) -> None:
    process = start("queues", "--watch", "--json", "--every", "100ms")
    assert process.stdout.readline().startswith("[{")
    process.send_signal(signal.SIGINT)
    outcome = process.finished()
    assert (outcome.code, outcome.err) == (130, "")


@pytest.mark.parametrize("command", ["worker", "api"])
def test_sigterm_while_a_service_is_loaded_ends_it_cleanly(command: str) -> None:
    process = subprocess.Popen(
        [sys.executable, "-X", "importtime", "-m", "notifier.cli", command],
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        pipesize=4_096,  # it waits until its lines are read, and so can't be done before it gets the signal
    )
    assert process.stderr
    with process, process.stderr as said:
        assert any(line.rpartition("|")[2].strip() == "typer" for line in iter(said.readline, ""))
        process.send_signal(signal.SIGTERM)
        assert "Traceback" not in said.read()
        assert process.wait(20) == 0


@pytest.mark.parametrize("loaded", ["pydantic", "typer", "notifier.cli.dlq", "notifier.cli.app"])
def test_control_c_while_a_command_is_loaded_is_as_quiet(loaded: str) -> None:
    silent = socket.create_server(("127.0.0.1", 0))  # a broker for which it waits once it is loaded
    process = subprocess.Popen(
        [sys.executable, "-X", "importtime", "-m", "notifier.cli", "queues", "--watch"],
        env=os.environ | {"NOTIFIER_REDIS_URL": f"redis://127.0.0.1:{silent.getsockname()[1]}/0"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr
    with silent, process, process.stderr as said:
        assert any(line.rpartition("|")[2].strip() == loaded for line in iter(said.readline, ""))
        process.send_signal(signal.SIGINT)
        after = [line for line in said.read().splitlines() if not line.startswith("import time:")]
        assert (process.wait(20), after) == (130, [])


async def _goes_on() -> None:
    await asyncio.Event().wait()


async def _fails() -> None:
    raise OSError("gone")


@pytest.fixture
def default_interrupt() -> Iterator[None]:
    """Ctrl-C does what it does when Python starts; uvloop, used by another test, may have left its own."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("default_interrupt")
@pytest.mark.parametrize("then", [_goes_on, _fails])
def test_control_c_counts_although_one_cancellation_was_swallowed(
    then: Callable[[], Awaitable[None]],
) -> None:
    async def deaf() -> None:
        signal.raise_signal(signal.SIGINT)
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        await then()

    with pytest.raises(KeyboardInterrupt):
        execute(deaf())


def test_nothing_is_loaded_before_control_c_is_seen_to() -> None:
    code = "import sys, notifier.cli; print({'pydantic', 'redis', 'typer', 'asyncio'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_what_publishers_import_is_there() -> None:
    code = (
        "import notifier; from notifier import *; notifier.errors.BrokerFull is BrokerFull or exit(3);"
        "missing = [n for n in notifier.__all__ if n not in dir(notifier) or globals()[n].__name__ != n];"
        "exit(repr(missing) if missing or hasattr(notifier, 'Nonsense') else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_closed_streams_are_told_or_done_without(start: Any) -> None:
    outcome = start("publish", "-", "--json", redirect=">&- <&-").finished()
    assert outcome.failed(2) == "notifier: stdin is closed"
