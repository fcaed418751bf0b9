"""How a channel reads its own settings: a frozen model whose fields name environment variables."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError
from pydantic_core import PydanticCustomError

from notifier.errors import ConfigurationError

_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}
_LONGEST = 3_650 * 86_400


def _duration(value: object) -> object:
    if isinstance(value, timedelta):
        return value
    found = re.fullmatch(r"(\d{1,9}(?:\.\d{1,3})?)(ms|s|m|h|d|w)", str(value))
    if found is None:
        raise PydanticCustomError("duration", "is not a duration such as 500ms, 5s, 10m or 2d")
    seconds = float(found[1]) * _UNITS[found[2]]
    if seconds > _LONGEST:
        raise PydanticCustomError("duration", "is longer than ten years")
    return timedelta(seconds=seconds)


Duration = Annotated[timedelta, BeforeValidator(_duration)]
"""Written as `500ms`, `5s`, `10m`, `2h`, `2d` or `4w`."""


class ChannelSettings(BaseModel):
    """Fields have a `validation_alias`: the environment variable. An empty variable is an unset one. What
    stands below a field is what docs/reference/settings.md says of it."""

    model_config = ConfigDict(
        frozen=True, extra="ignore", hide_input_in_errors=True, use_attribute_docstrings=True
    )

    @classmethod
    def variables(cls) -> frozenset[str]:
        """The environment variables that it is read from."""
        return frozenset(str(field.validation_alias) for field in cls.model_fields.values())

    @classmethod
    def read(cls, environ: Mapping[str, str]) -> Self:
        """The settings. Raises ConfigurationError, which names the variable and never its value."""
        given = {name: environ[name].strip() for name in cls.variables() if environ.get(name, "").strip()}
        try:
            return cls.model_validate(given)
        except ValidationError as failure:
            first = failure.errors(include_url=False, include_input=False)[0]
            reason = first["msg"][:1].lower() + first["msg"][1:]
            raise ConfigurationError(str(first["loc"][0]), reason) from None
