"""Workers in processes of their own, to be killed, stopped and continued."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from notifier.bootstrap import open_channels, open_runtime, open_templates, open_worker
from notifier.local.broker import end_with_parent
from notifier.settings import load

_ROOT = Path(__file__).parent.parent.parent


@contextmanager
def worker_process(
    url: str,
    folder: Path,
    roles: Sequence[str] = ("router", "post"),
    *,
    log: str = "workers.log",
    **environ: str,
) -> Iterator[subprocess.Popen[bytes]]:
    """A worker with the channel of `tests.support.channels.open_ledger_channel`.

    `folder` holds `types` and `log`, to which it adds what it says. SIGTERM stops it cleanly; at the end it
    is killed if it still lives.
    """
    settings = {
        "NOTIFIER_REDIS_URL": url,
        "NOTIFIER_TEMPLATES": str(folder / "types"),
        "NOTIFIER_CHANNELS": "tests.support.channels:open_ledger_channel",
        "NOTIFIER_LEASE_TTL": "2s",
        "NOTIFIER_RETRY_BASE": "20ms",
        "LEDGER": str(folder / "ledger"),
    }
    parent = os.getpid()
    with (folder / log).open("ab") as said:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.processes", *roles],
            cwd=_ROOT,
            env=os.environ | settings | environ,
            stdout=said,
            stderr=said,
            preexec_fn=lambda: end_with_parent(parent),  # noqa: PLW1509 - no thread is needed in the child
        )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGCONT)
        process.kill()
        process.wait()


async def _main(roles: Sequence[str], environ: Mapping[str, str]) -> None:
    settings = load(environ)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    channels = open_channels(settings, environ)
    templates = open_templates(settings, channels)
    async with (
        open_runtime(settings) as runtime,
        open_worker(runtime, channels, templates, roles) as worker,
    ):
        await worker.run(stop)


if __name__ == "__main__":
    asyncio.run(_main(sys.argv[1:], os.environ))
