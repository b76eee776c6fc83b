"""From a route to its handler and back: the one place where requests are admitted, validated and answered."""

from __future__ import annotations

import asyncio
from typing import Any

from aiohttp import HttpVersion10, web
from pydantic import BaseModel, ValidationError

from daemon.api import accept, problems
from daemon.api.auth import SAFE_METHODS, Actor, Gate, UnauthorisedError
from daemon.api.connections import admitted
from daemon.api.endpoint import Call, Endpoint, Services
from daemon.api.jsonio import dumps
from daemon.api.limits import Buckets, TooManyRequestsError, peer_key
from daemon.api.parts import ApiParts
from daemon.api.query import parse_path, parse_query
from daemon.config import ApiSettings
from daemon.errors import ApiError, ApiReason, InstrumentError

BODY_DEADLINE_S = 20.0  # a megabyte by the slowest link worth serving
FAILURES_HZ, FAILURES_AT_ONCE = 1 / 6, 10.0  # wrong tokens of one address; a right one passes all the same
MAX_ACTION_CHARS = 200


class Dispatcher:
    """Turns endpoints into aiohttp handlers."""

    def __init__(self, parts: ApiParts, gate: Gate, services: Services) -> None:
        self._parts = parts
        self._gate = gate
        self._services = services
        self._by_actor = request_buckets(parts.settings.api)
        self._failures = Buckets(FAILURES_HZ, FAILURES_AT_ONCE)
        self.requests = 0

    def handler(self, endpoint: Endpoint) -> Any:
        """The aiohttp handler of an endpoint; what it acts on, and what it refuses, is in the audit."""
        acts = endpoint.scope in ("operate", "admin")

        async def handle(request: web.Request) -> web.StreamResponse:
            self.requests += 1
            action, who = f"{request.method} {request.path[:MAX_ACTION_CHARS]}", f"anyone:{request.remote}"
            try:
                self._gate.check_site(request)
                actor = self._identify(endpoint, request)
                who = actor.name
                self._permit(endpoint, actor, request)
                call = await self._call(endpoint, request, actor)
                if acts and request.method in SAFE_METHODS:
                    await call.audit_first(action)
                return answer(await endpoint.handler(call))
            except Exception as error:
                if acts or (isinstance(error, UnauthorisedError) and error.guessed):
                    self._services.auditor.refused(who, action, code_of(error))
                raise

        return handle

    def _identify(self, endpoint: Endpoint, request: web.Request) -> Actor:
        """Who asks. Raises `UnauthorisedError`, and `TooManyRequestsError` for one guess too many."""
        if endpoint.scope is None:
            return self._gate.anyone(request)
        try:
            return self._gate.admit(request)
        except UnauthorisedError as error:
            self._parts.count_unauthorised(error.kind)
            peer = peer_key(request.remote)
            if error.guessed and (wait_s := self._failures.take(peer)) > 0:
                raise TooManyRequestsError(f"too many tokens that are not known from {peer}", wait_s) from None
            raise

    def _permit(self, endpoint: Endpoint, actor: Actor, request: web.Request) -> None:
        """Raises `ApiError`: FORBIDDEN, TOO_MANY_REQUESTS."""
        if endpoint.scope is None:
            return
        if not endpoint.urgent and (wait_s := self._by_actor.take(actor.name)) > 0:
            raise TooManyRequestsError(f"{actor.name} asks too often (api.max_requests_per_s)", wait_s)
        actor.require(endpoint.scope)
        admitted(request)

    async def _call(self, endpoint: Endpoint, request: web.Request, actor: Actor) -> Call:
        return Call(
            request=request,
            parts=self._parts,
            services=self._services,
            actor=actor,
            endpoint=endpoint,
            path=parse_path(endpoint.path_model, request),
            query=parse_query(endpoint.query, request.query),
            body=await _parse_body(endpoint, request),
        )


def request_buckets(settings: ApiSettings) -> Buckets:
    """So many requests a second, twice as many at once, one at least."""
    return Buckets(settings.max_requests_per_s, max(1.0, 2 * settings.max_requests_per_s))


def limit_middleware(settings: ApiSettings, urgent_paths: frozenset[str]) -> Any:
    """Refuses an address that asks too often, whatever for; what is urgent is never counted."""
    buckets = request_buckets(settings)

    @web.middleware
    async def middleware(request: web.Request, handler: Any) -> web.StreamResponse:
        if request.version < HttpVersion10:
            raise ApiError(ApiReason.BAD_REQUEST, "HTTP/1.0 or later is spoken here")
        if request.path not in urgent_paths and (wait_s := buckets.take(peer_key(request.remote))) > 0:
            raise TooManyRequestsError("requests come too often from one address (api.max_requests_per_s)", wait_s)
        response: web.StreamResponse = await handler(request)
        return response

    return middleware


def code_of(error: Exception) -> str:
    """For the audit."""
    if isinstance(error, web.HTTPException):
        return f"HTTP {error.status}"
    if isinstance(error, UnauthorisedError):
        return f"{error.code} ({error.kind})"
    return error.code if isinstance(error, InstrumentError) else ApiReason.INTERNAL.code


async def _parse_body(endpoint: Endpoint, request: web.Request) -> BaseModel | None:
    """The JSON body as its model; endpoints without a model read none. Raises `InstrumentError`."""
    if endpoint.body is None:
        return None
    try:
        async with asyncio.timeout(BODY_DEADLINE_S):
            raw = await request.read()
    except TimeoutError:
        raise ApiError(ApiReason.TOO_SLOW, f"the body did not come within {BODY_DEADLINE_S:g} s") from None
    except ConnectionError:
        raise ApiError(ApiReason.BAD_REQUEST, "the connection ended before the body did") from None
    except web.RequestPayloadError:
        raise ApiError(ApiReason.BAD_REQUEST, "the body is not encoded as its headers say") from None
    if raw:
        accept.require_json_body(request)
    elif endpoint.body_optional:
        raw = b"{}"
    try:
        return endpoint.body.model_validate_json(raw)
    except ValidationError as error:
        raise problems.fields_error(error) from None


def answer(result: Any) -> web.StreamResponse:
    """What a handler returned as a response."""
    return result if isinstance(result, web.StreamResponse) else json_response(result)


def json_response(body: Any, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    """A JSON answer; NaN become null. For bodies small enough to encode on the event loop."""
    return web.Response(body=dumps(body), status=status, content_type=accept.JSON, headers=headers)
