"""Starts processes that have everything imported, with failpoints: see `tests.support.fork_main`."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from notifier.local.broker import end_with_parent
from tests.support.failpoints import Armed

_ROOT = Path(__file__).parent.parent.parent


class Child:
    """A forked process. Its exit code is negative when a signal ended it."""

    def __init__(self, pid: int, code: asyncio.Future[int]) -> None:
        self.pid = pid
        self._code = code

    async def ended(self, deadline: float = 20.0) -> int:
        async with asyncio.timeout(deadline):
            return await asyncio.shield(self._code)

    @property
    def lives(self) -> bool:
        return not self._code.done()

    def signal(self, number: signal.Signals) -> None:
        if self.lives:
            with suppress(ProcessLookupError):  # it has just ended, and we have not been told
                os.kill(self.pid, number)

    async def stop(self) -> None:
        """As SIGTERM does. It must end cleanly."""
        self.signal(signal.SIGTERM)
        code = await self.ended()
        if code:
            raise RuntimeError(f"ended with {code}")


class ForkServer:
    """Starts children; an asynchronous context manager."""

    def __init__(self) -> None:
        self._process: asyncio.subprocess.Process | None = None
        self._started: dict[int, asyncio.Future[int]] = {}
        self._codes: dict[int, asyncio.Future[int]] = {}
        self._children: list[Child] = []
        self._reading: asyncio.Task[None] | None = None

    async def fork(self, work: str, log: Path, armed: Armed | None = None, **options: Any) -> Child:
        """`work` names a coroutine function of `tests.support.forked`, which is given the options."""
        assert self._process is not None
        assert self._process.stdin is not None
        number, loop = len(self._started), asyncio.get_running_loop()
        self._started[number], self._codes[number] = loop.create_future(), loop.create_future()
        point = None if armed is None else dataclasses.astuple(armed)
        asked = {"id": number, "work": work, "log": str(log), "armed": point, "options": options}
        self._process.stdin.write(json.dumps(asked).encode() + b"\n")
        child = Child(await self._started[number], self._codes[number])
        self._children.append(child)
        return child

    async def __aenter__(self) -> Self:
        parent = os.getpid()
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.support.fork_main",
            cwd=_ROOT, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
            preexec_fn=lambda: end_with_parent(parent),
        )  # fmt: skip
        self._reading = asyncio.create_task(self._read())
        return self

    async def _read(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            told = json.loads(line)
            if "pid" in told:
                self._started[told["id"]].set_result(told["pid"])
            else:
                self._codes[told["id"]].set_result(told["code"])

    async def __aexit__(self, *_: object) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        for child in self._children:
            child.signal(signal.SIGCONT)
            child.signal(signal.SIGKILL)
        self._process.stdin.close()
        await self._process.wait()
        assert self._reading is not None
        await self._reading
