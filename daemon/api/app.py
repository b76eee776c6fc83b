"""The application: every endpoint of every noun, and what surrounds them."""

from __future__ import annotations

import functools
import time
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any

from aiohttp import web

from daemon.api import (
    accept,
    clips,
    control,
    exports,
    field,
    frame,
    instrument,
    jobs,
    keeping,
    live,
    longwork,
    masks,
    openapi,
    page,
    results,
    runs,
    tables,
)
from daemon.api.audit import Auditor
from daemon.api.auth import GATE, Gate, MadeTokens
from daemon.api.connections import busy_middleware
from daemon.api.dispatch import Dispatcher, limit_middleware
from daemon.api.endpoint import Call, Endpoint, Services
from daemon.api.files import FileAnswer
from daemon.api.followers import Followers
from daemon.api.operations import Operations
from daemon.api.parts import ApiParts
from daemon.api.problems import problem_middleware
from daemon.api.workers import Workers
from daemon.config import TOKEN_FILE

__all__ = ["DISPATCHER", "ENDPOINTS", "GATE", "SERVICES", "ApiParts", "build_app"]

SERVICES = web.AppKey("services", Services)
DISPATCHER = web.AppKey("dispatcher", Dispatcher)

HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
}


async def openapi_document(call: Call) -> dict[str, Any]:
    """This API in OpenAPI 3.1."""
    return _document(str(call.parts.version.get("version", "")))


@functools.cache
def _document(version: str) -> dict[str, Any]:
    return openapi.document(ENDPOINTS, version)


ENDPOINTS: tuple[Endpoint, ...] = (
    *instrument.ENDPOINTS,
    Endpoint("GET", "/openapi.json", openapi_document, "This document.", scope=None),
    *runs.ENDPOINTS,
    *results.ENDPOINTS,
    *tables.ENDPOINTS,
    *masks.ENDPOINTS,
    *clips.ENDPOINTS,
    *exports.ENDPOINTS,
    *live.ENDPOINTS,
    *frame.ENDPOINTS,
    *control.ENDPOINTS,
    *jobs.ENDPOINTS,
    *field.ENDPOINTS,
    *keeping.ENDPOINTS,
)


def build_app(parts: ApiParts) -> web.Application:
    """The whole API; touches nothing yet."""
    gate = Gate(parts.settings.api, MadeTokens(parts.settings.store.state_dir / TOKEN_FILE))
    services = Services(
        workers=Workers("api", threads=4, max_waiting=64),
        reads=parts.reads,
        slow_workers=Workers("api-slow", threads=1, max_waiting=8),  # an archive at a time: the disk is one
        backup_workers=Workers("api-backup", threads=1, max_waiting=4),
        operations=Operations(),
        followers=Followers(parts.settings.api.max_followers, gate.admit),
        auditor=Auditor(parts),
    )
    urgent = frozenset(endpoint.full_path for endpoint in ENDPOINTS if endpoint.urgent)
    middlewares = [
        busy_middleware,
        counting_middleware(parts.count_request),
        problem_middleware,
        limit_middleware(parts.settings.api, urgent),
    ]
    app = web.Application(middlewares=middlewares, client_max_size=parts.settings.api.max_body_bytes)
    dispatcher = Dispatcher(parts, gate, services)
    app[SERVICES] = services
    app[DISPATCHER] = dispatcher
    app[GATE] = gate
    for endpoint in ENDPOINTS:
        _add_route(app, endpoint, dispatcher)
    page.add_routes(app, gate)
    app.on_response_prepare.append(_add_headers)
    app.on_shutdown.append(_end_streams)
    app.cleanup_ctx.append(partial(_services_life, services, parts))
    return app


def counting_middleware(count: Callable[[str, int, float], None]) -> Any:
    """Tells `count` of method, status and duration of each request but the endless ones."""

    @web.middleware
    async def middleware(request: web.Request, handler: Any) -> web.StreamResponse:
        began_s = time.monotonic()
        response = await handler(request)
        if response.content_type not in (accept.SSE, accept.NDJSON):
            count(request.method, response.status, time.monotonic() - began_s)
        return response

    return middleware


def _add_route(app: web.Application, endpoint: Endpoint, dispatcher: Dispatcher) -> None:
    handler = dispatcher.handler(endpoint)
    if endpoint.method == "GET":
        app.router.add_get(endpoint.full_path, handler, allow_head=True)
    else:
        app.router.add_route(endpoint.method, endpoint.full_path, handler)


async def _add_headers(request: web.Request, response: web.StreamResponse) -> None:
    if isinstance(response, FileAnswer):
        response.check(request)
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)
    response.headers.setdefault("Cache-Control", "no-store")


async def _end_streams(app: web.Application) -> None:
    await app[SERVICES].followers.stop()


async def _services_life(services: Services, parts: ApiParts, app: web.Application) -> AsyncIterator[None]:
    await services.workers.run(longwork.remove_leftovers, parts.settings.store.state_dir)
    yield
    await services.followers.stop()
    await services.operations.stop()
    await services.auditor.stop()
    for pool in services.pools:
        await pool.stop()
    await services.reads.stop()
