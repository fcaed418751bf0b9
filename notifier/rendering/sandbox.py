"""The Jinja that templates are compiled with.

Templates are code from the operator, fed with data from strangers. The sandbox keeps a template
from reaching into Python, the snapshot keeps it inside of its folder, and bounds on ranges,
repetition and output keep it from eating a worker.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from jinja2 import FunctionLoader, StrictUndefined, Undefined
from jinja2.exceptions import SecurityError, UndefinedError
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment

from notifier.rendering.filters import FILTERS

MAX_RANGE: Final = 10_000
MAX_REPEATED: Final = 256 * 1024
MAX_EXPONENT: Final = 64
NAMES: Final = frozenset(
    {"event", "data", "actor", "recipient", "count", "actors", "items", "locale", "channel"}
)
"""The variables of every template. A layout sees `body`, the other blocks, and what the block `set`."""

_METHODS_OF_MAPPINGS = frozenset({"get", "items", "keys", "values"})
_UNBOUNDED_FILTERS = ("center", "indent", "wordwrap", "slice", "batch", "pprint", "random")


class Missing(StrictUndefined):
    """A name that is not there. Everything but a test or a default makes it an error."""

    __slots__ = ()

    @property
    def _undefined_message(self) -> str:
        if isinstance(self._undefined_obj, Mapping):
            return f"{self._undefined_name} is missing"
        return super()._undefined_message


class Sandbox(ImmutableSandboxedEnvironment):
    """Strict, sandboxed, and without access to anything but `sources`."""

    intercepted_binops = frozenset({"*", "**"})

    def __init__(self, source_of: Callable[[str], str | None], *, html: bool) -> None:
        super().__init__(
            loader=FunctionLoader(source_of),
            autoescape=html,
            undefined=Missing,
            finalize=_printable,
            auto_reload=False,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self.filters.update(FILTERS)
        for name in _UNBOUNDED_FILTERS:
            del self.filters[name]
        self.globals = {name: self.globals[name] for name in ("dict", "namespace", "joiner", "cycler")}
        self.globals["range"] = _bounded_range

    def getattr(self, obj: Any, attribute: str) -> Any:
        # `data.items` is what the producer sent under this name, not a method of dict.
        if type(obj) is dict:
            try:
                return obj[attribute]
            except KeyError:
                if attribute not in _METHODS_OF_MAPPINGS:
                    return self.undefined(obj=obj, name=attribute)
        return super().getattr(obj, attribute)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        if operator == "**":
            if not isinstance(right, int | float) or abs(right) > MAX_EXPONENT:
                raise SecurityError(f"an exponent above {MAX_EXPONENT}")
        else:
            _check_repetition(left, right)
            _check_repetition(right, left)
        return super().call_binop(context, operator, left, right)


def _check_repetition(sequence: Any, times: Any) -> None:
    if isinstance(sequence, str | bytes | list | tuple) and isinstance(times, int):
        if len(sequence) * times > MAX_REPEATED:
            raise SecurityError(f"a repetition makes more than {MAX_REPEATED} items")
    elif isinstance(sequence, int) and sequence.bit_length() > 4096:
        raise SecurityError("a number above 4096 bits")


def _bounded_range(*arguments: int) -> range:
    result = range(*arguments)
    if len(result) > MAX_RANGE:
        raise SecurityError(f"a range of more than {MAX_RANGE}")
    return result


def _printable(value: Any) -> Any:
    if isinstance(value, str | int | float | Undefined):
        return value
    if value is None:
        raise UndefinedError("a value is null: test for it, or give a default")
    if callable(value):
        raise UndefinedError("a method is printed, not its result")
    return value
