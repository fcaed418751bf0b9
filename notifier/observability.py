"""Logs: one line an event on stderr, as JSON or for people, without secrets.

Whatever the standard library's `logging` is told, by us or by libraries, comes out in the same form.
"""

from __future__ import annotations

import io
import logging
import re
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, Final, Literal, TextIO, cast

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from notifier.redaction import traceback_without_addresses

LogFormat = Literal["console", "json"]

_LEVELS: Final[Mapping[str, int]] = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}
# The user part of a URL: passwords stand in those of brokers and mail servers.
_CREDENTIALS = re.compile(r"(?<=://)[^\s/'\"]+(?=@)")


SAID_AGAIN_AFTER: Final = 30.0
"""Seconds in which one of `_OUTAGE` is said once for each queue and error."""

# What every worker would say of each partition, again and again, for as long as the broker is away.
_OUTAGE = frozenset({
    "commit_failed", "commit_refused", "lease_beat_failed", "lease_not_renewed", "lease_not_taken",
    "mark_failed", "not_recovered", "partition_not_read", "read_failed", "routing_failed", "routing_waits",
    "timer_failed",
})  # fmt: skip
_MOST_OUTAGES = 256


class _Handler(logging.StreamHandler[TextIO]):
    """Ours, to be told from those that others put on the root logger."""


class _Lossy(io.TextIOBase):
    """A stream whose failures stop nobody: a full disk, a closed terminal, or a pipe that nobody reads."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._lost = 0

    def write(self, text: str, /) -> int:
        try:
            self._out.write(text)
            self._out.flush()
        except (OSError, ValueError):  # ValueError: it is closed
            self._lost += 1
            return 0
        self._lost = 0
        return len(text)

    def count_lost(self, _: WrappedLogger, __: str, event: EventDict) -> EventDict:
        """The first line that comes through again says how many did not."""
        if self._lost:
            event["lines_lost"] = self._lost
        return event


def without_secrets(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Takes user names and passwords out of the URLs in all texts, and addresses out of tracebacks."""
    for name, value in event.items():
        if isinstance(value, str) and "@" in value:
            event[name] = _CREDENTIALS.sub("***", value)
    if isinstance(said := event.get("exception"), str):
        event["exception"] = traceback_without_addresses(said)
    return event


class OutagesOnce:
    """Leaves out what has just been said of an outage; `left_out` counts such lines when it is said again."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._said: dict[tuple[object, ...], tuple[float, int]] = {}

    def __call__(self, _: WrappedLogger, __: str, event: EventDict) -> EventDict:
        if event["event"] not in _OUTAGE:
            return event
        of = event["event"], event.get("queue"), event.get("error")
        now = self._clock()
        said, left_out = self._said.get(of, (-SAID_AGAIN_AFTER, 0))
        if now - said < SAID_AGAIN_AFTER:
            self._said[of] = said, left_out + 1
            raise structlog.DropEvent
        if len(self._said) >= _MOST_OUTAGES:  # errors with ever new texts
            self._said.clear()
        self._said[of] = now, 0
        if left_out:
            event["left_out"] = left_out
        return event


def configure(
    level: str, form: LogFormat, *, stream: TextIO | None = None, cache_loggers: bool = False
) -> None:
    """Sets up structlog and `logging` for this process; may be called again.

    `level` is debug, info, warning or error. `stream` is stderr, unless told otherwise. With `cache_loggers`
    loggers keep their configuration once they are used, which is right for a process that logs a lot.
    """
    out = stream or sys.stderr or io.StringIO()  # there is no stderr behind 2>&-
    lossy = _Lossy(out)
    number = _LEVELS[level]
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=form == "json"),
        structlog.processors.format_exc_info,
        without_secrets,
        lossy.count_lost,
    ]
    renderer = _renderer(form, out)
    structlog.configure(
        processors=[OutagesOnce(), *shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.WriteLoggerFactory(cast(TextIO, lossy)),
        cache_logger_on_first_use=cache_loggers,
    )
    handler = _Handler(cast(TextIO, lossy))
    remove_meta = structlog.stdlib.ProcessorFormatter.remove_processors_meta
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.add_logger_name],
            processors=[remove_meta, without_secrets, renderer],
        )
    )
    root = logging.getLogger()
    for before in [one for one in root.handlers if isinstance(one, _Handler)]:
        root.removeHandler(before)
    root.addHandler(handler)
    # HTTP clients tell each URL at the level info, and that of a push subscription is a secret.
    root.setLevel(max(number, logging.WARNING))


def _renderer(form: LogFormat, out: TextIO) -> Processor:
    if form == "json":
        return structlog.processors.JSONRenderer(default=_as_text)
    return structlog.dev.ConsoleRenderer(
        colors=out.isatty(), exception_formatter=structlog.dev.plain_traceback, pad_event_to=28
    )


def _as_text(value: Any) -> str:
    return str(value)
