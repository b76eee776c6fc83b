"""Where the API listens: a TCP port and, when configured, a Unix socket."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import resource
import socket
import ssl
import stat
from pathlib import Path

from aiohttp import web

from daemon.api.app import DISPATCHER, SERVICES, ApiParts, build_app
from daemon.api.auth import GATE, Gate
from daemon.api.connections import Connections
from daemon.api.endpoint import Services
from daemon.api.listen import Listener
from daemon.api.tls import Certificate
from daemon.errors import ApiError, ApiReason, ConfigError, ConfigReason
from daemon.parts import PartStatus

log = logging.getLogger(__name__)

SOCKET_MODE = 0o660
SHUTDOWN_S = 3.0  # systemd waits longer; answers under way get this long
FILES_PERIOD_S = 1.0  # how soon a token that was revoked lets nobody in
OTHER_FILES = 256  # of store, devices, threads and archives: a running daemon was seen with 60; and the Unix socket
UNIX_CONNECTIONS = 100  # beside those over TCP, so that nobody over TCP keeps the way back in from answering
UNIX_UNREAD_BYTES = 64 << 20
MIN_CONNECTIONS = 10


class ApiServer:
    """The running API."""

    def __init__(self, parts: ApiParts) -> None:
        self._parts = parts
        self._runner: web.AppRunner | None = None
        self._url = ""
        self._bound: Path | None = None
        self._listeners: list[Listener] = []
        self._table = Connections(parts.settings.api.max_connections)
        self._unix_table = Connections(UNIX_CONNECTIONS, UNIX_UNREAD_BYTES)
        self._certificate: Certificate | None = None
        self._watch: asyncio.Task[None] | None = None

    @property
    def url(self) -> str:
        """Where a browser on this machine finds the status page; empty while not listening."""
        return self._url

    async def start(self) -> None:
        """Listen. Raises `ApiError` (PORT_IN_USE) or `ConfigError`; nothing is left open then."""
        self._table = Connections(await asyncio.to_thread(room_for, self._parts.settings.api.max_connections))
        runner = web.AppRunner(build_app(self._parts), access_log=None, shutdown_timeout=SHUTDOWN_S)
        self._runner = runner
        await runner.setup()
        runner.app[SERVICES].line = self.status
        try:
            gate = runner.app[GATE]
            if gate.made is not None:
                await asyncio.to_thread(gate.made.refresh)
            gate.check_settings()
            await self._listen_tcp(runner)
            if self._parts.settings.api.socket is not None:
                await self._listen_unix(runner, self._parts.settings.api.socket)
        except BaseException:
            await self.stop()
            raise
        for table in (self._table, self._unix_table):
            table.start()
        self._watch = asyncio.create_task(self._watch_files(gate, runner.app[SERVICES]), name="api-files")

    async def stop(self) -> None:
        """Close every connection; idempotent."""
        runner, self._runner = self._runner, None
        self._url = ""
        watch, self._watch = self._watch, None
        if watch is not None:
            watch.cancel()
            await asyncio.wait([watch])
        listeners, self._listeners = self._listeners, []
        for listener in listeners:
            await listener.stop()
        if runner is not None:
            await runner.cleanup()
        for table in (self._table, self._unix_table):
            await table.stop()
        bound, self._bound = self._bound, None
        if bound is not None:
            await asyncio.to_thread(_unlink_socket, bound)

    def status(self) -> PartStatus:
        """The API's own line."""
        if self._runner is None:
            return PartStatus("api", "stopped")
        app = self._runner.app
        counted = self._table.closed + self._unix_table.closed
        closed = {f"connections_closed_{why}": count for why, count in sorted(counted.items())}
        values = {
            "url": self._url,
            "requests": app[DISPATCHER].requests,
            "connections": len(self._table) + len(self._unix_table),
            **closed,
            **app[SERVICES].counts(),
        }
        made, certificate = app[GATE].made, self._certificate
        problem = (made and made.problem) or (certificate and certificate.problem)
        if problem:
            return PartStatus("api", "degraded", problem.code, problem.detail, problem.remedy, values)
        return PartStatus("api", "ready", values=values)

    async def _watch_files(self, gate: Gate, services: Services) -> None:
        """Tokens and certificate as their files are, and who follows by them; a look at each a second, in a thread."""
        while True:
            await asyncio.sleep(FILES_PERIOD_S)
            for part in (gate.made, self._certificate):
                if part is not None:
                    await asyncio.to_thread(part.refresh)
            services.followers.admit_again()

    async def _listen_tcp(self, runner: web.AppRunner) -> None:
        settings = self._parts.settings.api
        context = None
        if settings.tls_certificate is not None:
            self._certificate = Certificate(settings.tls_certificate, settings.tls_key)
            context = await asyncio.to_thread(self._certificate.context)
        try:
            for bound in await _bind_tcp(settings.host, settings.port):
                self._listen(bound, runner, self._table, context)
        except OSError as error:
            raise _tcp_error(error, settings.host, settings.port) from error
        self._url = _url("http" if context is None else "https", settings.host, self._listeners[0].address[1])

    async def _listen_unix(self, runner: web.AppRunner, path: Path) -> None:
        try:
            listener = await asyncio.to_thread(_bind_unix, path)
        except OSError as error:
            raise ConfigError(ConfigReason.BAD_VALUE, f"api.socket: cannot listen at {path}: {error}") from error
        self._bound = path
        self._listen(listener, runner, self._unix_table, None)

    def _listen(
        self, bound: socket.socket, runner: web.AppRunner, table: Connections, context: ssl.SSLContext | None
    ) -> None:
        listener = Listener(bound, runner.server, table, context)
        self._listeners.append(listener)
        listener.start()


