"""Templates, channels, and what the machine has."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from notifier import rendering
from notifier.channel import Channel, ChecksItself, Finding
from notifier.errors import ConfigurationError
from notifier.operations.doctor.findings import counted, error, ok, warning
from notifier.rendering import TemplateFolder
from notifier.settings import Settings

_SHOWN = 10


async def templates(settings: Settings, channels: Mapping[str, Channel]) -> AsyncIterator[Finding]:
    """Whether all compile and render their samples. `channels` are those that load."""
    if len(channels) < len(settings.channels):
        means = "A channel that does not load can't say what its templates consist of."
        yield warning("templates", "not looked at", means, "See to the channel's settings first.")
        return
    folder = TemplateFolder(settings.templates, {name: channel.blocks for name, channel in channels.items()})
    try:
        await asyncio.to_thread(folder.load)
    except ConfigurationError as wrong:
        mend = "Set NOTIFIER_TEMPLATES to the folder that has one folder for each event type."
        yield error(wrong.setting, wrong.reason, "No worker starts.", mend)
        return
    problems = await asyncio.to_thread(rendering.check, folder)
    for problem in problems[:_SHOWN]:
        where = problem.template if problem.line is None else f"{problem.template}:{problem.line}"
        if problem.is_unused:
            means = "Nobody uses this file; the type goes out through its other channels."
            mend = "Remove it, or add the channel to NOTIFIER_CHANNELS."
            yield warning(where, problem.message, means, mend)
            continue
        means = "Notifications of this type become dead letters on this channel."
        yield error(where, problem.message, means, "Mend the file; notifier templates check says when it is.")
    if len(problems) > _SHOWN:
        found = f"{len(problems) - _SHOWN} more problems"
        yield error(str(settings.templates), found, "As above.", "notifier templates check")
    if not problems:
        types = counted(len(folder.catalogue.kinds), "event type")
        yield ok("templates", f"{types} in {settings.templates}, each renders its sample")


async def channel(name: str, one: Channel) -> AsyncIterator[Finding]:
    """What the channel says of its settings and its provider."""
    try:
        await one.open()
    except ConfigurationError as wrong:
        means = f"With these settings, no worker with the role {name} starts."
        mend = f"Set {wrong.setting}; or take the channel out of NOTIFIER_CHANNELS."
        yield error(wrong.setting, wrong.reason, means, mend)
        return
    try:
        for finding in await _checked(one):
            yield finding
    finally:
        await one.close()


async def _checked(one: Channel) -> Sequence[Finding]:
    if not isinstance(one, ChecksItself):
        return [ok("settings", "it opens; it has no check of its own")]
    try:
        return await one.check()
    except Exception as failure:  # noqa: BLE001 - a plug-in's mistake must not hide the rest
        found = f"its check failed: {type(failure).__name__}"
        return [error("check", found, "How it is, is not known.", "Tell whoever wrote the channel.")]


async def machine() -> AsyncIterator[Finding]:
    """Whether quiet hours and times in templates can be right."""
    try:
        ZoneInfo("America/New_York")
        yield ok("time zones", f"{len(available_timezones())} are known")
    except ZoneInfoNotFoundError:
        means = "Recipients' time zones are refused, and times in templates fail."
        yield error(
            "time zones", "no data on this machine", means, "pip install tzdata, or apt install tzdata"
        )
