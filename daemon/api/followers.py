"""Endless answers: how many at once, how long a stalled reader is waited for, and their end.

They end at shutdown, and when whoever asked would not be let in any more.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import AsyncGenerator, Callable

from aiohttp import web

from daemon.api.auth import Actor
from daemon.config import Scope
from daemon.errors import ApiError, ApiReason, InstrumentError

log = logging.getLogger(__name__)

WRITE_DEADLINE_S = 10.0  # a healthy reader on a bad radio link recovers within a few seconds
IDLE_S = 5.0  # how soon a reader that left is noticed; also the pause between keep-alives
MAX_WRITE_BYTES = 64 * 1024  # one write before the reader must have made room


class Followers:
    """The open streams. A stream costs one task and at most two writes' worth of memory."""

    def __init__(
        self, limit: int, admit: Callable[[web.Request], Actor], write_deadline_s: float = WRITE_DEADLINE_S
    ) -> None:
        self._limit = limit
        self._admit = admit
        self._write_deadline_s = write_deadline_s
        self._tasks: dict[asyncio.Task[None], tuple[web.Request, Scope]] = {}
        self.dropped = 0
        """Streams ended because their reader stalled."""
        self.refused = 0

    def __len__(self) -> int:
        return len(self._tasks)

    async def serve(
        self, request: web.Request, scope: Scope, response: web.StreamResponse, pieces: AsyncGenerator[bytes, None]
    ) -> web.StreamResponse:
        """Send `pieces` until they end, the reader leaves, stalls or loses the `scope`, or the service stops.

        Raises `ApiError` (BUSY) when too many streams are open.
        """
        if len(self._tasks) >= self._limit:
            self.refused += 1
            await pieces.aclose()
            raise ApiError(ApiReason.BUSY, f"{self._limit} streams are open already (api.max_followers)")
        task = asyncio.create_task(self._send(request, response, pieces), name="api-follower")
        self._tasks[task] = (request, scope)
        try:
            await asyncio.wait({task})
        finally:
            self._tasks.pop(task, None)
            task.cancel()
        if not task.cancelled() and (error := task.exception()) is not None:
            raise error
        return response

    def admit_again(self) -> None:
        """End the streams of who would not be let in now: a token was revoked or has expired, or is asked for since."""
        for task, (request, scope) in list(self._tasks.items()):
            try:
                self._admit(request).require(scope)
            except InstrumentError as error:
                log.info("a stream of %s ends: %s", request.path, error)
                task.cancel()

    async def stop(self) -> None:
        """End every stream. Idempotent."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _send(
        self, request: web.Request, response: web.StreamResponse, pieces: AsyncGenerator[bytes, None]
    ) -> None:
        async with contextlib.aclosing(pieces):
            await response.prepare(request)
            _notice_dead_peers(request, self._write_deadline_s)
            if request.method == "HEAD":
                return
            async for piece in pieces:
                if request.transport is None or request.transport.is_closing():
                    return
                if not await self._write(request, response, piece):
                    return

    async def _write(self, request: web.Request, response: web.StreamResponse, piece: bytes) -> bool:
        try:
            for start in range(0, len(piece), MAX_WRITE_BYTES):
                part = piece[start : start + MAX_WRITE_BYTES]
                await asyncio.wait_for(response.write(part), self._write_deadline_s)
        except TimeoutError:
            self.dropped += 1
            if request.transport is not None:
                request.transport.abort()
            return False
        except ConnectionError:
            return False
        return True


def _notice_dead_peers(request: web.Request, deadline_s: float) -> None:
    """A reader whose cable was pulled never says so: have the kernel give up on unacknowledged bytes in time."""
    connection = None if request.transport is None else request.transport.get_extra_info("socket")
    if connection is None or connection.family == socket.AF_UNIX or not hasattr(socket, "TCP_USER_TIMEOUT"):
        return
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(3_000 * deadline_s))