async def _bind_tcp(host: str, port: int) -> list[socket.socket]:
    """A socket for each address of the host, not yet listening. Raises `OSError`."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(asyncio.Protocol, host, port, start_serving=False)
    try:
        return [each.dup() for each in server.sockets]
    finally:
        server.close()


def room_for(connections: int) -> int:
    """How many of these connections the process may hold; its limit of open files is raised as far as it may be."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + OTHER_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    room = connections if soft == resource.RLIM_INFINITY else max(MIN_CONNECTIONS, min(connections, soft - OTHER_FILES))
    if room < connections:
        log.warning("only %d connections fit the limit of %d open files (LimitNOFILE=)", room, soft)
    return room


def _tcp_error(error: OSError, host: str, port: int) -> ApiError | ConfigError:
    if error.errno == errno.EADDRINUSE:
        return ApiError(ApiReason.PORT_IN_USE, f"api.port: another program listens on port {port} of {host}")
    if error.errno == errno.EACCES:
        return ConfigError(ConfigReason.BAD_VALUE, f"api.port: the service may not listen on port {port}")
    return ConfigError(ConfigReason.BAD_VALUE, f"api.host: cannot listen on {host!r}: {error}")


def _url(scheme: str, host: str, port: int) -> str:
    shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]", "": "127.0.0.1"}.get(host)
    return f"{scheme}://{shown or (f'[{host}]' if ':' in host else host)}:{port}/"


def _bind_unix(path: Path) -> socket.socket:
    """A bound socket at `path` with `SOCKET_MODE`; a stale one is replaced, a live one is not. Blocking."""
    _refuse_live(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    _unlink_socket(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        os.fchmod(listener.fileno(), SOCKET_MODE)  # before the name exists: never open to more, not for a moment
        listener.bind(str(path))
        path.chmod(SOCKET_MODE)
    except BaseException:
        listener.close()
        raise
    return listener


def _refuse_live(path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except OSError:
            return
    raise ApiError(ApiReason.PORT_IN_USE, f"api.socket: another program listens at {path}")


def _unlink_socket(path: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        if stat.S_ISSOCK(path.stat().st_mode):
            path.unlink()
