"""Settings from the environment: `NOTIFIER_*`. Channels read theirs by themselves."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, ValidationError
from pydantic_core import PydanticCustomError

from notifier.broker.meta import MAX_PARTITIONS
from notifier.broker.url import check_url
from notifier.errors import ConfigurationError, InvalidRecipient
from notifier.event import parse_to
from notifier.publisher import Durability

PREFIX = "NOTIFIER_"
_UNITS = {"ms": "milliseconds", "s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def parse_duration(text: object) -> timedelta:
    """`500ms`, `5s`, `10m`, `2h`, `2d`, `1w`. Raises ValueError."""
    if isinstance(text, timedelta):
        return text
    match = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]+)?)(ms|s|m|h|d|w)", str(text).strip())
    if not match:
        raise PydanticCustomError("duration", "is not a duration such as 500ms, 5s, 10m, 2h or 2d")
    try:
        return timedelta(**{_UNITS[match[2]]: float(match[1])})
    except OverflowError:
        raise PydanticCustomError("duration", "is too long") from None


def _words(value: object) -> object:
    return (
        tuple(word.strip() for word in value.split(",") if word.strip()) if isinstance(value, str) else value
    )


Duration = Annotated[timedelta, BeforeValidator(parse_duration)]
Words = Annotated[tuple[str, ...], BeforeValidator(_words)]


class Settings(BaseModel):
    """Each field is the environment variable `NOTIFIER_` and its name in capitals."""

    model_config = ConfigDict(frozen=True)

    redis_url: str = "redis://127.0.0.1:6379/0"
    namespace: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,50}$")] = "ntf"
    partitions: Annotated[int | None, Field(ge=1, le=MAX_PARTITIONS)] = None
    durability: Durability = "memory"
    dedup_window: Duration = timedelta(hours=24)
    backlog_limit: Annotated[int, Field(ge=0)] = 100_000
    trace_retention: Annotated[Duration, Field(le=timedelta(days=90))] = timedelta(hours=24)

    templates: Path = Path("templates")
    channels: Words = (
        "channels.email:open_channel",
        "channels.push:open_channel",
        "channels.in_app:open_channel",
    )
    admins: Words = ()

    lease_ttl: Annotated[Duration, Field(ge=timedelta(seconds=1), le=timedelta(minutes=5))] = timedelta(
        seconds=5
    )
    retry_attempts: Annotated[int, Field(ge=1, le=100)] = 8
    retry_base: Duration = timedelta(seconds=5)
    retry_max: Duration = timedelta(hours=1)
    dlq_delay: Duration = timedelta(minutes=5)
    alert_interval: Annotated[Duration, Field(ge=timedelta(seconds=1))] = timedelta(minutes=1)
    concurrency: Annotated[int, Field(ge=1, le=10_000)] = 50
    in_hand: Annotated[int, Field(ge=1, le=100_000)] = 1_000
    send_timeout: Annotated[Duration, Field(ge=timedelta(seconds=1))] = timedelta(seconds=60)
    inbox_limit: Annotated[int, Field(ge=1, le=100_000)] = 1_000

    # What the HTTP API reads; `notifier.api.access` and `notifier.api.app` say what their texts mean.
    api_keys: SecretStr | None = None
    api_connections: Annotated[int, Field(ge=1, le=1_000_000)] = 10_000
    streams: Annotated[int, Field(ge=1, le=1_000_000)] = 8_000
    streams_per_recipient: Annotated[int, Field(ge=1, le=10_000)] = 20
    token_keys: SecretStr | None = None
    token_audience: Annotated[str, Field(min_length=1, max_length=200)] = "notifier"
    cors_origins: Words = ()
    metrics_open: bool = False

    log_level: Annotated[str, Field(pattern=r"^(debug|info|warning|error)$")] = "info"
    log_format: Annotated[str, Field(pattern=r"^(console|json)$")] = "json"


def load(environ: Mapping[str, str]) -> Settings:
    """The settings of an environment. Raises ConfigurationError, which names the variable."""
    given: dict[str, Any] = {
        name: environ[PREFIX + name.upper()]
        for name in Settings.model_fields
        if environ.get(PREFIX + name.upper(), "") != ""
    }
    try:
        settings = Settings.model_validate(given)
    except ValidationError as failure:
        first = failure.errors(include_url=False, include_input=False)[0]
        reason = re.sub(r"datetime\.timedelta\(seconds=(\d+)\)", r"\1s", first["msg"])
        raise ConfigurationError(PREFIX + str(first["loc"][0]).upper(), reason) from None
    check_url(settings.redis_url)
    for admin in settings.admins:
        try:
            parse_to(admin.encode())
        except InvalidRecipient as error:
            raise ConfigurationError("NOTIFIER_ADMINS", f"{admin!r} {error.reason}") from None
    return settings
