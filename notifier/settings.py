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
from notifier.event import parse_recipient
from notifier.publisher import Durability

PREFIX = "NOTIFIER_"
_LONGEST = timedelta(days=3_650)
_UNITS = {"ms": "milliseconds", "s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def parse_duration(text: object) -> timedelta:
    """`500ms`, `5s`, `10m`, `2h`, `2d`, `1w`; at most ten years. Raises ValueError."""
    if isinstance(text, timedelta):
        return text
    match = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]+)?)(ms|s|m|h|d|w)", str(text).strip())
    if not match:
        raise PydanticCustomError("duration", "is not a duration such as 500ms, 5s, 10m, 2h or 2d")
    try:
        duration = timedelta(**{_UNITS[match[2]]: float(match[1])})
    except OverflowError:
        duration = timedelta.max
    if duration > _LONGEST:  # further away than times in the server can be
        raise PydanticCustomError("duration", "is longer than ten years")
    return duration


def _words(value: object) -> object:
    return (
        tuple(word.strip() for word in value.split(",") if word.strip()) if isinstance(value, str) else value
    )


Duration = Annotated[timedelta, BeforeValidator(parse_duration)]
Words = Annotated[tuple[str, ...], BeforeValidator(_words)]


class Settings(BaseModel):
    """Each field is the environment variable `NOTIFIER_` and its name in capitals. What stands below a field
    is what docs/reference/settings.md says of it; `make reference` writes that page."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    redis_url: str = "redis://127.0.0.1:6379/0"
    """where the broker is, see below"""
    namespace: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,50}$")] = "ntf"
    """what all keys begin with; two installations on one server need two. Letters, digits, `_`, `.`, `-`"""
    partitions: Annotated[int | None, Field(ge=1, le=MAX_PARTITIONS)] = None
    """1 to 1,024. The first process that connects fixes the number, 16 when it is unset; a later start with
    another number is refused. It [can be changed](../how-to/change-partitions.md) while nothing runs"""
    durability: Durability = "memory"
    """when a publish returns. `memory`: the server has it. `fsync`: it is on the server's disk
    (`WAITAOF`; needs `appendonly yes` and Redis 7.2 or Valkey). `replicas`: one replica has it
    (`WAIT`)"""
    dedup_window: Duration = timedelta(hours=24)
    """how long an event id is remembered for each recipient; `0s` remembers nothing"""
    backlog_limit: Annotated[int, Field(ge=0)] = 100_000
    """waiting events of one partition beyond which publishing raises `BacklogFull`; 0 is no limit"""
    trace_retention: Annotated[Duration, Field(le=timedelta(days=90))] = timedelta(hours=24)
    """how long it is kept what happened to each event, up to 90d; 0s keeps nothing. About 300 bytes an
    event in the server"""

    templates: Path = Path("templates")
    """the folder of event types"""
    channels: Words = (
        "channels.email:open_channel",
        "channels.push:open_channel",
        "channels.in_app:open_channel",
    )
    """the channels, as `module:factory`. Every worker, and every command that looks at queues, needs the
    same list"""
    admins: Words = ()
    """who is alerted when deliveries are dead: mail addresses, or ids of recipients"""

    lease_ttl: Annotated[Duration, Field(ge=timedelta(seconds=1), le=timedelta(minutes=5))] = timedelta(
        seconds=5
    )
    """1 s to 5 min. A worker that died is replaced within this time"""
    retry_attempts: Annotated[int, Field(ge=1, le=100)] = 8
    """attempts before a delivery goes to the DLQ, 1 to 100"""
    retry_base: Duration = timedelta(seconds=5)
    """before attempt n + 1 a lane waits between 0 and base × 2ⁿ⁻¹"""  # noqa: RUF001 - it is a product
    retry_max: Duration = timedelta(hours=1)
    """the longest of these waits, also when a provider asks for more"""
    dlq_delay: Duration = timedelta(minutes=5)
    """how long a dead letter waits for its second try"""
    alert_interval: Annotated[Duration, Field(ge=timedelta(seconds=1))] = timedelta(minutes=1)
    """at most one alert for each queue in this time; at least 1 s"""
    concurrency: Annotated[int, Field(ge=1, le=10_000)] = 50
    """sends at once, for each queue that a process serves"""
    in_hand: Annotated[int, Field(ge=1, le=100_000)] = 1_000
    """entries that a process holds at once, for each queue"""
    send_timeout: Annotated[Duration, Field(ge=timedelta(seconds=1))] = timedelta(seconds=60)
    """after which a send without an outcome counts as a failed attempt; at least 1 s"""
    inbox_limit: Annotated[int, Field(ge=1, le=100_000)] = 1_000
    """entries that one inbox keeps; the oldest fall out"""

    # What the HTTP API reads; `notifier.api.access` and `notifier.api.app` say what their texts mean.
    api_keys: SecretStr | None = None
    """the keys of app services, as `scope:secret`. Scopes are `publish`, `recipients` and `operate`;
    several keys of one scope may be valid at once, so that one can replace another. A secret has 16 or
    more visible ASCII characters and no comma"""
    api_connections: Annotated[int, Field(ge=1, le=1_000_000)] = 10_000
    """open connections of one process, streams included; one more is answered with 503"""
    streams: Annotated[int, Field(ge=1, le=1_000_000)] = 8_000
    """clients of one process that listen to an inbox; one more is answered with 503. Less than
    `NOTIFIER_API_CONNECTIONS`, so that other requests come through"""
    streams_per_recipient: Annotated[int, Field(ge=1, le=10_000)] = 20
    """of one recipient, in one process; one more is answered with 429"""
    token_keys: SecretStr | None = None
    """what users' tokens are signed with: `hs256:` and the base64 of 32 or more bytes, or `eddsa:` and
    the base64 of a raw Ed25519 public key of 32 bytes. The first `hs256` key signs what the API gives
    out"""
    token_audience: Annotated[str, Field(min_length=1, max_length=200)] = "notifier"  # noqa: S105 - a name
    """what `aud` of a token must be"""
    cors_origins: Words = ()
    """from which origins browsers may call, such as `https://app.example.com`"""
    metrics_open: bool = False
    """`true`: `/metrics` takes no key, neither at the API nor at the port of a worker"""

    tracing: bool = False
    """`true`: spans go to a collector of OpenTelemetry, from the API, `notifier publish` and workers;
    needs the extra `otel`. The variables `OTEL_…` of OpenTelemetry say where to and how many, see
    [Watch it](../how-to/watch-it.md#follow-one-event)"""
    log_level: Annotated[str, Field(pattern=r"^(debug|info|warning|error)$")] = "info"
    """`debug`, `info`, `warning` or `error`. Commands other than `worker` and `api` log from `warning`
    on. With `debug` an unexpected error shows its traceback"""
    log_format: Annotated[str, Field(pattern=r"^(console|json)$")] = "json"
    """`json` or `console`; when it is unset, a terminal gets `console`"""


def _written(duration: re.Match[str]) -> str:
    return f"{duration[2]}{duration[1][0]}"


def is_utf8(text: str) -> bool:
    """Whether a value of the environment was UTF-8; other bytes are in it as surrogates (PEP 383)."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def load(environ: Mapping[str, str]) -> Settings:
    """The settings of an environment. Raises ConfigurationError, which names the variable."""
    given: dict[str, Any] = {}
    for name in Settings.model_fields:
        # A secret from a file ends with a new line, and each value of a file with CRLF with half of one.
        if text := environ.get(PREFIX + name.upper(), "").strip():
            if not is_utf8(text):
                raise ConfigurationError(PREFIX + name.upper(), "is not UTF-8")
            given[name] = text
    try:
        settings = Settings.model_validate(given)
    except ValidationError as failure:
        first = failure.errors(include_url=False, include_input=False)[0]
        reason = re.sub(r"datetime\.timedelta\((seconds|days)=(\d+)\)", _written, first["msg"])
        raise ConfigurationError(PREFIX + str(first["loc"][0]).upper(), reason) from None
    check_url(settings.redis_url)
    for admin in settings.admins:
        try:
            parse_recipient({"id": admin, "email": admin} if "@" in admin else {"id": admin})
        except InvalidRecipient as error:
            raise ConfigurationError("NOTIFIER_ADMINS", f"{admin!r} {error.reason}") from None
    return settings
