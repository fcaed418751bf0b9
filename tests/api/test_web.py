"""The files for browsers: small, cacheable, loadable from any site, and in the wheel."""

from __future__ import annotations

import gzip
from importlib.resources import files

import pytest

from tests.api.conftest import Api

NAMES = ["notifier-inbox.js", "notifier-inbox.de.js", "notifier-push-worker.js"]


@pytest.mark.parametrize("name", NAMES)
async def test_a_file_is_served_without_a_key_and_to_any_site(api: Api, name: str) -> None:
    answer = await api.client.get(f"/web/{name}", headers={"Accept-Encoding": "identity"})
    assert answer.status_code == 200
    assert answer.content == files("notifier").joinpath("web", name).read_bytes()
    assert answer.headers["Content-Type"] == "text/javascript; charset=utf-8"
    assert answer.headers["Access-Control-Allow-Origin"] == "*"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert "Content-Encoding" not in answer.headers


@pytest.mark.parametrize("name", NAMES)
async def test_it_is_compressed_for_who_can_read_that(api: Api, name: str) -> None:
    async with api.client.stream("GET", f"/web/{name}", headers={"Accept-Encoding": "br, gzip"}) as answer:
        raw = b"".join([part async for part in answer.aiter_raw()])
    assert answer.headers["Content-Encoding"] == "gzip"
    assert answer.headers["Content-Length"] == str(len(raw))
    assert gzip.decompress(raw) == files("notifier").joinpath("web", name).read_bytes()


@pytest.mark.parametrize("refused", ["gzip;q=0", "br", "", "gzip;q=0.000, br", "gzip;q=.."])
async def test_it_is_plain_for_who_can_not(api: Api, refused: str) -> None:
    answer = await api.client.get("/web/notifier-inbox.js", headers={"Accept-Encoding": refused})
    assert answer.status_code == 200
    assert "Content-Encoding" not in answer.headers


@pytest.mark.parametrize("encoding", ["gzip", "identity"])
async def test_who_has_it_already_is_told_so(api: Api, encoding: str) -> None:
    accept = {"Accept-Encoding": encoding}
    first = await api.client.get("/web/notifier-inbox.js", headers=accept)
    for tag in (first.headers["ETag"], f'"other", W/{first.headers["ETag"]}', "*"):
        again = await api.client.get("/web/notifier-inbox.js", headers={**accept, "If-None-Match": tag})
        assert (again.status_code, again.content) == (304, b"")
        assert again.headers["ETag"] == first.headers["ETag"]
    other = await api.client.get("/web/notifier-inbox.js", headers={**accept, "If-None-Match": '"other"'})
    assert other.status_code == 200


async def test_head_has_the_headers_and_no_body(api: Api) -> None:
    answer = await api.client.head("/web/notifier-inbox.js", headers={"Accept-Encoding": "identity"})
    assert (answer.status_code, answer.content) == (200, b"")
    assert int(answer.headers["Content-Length"]) > 1_000


async def test_the_worker_may_serve_a_whole_site_and_reach_the_api(api: Api) -> None:
    headers = (await api.client.get("/web/notifier-push-worker.js")).headers
    assert headers["Service-Worker-Allowed"] == "/"
    assert headers["Content-Security-Policy"] == "default-src 'none'; connect-src *"
    assert headers["Cache-Control"] == "no-cache"


@pytest.mark.parametrize("path", ["dev.html", "nothing.js", "..%2fapi%2fapp.py", "%2e%2e/pyproject.toml", ""])
async def test_nothing_else_is_served(api: Api, path: str) -> None:
    answer = await api.client.get(f"/web/{path}")
    assert answer.status_code == 404
    assert answer.headers["Content-Type"] == "application/problem+json"
