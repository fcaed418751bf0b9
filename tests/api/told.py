"""What an error says."""

from __future__ import annotations

from typing import Any

import httpx


def problem(response: httpx.Response, status: int) -> dict[str, Any]:
    """The problem, after making sure that it is one of this status."""
    assert response.status_code == status, response.text
    assert response.headers["Content-Type"] == "application/problem+json"
    body: dict[str, Any] = response.json()
    assert {"type", "title", "status", "detail", "request_id"} <= body.keys()
    assert (body["status"], body["request_id"]) == (status, response.headers["X-Request-Id"])
    assert len(response.content) < 20_000
    return body


def fields(response: httpx.Response, status: int = 422) -> list[str]:
    """The fields that it names."""
    return [error["field"] for error in problem(response, status)["errors"]]
