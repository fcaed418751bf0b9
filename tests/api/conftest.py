"""The HTTP API on a free port of this process, before a real broker."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta

import httpx
import pytest
from fastapi import FastAPI

from notifier.api.access import Access
from notifier.api.app import create_app
from notifier.api.connection import Limits
from notifier.api.server import Server, listen, prepared
from notifier.settings import load

PUBLISH, RECIPIENTS, OPERATE = "p" * 32, "r" * 32, "o" * 32
LIMITS = Limits()
TOKEN_KEY = bytes(range(32))

ENVIRON = {
    "NOTIFIER_API_KEYS": f"publish:{PUBLISH},recipients:{RECIPIENTS},operate:{OPERATE}",
    "NOTIFIER_TOKEN_KEYS": f"hs256:{base64.b64encode(TOKEN_KEY).decode()}",
}


@dataclass(frozen=True, slots=True)
class Api:
    """What a test holds in its hands. `client` has no key; the others have one."""

    app: FastAPI
    server: Server
    url: str
    client: httpx.AsyncClient

    def with_key(self, secret: str) -> httpx.AsyncClient:
        return httpx.AsyncClient(
            base_url=self.url, headers={"Authorization": f"Bearer {secret}"}, timeout=20, trust_env=False
        )

    @property
    def publisher(self) -> httpx.AsyncClient:
        return self.with_key(PUBLISH)

    @property
    def backend(self) -> httpx.AsyncClient:
        return self.with_key(RECIPIENTS)

    @property
    def operator(self) -> httpx.AsyncClient:
        return self.with_key(OPERATE)

    def user(self, recipient_id: str) -> httpx.AsyncClient:
        """Somebody with a token of an hour."""
        access: Access = self.app.state.access
        return self.with_key(access.tokens.sign(recipient_id, timedelta(hours=1))[0])


@asynccontextmanager
async def serving(
    redis_url: str, limits: Limits = LIMITS, port: int = 0, **environ: str
) -> AsyncIterator[Api]:
    """The API with these settings, until the block ends; then it stops as at SIGTERM."""
    given = {"NOTIFIER_REDIS_URL": redis_url, **ENVIRON, **environ}
    app = create_app(load(given), given)
    with listen("127.0.0.1", port) as listening:
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        async with (
            prepared(app, limits) as server,
            httpx.AsyncClient(base_url=url, timeout=20, trust_env=False) as client,
        ):
            running = asyncio.create_task(server.serve([listening]))
            try:
                yield Api(app, server, url, client)
            finally:
                server.should_exit = True
                await running


@pytest.fixture
async def api(redis_url: str) -> AsyncIterator[Api]:
    async with serving(redis_url) as running:
        yield running


@pytest.fixture
async def backend(api: Api) -> AsyncIterator[httpx.AsyncClient]:
    async with api.backend as client:
        yield client


@pytest.fixture
async def ada(api: Api) -> AsyncIterator[httpx.AsyncClient]:
    async with api.user("ada") as client:
        yield client
