"""The application: what is shared, and all routes together."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware

from notifier.api import (
    devices,
    event_schemas,
    event_traces,
    events,
    health,
    inbox,
    operation_schemas,
    operations,
    preferences,
    problems,
    recipient_schemas,
    recipients,
    stream,
    suppressions,
    tokens,
    web,
)
from notifier.api.access import check_origin, open_access
from notifier.api.catalogue import CurrentCatalogue
from notifier.api.middleware import Requests
from notifier.api.openapi import TAGS, Described, Description, operation_id
from notifier.api.paths import RawPaths
from notifier.api.shared import Shared
from notifier.bootstrap import (
    open_async_publisher,
    open_channels,
    open_runtime,
    open_streams,
    open_tracing,
)
from notifier.settings import Settings

_DESCRIPTION = "Publish events; keep recipients, their devices and preferences; read the inbox; mend queues."
# What the document names, and what every request may have.
_REQUEST_HEADERS = (
    "Authorization", "Content-Type", "Idempotency-Key", "If-Match", "If-None-Match", "Last-Event-ID",
    "X-Request-Id",
)  # fmt: skip
_RESPONSE_HEADERS = ("Allow", "ETag", "Idempotent-Replayed", "Retry-After", "X-Request-Id")
_ROUTERS = (
    health.router, events.router, event_traces.router,
    recipients.router, devices.backend, preferences.backend, suppressions.router, tokens.router,
    operations.router,
    devices.user, preferences.user, inbox.router, stream.router, web.router,
)  # fmt: skip
_COMPONENTS = {
    **problems.COMPONENTS, **event_schemas.COMPONENTS,
    **recipient_schemas.COMPONENTS, **operation_schemas.COMPONENTS,
}  # fmt: skip


def create_app(settings: Settings, environ: Mapping[str, str]) -> FastAPI:
    """The application. `environ` is what channels read their settings from.

    Raises ConfigurationError when no key is set or one can't be used. Its lifespan connects, and raises
    BrokerError when it can't.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        with open_tracing(settings) as tracing:
            async with (
                open_runtime(settings) as runtime,
                open_async_publisher(settings, tracing) as publisher,
                open_streams(runtime) as live,
            ):
                channels = open_channels(settings, environ)
                catalogue = CurrentCatalogue(settings.templates, channels)
                app.state.shared = Shared(runtime, publisher, channels, live, catalogue)
                yield

    app = FastAPI(
        title="notifier",
        version="1",
        description=_DESCRIPTION,
        lifespan=lifespan,
        docs_url=None,  # both pages load scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,
        dependencies=[Described],
        openapi_tags=TAGS,
        generate_unique_id_function=operation_id,
    )
    app.state.access = open_access(settings)
    for router in _ROUTERS:
        app.include_router(router)
    problems.install(app)
    app.state.description = description = Description(app, _COMPONENTS)
    app.openapi = lambda: description.document  # type: ignore[method-assign]
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=[check_origin(origin) for origin in settings.cors_origins],
            allow_methods=["GET", "POST", "PUT", "PATCH", "DELETE"],
            allow_headers=list(_REQUEST_HEADERS),
            expose_headers=list(_RESPONSE_HEADERS),
        )
    app.add_middleware(RawPaths)
    app.add_middleware(Requests)
    return app
