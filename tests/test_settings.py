"""Settings from the environment: each wrong one is told by the name that the operator can change."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from notifier.errors import ConfigurationError
from notifier.settings import Settings, load, parse_duration


def test_an_empty_environment_gives_the_defaults() -> None:
    assert load({}) == Settings()
    assert load({"NOTIFIER_LEASE_TTL": "", "PATH": "/bin"}) == Settings()


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("500ms", timedelta(milliseconds=500)),
        ("5s", timedelta(seconds=5)),
        ("1.5s", timedelta(seconds=1.5)),
        ("10m", timedelta(minutes=10)),
        ("2h", timedelta(hours=2)),
        ("2d", timedelta(days=2)),
        ("1w", timedelta(weeks=1)),
        (" 5s ", timedelta(seconds=5)),
    ],
)
def test_durations(text: str, wanted: timedelta) -> None:
    assert parse_duration(text) == wanted


def test_white_space_around_a_value_is_not_part_of_it() -> None:
    settings = load(
        {
            "NOTIFIER_REDIS_URL": " redis://broker:6380/3\n",
            "NOTIFIER_NAMESPACE": "shop\r",
            "NOTIFIER_TEMPLATES": "/srv/templates\r",
            "NOTIFIER_LOG_LEVEL": "\tdebug ",
            "NOTIFIER_LEASE_TTL": " ",
        }
    )
    assert settings.redis_url == "redis://broker:6380/3"
    assert settings.namespace == "shop"
    assert settings.templates == Path("/srv/templates")
    assert settings.log_level == "debug"
    assert settings.lease_ttl == timedelta(seconds=5)


@pytest.mark.parametrize(
    "text", ["", "5", "s", "-5s", "5 s", "5S", "1e3s", "5s5s", "\u0665s", "9" * 40 + "w"]
)
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a duration"):
        parse_duration(text)


def test_everything_can_be_set() -> None:
    settings = load(
        {
            "NOTIFIER_REDIS_URL": "rediss://:pw@broker:6380/3",
            "NOTIFIER_NAMESPACE": "shop",
            "NOTIFIER_PARTITIONS": "64",
            "NOTIFIER_DURABILITY": "fsync",
            "NOTIFIER_DEDUP_WINDOW": "0s",
            "NOTIFIER_BACKLOG_LIMIT": "0",
            "NOTIFIER_TEMPLATES": "/srv/templates",
            "NOTIFIER_CHANNELS": "a:b, c:d,",
            "NOTIFIER_ADMINS": "ops@example.com, u1",
            "NOTIFIER_LEASE_TTL": "10s",
            "NOTIFIER_RETRY_ATTEMPTS": "3",
            "NOTIFIER_DLQ_DELAY": "1m",
        }
    )
    assert settings.partitions == 64
    assert settings.dedup_window == timedelta()
    assert settings.templates == Path("/srv/templates")
    assert settings.channels == ("a:b", "c:d")
    assert settings.admins == ("ops@example.com", "u1")
    assert settings.lease_ttl == timedelta(seconds=10)


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("NOTIFIER_REDIS_URL", "http://broker", "redis://"),
        ("NOTIFIER_REDIS_URL", "redis://", "no host"),
        ("NOTIFIER_NAMESPACE", "a{b}", "pattern"),
        ("NOTIFIER_PARTITIONS", "0", "greater than or equal to 1"),
        ("NOTIFIER_PARTITIONS", "1025", "1024"),
        ("NOTIFIER_PARTITIONS", "many", "integer"),
        ("NOTIFIER_DURABILITY", "paper", "fsync"),
        ("NOTIFIER_LEASE_TTL", "5", "is not a duration"),
        ("NOTIFIER_LEASE_TTL", "100ms", "equal to 1s"),
        ("NOTIFIER_RETRY_ATTEMPTS", "0", "greater than or equal to 1"),
        ("NOTIFIER_ALERT_INTERVAL", "0s", "equal to 1s"),
        ("NOTIFIER_ADMINS", "ops@example.com,a\nb", "control character"),
        ("NOTIFIER_ADMINS", "\udcff", "is not UTF-8"),
        ("NOTIFIER_ADMINS", "a b@c", "is not a mail address"),
        ("NOTIFIER_TEMPLATES", "\udcff", "is not UTF-8"),
        ("NOTIFIER_DLQ_DELAY", "3651d", "is longer than ten years"),
        ("NOTIFIER_DLQ_DELAY", "999999999w", "is longer than ten years"),
        ("NOTIFIER_TRACE_RETENTION", "91d", "equal to 90d"),
        ("NOTIFIER_LOG_LEVEL", "loud", "pattern"),
    ],
)
def test_a_setting_that_can_not_be_is_named(name: str, value: str, reason: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load({name: value})
    assert caught.value.setting == name
    assert reason in caught.value.reason
    assert "\n" not in str(caught.value)
