"""Bounds on what a single operation, method or filter of a template may build.

A budget is looked at between operations only, so each of them has to be short and small by itself.
"""

from __future__ import annotations

import re
from collections.abc import Callable, ItemsView, Iterable, Iterator, KeysView, Mapping, Sized, ValuesView
from functools import wraps
from typing import Any, Final

from jinja2.exceptions import SecurityError

from notifier.rendering.budget import spend

MAX_TEXT: Final = 512 * 1024
MAX_REPEATED: Final = 256 * 1024
MAX_EXPONENT: Final = 64
MAX_WIDTH: Final = 10_000
MAX_BITS: Final = 4096

REFUSED_METHODS: Final = frozenset({"encode", "expandtabs", "from_bytes", "to_bytes", "translate"})
_PADDING = frozenset({"center", "ljust", "rjust", "zfill"})
_WALKING = frozenset({
    "dictsort", "groupby", "join", "list", "map", "max", "min", "reject", "rejectattr", "reverse", "select",
    "selectattr", "sort", "string", "sum", "tojson", "unique", "urlencode", "xmlattr",
})  # fmt: skip
_WRITING = frozenset({
    "capitalize", "e", "escape", "forceescape", "format", "lower", "replace", "round", "safe", "striptags",
    "title", "trim", "truncate", "upper", "urlize", "wordcount",
})  # fmt: skip
_WIDEST = {"round": 30, "tojson": 16}
_PERCENT = re.compile(r"%(?:\(([^)]*)\))?[-#0 +]*(\*|\d+)?(?:\.(\*|\d+)?)?")
_NUMBER = re.compile(r"\d+")


def weigh(value: Any) -> int:
    """How long `value` is when it is written out, roughly. Raises SecurityError above MAX_TEXT.

    A list of 10,000 times the same long text is small until it is written.
    """
    total, waiting = 0, [value]
    while waiting:
        found = waiting.pop()
        if isinstance(found, str):
            total += len(found)
        elif isinstance(found, Mapping):
            total += len(found)
            waiting += found.keys()
            waiting += found.values()
        elif isinstance(found, list | tuple | set | KeysView | ValuesView | ItemsView):
            total += len(found)
            if total <= MAX_TEXT:
                waiting += found
        if total > MAX_TEXT:
            raise _too_long()
    return total


def check_binop(operator: str, left: Any, right: Any) -> None:
    """Raises SecurityError when the result would be too long."""
    if operator == "**":
        if not isinstance(right, int | float) or abs(right) > MAX_EXPONENT:
            raise SecurityError(f"an exponent above {MAX_EXPONENT}")
        if isinstance(left, int) and left.bit_length() * abs(right) > MAX_BITS:
            raise SecurityError(f"a number above {MAX_BITS} bits")
    elif operator == "*":
        _check_repetition(left, right)
        _check_repetition(right, left)
    elif operator == "%":
        if isinstance(left, str):
            check_percent(left, right)
    elif isinstance(left, str | list | tuple) and isinstance(right, Sized):
        check_length(len(left) + len(right))


def check_length(length: int) -> None:
    if length > MAX_TEXT:
        raise _too_long()


def check_percent(text: str, values: Any) -> None:
    """Of `text % values`."""
    total = len(text) + (0 if isinstance(values, Mapping) else weigh(values))
    for field in _PERCENT.finditer(text):
        name, *widths = field.groups()
        if "*" in widths:
            raise SecurityError("a width of * in a format")
        for width in widths:
            total += _narrow(int(width[:9]) if width else 0)
        if name is not None and isinstance(values, Mapping):
            total += weigh(values.get(name))
        check_length(total)


def check_spec(spec: str) -> None:
    """Of `format(value, spec)` and strftime."""
    for found in _NUMBER.findall(spec):
        _narrow(int(found[:9]))


def check_method(
    owner: Any, name: str, arguments: tuple[Any, ...], named: Mapping[str, Any]
) -> tuple[Any, ...]:
    """The arguments to call the method of a text or time with. Raises SecurityError."""
    if name == "strftime":
        for spec in (*arguments, named.get("format")):
            check_spec(str(spec))
    elif not isinstance(owner, str) or not arguments:
        pass
    elif name in _PADDING:
        if isinstance(arguments[0], int):
            _narrow(arguments[0])
    elif name == "replace":
        _check_replace(owner, arguments)
    elif name == "join":
        return (_joinable(owner, arguments[0]), *arguments[1:])
    return arguments


def bounded_filters(filters: Mapping[str, Callable[..., Any]]) -> dict[str, Callable[..., Any]]:
    """Those of Jinja's filters that walk or write, with a bound on what they take and make."""
    return {name: _bounded(name, filters[name]) for name in _WALKING | _WRITING}


def _bounded(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    # Filters that ask for the context, or the like, get it before the value.
    at = 1 if hasattr(function, "jinja_pass_arg") else 0

    @wraps(function)
    def bounded(*given: Any, **named: Any) -> Any:
        before, value, rest = given[:at], given[at], given[at + 1 :]
        for argument in (*rest, *named.values()):
            if name != "format" and type(argument) is int:
                _narrow(argument, _WIDEST.get(name, MAX_WIDTH))
        if name == "format":
            check_percent(str(value), named or rest)
        elif name == "replace" and (rest or named):
            _check_replace(str(value), (*rest, *(named[key] for key in ("old", "new") if key in named)))
        elif name == "join":
            value = _joinable(str((*rest, named.get("d", ""))[0]), value)
        elif name == "urlize":
            check_length(sum(len(a) for a in (*rest, *named.values()) if isinstance(a, str)) * 100)
        else:
            value = _measured(value, walks=name in _WALKING)
        return function(*before, value, *rest, **named)

    return bounded


def _measured(value: Any, *, walks: bool) -> Any:
    if isinstance(value, Sized):
        weigh(value)
        if walks and not isinstance(value, str):
            spend(len(value))
        return value
    return _each(value) if isinstance(value, Iterator) else value


def _each(values: Iterable[Any]) -> Iterator[Any]:
    total = 0
    for value in values:
        total += 1 + weigh(value)
        check_length(total)
        spend()
        yield value


def _joinable(separator: str, values: Any) -> list[Any]:
    found = list(_each(values))
    check_length(len(separator) * len(found))
    return found


def _check_replace(text: str, arguments: tuple[Any, ...]) -> None:
    if len(arguments) >= 2:
        old, new = str(arguments[0]), str(arguments[1])
        check_length(len(text) + text.count(old) * max(0, len(new) - len(old)))


def _check_repetition(sequence: Any, times: Any) -> None:
    if isinstance(sequence, str | bytes | list | tuple) and isinstance(times, int):
        if len(sequence) * times > MAX_REPEATED:
            raise SecurityError(f"a repetition makes more than {MAX_REPEATED} items")
    elif isinstance(sequence, int) and sequence.bit_length() > MAX_BITS:
        raise SecurityError(f"a number above {MAX_BITS} bits")


def _narrow(width: int, limit: int = MAX_WIDTH) -> int:
    if abs(width) > limit:
        raise SecurityError(f"a width, number of places or the like above {limit}")
    return width


def _too_long() -> SecurityError:
    return SecurityError(f"builds a text or list of more than {MAX_TEXT} characters or items")
