"""Preferences by HTTP: what was set, and what can be."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from notifier.api.catalogue import CurrentCatalogue
from tests.api.conftest import Api, serving
from tests.api.told import fields, problem

BACKEND, OWN = "/v1/recipients/ada/preferences", "/v1/inbox/preferences"
NO_MAIL = {"social": {"email": False}}


@pytest.fixture
async def api(redis_url: str, tmp_path: Path) -> AsyncIterator[Api]:
    """With three event types: two of a category, one of them mandatory; and one on mail only."""
    write(tmp_path, "like", 'category = "social"', "email", "in_app")
    write(tmp_path, "friend_request", 'category = "social"\nmandatory = true', "email")
    write(tmp_path, "invoice", "mandatory = true", "email")
    write(tmp_path, "system.dead_letters", "", "email")
    async with serving(redis_url, NOTIFIER_TEMPLATES=str(tmp_path)) as running:
        yield running


def write(folder: Path, kind: str, options: str, *channels: str) -> None:
    (folder / kind).mkdir()
    (folder / kind / "event.toml").write_text(options)
    for channel in channels:
        (folder / kind / f"{channel}.jinja").write_text("{% block title %}x{% endblock %}")


async def patch(client: httpx.AsyncClient, path: str, preferences: Any) -> httpx.Response:
    return await client.patch(
        path,
        content=json.dumps({"preferences": preferences}),
        headers={"Content-Type": "application/merge-patch+json"},
    )


def switches(response: httpx.Response, category: str) -> dict[str, bool]:
    assert response.status_code == 200, response.text
    [found] = [one for one in response.json()["categories"] if one["category"] == category]
    return dict(found["channels"])


async def test_a_user_sees_what_can_be_muted(ada: httpx.AsyncClient) -> None:
    response = await ada.get(OWN)
    assert response.json() == {
        "preferences": {},
        "categories": [
            {"category": "invoice", "mandatory": True, "types": ["invoice"], "channels": {"email": True}},
            {
                "category": "social",
                "mandatory": False,
                "types": ["friend_request", "like"],
                "channels": {"email": True, "in_app": True},
            },
        ],
    }


async def test_what_is_set_is_what_holds(ada: httpx.AsyncClient, backend: httpx.AsyncClient) -> None:
    response = await ada.put(OWN, json={"preferences": NO_MAIL})
    assert response.json()["preferences"] == NO_MAIL
    assert switches(response, "social") == {"email": False, "in_app": True}
    assert (await backend.get(BACKEND)).json() == response.json()
    everything = await backend.put(
        BACKEND, json={"preferences": {"*": {"*": False}, "social": {"email": True}}}
    )
    assert switches(everything, "social") == {"email": True, "in_app": False}
    assert switches(everything, "invoice") == {"email": True}
    assert (await ada.get(OWN)).json() == everything.json()


async def test_of_nobody_there_are_none(backend: httpx.AsyncClient) -> None:
    problem(await backend.get(BACKEND), 404)
    problem(await patch(backend, BACKEND, NO_MAIL), 404)
    assert (await backend.put(BACKEND, json={"preferences": NO_MAIL})).json()["preferences"] == NO_MAIL
    assert (await backend.get("/v1/recipients/ada")).json() == {"id": "ada", "preferences": NO_MAIL}


async def test_the_rest_of_the_profile_stays(backend: httpx.AsyncClient, ada: httpx.AsyncClient) -> None:
    await backend.put("/v1/recipients/ada", json={"name": "Ada"})
    await ada.put(OWN, json={"preferences": NO_MAIL})
    assert (await backend.get("/v1/recipients/ada")).json() == {
        "id": "ada", "name": "Ada", "preferences": NO_MAIL,
    }  # fmt: skip


async def test_a_switch_is_a_patch(ada: httpx.AsyncClient) -> None:
    await ada.put(OWN, json={"preferences": NO_MAIL})
    response = await patch(ada, OWN, {"social": {"in_app": False}})
    assert response.json()["preferences"] == {"social": {"email": False, "in_app": False}}
    response = await patch(ada, OWN, {"social": {"email": None}})
    assert response.json()["preferences"] == {"social": {"in_app": False}}
    assert (await patch(ada, OWN, {"social": None})).json()["preferences"] == {}


async def test_a_user_without_a_profile_may_begin_with_a_switch(
    ada: httpx.AsyncClient, backend: httpx.AsyncClient
) -> None:
    assert (await patch(ada, OWN, NO_MAIL)).json()["preferences"] == NO_MAIL
    assert (await backend.get("/v1/recipients/ada")).json() == {"id": "ada", "preferences": NO_MAIL}


async def test_switches_at_once_are_all_kept(ada: httpx.AsyncClient) -> None:
    await asyncio.gather(*(patch(ada, OWN, {f"c{i}": {"email": False}}) for i in range(20)))
    assert set((await ada.get(OWN)).json()["preferences"]) == {f"c{i}" for i in range(20)}


async def test_wrong_preferences_name_the_field(ada: httpx.AsyncClient, backend: httpx.AsyncClient) -> None:
    wrong: tuple[tuple[Any, str], ...] = (
        ({}, "preferences"),
        ({"social": {"email": False}}, "social"),
        ({"preferences": []}, "preferences"),
        ({"preferences": {"social": False}}, "preferences.social"),
        ({"preferences": {"social": {"email": "never"}}}, "preferences.social.email"),
        ({"preferences": {"social": {"email": "yes"}}}, "preferences.social.email"),
        ({"preferences": {"social": {"email": 0}}}, "preferences.social.email"),
        ({"preferences": {f"c{i}": {} for i in range(201)}}, "preferences"),
        ({"preferences": {"x" * 101: {}}}, f"preferences.{'x' * 101}.[key]"),
        ({"preferences": {"a": {"x" * 70_000: True}}}, "recipient"),
    )
    for body, field in wrong:
        assert fields(await ada.put(OWN, json=body)) == [field]
        assert fields(await backend.put(BACKEND, json=body)) == [field]
    problem(await patch(ada, OWN, []), 422)
    problem(await ada.put(OWN, content=b"{}", headers={"Content-Type": "text/plain"}), 415)
    assert (await ada.get(OWN)).json()["preferences"] == {}


async def test_only_a_token_lets_a_user_in_and_only_to_their_own(api: Api, ada: httpx.AsyncClient) -> None:
    await ada.put(OWN, json={"preferences": NO_MAIL})
    for method in ("GET", "PUT", "PATCH"):
        problem(await api.client.request(method, OWN, content=b"{}"), 401)
    async with api.user("bo") as bo:
        assert (await bo.get(OWN)).json()["preferences"] == {}
        for name in ("id", "recipient", "sub"):
            assert fields(await bo.get(OWN, params={name: "ada"})) == [f"query.{name}"]


async def test_an_api_without_templates_has_nothing_to_choose_from(redis_url: str, tmp_path: Path) -> None:
    async with (
        serving(redis_url, NOTIFIER_TEMPLATES=str(tmp_path / "none")) as api,
        api.user("ada") as ada,
    ):
        response = await ada.put(OWN, json={"preferences": NO_MAIL})
        assert response.json() == {"preferences": NO_MAIL, "categories": []}


async def test_a_changed_folder_is_read_again(
    tmp_path: Path, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("notifier.api.catalogue._LOOK_EVERY", 0)
    current = CurrentCatalogue(tmp_path, api.app.state.shared.channels)
    assert set((await current.current()).kinds) == {
        "like",
        "friend_request",
        "invoice",
        "system.dead_letters",
    }
    write(tmp_path, "comment", "", "email")
    assert "comment" in (await current.current()).kinds
    tmp_path.rename(tmp_path.with_name("away"))
    assert "comment" in (await current.current()).kinds
