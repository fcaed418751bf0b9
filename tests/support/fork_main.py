"""A process that has everything imported, with failpoints, and forks for whoever is to do something.

To start a Python process that imports the service takes half a second; to fork one takes milliseconds. It
reads one JSON object a line and writes what became of each: `{"id", "pid"}`, then `{"id", "code"}`. It has
one thread and no event loop. Nothing of `notifier` is imported here before the points are there.
"""

from __future__ import annotations

import asyncio
import json
import os
import select
import signal
import sys
import traceback
from typing import Any, NoReturn, TextIO

from tests.support import failpoints


class _Server:
    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._running: dict[int, int] = {}
        # A child's end must end the wait for input.
        self._woken, self._wakes = os.pipe()
        os.set_blocking(self._wakes, False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self._wakes)

    def serve(self) -> None:
        """Until the input ends and nobody is left."""
        sources, rest = [0, self._woken], b""
        while 0 in sources or self._running:
            ready, _, _ = select.select(sources, [], [])
            if self._woken in ready:
                os.read(self._woken, 4096)
                self._reap()
            if 0 in ready:
                data = os.read(0, 1 << 20)
                if not data:
                    sources.remove(0)
                *lines, rest = (rest + data).split(b"\n")
                for line in lines:
                    self._fork(json.loads(line))

    def _reap(self) -> None:
        for pid, number in list(self._running.items()):
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                del self._running[pid]
                self._tell(id=number, code=os.waitstatus_to_exitcode(status))

    def _fork(self, asked: dict[str, Any]) -> None:
        pid = os.fork()
        if pid == 0:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            self._out.close()
            _become(asked)
        self._running[pid] = asked["id"]
        self._tell(id=asked["id"], pid=pid)

    def _tell(self, **what: int) -> None:
        self._out.write(json.dumps(what) + "\n")
        self._out.flush()


def _become(asked: dict[str, Any]) -> NoReturn:
    from notifier.local.broker import end_with_parent  # noqa: PLC0415
    from tests.support import forked  # noqa: PLC0415

    end_with_parent(os.getppid())
    said = os.open(asked["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(said, 1)
    os.dup2(said, 2)
    armed = asked["armed"]
    failpoints.arm(None if armed is None else failpoints.Armed(*armed))
    code = 1
    try:
        asyncio.run(getattr(forked, asked["work"])(**asked["options"]))
        code = 0
    except BaseException:  # noqa: BLE001 - told in the log, and by the exit code
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _main() -> None:
    failpoints.install()
    from tests.support import forked  # noqa: PLC0415

    forked.get_ready()
    _Server(os.fdopen(os.dup(1), "w")).serve()


if __name__ == "__main__":
    _main()
