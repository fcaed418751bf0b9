"""From the text of a folder to messages that can be rendered; all the slow work is done here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from jinja2 import Template, TemplateNotFound, TemplateSyntaxError, meta, nodes

from notifier.catalogue import LAYOUTS, TemplateName
from notifier.channel import Block
from notifier.errors import TemplateError
from notifier.rendering.message import CompiledBlock, Message
from notifier.rendering.sandbox import NAMES, Sandbox
from notifier.rendering.source import Span, find_blocks, isolate, line_of, stray_text
from notifier.rendering.styles import SLOT, inline_styles
from notifier.rendering.tags import refuse_unquoted


class Compiler:
    """Compiles one snapshot. Messages keep its text alive, so a later one can't change them."""

    def __init__(self, sources: Mapping[str, str], channels: Mapping[str, Sequence[Block]]) -> None:
        self._sources = sources
        self._channels = channels
        self._text = Sandbox(self._sources.get, html=False)
        self._html: dict[tuple[str, str | None], Sandbox] = {}
        self._layouts: dict[str, Template] = {}

    def message(self, name: TemplateName, default_locale: str) -> Message:
        """One template of one event type. Raises TemplateError, whatever is wrong with it."""
        try:
            return self._message(name, default_locale)
        except TemplateError:
            raise
        except Exception as error:
            # Such as Python's limit on nested loops: a problem of this file, told like the others.
            reason = f"does not compile: {type(error).__name__}: {error}"
            raise TemplateError(name.path, reason) from error

    def _message(self, name: TemplateName, default_locale: str) -> Message:
        source = self._sources[name.path]
        tree = self._parse(name.path, source)
        spans = find_blocks(name.path, source)
        declared = self._channels[name.channel]
        self._check_blocks(name.path, source, spans, declared)
        self._check_names(name.path, source, tree)
        locale = name.locale or default_locale
        layout_path = self._layout_path(name.channel, locale)
        html = self._html_sandbox(name.channel, layout_path)
        blocks = []
        for block in declared:
            if not any(span.name == block.name for span in spans):
                continue
            text = isolate(source, spans, block.name)
            if block.kind == "html":
                refuse_unquoted(name.path, text)
                layout = self._sources[layout_path] if layout_path else None
                template = _compile(html, name.path, inline_styles(name.path, text, layout))
            else:
                template = _compile(self._text, name.path, text)
            blocks.append(CompiledBlock(block, template))
        self._check_references(tree, name.path, html if any(b.kind == "html" for b in declared) else None)
        return Message(
            path=name.path,
            channel=name.channel,
            locale=locale,
            declared=tuple(declared),
            blocks=tuple(blocks),
            layout=self._layout(layout_path, html) if layout_path else None,
        )

    def shared_problems(self) -> list[TemplateError]:
        """What does not compile although no event type may use it yet: layouts and partials."""
        problems = []
        for path in sorted(self._sources):
            folder, _, name = path.rpartition("/")
            if path.endswith(".jinja") and (folder == LAYOUTS or name.startswith("_")):
                try:
                    self._parse(path, self._sources[path])
                except TemplateError as error:
                    problems.append(error)
        return problems

    def _parse(self, path: str, source: str) -> nodes.Template:
        try:
            return self._text.parse(source, path)
        except TemplateSyntaxError as error:
            raise TemplateError(path, error.message or "is not valid Jinja", error.lineno) from None

    def _check_blocks(self, path: str, source: str, spans: list[Span], declared: Sequence[Block]) -> None:
        known = {block.name for block in declared}
        for span in spans:
            if span.name not in known:
                reason = f"block {span.name} is not known; the channel has {', '.join(sorted(known))}"
                raise TemplateError(path, reason, line_of(source, span.start))
        line = stray_text(source, spans)
        if line is not None:
            raise TemplateError(path, "text outside of every block is never shown", line)
        present = {span.name for span in spans}
        for block in declared:
            if block.required and block.name not in present and block.derived_from not in present:
                raise TemplateError(path, f"block {block.name} is missing")

    def _check_names(self, path: str, source: str, tree: nodes.Template) -> None:
        # Jinja does not see that what is set around the blocks is seen inside of them.
        assigned = {name.name for name in tree.find_all(nodes.Name) if name.ctx in {"store", "param"}}
        assigned |= {macro.name for macro in tree.find_all(nodes.Macro)}
        for imported in tree.find_all(nodes.Import):
            assigned.add(imported.target)
        for from_import in tree.find_all(nodes.FromImport):
            assigned |= {name if isinstance(name, str) else name[1] for name in from_import.names}
        known = NAMES | assigned | self._text.globals.keys() | {"loop", "caller", "varargs", "kwargs", "self"}
        try:
            unknown = meta.find_undeclared_variables(tree) - known
        except TemplateSyntaxError as error:  # also says that a filter or a test is not known
            raise TemplateError(path, error.message or "is not valid Jinja", error.lineno) from None
        for name in sorted(unknown):
            used = next((n.lineno for n in tree.find_all(nodes.Name) if n.name == name), None)
            raise TemplateError(path, f"{name} is not a variable of templates", used)

    def _check_references(self, tree: nodes.Template, path: str, html: Sandbox | None) -> None:
        references = list(meta.find_referenced_templates(tree))
        for sandbox in (self._text, html):
            for reference in references:
                if reference is None or sandbox is None:
                    continue  # a name that is made up when it is rendered
                try:
                    sandbox.get_template(reference)
                except TemplateNotFound:
                    raise TemplateError(path, f"there is no template {reference} in the folder") from None
                except TemplateSyntaxError as error:
                    raise TemplateError(reference, error.message or "is not valid", error.lineno) from None

    def _layout_path(self, channel: str, locale: str) -> str | None:
        for candidate in fallbacks(locale):
            path = f"{LAYOUTS}/{channel}.{candidate}.html.jinja" if candidate else None
            path = path or f"{LAYOUTS}/{channel}.html.jinja"
            if path in self._sources:
                return path
        return None

    def _html_sandbox(self, channel: str, layout_path: str | None) -> Sandbox:
        # What is imported into HTML gets the styles of the layout that it will stand in.
        key = channel, layout_path
        if key not in self._html:
            layout = self._sources[layout_path] if layout_path else None

            def source_of(path: str) -> str | None:
                source = self._sources.get(path)
                if source is None:
                    return None
                refuse_unquoted(path, source)
                return inline_styles(path, source, layout)

            self._html[key] = Sandbox(source_of, html=True)
        return self._html[key]

    def _layout(self, path: str, html: Sandbox) -> Template:
        if path not in self._layouts:
            source = self._sources[path]
            tree = self._parse(path, source)
            if not SLOT.search(source):
                raise TemplateError(path, "{{ body }} is missing")
            refuse_unquoted(path, source)
            self._check_references(tree, path, html)
            self._layouts[path] = _compile(html, path, inline_styles(path, source))
        return self._layouts[path]


def fallbacks(locale: str | None) -> list[str | None]:
    """`pt-BR` → pt-BR, pt, and None for the default."""
    parts = locale.replace("_", "-").split("-") if locale else []
    return [*("-".join(parts[:end]) for end in range(len(parts), 0, -1)), None]


def _compile(sandbox: Sandbox, path: str, source: str) -> Template:
    try:
        code = sandbox.compile(source, path, path)
    except TemplateSyntaxError as error:
        raise TemplateError(path, error.message or "is not valid Jinja", error.lineno) from None
    return sandbox.template_class.from_code(sandbox, code, sandbox.make_globals(None))
