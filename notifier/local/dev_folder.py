"""`.notifier/`: what `notifier dev` keeps between two runs, for one run at a time.

.gitignore    none of it belongs into a repository
lock          held by the run that uses the folder; the kernel lets go of it when that run ends
broker/       the broker's data
push.json     the VAPID key and the browsers of the seeded recipients (mode 0600)
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from notifier.errors import ConfigurationError
from notifier.local.push_service import Browser, VapidKeys, new_browser, vapid_keys

FOLDER: Final = ".notifier"


@dataclass(frozen=True, slots=True)
class PushKeys:
    """The application's key pair, and each seeded recipient's browser."""

    vapid: VapidKeys
    browsers: dict[str, Browser]


@contextmanager
def dev_folder(parent: Path) -> Iterator[Path]:
    """The folder below `parent`, made when it is missing, and ours until the end.

    Raises ConfigurationError when another run uses it, or when it can't be made.
    """
    folder = parent / FOLDER
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        (folder / ".gitignore").write_text("*\n", encoding="utf-8")
        lock = (folder / "lock").open("a+", encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(f"{FOLDER}/", f"can't be used: {error.strerror}") from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.seek(0)
            pid = lock.read().strip()
            reason = f"is in use by another `notifier dev` (process {pid}); stop that one first"
            raise ConfigurationError(f"{FOLDER}/", reason) from None
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        yield folder


def push_keys(folder: Path, owners: Sequence[str]) -> PushKeys:
    """The keys of earlier runs, and new ones for who has none. Raises ConfigurationError."""
    path = folder / "push.json"
    try:
        kept = _read(path)
        keys = PushKeys(
            VapidKeys(**kept["vapid"]) if kept else vapid_keys(),
            {owner: Browser(**browser) for owner, browser in kept.get("browsers", {}).items()},
        )
        for owner in owners:
            keys.browsers.setdefault(owner, new_browser())
        _write(path, keys)
    except OSError as error:
        raise ConfigurationError(f"{FOLDER}/{path.name}", f"can't be used: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ConfigurationError(f"{FOLDER}/{path.name}", "is damaged; remove it for new keys") from None
    return keys


def _read(path: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    return found


def _write(path: Path, keys: PushKeys) -> None:
    browsers = {owner: browser._asdict() for owner, browser in keys.browsers.items()}
    text = json.dumps({"vapid": keys.vapid._asdict(), "browsers": browsers}, indent=1)
    new = path.with_suffix(".new")  # a crash must not leave half a file
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text + "\n")
    new.replace(path)
