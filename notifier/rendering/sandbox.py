"""The Jinja that templates are compiled with.

Templates are code from the operator, fed with data from strangers. The sandbox keeps a template
from reaching into Python, the snapshot keeps it inside of its folder, and a budget for each rendering and
bounds on single operations keep it from eating a worker.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import update_wrapper
from typing import Any, Final

from jinja2 import FunctionLoader, StrictUndefined, Undefined, nodes, pass_context
from jinja2.exceptions import SecurityError, UndefinedError
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment, SandboxedEscapeFormatter, SandboxedFormatter
from markupsafe import Markup

from notifier.rendering.bounds import (
    REFUSED_METHODS,
    bounded_filters,
    check_binop,
    check_length,
    check_method,
    check_spec,
    weigh,
)
from notifier.rendering.budget import spend
from notifier.rendering.filters import FILTERS

MAX_RANGE: Final = 10_000
NAMES: Final = frozenset(
    {"event", "data", "actor", "recipient", "count", "actors", "items", "locale", "channel"}
)
"""The variables of every template. A layout sees `body`, the other blocks, and what the block `set`."""

_METHODS_OF_MAPPINGS = frozenset({"get", "items", "keys", "values"})
_UNBOUNDED_FILTERS = ("center", "indent", "wordwrap", "slice", "batch", "pprint", "random")
# Filters that only compiled templates use; no template can write a name with a space.
_SPEND, _BOUNDED = "to spend", "to bound"


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

    intercepted_binops = frozenset({"*", "**", "+", "%"})

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
        self.filters.update(bounded_filters(self.filters))
        self.filters.update(FILTERS)
        self.filters["items"] = _items
        self.filters[_SPEND] = _spend
        self.filters[_BOUNDED] = _bounded
        for name in _UNBOUNDED_FILTERS:
            del self.filters[name]
        self.globals = {name: self.globals[name] for name in ("dict", "namespace", "joiner", "cycler")}
        self.globals["range"] = _bounded_range

    def getattr(self, obj: Any, attribute: str) -> Any:
        return self.getitem(obj, attribute) if type(obj) is dict else super().getattr(obj, attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:
        # `data.items` is what the producer sent under this name, or missing; never a method of dict.
        if type(obj) is not dict:
            return super().getitem(obj, argument)
        try:
            return obj[argument]
        except (LookupError, TypeError):
            return self.undefined(obj=obj, name=argument)

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        if attr in REFUSED_METHODS and isinstance(obj, str | int):
            return False
        return super().is_safe_attribute(obj, attr, value)

    def call(self, context: Context, obj: Any, /, *args: Any, **kwargs: Any) -> Any:
        # A macro that calls itself twice needs no loop to run for ever.
        spend()
        if type(obj) is Missing:
            obj = _meant(obj)
        owner = getattr(obj, "__self__", None)
        if owner is not None:
            args = check_method(owner, obj.__name__, args, kwargs)
        return super().call(context, obj, *args, **kwargs)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        check_binop(operator, left, right)
        return super().call_binop(context, operator, left, right)

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        if super().wrap_str_format(value) is None:
            return None
        text: str = value.__self__

        def write(*args: Any, **kwargs: Any) -> str:
            if value.__name__ == "format_map":
                (kwargs,), args = args, ()
            formatter = (
                _EscapeFormatter(self, escape=text.escape) if isinstance(text, Markup) else _Formatter(self)
            )
            return type(text)(formatter.vformat(text, args, kwargs))

        return update_wrapper(write, value)

    def _generate(
        self, source: nodes.Template, name: str | None, filename: str | None, defer_init: bool = False
    ) -> str:
        # What Jinja gives no hook for is written into the template before it is compiled.
        for concat in list(source.find_all(nodes.Concat)):
            inner = nodes.Concat(concat.nodes, lineno=concat.lineno, environment=self)
            concat.nodes = [self._filter(_BOUNDED, inner, [], concat.lineno)]
        for loop in list(source.find_all(nodes.For)):
            paid = self._paid(1, _written(loop.body), loop.lineno)
            if loop.test is None:
                loop.body.insert(0, nodes.ExprStmt(paid, lineno=loop.lineno, environment=self))
            else:
                loop.test = nodes.And(paid, loop.test, lineno=loop.lineno, environment=self)
        paid = self._paid(1, _written(source.body), 1)  # for each time that it is included
        source.body.insert(0, nodes.ExprStmt(paid, lineno=1, environment=self))
        return super()._generate(source, name, filename, defer_init)

    def _paid(self, rounds: int, characters: int, line: int) -> nodes.Filter:
        first, second = (nodes.Const(n, lineno=line, environment=self) for n in (rounds, characters))
        return self._filter(_SPEND, first, [second], line)

    def _filter(self, name: str, value: nodes.Expr, arguments: list[nodes.Expr], line: int) -> nodes.Filter:
        return nodes.Filter(value, name, arguments, [], None, None, lineno=line, environment=self)


class _Formatter(SandboxedFormatter):
    """Bounds each field, and all of them together."""

    _total = 0

    def format_field(self, value: Any, format_spec: str) -> Any:
        check_spec(format_spec)
        self._total += weigh(value)
        check_length(self._total)
        text = super().format_field(value, format_spec)
        self._total += len(text)
        check_length(self._total)
        return text


class _EscapeFormatter(_Formatter, SandboxedEscapeFormatter):
    pass


def _meant(called: Missing) -> Any:
    """The method of a mapping that has no field of the name by which it is called."""
    mapping, name = called._undefined_obj, called._undefined_name  # noqa: SLF001 - Jinja has no other names
    return getattr(mapping, name) if type(mapping) is dict and name in _METHODS_OF_MAPPINGS else called


def _items(value: Any) -> Iterator[Any]:
    """The pairs of a mapping. Jinja's own one takes what is missing for empty."""
    if isinstance(value, Undefined):
        iter(value)  # raises, and says which
    if not isinstance(value, Mapping):
        raise UndefinedError("items takes a mapping")
    return iter(value.items())


def _written(body: list[nodes.Node]) -> int:
    """How many characters of its own a body writes, without those of the loops in it."""
    return sum(len(data.data) for node in body for data in _texts(node))


def _texts(node: nodes.Node) -> Iterator[nodes.TemplateData]:
    if isinstance(node, nodes.TemplateData):
        yield node
    elif not isinstance(node, nodes.For):
        for child in node.iter_child_nodes():
            yield from _texts(child)


@pass_context  # which keeps Jinja from computing it once, when it compiles
def _spend(_: Context, rounds: int, characters: int) -> bool:
    return spend(abs(rounds), abs(characters))


def _bounded(text: str) -> str:
    check_length(len(text))
    return text


def _bounded_range(*arguments: int) -> range:
    result = range(*arguments)
    if len(result) > MAX_RANGE:
        raise SecurityError(f"a range of more than {MAX_RANGE}")
    return result


def _printable(value: Any) -> Any:
    if isinstance(value, str):
        spend(0, len(value))
        return value
    if isinstance(value, int | float | Undefined):
        return value
    if value is None:
        raise UndefinedError("a value is null: test for it, or give a default")
    if callable(value):
        raise UndefinedError("a method is printed, not its result")
    spend(0, weigh(value))
    return value
