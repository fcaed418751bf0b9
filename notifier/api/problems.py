"""Every error has one form: RFC 9457, `application/problem+json`.

    {"type": "about:blank", "title": "Unprocessable Content", "status": 422,
     "detail": "recipient: give either recipient or recipients",
     "errors": [{"field": "recipient", "reason": "give either recipient or recipients"}],
     "request_id": "01997d3c-…"}

What a client sent is never repeated at length, and no traceback leaves the process.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from notifier.errors import BacklogFull, BrokerError, BrokerFull, InvalidInput, PartitionsMoved

MEDIA_TYPE: Final = "application/problem+json"
RETRY_AFTER: Final = "5"
"""Seconds, for 429 and 503."""

_MOST_ERRORS: Final = 20
_LONGEST: Final = 500  # characters of a reason or a field: both may quote what came


class Problem(HTTPException):
    """An error as the client sees it. `errors` are pairs of field and reason; `more` are further members."""

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        errors: Sequence[tuple[str, str]] = (),
        headers: Mapping[str, str] | None = None,
        more: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(status, detail, headers)
        self.errors = errors
        self.more = more or {}


def title_of(status: int) -> str:
    # RFC 9110 renamed these two; Python has had the new names since 3.13.
    renamed = {413: "Content Too Large", 422: "Unprocessable Content"}
    return renamed.get(status) or HTTPStatus(status).phrase


def body_of(
    status: int, detail: str, *, errors: Sequence[tuple[str, str]] = (), request_id: str | None = None
) -> dict[str, Any]:
    """The problem as an object."""
    problem: dict[str, Any] = {
        "type": "about:blank",
        "title": title_of(status),
        "status": status,
        "detail": detail[:_LONGEST],
    }
    if errors:
        problem["errors"] = [
            {"field": field[:_LONGEST], "reason": reason[:_LONGEST]}
            for field, reason in errors[:_MOST_ERRORS]
        ]
    if request_id:
        problem["request_id"] = request_id
    return problem


def answer(problem: Problem, request_id: str | None) -> Response:
    """The response to a problem."""
    body = body_of(problem.status_code, problem.detail, errors=problem.errors, request_id=request_id)
    body |= problem.more
    content = json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode(errors="replace")
    return Response(content, problem.status_code, problem.headers, MEDIA_TYPE)


def problem_of(error: Exception) -> Problem:
    """How an exception is told to the client."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, HTTPException):
        return Problem(error.status_code, error.detail, headers=error.headers)
    if isinstance(error, RequestValidationError):
        return _invalid(error)
    if isinstance(error, InvalidInput):
        return Problem(422, str(error), errors=[(error.field, error.reason)])
    if isinstance(error, BacklogFull):
        detail = "too many events are waiting; publish again later"
        return Problem(429, detail, headers={"Retry-After": RETRY_AFTER})
    if isinstance(error, PartitionsMoved):
        detail = "the number of partitions changes, or has changed: then this process has to be started again"
        return Problem(503, detail, headers={"Retry-After": RETRY_AFTER})
    if isinstance(error, BrokerFull):
        return Problem(503, "the broker is full; try again later", headers={"Retry-After": RETRY_AFTER})
    if isinstance(error, BrokerError):  # its text may name the broker's address
        return Problem(503, "the broker can't be reached now", headers={"Retry-After": RETRY_AFTER})
    return Problem(500, "something is wrong on our side; the log says more under this request_id")


def _invalid(error: RequestValidationError) -> Problem:
    errors = []
    for one in error.errors():
        place = [str(part) for part in one["loc"]]
        if one["type"] == "json_invalid":
            return Problem(400, "body: is not JSON", errors=[("body", "is not JSON")])
        message = one["msg"]
        errors.append((".".join(place), message[:1].lower() + message[1:]))
    field, reason = errors[0] if errors else ("body", "is not valid")
    return Problem(422, f"{field}: {reason}", errors=errors)


async def _handle(request: Request, error: Exception) -> Response:
    problem = problem_of(error)
    if problem.status_code == 405 and (
        methods := request.app.state.description.methods(request.scope["path"])
    ):
        problem.headers = {"Allow": ", ".join(methods)}  # the framework names those of one route only
    return answer(problem, request.scope.get("request_id"))


def install(app: FastAPI) -> None:
    """Answers what routes raise."""
    for kind in (HTTPException, RequestValidationError, InvalidInput, BrokerError):
        app.add_exception_handler(kind, _handle)


COMPONENTS: Final[Mapping[str, Any]] = {
    "Problem": {
        "type": "object",
        "required": ["type", "title", "status", "detail"],
        "properties": {
            "type": {"type": "string", "format": "uri-reference"},
            "title": {"type": "string"},
            "status": {"type": "integer"},
            "detail": {"type": "string"},
            "errors": {
                "type": "array",
                "items": {
                    "type": "object",
                    "required": ["field", "reason"],
                    "properties": {"field": {"type": "string"}, "reason": {"type": "string"}},
                },
            },
            "request_id": {"type": "string"},
        },
    }
}

_EXPLAINED: Final[Mapping[int, str]] = {
    400: "The request can't be read: not JSON, not UTF-8, or a broken header",
    401: "No key or token, or one that is not known or no longer valid",
    403: "The key has another scope",
    404: "There is nothing of this name",
    409: "Another request with this Idempotency-Key is being answered",
    412: "A condition of If-Match or If-None-Match does not hold: somebody has changed it",
    413: "The body is too large",
    414: "The URL is too long",
    415: "The content type is not one of those that are read here",
    422: "A field breaks a rule; `errors` names it",
    429: "The backlog is at its limit; try again after `Retry-After` seconds",
    500: "Something is wrong on our side; the log says more under the `request_id`",
    503: "The broker is away or full; try again after `Retry-After` seconds",
}
_RETRY_HEADER: Final = {"Retry-After": {"description": "Seconds", "schema": {"type": "integer"}}}


def responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """What a route declares as its errors, for the OpenAPI document."""
    return {status: _response(status) for status in statuses}


def _response(status: int) -> dict[str, Any]:
    example = body_of(status, _EXPLAINED[status], request_id="01997d3c-0a5e-7c4e-9d53-1f2f3a4b5c6d")
    response: dict[str, Any] = {
        "description": _EXPLAINED[status],
        "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}, "example": example}},
    }
    if status in {429, 503}:
        response["headers"] = _RETRY_HEADER
    return response
