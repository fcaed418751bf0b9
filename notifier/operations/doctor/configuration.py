"""The environment: settings that can't work, variables that nobody reads, and channels that don't load."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import NamedTuple

from notifier import registry
from notifier.channel import Channel, ChecksItself, Finding
from notifier.errors import ConfigurationError
from notifier.operations.doctor.findings import error, ok, warning
from notifier.settings import PREFIX, Settings, load

_MOST_WRONG = 100
_ALIKE = 0.8


class Configuration(NamedTuple):
    """What can be used of an environment, and what not: `settings` has defaults for what is `wrong`."""

    settings: Settings
    channels: Mapping[str, Channel]
    findings: list[Finding]
    wrong: frozenset[str]


def read(environ: Mapping[str, str]) -> Configuration:
    """All that is wrong, not just the first."""
    findings: list[Finding] = []
    kept = dict(environ)
    settings = Settings()
    for _ in range(_MOST_WRONG):
        try:
            settings = load(kept)
            break
        except ConfigurationError as unusable:
            findings.append(_wrong(unusable))
            if kept.pop(unusable.setting, None) is None:
                break
    channels = dict(_channels(settings, environ, findings))
    wrong = frozenset(finding.what for finding in findings)
    findings += (one for one in _unknown(environ, settings, channels) if one.what not in wrong)
    findings += _odd(settings)
    if not any(finding.level == "error" for finding in findings):
        given = sum(1 for name in environ if name.startswith(PREFIX) and environ[name])
        findings.insert(0, ok("environment", f"{given} variables of {PREFIX}* are set, and can work"))
    return Configuration(settings, channels, findings, wrong)


def _wrong(wrong: ConfigurationError) -> Finding:
    return error(
        wrong.setting, wrong.reason, "No process starts with it.", f"Correct or unset {wrong.setting}."
    )


def _channels(
    settings: Settings, environ: Mapping[str, str], findings: list[Finding]
) -> Iterator[tuple[str, Channel]]:
    seen: set[str] = set()
    for name in settings.channels:
        try:
            [(channel_name, channel)] = registry.load_channels([name], environ).items()
        except ConfigurationError as wrong:
            findings.append(_wrong(wrong))
            continue
        if channel_name in seen:
            twice = ConfigurationError(registry.SETTING, f"{name} is a second channel named {channel_name}")
            findings.append(_wrong(twice))
            continue
        seen.add(channel_name)
        yield channel_name, channel
    if not settings.channels:
        findings.append(_wrong(ConfigurationError(registry.SETTING, "names no channel")))


def _unknown(
    environ: Mapping[str, str], settings: Settings, channels: Mapping[str, Channel]
) -> Iterator[Finding]:
    known = {name.upper() for name in Settings.model_fields}
    tells_all = len(channels) == len(settings.channels)  # one that does not load may read anything
    for channel in channels.values():
        if isinstance(channel, ChecksItself):
            known |= {name.removeprefix(PREFIX) for name in channel.variables()}
        else:
            tells_all = False
    means = "What it was meant to say is not heard."
    for name in sorted(environ):
        own = name.removeprefix(PREFIX)
        if own == name or own in known:
            continue
        if alike := difflib.get_close_matches(own, known, 1, _ALIKE):
            mend = f"Rename it to {PREFIX}{alike[0]}, or remove it."
            yield warning(name, "nobody reads it", means, mend)
        elif tells_all:
            yield warning(name, "nobody reads it", means, "Remove it.")


def _odd(settings: Settings) -> Iterator[Finding]:
    if settings.streams >= settings.api_connections:
        yield warning(
            "NOTIFIER_STREAMS", f"{settings.streams}, of {settings.api_connections} connections in all",
            "When so many listen to inboxes, no other request comes through.",
            f"Set NOTIFIER_STREAMS lower, such as {settings.api_connections * 4 // 5}.",
        )  # fmt: skip
    if settings.retry_base > settings.retry_max:
        yield warning(
            "NOTIFIER_RETRY_BASE", "is longer than NOTIFIER_RETRY_MAX",
            "Every wait is as long as the longest: there is no backoff.", "Set it below NOTIFIER_RETRY_MAX.",
        )  # fmt: skip
    if settings.dedup_window < timedelta(minutes=1):
        yield warning(
            "NOTIFIER_DEDUP_WINDOW", "is shorter than a minute",
            "An event that is published again after an error may be delivered twice.",
            "Unset NOTIFIER_DEDUP_WINDOW, for 24h.",
        )  # fmt: skip
    if not settings.admins:
        yield warning(
            "NOTIFIER_ADMINS", "unset", "Nobody is told when deliveries are dead.",
            "Set NOTIFIER_ADMINS to a mail address, such as ops@your.domain.",
        )  # fmt: skip
