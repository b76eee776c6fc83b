"""The open connections: how many, whose, which give way, and how long one may sit there without asking or reading."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from aiohttp import http_exceptions, web
from aiohttp.web_protocol import RequestHandler

from daemon.api import problems
from daemon.api.jsonio import dumps
from daemon.errors import ApiError, ApiReason

log = logging.getLogger(__name__)

HEAD_DEADLINE_S = 10.0  # from connecting to a whole request: seconds even by a bad radio link
KEEPALIVE_S = 30.0  # between an answer and the next request
LINGER_S = 2.0  # for a body that nobody reads, so that the refusal before it is not lost
HANDSHAKES_WITHIN_S = 1.0  # a bad radio link included; who takes longer is the first to give way
SWEEP_S = 1.0
STALL_S = 30.0  # an answer of which a reader takes less than `STALL_BYTES` in so long is given up
STALL_BYTES = 30_000
MAX_UNREAD_BYTES = 256 << 20  # of all answers together: the instrument's memory is not its clients'
MAX_LINE_BYTES, MAX_FIELD_BYTES = 16_384, 8190
MAX_HEADERS = 100
LOST = (errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN, errno.ENETDOWN)
"""What the kernel says of a peer that is gone, beside what Python calls a `ConnectionError`."""


class Connection(RequestHandler):
    """One connection as the table sees it; aiohttp's own protocol otherwise."""

    __slots__ = (
        "_asked_at_s",
        "_opening",
        "_sends_file",
        "_table",
        "admitted",
        "answered",
        "peer",
        "quiet_since_s",
        "spoke",
        "unread",
    )

    def __init__(self, table: Connections, server: Any, loop: asyncio.AbstractEventLoop, opening: Opening) -> None:
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
        self._table, self._opening, self._sends_file = table, opening, False
        self.peer = opening.peer
        self.quiet_since_s: float | None = time.monotonic()
        """None while a request is worked on or answered."""
        self._asked_at_s = self.quiet_since_s
        self.admitted = False
        """Whether the request that is worked on or answered came from somebody who was let in."""
        self.spoke = False
        """Whether anything came since the last answer."""
        self.answered = 0
        self.unread = (0, 0.0)
        """Bytes that wait for the reader, and since when at most `STALL_BYTES` of them were taken."""

    @property
    def gives_way_since_s(self) -> float | None:
        """Since when it may be closed to make room: while idle, or answered what needs no token."""
        return self._asked_at_s if self.quiet_since_s is None and not self.admitted else self.quiet_since_s

    def begin(self) -> None:
        """A request has come, of nobody known yet."""
        self.quiet_since_s, self.admitted, self._asked_at_s = None, False, time.monotonic()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._table.remove_opening(self._opening)
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
        self.quiet_since_s, self._sends_file = None, isinstance(resp, web.FileResponse)
        if isinstance(resp, web.HTTPException) and resp.status >= 400:  # raised outside the application's middleware
            resp = problems.from_http(resp, request)
        try:
            return await super().finish_response(request, resp, start_time)
        except OSError as error:
            if error.errno in LOST:  # aiohttp would log it as a fault of ours
                raise ConnectionResetError(*error.args) from error
            raise
        finally:
            self.answered += 1
            self._sends_file = False
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

    def log_exception(self, *args: Any, **kw: Any) -> None:
        """A fault of ours; aiohttp takes for one also a body that nobody read and that is not as its headers say."""
        if not isinstance(kw.get("exc_info"), web.RequestPayloadError):
            super().log_exception(*args, **kw)

    def end(self, reason: ApiReason | None = None) -> None:
        """Close at once, with a word to who has begun a request and not ended it."""
        transport = self.transport
        if transport is None:
            return
        if reason is not None and self.spoke and self.quiet_since_s is not None:
            transport.write(raw_refusal(408, ApiError(reason, "the request did not come whole in time")))
            transport.close()
        elif self._sends_file:  # asyncio logs an abort beneath `sendfile` as a fault of its own
            with suppress(OSError):
                transport.get_extra_info("socket").shutdown(socket.SHUT_RDWR)
        else:
            transport.abort()


class Opening:
    """A connection that was accepted and is not open yet: over TLS it shakes hands."""

    def __init__(self, peer: str, connection: socket.socket) -> None:
        self.peer, self.connection = peer, connection
        self.gives_way_since_s = time.monotonic()
        self.task: asyncio.Task[None] | None = None

    def end(self) -> None:
        """Give it up."""
        if self.task is not None and self.task.cancel():
            self.task.add_done_callback(lambda _: self.connection.close())  # one that never ran has not


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
    """The table: at most `limit`; who comes beyond takes the place of who gives way."""

    def __init__(self, limit: int, max_unread_bytes: int = MAX_UNREAD_BYTES) -> None:
        self.limit = limit
        self.max_unread_bytes = max_unread_bytes
        self.closed: Counter[str] = Counter()
        """How many were closed or not let in, by why: handshake, idle, nobody (known), slow_head, slow_reader, full."""
        self._open: dict[Connection, None] = {}
        self._opening: dict[Opening, None] = {}
        self._sweeper: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        return len(self._open)

    def add(self, connection: Connection) -> None:
        """One more."""
        self._open[connection] = None

    def remove(self, connection: Connection) -> None:
        """It ended. Safe to repeat."""
        self._open.pop(connection, None)

    def add_opening(self, opening: Opening) -> None:
        """One that may become a connection."""
        self._opening[opening] = None

    def remove_opening(self, opening: Opening) -> None:
        """It has become one, or never will. Safe to repeat."""
        self._opening.pop(opening, None)

    def start(self) -> None:
        """Begin to look after them."""
        self._sweeper = asyncio.create_task(self._sweep_for_ever(), name="api-connections")

    async def stop(self) -> None:
        """Idempotent; closes none."""
        sweeper, self._sweeper = self._sweeper, None
        if sweeper is not None:
            sweeper.cancel()
            await asyncio.wait([sweeper])

    def make_room(self, short_of_files: bool = False) -> bool:
        """Whether one more may come; another is closed for it when the table is full, or always when `short_of_files`.

        Of whoever has most connections, so that one client with ten thousand takes from itself: who does not end
        shaking hands, then who has been idle, or answered without being let in, for longest.
        """
        if len(self._open) + len(self._opening) < self.limit and not short_of_files:
            return True
        everybody: list[Connection | Opening] = [*self._opening, *self._open]
        shares, late_s = Counter(each.peer for each in everybody), time.monotonic() - HANDSHAKES_WITHIN_S

        def rank(one: Connection | Opening, began_s: float) -> tuple[int, bool, float]:
            return shares[one.peer], isinstance(one, Opening) and began_s < late_s, -began_s

        ranks = {each: rank(each, at_s) for each in everybody if (at_s := each.gives_way_since_s) is not None}
        if not ranks:
            self.closed["full"] += 1
            return False
        victim = max(ranks, key=ranks.__getitem__)
        if isinstance(victim, Opening):
            self.closed["handshake"] += 1
            self.remove_opening(victim)
            victim.end()
        else:
            self._close(victim, "idle" if victim.quiet_since_s is not None else "nobody")
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
        while unread_bytes > self.max_unread_bytes and self._open:
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


def admitted(request: web.BaseRequest) -> None:
    """Whoever sent it was let in: the connection gives way to no other until this is answered."""
    if isinstance(request.protocol, Connection):
        request.protocol.admitted = True


@web.middleware
async def busy_middleware(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """A connection whose request is being worked on is not idle."""
    if isinstance(request.protocol, Connection):
        request.protocol.begin()
    return await handler(request)
