"""Accepting connections: one at a time, as many as there is room for, and none that does not shake hands."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket
import ssl
from typing import Any

from daemon.api.connections import STALL_S, Connection, Connections, Opening, raw_refusal
from daemon.api.limits import peer_key
from daemon.errors import ApiError, ApiReason

log = logging.getLogger(__name__)

BACKLOG = 128
HANDSHAKE_S = 10.0
OUT_OF_FILES_S = 0.2
FULL = raw_refusal(503, ApiError(ApiReason.BUSY, "every connection is in use (api.max_connections)"))
SHORT_OF = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class Listener:
    """One listening socket. asyncio's own server would take whatever comes, and let it shake hands for a minute."""

    def __init__(self, listener: socket.socket, server: Any, table: Connections, tls: ssl.SSLContext | None) -> None:
        self._listener, self._server, self._table, self._tls = listener, server, table, tls
        self._accepting: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def address(self) -> Any:
        """Of the socket."""
        return self._listener.getsockname()

    def start(self) -> None:
        """Begin to accept. Raises `OSError`."""
        self._listener.setblocking(False)
        self._listener.listen(BACKLOG)
        self._accepting = asyncio.create_task(self._accept_for_ever(), name="api-accept")

    async def stop(self) -> None:
        """Accept no more; connections that are open stay. Idempotent."""
        accepting, self._accepting = self._accepting, None
        tasks = [*self._tasks, *([accepting] if accepting else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._listener.close()

    async def _accept_for_ever(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, address = await loop.sock_accept(self._listener)
            except OSError as error:
                if error.errno in SHORT_OF:
                    log.warning("no connection can be accepted: %s", error.strerror)
                    self._table.make_room(short_of_files=True)
                    await asyncio.sleep(OUT_OF_FILES_S)
                continue
            if not self._table.make_room():
                _turn_away(connection, self._tls is None)
            else:
                self._open(loop, connection, peer_key(address[0] if isinstance(address, tuple) else None))
            await asyncio.sleep(0)  # `sock_accept` does not, while more are there

    def _open(self, loop: asyncio.AbstractEventLoop, connection: socket.socket, peer: str) -> None:
        opening = Opening(peer, connection)
        opening.task = task = loop.create_task(self._begin(loop, opening), name="api-open")
        self._tasks.add(task)
        self._table.add_opening(opening)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(lambda _: self._table.remove_opening(opening))

    async def _begin(self, loop: asyncio.AbstractEventLoop, opening: Opening) -> None:
        connection = opening.connection
        _notice_dead_peers(connection)
        deadline_s = None if self._tls is None else HANDSHAKE_S
        try:
            await loop.connect_accepted_socket(
                lambda: Connection(self._table, self._server, loop, opening),
                connection,
                ssl=self._tls,
                ssl_handshake_timeout=deadline_s,
            )
        except OSError:  # no TLS, no handshake in time, or gone already
            connection.close()


def _turn_away(connection: socket.socket, with_a_word: bool) -> None:
    if with_a_word:
        with contextlib.suppress(OSError):
            connection.send(FULL)
    connection.close()


def _notice_dead_peers(connection: socket.socket) -> None:
    """A reader that takes nothing, or whose cable was pulled: have the kernel give up on it in time."""
    if connection.family != socket.AF_UNIX and hasattr(socket, "TCP_USER_TIMEOUT"):
        with contextlib.suppress(OSError):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(1_000 * STALL_S))
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
