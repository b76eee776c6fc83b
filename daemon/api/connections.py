"""The open connections: how many, whose, and how long one may sit there without asking or without reading."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import http_exceptions, web
from aiohttp.web_protocol import RequestHandler

from daemon.api import problems
from daemon.api.jsonio import dumps
from daemon.api.limits import peer_key
from daemon.errors import ApiError, ApiReason

log = logging.getLogger(__name__)

HEAD_DEADLINE_S = 10.0  # from connecting to a whole request: seconds even by a bad radio link
KEEPALIVE_S = 30.0  # between an answer and the next request
LINGER_S = 2.0  # for a body that nobody reads, so that the refusal before it is not lost
SWEEP_S = 1.0
STALL_S = 30.0  # an answer of which a reader takes less than `STALL_BYTES` in so long is given up
STALL_BYTES = 30_000
MAX_UNREAD_BYTES = 256 << 20  # of all answers together: the instrument's memory is not its clients'
MAX_LINE_BYTES, MAX_FIELD_BYTES = 16_384, 8190
MAX_HEADERS = 100


class Connection(RequestHandler):
    """One connection as the table sees it; aiohttp's own protocol otherwise."""

    __slots__ = ("_table", "answered", "peer", "quiet_since_s", "spoke", "unread")

    def __init__(self, table: Connections, server: Any, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(
            server,
            loop=loop,
            access_log=None,  # type: ignore[arg-type] # what AppRunner takes too
            keepalive_timeout=KEEPALIVE_S,
            max_line_size=MAX_LINE_BYTES,
            max_field_size=MAX_FIELD_BYTES,
            max_headers=MAX_HEADERS,
            lingering_time=LINGER_S,
        )
        self._table = table
        self.peer = ""
        self.quiet_since_s: float | None = time.monotonic()
        """None while a request is worked on or answered."""
        self.spoke = False
        """Whether anything came since the last answer."""
        self.answered = 0
        self.unread = (0, 0.0)
        """Bytes that wait for the reader, and since when at most `STALL_BYTES` of them were taken."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        address = transport.get_extra_info("peername")
        self.peer = peer_key(address[0] if isinstance(address, tuple) else None)
        self._table.add(self)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._table.remove(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self.spoke = True
        super().data_received(data)

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Send the answer; from then on the connection is idle."""
        self.quiet_since_s = None
        try:
            return await super().finish_response(request, resp, start_time)
        finally:
            self.answered += 1
            self.spoke, self.quiet_since_s = False, time.monotonic()

    def handle_error(
        self, request: web.BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        """What is no HTTP, as a problem document; aiohttp would answer with a page of text."""
        if request.writer.output_size > 0:
            raise ConnectionError("an answer is half sent; only the connection's end can say so")
        if status >= 500:
            body = problems.unexpected("a request")
        elif isinstance(exc, http_exceptions.LineTooLong) or "Too many headers" in str(message):
            body = problems.document(ApiError(ApiReason.TOO_LARGE, "the request's head is too large"), status=431)
        else:
            body = problems.document(ApiError(ApiReason.BAD_REQUEST, "this is not HTTP as it should be"))
        answer = problems.response(body, [("X-Content-Type-Options", "nosniff"), ("Cache-Control", "no-store")])
        answer.force_close()
        return answer

    def end(self, reason: ApiReason | None = None) -> None:
        """Close at once, with a word to who has begun a request and not ended it."""
        transport = self.transport
        if transport is None:
            return
        if reason is not None and self.spoke and self.quiet_since_s is not None:
            transport.write(raw_refusal(408, ApiError(reason, "the request did not come whole in time")))
            transport.close()
        else:
            transport.abort()


def raw_refusal(status: int, error: ApiError) -> bytes:
    """A problem document as bytes, for where no request is."""
    body = dumps(problems.document(error, status=status))
    words = {408: "Request Timeout", 503: "Service Unavailable"}[status]
    wait = f"Retry-After: {problems.RETRY_AFTER_S}\r\n" if status == 503 else ""
    head = (
        f"HTTP/1.1 {status} {words}\r\nContent-Type: {problems.MEDIA_TYPE}\r\nContent-Length: {len(body)}\r\n"
        f"{wait}Connection: close\r\n\r\n"
    )
    return head.encode() + body


class Connections:
    """The table: at most `limit`; who comes beyond takes the place of who sits idle."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.closed: Counter[str] = Counter()
        """How many were closed or not let in, by why: idle, slow_head, slow_reader, full."""
        self._open: dict[Connection, None] = {}
        self._sweeper: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        return len(self._open)

    def add(self, connection: Connection) -> None:
        """One more."""
        self._open[connection] = None

    def remove(self, connection: Connection) -> None:
        """It ended. Safe to repeat."""
        self._open.pop(connection, None)

    def start(self) -> None:
        """Begin to look after them."""
        self._sweeper = asyncio.create_task(self._sweep_for_ever(), name="api-connections")

    async def stop(self) -> None:
        """Idempotent; closes none."""
        sweeper, self._sweeper = self._sweeper, None
        if sweeper is not None:
            sweeper.cancel()
            await asyncio.wait([sweeper])

    def make_room(self, opening: int = 0) -> bool:
        """Whether one more may come, with `opening` others on their way; an idle one is closed for it.

        Of whoever has most connections, so that one client with ten thousand takes from itself.
        """
        if len(self._open) + opening < self.limit:
            return True
        shares = Counter(each.peer for each in self._open)
        idle = [each for each in self._open if each.quiet_since_s is not None]
        if not idle:
            self.closed["full"] += 1
            return False
        victim = max(idle, key=lambda each: (shares[each.peer], -(each.quiet_since_s or 0.0)))
        self._close(victim, "idle")
        return True

    async def _sweep_for_ever(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_S)
            self.sweep(time.monotonic())

    def sweep(self, now_s: float) -> None:
        """Close who neither asks nor reads. Cheap: a few numbers a connection."""
        unread_bytes = 0
        for each in list(self._open):
            waiting = self._waiting_bytes(each, now_s)
            unread_bytes += waiting
            if waiting and now_s - each.unread[1] > STALL_S:
                self._close(each, "slow_reader")
            elif each.quiet_since_s is not None and not waiting:
                allowed_s = KEEPALIVE_S + HEAD_DEADLINE_S if each.answered else HEAD_DEADLINE_S
                if now_s - each.quiet_since_s > allowed_s:
                    self._close(each, "slow_head", ApiReason.TOO_SLOW)
        while unread_bytes > MAX_UNREAD_BYTES and self._open:
            worst = max(self._open, key=lambda each: each.unread[0])
            unread_bytes -= max(worst.unread[0], 1)
            self._close(worst, "slow_reader")

    def _waiting_bytes(self, connection: Connection, now_s: float) -> int:
        transport = connection.transport
        size = 0 if transport is None else transport.get_write_buffer_size()
        before = connection.unread[0]
        if not size or size > before or size < before - STALL_BYTES:
            connection.unread = (size, now_s)
        return size

    def _close(self, connection: Connection, why: str, reason: ApiReason | None = None) -> None:
        self.closed[why] += 1
        self.remove(connection)
        connection.end(reason)


@web.middleware
async def busy_middleware(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """A connection whose request is being worked on is not idle."""
    if isinstance(request.protocol, Connection):
        request.protocol.quiet_since_s = None
    return await handler(request)
