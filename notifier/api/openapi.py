"""The OpenAPI document, and what is looked up in it: the methods of a path, the query parameters of a route.

FastAPI writes it from the routes; here it gets the schemas that they refer to by name, the errors that every
route can have, and optional parameters as HTTP knows them: left out, not null.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any, Final

from fastapi import Depends, FastAPI, Request
from fastapi.routing import APIRoute

from notifier.api.problems import Problem, responses

_METHODS: Final = ("get", "put", "post", "patch", "delete")
TAGS: Final = [
    {"name": "events", "description": "Publishing, and what became of it"},
    {"name": "recipients", "description": "Who can be told, and how"},
    {"name": "devices", "description": "Browsers and apps that a push reaches"},
    {"name": "preferences", "description": "What recipients want to be told"},
    {"name": "suppressions", "description": "Addresses that are passed over"},
    {"name": "inbox", "description": "What users read, change and choose, with a token of their own"},
    {"name": "operations", "description": "Queues and dead letters"},
    {"name": "health", "description": "For supervisors and Prometheus"},
]
_CHECKED: Final = "/v1/"
"""Below this, a query parameter that is not known is refused: a filter that is misspelt would select all.
So is a second value where one is taken: which of them counted, nobody could know."""


class Description:
    """What the application says of itself."""

    def __init__(self, app: FastAPI, components: Mapping[str, Any]) -> None:
        self._describe = app.openapi
        self._components = components

    @cached_property
    def document(self) -> dict[str, Any]:
        document = self._describe()
        document.setdefault("components", {}).setdefault("schemas", {}).update(self._components)
        for path, _, operation in _operations(document):
            parameters = operation.get("parameters", [])
            for parameter in parameters:
                _without_null(parameter)
            statuses = (414, 422) if path.startswith(_CHECKED) else (414,) if parameters else ()
            for status, response in responses(*statuses).items():
                operation["responses"].setdefault(str(status), response)
        return document

    @cached_property
    def _templates(self) -> list[tuple[re.Pattern[str], str]]:
        # Those without parameters first: /v1/dead-letters/redrive is no dead letter.
        templates = sorted(self.document["paths"], key=lambda path: path.count("{"))
        return [(re.compile(re.sub(r"\\{\w+\\}", "[^/]+", re.escape(path))), path) for path in templates]

    def _resource(self, path: str) -> Mapping[str, Any]:
        found = (template for pattern, template in self._templates if pattern.fullmatch(path))
        resource: Mapping[str, Any] = self.document["paths"].get(next(found, ""), {})
        return resource

    def methods(self, path: str) -> list[str]:
        """Those of a path, for the header Allow."""
        return [method.upper() for method in _METHODS if method in self._resource(path)]

    def check_method(self, request: Request) -> None:
        """Raises Problem (405) for POST /v1/inbox/counts, which else were a POST to /v1/inbox/{mark}."""
        methods = self.methods(request.scope["path"])
        if methods and request.method not in methods:
            raise Problem(405, "Method Not Allowed", headers={"Allow": ", ".join(methods)})

    def check_query(self, request: Request) -> None:
        """Raises Problem (422) for a query parameter that the route does not know, or of which it takes one
        value and there are more."""
        operation = self._resource(request.scope["path"]).get(request.method.lower(), {})
        parameters = (one for one in operation.get("parameters", ()) if one["in"] == "query")
        is_list = {one["name"]: one["schema"].get("type") == "array" for one in parameters}
        counts = Counter(name for name, _ in request.query_params.multi_items())
        unknown = [name for name in counts if name not in is_list]
        if unknown:
            errors = [(f"query.{name[:100]}", "is not a known parameter") for name in unknown]
            raise Problem(422, "query: has a parameter that is not known", errors=errors)
        if repeated := [name for name, count in counts.items() if count > 1 and not is_list[name]]:
            errors = [(f"query.{name}", "is given more than once") for name in repeated]
            raise Problem(422, f"query.{repeated[0]}: is given more than once", errors=errors)


async def _check(request: Request) -> None:
    description: Description = request.app.state.description
    if request.scope["path_params"]:
        description.check_method(request)
    if request.scope["query_string"] and request.scope["path"].startswith(_CHECKED):
        description.check_query(request)


Described: Final = Depends(_check)
"""A dependency of every route: what is asked for is what the document knows."""


def operation_id(route: APIRoute) -> str:
    """What generators of clients make names of: events_publish."""
    return "_".join(str(name) for name in (*route.tags[:1], route.name))


def _operations(document: Mapping[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, resource in document["paths"].items():
        for method, operation in resource.items():
            if method in _METHODS:
                yield path, method, operation


def _without_null(parameter: dict[str, Any]) -> None:
    schema = parameter.get("schema", {})
    choices = [choice for choice in schema.get("anyOf", ()) if choice != {"type": "null"}]
    if len(choices) == 1 and len(schema["anyOf"]) == 2:
        del schema["anyOf"]
        parameter["schema"] = choices[0] | schema
