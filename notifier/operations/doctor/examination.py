"""The parts of the look, side by side, each within its time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

from notifier.broker.connection import connect
from notifier.channel import Finding
from notifier.errors import BrokerError, ConfigurationError
from notifier.operations.doctor import broker, configuration, queues, surroundings
from notifier.operations.doctor.findings import error
from notifier.settings import Settings

PATIENCE: Final = timedelta(seconds=15)
"""For each part; they run side by side, and the broker's two one after the other."""

Look = AsyncIterator[Finding]
Own = Callable[[Settings], Sequence[Finding]]


@dataclass(slots=True)
class Section:
    """What was found in one part."""

    title: str
    findings: list[Finding] = field(default_factory=list)


async def examine(environ: Mapping[str, str], api: Own) -> list[Section]:
    """All parts, in a fixed order. `api` looks at what the HTTP API reads. Raises nothing on purpose: what
    can't be looked at is a finding."""
    found = configuration.read(environ)
    settings, channels = found.settings, found.channels
    sections = [
        Section("settings", found.findings),
        Section("HTTP API", list(api(settings))),
        of_broker := Section("broker"),
        of_queues := Section("queues"),
        of_templates := Section("templates"),
        *(of_channels := {name: Section(f"channel {name}") for name in channels}).values(),
        of_machine := Section("this machine"),
    ]
    await asyncio.gather(
        _broker(found, of_broker, of_queues),
        _fill(of_templates, surroundings.templates(settings, channels)),
        _fill(of_machine, surroundings.machine()),
        *(_fill(of_channels[name], surroundings.channel(name, one)) for name, one in channels.items()),
    )
    return sections


async def _broker(found: configuration.Configuration, of_broker: Section, of_queues: Section) -> None:
    settings = found.settings
    wrong = sorted({"NOTIFIER_REDIS_URL", "NOTIFIER_NAMESPACE"} & found.wrong)
    reason = f"{wrong[0]} is wrong" if wrong else ""
    if not wrong:
        try:
            client = connect(settings.redis_url)
        except ConfigurationError as unusable:
            reason = str(unusable)
        else:
            async with client:
                if await _fill(of_broker, broker.look(client, settings)):
                    await _fill(of_queues, queues.look(client, settings, found.channels))
                else:
                    of_queues.findings.append(_unseen("queues", "they lie in the broker"))
            return
    of_broker.findings.append(_unseen("broker", reason))
    of_queues.findings.append(_unseen("queues", reason))


def _unseen(what: str, reason: str) -> Finding:
    means = "What is wrong there is not known yet."
    return error(what, f"not looked at: {reason}", means, "See to the other errors first, and look again.")


async def _fill(section: Section, look: Look) -> bool:
    """Whether it came to its end."""
    try:
        async with aclosing(look), asyncio.timeout(PATIENCE.total_seconds()):  # type: ignore[type-var]
            async for finding in look:
                section.findings.append(finding)
        return True
    except TimeoutError:
        found = f"no answer within {PATIENCE.total_seconds():.0f} s"
        mend = "See whether the server that its settings name answers, and look again."
        finding = error(section.title, found, "It could not be looked at to its end.", mend)
    except BrokerError as failure:
        mend = "Start the server, or correct NOTIFIER_REDIS_URL: its host, port, user and password."
        finding = error("reachable", str(failure), "Nothing is published or delivered.", mend)
    section.findings.append(finding)
    return False
