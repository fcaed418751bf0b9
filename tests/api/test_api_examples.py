"""What the OpenAPI document shows is taken, and answered as it says."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from tests.api.conftest import Api
from tests.docs.blocks import ROOT

METHODS = {"get", "put", "post", "patch", "delete"}
PROBLEM = "application/problem+json"
PARAMETERS = {
    "{id}": "u42",
    "{key}": "web_push-c2a86c6dc35b",
    "{channel}": "email",
    "{address_key}": "ada@example.com",
}
OURS = ("/v1/recipients", "/v1/suppressions", "/v1/queues", "/v1/dead-letters")
OF_USERS = ("/v1/inbox/devices", "/v1/inbox/preferences", "/v1/inbox/push-key")


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, item in document["paths"].items():
        if path.startswith((*OURS, *OF_USERS)):
            for method, operation in item.items():
                if method in METHODS:
                    yield method, path, operation


async def document(api: Api) -> dict[str, Any]:
    described: dict[str, Any] = (await api.client.get("/openapi.json")).json()
    return described


async def test_each_route_says_what_it_does_and_what_can_go_wrong(api: Api) -> None:
    described = await document(api)
    routes = list(operations(described))
    assert len(routes) > 25
    for method, path, operation in routes:
        where = f"{method} {path}"
        assert operation["summary"], where
        assert operation["description"], where
        assert operation["security"], where
        responses = operation["responses"]
        assert {"401"} < responses.keys(), where
        assert path.startswith(OF_USERS) or "403" in responses, where
        for status, response in responses.items():
            if status >= "400":
                assert PROBLEM in response["content"], f"{where} {status}"
        if "requestBody" in operation:
            assert {"400", "413", "415", "422"} < responses.keys(), where
        for parameter in operation.get("parameters", ()):
            assert parameter["description"], where


async def test_the_examples_are_taken(api: Api) -> None:
    described = await document(api)
    sent = 0
    async with api.backend as backend, api.operator as operator, api.user("u42") as user:
        await backend.put("/v1/recipients/u42", json={"email": "ada@example.com"})
        for method, path, operation in operations(described):
            content = operation.get("requestBody", {}).get("content", {})
            for media_type, told in content.items():
                for example in _examples(described, told):
                    client = user if path.startswith(OF_USERS) else operator if "dead-" in path else backend
                    for name, value in PARAMETERS.items():
                        path = path.replace(name, value)  # noqa: PLW2901 - the same for all
                    body: Any = {"content": example} if isinstance(example, str) else {"json": example}
                    headers = {"Content-Type": media_type}
                    response = await client.request(method.upper(), path, headers=headers, **body)
                    assert response.status_code < 300, f"{method} {path}: {response.text}"
                    assert str(response.status_code) in operation["responses"]
                    sent += 1
    assert sent >= 20


def _examples(described: dict[str, Any], content: dict[str, Any]) -> list[Any]:
    if "examples" in content:
        return [one["value"] for one in content["examples"].values()]
    schema = described["components"]["schemas"][content["schema"]["$ref"].rpartition("/")[2]]
    return list(schema["examples"])


async def test_the_reference_names_each_route(api: Api) -> None:
    page = (ROOT / "docs/reference/http-api.md").read_text()
    text = re.sub(r"`(GET|PUT|POST)`(?:, `(PUT)`)? and `(\w+) (\S+?)`", r"`\1 \4` `\2 \4` `\3 \4`", page)
    told = set(re.findall(r"`([A-Z]+ /v1/[^`?]+)", text))
    routes = {f"{method.upper()} {path}" for method, path, _ in operations(await document(api))}
    assert routes - told == set()
    assert {one for one in told if one.partition(" ")[2].startswith((*OURS, *OF_USERS))} - routes == set()
