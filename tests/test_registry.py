"""Channels are loaded by their import string; what is wrong with one is told in one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from notifier.errors import ConfigurationError
from notifier.registry import load_channels

WRONG = {
    "no_factory": "",
    "does_not_load": "import nowhere_at_all",
    "broken_syntax": "def open_channel(:",
    "raises": "def open_channel(environ):\n    raise RuntimeError('no\\nway')",
    "no_channel": "def open_channel(environ):\n    return object()",
    "reserved": (
        "from tests.support.channels import ScriptedChannel\n"
        "def open_channel(environ):\n    return ScriptedChannel('events')"
    ),
    "bad_name": (
        "from tests.support.channels import ScriptedChannel\n"
        "def open_channel(environ):\n    return ScriptedChannel('a:b')"
    ),
    "nameless": (
        "from tests.support.channels import ScriptedChannel\n"
        "def open_channel(environ):\n    return ScriptedChannel(None)"
    ),
}
REASONS = {
    "no_factory": "has no open_channel",
    "does_not_load": "does not load: ModuleNotFoundError: No module named 'nowhere_at_all'",
    "broken_syntax": "does not load: SyntaxError",
    "raises": "raised RuntimeError",
    "no_channel": "gives no channel: it has no name",
    "reserved": "calls itself 'events'",
    "bad_name": "calls itself 'a:b'",
    "nameless": "calls itself None",
}


@pytest.mark.parametrize("module", WRONG)
def test_a_channel_that_is_none_is_told_in_one_line(
    module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / f"channel_{module}.py").write_text(WRONG[module])
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigurationError) as caught:
        load_channels([f"channel_{module}:open_channel"], {})
    assert caught.value.setting == "NOTIFIER_CHANNELS"
    assert REASONS[module] in caught.value.reason
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["", "post", "post:", ":open_channel", "nowhere_at_all:open_channel"])
def test_a_name_that_leads_nowhere_is_told(name: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load_channels([name], {})
    assert caught.value.setting == "NOTIFIER_CHANNELS"


def test_no_channel_at_all_is_a_mistake() -> None:
    with pytest.raises(ConfigurationError, match="names no channel"):
        load_channels([], {})


def test_two_channels_of_one_name_are_a_mistake() -> None:
    with pytest.raises(ConfigurationError, match="second channel named in_app"):
        load_channels(["channels.in_app:open_channel"] * 2, {})


def test_a_factory_is_given_the_environment_and_its_own_complaint_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "channel_strict.py").write_text(
        "from notifier.errors import ConfigurationError\n"
        "from tests.support.channels import ScriptedChannel\n"
        "def open_channel(environ):\n"
        "    if 'POST_NAME' not in environ:\n"
        "        raise ConfigurationError('POST_NAME', 'is missing')\n"
        "    return ScriptedChannel(environ['POST_NAME'])\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigurationError, match="POST_NAME: is missing"):
        load_channels(["channel_strict:open_channel"], {})
    channels = load_channels(
        ["channel_strict:open_channel", "channels.in_app:open_channel"], {"POST_NAME": "post"}
    )
    assert list(channels) == ["post", "in_app"]
