"""Places where a process may be made to die: before and after each call of the broker.

The product knows nothing of it. In a process that calls `install`, the modules of `notifier` are compiled
from a changed syntax tree, in which each broker call goes through a point: `await run_all(a, b)` becomes
`await _point_async("…", run_all, a, b)`. `_Rewriter` says what a broker call is, and `call_sites` lists what
it finds, so what is listed and what can be armed are one and the same.
"""

from __future__ import annotations

import ast
import importlib.abc
import importlib.util
import os
import re
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

DIED = 77
"""The exit code of a process that died at its point."""

_ROOT = Path(__file__).parent.parent.parent / "notifier"
_SCRIPT_CALLS = {"ask", "execute", "run", "run_all", "run_all_sync"}
_SCRIPTS = "notifier.broker.scripts"
# What carries commands is below the calls; what plays and asks is not what delivers.
_TRANSPORT = {
    "cluster", "cluster_sync", "connection", "dispatch", "failures", "line", "line_sync", "nodes",
    "pulse", "scripts", "sentinel", "slots", "url", "wire",
}  # fmt: skip
_OUTSIDE = {"local", "cli", "api", "live"}  # live listens, and changes nothing
# Changing the number of partitions dies at each of its calls in a test of its own; the doctor only looks.
_ELSEWHERE = ("notifier.operations.partitions", "notifier.broker.scanning", "notifier.operations.doctor")
_CARRIERS = ("client", "pipeline", "_line", "_caller")
_SETUP = {"pipeline", "aclose", "close"}  # of a client; nothing is sent


class _Rewriter(ast.NodeTransformer):
    """Finds the broker calls of one module, and puts a point around each."""

    def __init__(self, module: str) -> None:
        self.module = module
        self.sites: list[str] = []
        self._inside: list[str] = []
        self._counts: Counter[str] = Counter()
        self._imported: set[str] = set()

    def visit_ImportFrom(self, node: ast.ImportFrom) -> ast.AST:
        if node.module == _SCRIPTS:
            self._imported |= {alias.asname or alias.name for alias in node.names} & _SCRIPT_CALLS
        return node

    def _scope(self, node: Any) -> ast.AST:
        self._inside.append(node.name)
        found = self.generic_visit(node)
        self._inside.pop()
        return found

    visit_ClassDef = visit_FunctionDef = visit_AsyncFunctionDef = _scope  # noqa: N815 - ast's names

    def visit_Await(self, node: ast.Await) -> ast.AST:
        self.generic_visit(node)
        if isinstance(node.value, ast.Call) and self._is_broker_call(node.value):
            node.value = self._point("_point_async", node.value)
        return node

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        if isinstance(node.func, ast.Name) and node.func.id == "run_all_sync" in self._imported:
            return self._point("_point_sync", node)
        is_iterator = isinstance(node.func, ast.Attribute) and node.func.attr.endswith("_iter")
        if is_iterator and self._is_broker_call(node):
            return self._point("_point_iterator", node)
        return node

    def _is_broker_call(self, call: ast.Call) -> bool:
        if isinstance(call.func, ast.Name):
            return call.func.id in self._imported
        if not isinstance(call.func, ast.Attribute) or call.func.attr in _SETUP:
            return False
        return ast.unparse(call.func.value).rpartition(".")[2].endswith(_CARRIERS)

    def _point(self, point: str, call: ast.Call) -> ast.Call:
        name = f"{self.module.removeprefix('notifier.')}.{'.'.join(self._inside)}"
        self._counts[name] += 1
        if self._counts[name] > 1:
            name += f"#{self._counts[name]}"
        self.sites.append(name)
        arguments = [ast.Constant(name), call.func, *call.args]
        made = ast.Call(ast.Name(point, ast.Load()), arguments, call.keywords)
        return ast.copy_location(made, call)


def _rewritten(module: str, path: Path) -> tuple[ast.Module, list[str]]:
    rewriter = _Rewriter(module)
    tree = rewriter.visit(ast.parse(path.read_text()))
    return ast.fix_missing_locations(tree), rewriter.sites


def _is_watched(module: str) -> bool:
    parts = module.split(".")
    return (
        parts[0] == "notifier"
        and len(parts) > 1
        and parts[1] not in _OUTSIDE
        and not module.startswith(_ELSEWHERE)
        and not (parts[1] == "broker" and parts[-1] in _TRANSPORT)
    )


@cache
def call_sites() -> Sequence[str]:
    """Every broker call of the service: its module and function, and `#2` for the second one there."""
    found: list[str] = []
    for path in sorted(_ROOT.rglob("*.py")):
        parts = path.relative_to(_ROOT.parent).with_suffix("").parts
        module = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        if _is_watched(module):
            found += _rewritten(module, path)[1]
    return found


# At run time.


@dataclass(frozen=True, slots=True)
class Armed:
    """Die at the `hit`th call of `site`; with `detail`, of those that `details` says this of. `holding`, of
    those whose answer has something in it, which can be known only after them."""

    site: str
    after: bool
    detail: str = ""
    hit: int = 1
    holding: bool = False


class _State:
    armed: Armed | None = None
    hits = 0


def arm(armed: Armed | None) -> None:
    _State.armed, _State.hits = armed, 0


def _is_now(site: str, args: Sequence[Any]) -> bool:
    armed = _State.armed
    return armed is not None and not armed.holding and _is_at(armed, site, args) and _is_next(armed)


