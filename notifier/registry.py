"""Loads channels by their import string, so that the engine knows none of them by name."""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping, Sequence

from notifier.channel import Channel
from notifier.errors import ConfigurationError
from notifier.keys import RESERVED

SETTING = "NOTIFIER_CHANNELS"


def load_channels(names: Sequence[str], environ: Mapping[str, str]) -> dict[str, Channel]:
    """The channels behind `module:factory` strings, by their own names, not opened yet.

    Raises ConfigurationError: the module does not load, has no such factory, or the channel's own
    settings are wrong; two channels have one name; a name is not usable.
    """
    channels: dict[str, Channel] = {}
    for name in names:
        channel = _load(name, environ)
        if not re.fullmatch(r"[a-z][a-z0-9_]{0,49}", str(channel.name)) or channel.name in RESERVED:
            raise ConfigurationError(
                SETTING, f"{name} calls itself {channel.name!r}, which can't be a queue's name"
            )
        if channel.name in channels:
            raise ConfigurationError(SETTING, f"{name} is a second channel named {channel.name}")
        channels[channel.name] = channel
    if not channels:
        raise ConfigurationError(SETTING, "names no channel")
    return channels


def _load(name: str, environ: Mapping[str, str]) -> Channel:
    module_name, colon, attribute = name.partition(":")
    if not colon or not module_name or not attribute:
        raise ConfigurationError(SETTING, f"{name!r} is not of the form module:factory")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # whatever a plug-in raises while it loads is told as one line
        raise ConfigurationError(SETTING, f"{name} does not load: {_in_one_line(error)}") from error
    factory = getattr(module, attribute, None)
    if not callable(factory):
        raise ConfigurationError(SETTING, f"{name}: the module {module_name} has no {attribute}")
    try:
        channel: Channel = factory(environ)
    except ConfigurationError:
        raise
    except Exception as error:  # likewise
        raise ConfigurationError(SETTING, f"{name} raised {_in_one_line(error)}") from error
    missing = [
        part
        for part in ("name", "blocks", "addresses", "open", "send", "close")
        if not hasattr(channel, part)
    ]
    if missing:
        raise ConfigurationError(SETTING, f"{name} gives no channel: it has no {', '.join(missing)}")
    return channel


def _in_one_line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())
