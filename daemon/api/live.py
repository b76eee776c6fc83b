"""The event feed: server-sent events, lines of JSON, or a page of it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator
from functools import lru_cache

from aiohttp import web
from pydantic import Field

from daemon.api import accept, models
from daemon.api.endpoint import Call, Endpoint, Query
from daemon.api.followers import IDLE_S
from daemon.api.jsonio import dumps, joined
from daemon.errors import ApiError, ApiReason
from daemon.events import Event

RETRY_MS = 2000  # a restart of the daemon takes a few seconds
LAST_ID = "Last-Event-ID"
KEEP_ALIVE = {accept.SSE: b": alive\n\n", accept.NDJSON: b"\n"}
MEDIA_TYPES = (accept.SSE, accept.NDJSON, accept.JSON)


class FeedQuery(Query):
    """Where to begin."""

    after: int = Field(default=0, ge=0, le=2**62, description="Sequence number after which to begin; 0: the oldest.")
    follow: bool = Field(default=True, description="Whether to wait for further events; JSON never does.")
    limit: int = Field(default=1000, ge=1, le=10_000, description="Most events of a JSON page.")


async def follow_events(call: Call) -> web.StreamResponse:
    """Events after `after`, or after the browser's Last-Event-ID."""
    media_type = accept.choose(call.request, MEDIA_TYPES)
    after = _resume_after(call)
    if media_type == accept.JSON:
        events = await call.parts.feed.after(after, call.query.limit)
        last = events[-1].seq if events else after
        body = b'{"events":%s,"last_seq":%d}' % (joined(map(encoded, events)), last)
        return web.Response(body=body, content_type=media_type)
    response = web.StreamResponse(headers={"Content-Type": f"{media_type}; charset=utf-8", "X-Accel-Buffering": "no"})
    return await call.follow(response, _pieces(call, media_type, after))


def _resume_after(call: Call) -> int:
    resumed = call.request.headers.get(LAST_ID)
    if resumed is None:
        return int(call.query.after)
    if not (resumed.isascii() and resumed.isdigit() and len(resumed) <= 18):
        raise ApiError(ApiReason.BAD_REQUEST, f"{LAST_ID}: must be a sequence number")
    return int(resumed)


async def _pieces(call: Call, media_type: str, after: int) -> AsyncGenerator[bytes, None]:
    """The stream's bytes; ends at the newest event unless following."""
    encode = _as_sse if media_type == accept.SSE else _as_line
    if media_type == accept.SSE:
        yield f"retry: {RETRY_MS}\n\n".encode()
    if not call.query.follow:
        while batch := await call.parts.feed.after(after):
            after = batch[-1].seq
            yield b"".join(map(encode, batch))
        return
    async with contextlib.aclosing(call.parts.feed.follow(after, IDLE_S)) as batches:  # type: ignore[type-var]
        async for batch in batches:
            yield b"".join(map(encode, batch)) if batch else KEEP_ALIVE[media_type]


@lru_cache(maxsize=4096)
def encoded(event: Event) -> bytes:
    """Its JSON: each event goes to every follower, and into many pages."""
    return dumps(event.as_dict())


def _as_sse(event: Event) -> bytes:
    return b"id: %d\ndata: %s\n\n" % (event.seq, encoded(event))


def _as_line(event: Event) -> bytes:
    return encoded(event) + b"\n"


ENDPOINTS = (
    Endpoint(
        "GET",
        "/events",
        follow_events,
        "Live events of all runs, resumed by sequence number.",
        query=FeedQuery,
        answer=models.FeedPage,
        media_types=MEDIA_TYPES,
        statuses={503: "Too many streams are open."},
    ),
)
