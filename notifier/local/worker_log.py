"""What the workers of this process say, as it happens: their log, given to the program and not the screen."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, NoReturn, Self

import structlog
from structlog.typing import EventDict, WrappedLogger

from notifier.observability import OutagesOnce

_LEVELS: Final = {"debug": 10, "info": 20, "warning": 30, "error": 40, "critical": 50}


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line of a worker's log; `event` is its stable name."""

    event: str
    level: str
    fields: Mapping[str, Any]
    at: datetime

    @property
    def is_trouble(self) -> bool:
        return _LEVELS.get(self.level, 0) >= _LEVELS["warning"]


@contextmanager
def worker_log(heard: Callable[[LogLine], None], file: Path | None = None) -> Iterator[None]:
    """Every line of the log goes to `heard`, and as JSON to `file`; nothing goes to the screen. Of an outage
    the same is said once, as in a worker's own log.

    Raises OSError when the file can't be written.
    """
    before = structlog.get_config()
    with _Lines(file) as lines:

        def catch(_logger: WrappedLogger, level: str, fields: EventDict) -> NoReturn:
            line = LogLine(str(fields.pop("event")), level, fields, datetime.now(UTC))
            lines.write(line)
            heard(line)
            raise structlog.DropEvent

        structlog.configure(
            processors=[OutagesOnce(), structlog.processors.format_exc_info, catch],
            wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG),
            cache_logger_on_first_use=False,
        )
        with _libraries(lines):
            try:
                yield
            finally:
                structlog.configure(**before)


class _Lines:
    """JSON lines in a file, or nowhere."""

    def __init__(self, path: Path | None) -> None:
        self._file = path.open("w", encoding="utf-8") if path else None

    def write(self, line: LogLine) -> None:
        if self._file is not None:
            row = {"at": line.at.isoformat(timespec="milliseconds"), "level": line.level, "event": line.event}
            self._file.write(json.dumps(row | dict(line.fields), ensure_ascii=False, default=str) + "\n")
            self._file.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()


class _Handler(logging.Handler):
    def __init__(self, lines: _Lines) -> None:
        super().__init__()
        self._lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        fields = {"logger": record.name}
        if record.exc_info:
            fields["exception"] = logging.Formatter().formatException(record.exc_info)
        at = datetime.fromtimestamp(record.created, UTC)
        self._lines.write(LogLine(record.getMessage(), record.levelname.lower(), fields, at))


@contextmanager
def _libraries(lines: _Lines) -> Iterator[None]:
    """What libraries log goes the same way; without a handler Python would print it to stderr."""
    root, handler = logging.getLogger(), _Handler(lines)
    others, root.handlers = root.handlers, [handler]
    try:
        yield
    finally:
        root.handlers = others
