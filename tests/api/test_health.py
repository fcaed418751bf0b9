"""Whether the process lives, and can do its work."""

from __future__ import annotations

from notifier.broker.connection import connect
from notifier.operations import partitions
from tests.api.conftest import Api


async def test_it_lives_and_is_ready(api: Api) -> None:
    for path in ("/livez", "/readyz"):
        response = await api.client.get(path)
        assert (response.status_code, response.json()) == (200, {"status": "ok"})


async def test_head_is_answered_as_get_without_a_body(api: Api) -> None:
    async with api.operator as client:
        for path in ("/livez", "/readyz", "/metrics"):
            asked, head = await client.get(path), await client.head(path)
            assert (head.status_code, head.content) == (200, b"")
            assert head.headers["Content-Type"] == asked.headers["Content-Type"]
    assert (await api.client.head("/metrics")).status_code == 401


async def test_it_is_not_ready_once_the_number_of_partitions_has_changed(api: Api, redis_url: str) -> None:
    async with connect(redis_url) as client:
        await partitions.change(client, "ntf", 4)
    response = await api.client.get("/readyz")
    assert response.status_code == 503
    assert (await api.client.get("/livez")).status_code == 200
