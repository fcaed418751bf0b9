"""Reading a request's body by hand: one check of the content type, one clear error."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Annotated, Any, Final

from fastapi import Depends, Request
from pydantic_core import from_json

from notifier.api.problems import Problem

JSON: Final = "application/json"
MERGE_PATCH: Final = "application/merge-patch+json"


def check_content_type(request: Request, *accepted: str) -> None:
    """Raises Problem (415). A request that names no type is taken at its word."""
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise Problem(415, "Content-Encoding is none that is read here")
    kind, _, parameters = request.headers.get("content-type", accepted[0]).lower().partition(";")
    charset = parameters.replace(" ", "").partition("charset=")[2].partition(";")[0].strip('"')
    if kind.strip() not in accepted or charset not in {"", "utf-8", "utf8"}:
        raise Problem(415, f"Content-Type must be {' or '.join(accepted)}, in UTF-8")


def _object(*accepted: str) -> Callable[[Request], Coroutine[Any, Any, dict[str, Any]]]:
    async def read(request: Request) -> dict[str, Any]:
        check_content_type(request, *accepted)
        source = await request.body()
        try:
            value = from_json(source, allow_inf_nan=False)
        except (ValueError, RecursionError):
            raise Problem(400, "body: is not JSON", errors=[("body", "is not JSON")]) from None
        if not isinstance(value, dict):
            raise Problem(422, "body: is not a JSON object", errors=[("body", "is not a JSON object")])
        return value

    return read


async def _object_or_nothing(request: Request) -> dict[str, Any]:
    return await _object(JSON)(request) if await request.body() else {}


JsonObject = Annotated[dict[str, Any], Depends(_object(JSON))]
"""A route's parameter: the body."""

MergePatch = Annotated[dict[str, Any], Depends(_object(MERGE_PATCH, JSON))]
"""A route's parameter: the body, a merge patch (RFC 7396)."""

OptionalObject = Annotated[dict[str, Any], Depends(_object_or_nothing)]
"""A route's parameter: the body, or an empty object when there is none."""


def known(body: dict[str, Any], *names: str) -> dict[str, Any]:
    """The same. Raises Problem (422) for a member of another name."""
    for name in body:
        if name not in names:
            raise invalid(name, "is not a known field")
    return body


def invalid(field: str, reason: str) -> Problem:
    """A field that breaks a rule."""
    return Problem(422, f"{field}: {reason}", errors=[(field, reason)])


def body_schema(
    schema: dict[str, Any], *media_types: str, examples: dict[str, Any] | None = None, required: bool = True
) -> dict[str, Any]:
    """For a route's `openapi_extra`: what its body is."""
    content: dict[str, Any] = {"schema": schema}
    if examples:
        content["examples"] = {name: {"value": value} for name, value in examples.items()}
    kinds = media_types or (JSON,)
    return {"requestBody": {"required": required, "content": dict.fromkeys(kinds, content)}}
