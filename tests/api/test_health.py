"""Whether the process lives, and can do its work."""

from __future__ import annotations

from tests.api.conftest import Api


async def test_it_lives_and_is_ready(api: Api) -> None:
    for path in ("/livez", "/readyz"):
        response = await api.client.get(path)
        assert (response.status_code, response.json()) == (200, {"status": "ok"})
