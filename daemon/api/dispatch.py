"""From a route to its handler and back: the one place where requests are admitted, validated and answered."""

from __future__ import annotations

from typing import Any

from aiohttp import web
from pydantic import BaseModel, ValidationError

from daemon.api import accept, problems
from daemon.api.auth import Gate
from daemon.api.endpoint import Call, Endpoint, Services
from daemon.api.jsonio import dumps
from daemon.api.parts import ApiParts
from daemon.api.query import parse_path, parse_query


class Dispatcher:
    """Turns endpoints into aiohttp handlers."""

    def __init__(self, parts: ApiParts, gate: Gate, services: Services) -> None:
        self._parts = parts
        self._gate = gate
        self._services = services
        self.requests = 0

    def handler(self, endpoint: Endpoint) -> Any:
        """The aiohttp handler of an endpoint."""

        async def handle(request: web.Request) -> web.StreamResponse:
            self.requests += 1
            return answer(await endpoint.handler(await self._call(endpoint, request)))

        return handle

    async def _call(self, endpoint: Endpoint, request: web.Request) -> Call:
        self._gate.check_site(request)
        actor = self._gate.admit(request) if endpoint.scope else self._gate.anyone(request)
        if endpoint.scope:
            actor.require(endpoint.scope)
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


async def _parse_body(endpoint: Endpoint, request: web.Request) -> BaseModel | None:
    """The JSON body as its model; endpoints without a model read none. Raises `InstrumentError`."""
    if endpoint.body is None:
        return None
    raw = await request.read()
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
