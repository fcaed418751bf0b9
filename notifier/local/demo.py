"""`notifier demo`: the whole way of an event on this machine, and whether it went as it must.

story       what is published, and what must come of it, as data
stage       broker, mailbox server, push service and a worker of all roles
chapters    what is done with them, step by step
evidence    what really happened, from the worker's log and from the far side
outcomes    the closing table
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from notifier.errors import ConfigurationError
from notifier.local import chapters, story
from notifier.local.causes import first_cause
from notifier.local.evidence import differences
from notifier.local.outcomes import Row, rows
from notifier.local.stage import Stage, open_stage
from notifier.local.steps import Narrator, Step

_LONGEST: Final = 15.0
_EACH: Final = 6.0


@dataclass(frozen=True, slots=True)
class Result:
    """How it went. `differences` names what was not as expected, one line each.

    `arrived` counts what came through each channel.
    """

    steps: tuple[Step, ...]
    rows: tuple[Row, ...]
    differences: tuple[str, ...]
    arrived: Mapping[str, int]
    seconds: float

    @property
    def ok(self) -> bool:
        return not self.differences and all(step.ok for step in self.steps)


async def run_demo(templates: Path, tell: Callable[[Step], None], log_file: Path | None = None) -> Result:
    """Plays in a temporary folder and on free ports, and leaves nothing behind.

    Works on a copy of `templates`. `tell` is given each step as it happens; `log_file` gets what the
    worker logs. Raises ConfigurationError when the templates lack what the demo publishes, and OSError
    when the log can't be written.
    """
    began = time.monotonic()
    narrator = Narrator(tell, longest=_LONGEST, each=_EACH)
    with tempfile.TemporaryDirectory(prefix="notifier-demo-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        copy = _copied(templates, folder / "templates")
        try:
            async with open_stage(folder / "broker", copy, narrator, log_file) as stage:
                await chapters.tell_all(stage)
                found = await _differences(stage)
        except BaseExceptionGroup as group:  # of the tasks on the stage; the first is the cause
            raise first_cause(group) from None
        return Result(
            steps=tuple(narrator.steps),
            rows=tuple(rows(story.expectations(), stage.evidence, stage.began_at)),
            differences=tuple(found),
            arrived={channel: stage.evidence.arrived(channel) for channel in story.CHANNELS},
            seconds=round(time.monotonic() - began, 1),
        )


async def _differences(stage: Stage) -> list[str]:
    stopped = await stage.end()
    found = [] if stopped else ["the worker did not stop in time"]
    return [*found, *differences(story.expectations(), stage.evidence), *await chapters.what_is_left(stage)]


def _copied(templates: Path, to: Path) -> Path:
    if not templates.is_dir():
        raise ConfigurationError("--templates", f"there is no folder {templates}")
    kinds = {str(published.event["type"]) for published in story.EACH_TYPE}
    if missing := sorted(kind for kind in kinds if not (templates / kind / "email.jinja").is_file()):
        raise ConfigurationError("--templates", f"{templates} has no templates for {', '.join(missing)}")
    try:
        shutil.copytree(templates, to)
    except OSError as error:
        reason = error.args[0][0][-1] if isinstance(error, shutil.Error) else error  # of the first file
        raise ConfigurationError("--templates", f"{templates} can't be copied: {reason}") from None
    for path in (to, *to.rglob("*")):  # a read-only folder is copied with its modes
        path.chmod(path.stat().st_mode | (0o700 if path.is_dir() else 0o600))
    return to