def _is_now_by(answer: Any, site: str, args: Sequence[Any]) -> bool:
    armed = _State.armed
    if armed is None or not armed.holding or not _is_at(armed, site, args):
        return False
    return holds(answer) and _is_next(armed)


def _is_at(armed: Armed, site: str, args: Sequence[Any]) -> bool:
    return armed.site == site and (not armed.detail or armed.detail in details(args))


def _is_next(armed: Armed) -> bool:
    _State.hits += 1
    return _State.hits == armed.hit


def holds(answer: Any) -> bool:
    """Whether there is something in it: not nothing, no count of nothing, and no error."""
    if isinstance(answer, list | tuple):
        return any(holds(part) for part in answer)
    return bool(answer) and answer != b"0" and not isinstance(answer, Exception)


def _die_if(now: bool) -> None:
    if now:
        os._exit(DIED)  # nothing is flushed, nothing is closed: what SIGKILL leaves behind


async def _point_async(site: str, call: Callable[..., Any], *args: Any, **named: Any) -> Any:
    now = _is_now(site, args)
    _die_if(now and not _is_after())
    answer = await call(*args, **named)
    _die_if(now or _is_now_by(answer, site, args))
    return answer


def _point_sync(site: str, call: Callable[..., Any], *args: Any, **named: Any) -> Any:
    now = _is_now(site, args)
    _die_if(now and not _is_after())
    answer = call(*args, **named)
    _die_if(now)
    return answer


async def _point_iterator(
    site: str, call: Callable[..., Any], *args: Any, **named: Any
) -> AsyncIterator[Any]:
    now = _is_now(site, args)
    _die_if(now and not _is_after())
    async for item in call(*args, **named):
        yield item
    _die_if(now)


def _is_after() -> bool:
    return _State.armed is not None and _State.armed.after


def is_inside_a_point() -> bool:
    """Whether one of the callers of our caller is a point."""
    codes = {point.__code__ for point in (_point_async, _point_sync, _point_iterator)}
    frame = sys._getframe(1)  # noqa: SLF001 - there is no other way to look at a stack this fast
    while frame.f_back is not None:
        frame = frame.f_back
        if frame.f_code in codes:
            return True
    return False


class _Loader(SourceFileLoader):
    def get_code(self, fullname: str) -> CodeType:
        # Without the cache of byte code: nothing of this may be found by anybody else.
        tree, _ = _rewritten(fullname, Path(self.path))
        return compile(tree, self.path, "exec", dont_inherit=True)

    def exec_module(self, module: ModuleType) -> None:
        points = (_point_async, _point_sync, _point_iterator)
        vars(module).update({point.__name__: point for point in points})
        super().exec_module(module)


class _Finder(importlib.abc.MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        spec = PathFinder.find_spec(fullname, path, target) if _is_watched(fullname) else None
        if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
            return None
        return importlib.util.spec_from_file_location(
            fullname,
            spec.origin,
            loader=_Loader(fullname, spec.origin),
            submodule_search_locations=spec.submodule_search_locations,
        )


def install() -> None:
    """From now on modules of `notifier` are loaded with points; to be called before they are imported."""
    sys.meta_path.insert(0, _Finder())


# What a call is about.


def details(args: Iterable[Any]) -> frozenset[str]:
    """`<queue> <script>` of each script call, `<queue> <operation>` of a commit, `<queue> <COMMAND>`."""
    found: set[str] = set()
    for arg in args:
        for call in arg if isinstance(arg, list) else [arg]:
            if hasattr(call, "script"):
                found |= _of_script(call)
            elif isinstance(call, tuple):
                found |= {f"{_queue(str(_text(word)))} {call[0]}" for word in call[1:] if _is_key(word)}
    return frozenset(found)


def _of_script(call: Any) -> set[str]:
    queue = _queue(call.keys[0])
    if call.script.name == "mark":
        return {f"{queue} mark {'lane' if call.args[5] else 'entry'}"}
    if call.script.name != "commit":
        return {f"{queue} {call.script.name}"}
    return {f"{queue} {operation}" for operation in _operations(list(call.args[2:]))}


def _operations(words: list[Any]) -> Iterable[str]:
    """What a commit does, see commit.lua: `ack`, `move RPUSH`, `pop`, `keep`, `back`, `move XADD dlq`, …"""
    at = 0
    while at < len(words):
        name = words[at]
        if name == "ack":
            yield "ack"
            at += 2 + words[at + 1]
            continue
        if name in {"back", "trace"}:
            yield name
            at += {"back": 2, "trace": 5}[name]
            continue
        at += {"move": 2, "pop": 5, "keep": 4}[name]
        count, at = words[at], at + 1
        if not count:
            yield name
        for _ in range(count):
            argc, command = words[at], words[at + 1]
            end = f" {str(words[at + 2]).rpartition(':')[2]}" if command == "XADD" else ""
            yield f"{name} {command}{end}"
            at += 1 + argc


def _text(word: Any) -> Any:
    return word.decode() if isinstance(word, bytes) else word


def _is_key(word: Any) -> bool:
    return isinstance(word, str | bytes) and str(_text(word)).startswith("{")


def _queue(key: str) -> str:
    parts = key.partition("}:")[2].split(":")
    return ":".join(parts[:2] if len(parts) > 1 and parts[1] in {"dlq", "dead"} else parts[:1])


def operations_of_commit() -> set[str]:
    """The operations that commit.lua documents."""
    source = (_ROOT / "broker" / "lua" / "commit.lua").read_text()
    return set(re.findall(r"^--   (\w+)\s+(?:n id|id n|lane|key)", source, flags=re.MULTILINE))
