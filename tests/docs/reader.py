"""Somebody who follows a document to the letter, in a copy of the checkout."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

from notifier.local.broker import end_with_parent
from tests.docs.blocks import ROOT, Block, Command, blocks, commands
from tests.docs.expected import plain, shows

DEADLINE = 20.0
DEV_PORT = 6380  # what `notifier dev` takes, and with it the documents
_LOOKS = ("notifier dlq list", "notifier dlq show", "notifier queues", "notifier recipients show", "cat ")


class Window:
    """A terminal in which one command stays up."""

    def __init__(self, command: str, folder: Path, environ: dict[str, str], log: Path) -> None:
        self._log = log
        self._seen: list[str] = []
        parent = os.getpid()
        with log.open("wb") as out:
            self._process = subprocess.Popen(
                ["bash", "-c", f"exec {command}"],
                cwd=folder,
                env=environ,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                preexec_fn=lambda: end_with_parent(parent),  # noqa: PLW1509 - no thread is needed in the child
            )

    def wait_for(self, shown: str, where: str) -> None:
        """Until each line has come up, in any order, beside those that earlier calls waited for."""
        missing = [line for line in shown.splitlines() if line.strip() not in {"", "…"}]
        end = time.monotonic() + DEADLINE
        while missing:
            fresh = [line for line in self._log.read_text(errors="replace").splitlines() if line.strip()]
            for line in self._seen:
                fresh.remove(line)
            for line in fresh:
                found = next((one for one in missing if shows(one, line)), None)
                if found is not None:
                    missing.remove(found)
                    self._seen.append(line)
            if missing and (time.monotonic() > end or self._process.poll() is not None):
                pytest.fail(f"{where}: never came up: {missing}\n{self._log.read_text()}")
            time.sleep(0.05)

    def close(self) -> None:
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()
        self._process.wait()


class Reader:
    """`ports` are in place of those that a document names; `settings` are in every terminal's environment."""

    def __init__(self, folder: Path, ports: dict[int, int], **settings: str) -> None:
        self._folder = folder / "notifier"
        self._state = folder / "state.sh"
        self._logs = folder
        self._ports = ports
        self._code = 0
        self._printed = ""
        self._windows: dict[str, Window] = {}
        self._folder.mkdir()
        for name in ("templates", "examples"):
            shutil.copytree(ROOT / name, self._folder / name)
        programs = folder / "bin"
        programs.mkdir()
        _program(programs / "notifier", f"exec {shlex.quote(sys.executable)} -m notifier.cli")
        _program(programs / "python3", f"exec {shlex.quote(sys.executable)}")
        kept = {name: value for name, value in os.environ.items() if not name.startswith("NOTIFIER_")}
        self._environ = kept | settings | {
            "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": f"{self._folder}{os.pathsep}{ROOT}",
            "PYTHONUNBUFFERED": "1",
            "NO_COLOR": "1",
            "COLUMNS": "200",
        }  # fmt: skip

    def follow(self, path: Path) -> int:
        """Does what the document says. Returns how many commands and scripts that were."""
        done = 0
        for block in blocks(path):
            done += self._do(block)
        return done

    def _do(self, block: Block) -> int:
        info, text = block.info, self._with_ports(block.text)
        if block.language == "before":
            self._run(Command(block.where, text, "…"))
        elif "file" in info:
            target = self._folder / info["file"]
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text, encoding="utf-8")
        elif info.get("of") == "script":
            assert shows(text, self._printed), f"{block.where}: the script printed {self._printed!r}"
        elif "of" in info:
            assert block.text == (ROOT / info["of"]).read_text(encoding="utf-8"), (
                f"{block.where} is out of date"
            )
        elif block.language == "text" and "in" in info:
            self._windows[info["in"]].wait_for(text, block.where)
        elif block.language == "console" and "in" in info:
            [command] = commands(Block(block.where, "console", text))
            self._open(info["in"], command)
        elif block.language == "console":
            return self._run_all(list(commands(Block(block.where, "console", text))))
        elif block.language == "python":
            script = self._logs / "script.py"
            script.write_text(text, encoding="utf-8")
            self._run(Command(block.where, f"python3 {shlex.quote(str(script))}", "…"))
        else:
            return 0
        return 1

    def _open(self, name: str, command: Command) -> None:
        text = command.text
        if text.startswith("notifier dev"):
            text += f" --port {self._ports[DEV_PORT]}"
        environ = self._environ | self._exported()
        self._windows[name] = Window(text, self._folder, environ, self._logs / f"{name}.log")
        self._windows[name].wait_for(command.output or "…", command.where)
        if text.startswith("notifier dev"):
            self._windows[name].wait_for("Ctrl-C stops everything. What arrives:", command.where)

    def _run_all(self, steps: list[Command]) -> int:
        for step, following in zip(steps, [*steps[1:], None], strict=True):
            told = following is not None and following.text == "echo $?"
            self._run(step, may_fail=told)
        return len(steps)

    def _run(self, command: Command, *, may_fail: bool = False) -> None:
        end = time.monotonic() + DEADLINE
        while True:
            real = self._shell(command.text)
            if shows(command.output, real) and (self._code == 0 or may_fail):
                self._printed = real
                return
            if not command.text.startswith(_LOOKS) or time.monotonic() > end:
                pytest.fail(
                    f"{command.where}: $ {command.text}\nexit code {self._code}\n"
                    f"--- shown\n{plain(command.output)}\n--- real\n{plain(real)}"
                )
            time.sleep(0.2)

    def _shell(self, text: str) -> str:
        """What it prints. The shell goes on where the last command left it."""
        if text.startswith("make "):
            options = ["-o", ".venv/.installed", f"BIN={Path(sys.executable).parent}", "-C", str(ROOT)]
            text = f"make --no-print-directory {shlex.join(options)} {text.removeprefix('make ')}"
        state = shlex.quote(str(self._state))
        before = f"[ -e {state} ] && . {state}\n(exit {self._code})"
        after = f"code=$?\nexport -p > {state}\nexit $code"
        done = subprocess.run(
            ["bash", "-c", f"{before}\n{text}\n{after}"],
            cwd=self._folder,
            env=self._environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=DEADLINE * 2,
            check=False,
        )
        self._code = done.returncode
        return done.stdout.decode(errors="replace")

    def _exported(self) -> dict[str, str]:
        printed = self._shell("env -0")
        return dict(line.split("=", 1) for line in printed.split("\0") if line.startswith("NOTIFIER_"))

    def _with_ports(self, text: str) -> str:
        for shown, real in self._ports.items():
            text = text.replace(f":{shown}", f":{real}").replace(f" {shown}", f" {real}")
        return text

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with ExitStack() as closing:
            for window in self._windows.values():
                closing.callback(window.close)


def _program(path: Path, command: str) -> None:
    path.write_text(f'#!/bin/sh\n{command} "$@"\n', encoding="utf-8")
    path.chmod(0o755)
