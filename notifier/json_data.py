"""What may stand in an event's `data`: JSON that comes out of the queue as it went in."""

from __future__ import annotations

from math import isfinite
from typing import Any, Final, LiteralString

from pydantic_core import PydanticCustomError

MAX_NESTING: Final = 100  # the JSON parser gives up at 200
MAX_INT_BITS: Final = 3_321  # and at integers of 4,300 digits


def sound(data: dict[str, Any]) -> dict[str, Any]:
    """The data as it is. Raises PydanticCustomError for what is not JSON, or would come out changed; its
    context has the path."""
    for value in data.values():
        if type(value) is not str and (type(value) is not int or not -_SMALL < value < _SMALL):
            break
    else:
        return data  # as most are: flat, with texts and counts
    level: list[Any] = [data]
    for _ in range(MAX_NESTING):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if type(inner) is not str and _is_nested(inner, data)
        ]
        if not level:
            return data
    raise PydanticCustomError("nesting", "is nested too deeply")


_SMALL: Final = 1 << 63


def _is_nested(value: object, data: dict[str, Any]) -> bool:
    """`data` is where it stands in, to say where when it is refused."""
    reason = _unsound(value)
    if reason:
        raise PydanticCustomError("json", reason, {"path": _path_to(value, data)})
    return isinstance(value, dict | list)


def _unsound(value: object) -> LiteralString | None:
    if value is None or isinstance(value, bool | str | list):
        return None
    if isinstance(value, int):
        return None if value.bit_length() <= MAX_INT_BITS else "has an integer of more than 1,000 digits"
    if isinstance(value, float):
        return None if isfinite(value) else "has a number that is not finite"
    if isinstance(value, dict):
        return None if all(isinstance(key, str) for key in value) else "has a key that is not text"
    return "is not JSON"


def _path_to(value: object, data: dict[str, Any]) -> str:
    waiting: list[tuple[str, object]] = [("", data)]
    while waiting:
        path, at = waiting.pop()
        if at is value:
            return path[:200]
        if isinstance(at, dict):
            waiting += ((f"{path}.{key}", inner) for key, inner in at.items())
        elif isinstance(at, list):
            waiting += ((f"{path}[{place}]", inner) for place, inner in enumerate(at))
    return ""
