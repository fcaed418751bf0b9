"""The OpenAPI document is complete, and the API refuses what it does not know."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from notifier.api.app import create_app
from notifier.settings import load
from tests.api.conftest import ENVIRON, Api


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    document: dict[str, Any] = create_app(load(ENVIRON), ENVIRON).openapi()
    return document


def operations(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, resource in document["paths"].items():
        for method, operation in resource.items():
            yield f"{method.upper()} {path}", operation


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for inner in value.values():
            yield from references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from references(inner)


def test_every_operation_says_what_it_does_and_has_a_name_of_its_own(document: dict[str, Any]) -> None:
    found = dict(operations(document))
    assert len(found) > 30
    tags = {tag["name"] for tag in document["tags"]}
    for name, operation in found.items():
        assert operation["summary"], name
        assert operation["description"], name
        assert set(operation["tags"]) <= tags, name
    assert len({operation["operationId"] for operation in found.values()}) == len(found)


def test_every_error_is_a_problem_with_an_example(document: dict[str, Any]) -> None:
    for name, operation in operations(document):
        errors = {status: one for status, one in operation["responses"].items() if status >= "4"}
        for status, response in errors.items():
            content = response["content"]["application/problem+json"]
            assert content["schema"] == {"$ref": "#/components/schemas/Problem"}, (name, status)
            assert content["example"]["status"] == int(status), (name, status)
            assert ("Retry-After" in response.get("headers", {})) == (status in {"429", "503"}), (
                name,
                status,
            )
        if operation.get("security"):
            assert "401" in errors, name
        if "requestBody" in operation:
            assert {"400", "413", "415", "422"} <= errors.keys(), name


def test_every_body_has_a_schema_and_an_example(document: dict[str, Any]) -> None:
    for name, operation in operations(document):
        bodies = [operation.get("requestBody", {}), *operation["responses"].values()]
        for body in bodies:
            for media_type, content in body.get("content", {}).items():
                assert content["schema"], (name, media_type)
    for media_type, content in document["paths"]["/v1/events"]["post"]["requestBody"]["content"].items():
        assert "example" in content or "examples" in content, media_type


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    found = set(references(document))
    assert "#/components/schemas/Event" in found
    schemas = document["components"]["schemas"]
    assert {one.removeprefix("#/components/schemas/") for one in found} <= schemas.keys()


def test_optional_parameters_are_left_out_not_null(document: dict[str, Any]) -> None:
    for name, operation in operations(document):
        for parameter in operation.get("parameters", ()):
            assert {"type": "null"} not in parameter["schema"].get("anyOf", ()), (name, parameter["name"])


async def test_a_query_parameter_that_is_not_known_is_refused(api: Api) -> None:
    async with api.operator as client:
        response = await client.get("/v1/dead-letters", params={"chanel": "email", "state": "dlq"})
        assert (response.status_code, response.json()["errors"]) == (
            422, [{"field": "query.chanel", "reason": "is not a known parameter"}],
        )  # fmt: skip
        assert (await client.get("/v1/dead-letters", params={"channel": "email"})).status_code == 200
    async with api.publisher as client:
        event = {"type": "like", "recipient": "u1"}
        assert (await client.post("/v1/events", params={"dry_run": "1"}, json=event)).status_code == 422
    assert (await api.client.get("/livez", params={"probe": "1"})).status_code == 200


async def test_a_query_parameter_that_takes_one_value_takes_no_second(api: Api) -> None:
    async with api.operator as client:
        twice = [("channel", "email"), ("channel", "push"), ("state", "dlq"), ("state", "dead")]
        response = await client.get("/v1/dead-letters", params=twice)
        assert (response.status_code, response.json()["errors"]) == (
            422, [{"field": "query.state", "reason": "is given more than once"}],
        )  # fmt: skip
        assert (await client.get("/v1/dead-letters", params=twice[:3])).status_code == 200
    async with api.user("u1") as client:
        response = await client.get("/v1/inbox?page_size=1&page_size=2")
        assert (response.status_code, response.json()["errors"][0]["field"]) == (422, "query.page_size")


async def test_allow_names_every_method_of_a_path(api: Api) -> None:
    async with api.backend as client:
        response = await client.post("/v1/recipients/u1", json={})
        assert (response.status_code, response.headers["Allow"]) == (405, "GET, PUT, PATCH, DELETE")
    async with api.user("u1") as client:  # which is no mark
        response = await client.post("/v1/inbox/counts")
        assert (response.status_code, response.headers["Allow"]) == (405, "GET")
