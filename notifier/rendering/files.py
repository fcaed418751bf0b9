"""Reading the templates folder: a snapshot of its text, and a cheap answer to "has it changed?"."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from notifier.errors import ConfigurationError, TemplateError

SETTING: Final = "NOTIFIER_TEMPLATES"
MAX_FILE_BYTES: Final = 1024 * 1024

_READ = (".jinja", ".toml", ".json")
_MAX_DEPTH = 4  # <type>/<partials>/…; also ends a walk through links that go round in a circle

Fingerprint = frozenset[tuple[str, int, int, int]]
"""Path below the folder, inode, size in bytes and mtime in nanoseconds of each file."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The text of each file by its path below the folder, and what could not be read."""

    sources: dict[str, str]
    problems: tuple[TemplateError, ...]
    fingerprint: Fingerprint


def fingerprint(folder: Path) -> Fingerprint:
    """What changes when a file does. Raises ConfigurationError when there is no such folder."""
    try:
        return frozenset(_walk(os.fspath(folder), "", 0))
    except FileNotFoundError:
        raise ConfigurationError(SETTING, f"there is no folder {folder}") from None
    except NotADirectoryError:
        raise ConfigurationError(SETTING, f"{folder} is not a folder") from None
    except OSError as error:
        raise ConfigurationError(SETTING, f"{folder} can't be read: {error.strerror}") from None


def snapshot(folder: Path) -> Snapshot:
    """Read all of it. Raises ConfigurationError when there is no such folder.

    The fingerprint is taken first: a file that is written meanwhile is read again next time.
    """
    found = fingerprint(folder)
    sources: dict[str, str] = {}
    problems: list[TemplateError] = []
    for path, _, size, _ in sorted(found):
        if not path.endswith(_READ):
            continue
        if size > MAX_FILE_BYTES:
            problems.append(TemplateError(path, f"has {size} bytes; the limit is {MAX_FILE_BYTES}"))
            continue
        try:
            sources[path] = (folder / path).read_text(encoding="utf-8").removeprefix("\ufeff")
        except FileNotFoundError:
            continue  # removed since it was listed
        except OSError as error:
            problems.append(TemplateError(path, f"can't be read: {error.strerror}"))
        except UnicodeDecodeError:
            problems.append(TemplateError(path, "is not UTF-8"))
    return Snapshot(sources, tuple(problems), found)


def _walk(folder: str, prefix: str, depth: int) -> Iterator[tuple[str, int, int, int]]:
    with os.scandir(folder) as entries:
        for entry in entries:
            # Editors' swap files, and the `..data` links of a mounted Kubernetes ConfigMap.
            if entry.name.startswith("."):
                continue
            try:
                if entry.is_dir():
                    if depth < _MAX_DEPTH:
                        yield from _walk(entry.path, f"{prefix}{entry.name}/", depth + 1)
                    continue
                status = entry.stat()
            except FileNotFoundError:
                continue  # removed since it was listed, or a link that leads nowhere
            yield f"{prefix}{entry.name}", status.st_ino, status.st_size, status.st_mtime_ns
