"""Where the API listens: a TCP port and, when configured, a Unix socket."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import stat
from pathlib import Path

from aiohttp import web

from daemon.api.app import DISPATCHER, SERVICES, ApiParts, build_app
from daemon.errors import ApiError, ApiReason, ConfigError, ConfigReason
from daemon.parts import PartStatus

SOCKET_MODE = 0o660
SHUTDOWN_S = 3.0  # systemd waits longer; answers under way get this long
BACKLOG = 128


class ApiServer:
    """The running API."""

    def __init__(self, parts: ApiParts) -> None:
        self._parts = parts
        self._runner: web.AppRunner | None = None
        self._url = ""
        self._bound: Path | None = None

    @property
    def url(self) -> str:
        """Where a browser on this machine finds the status page; empty while not listening."""
        return self._url

    async def start(self) -> None:
        """Listen. Raises `ApiError` (PORT_IN_USE) or `ConfigError`; nothing is left open then."""
        runner = web.AppRunner(
            build_app(self._parts),
            access_log=None,
            shutdown_timeout=SHUTDOWN_S,
            keepalive_timeout=30,
        )
        self._runner = runner
        await runner.setup()
        try:
            await self._listen_tcp(runner)
            if self._parts.settings.api.socket is not None:
                await self._listen_unix(runner, self._parts.settings.api.socket)
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Close every connection; idempotent."""
        runner, self._runner = self._runner, None
        self._url = ""
        if runner is not None:
            await runner.cleanup()
        bound, self._bound = self._bound, None
        if bound is not None:
            await asyncio.to_thread(_unlink_socket, bound)

    def status(self) -> PartStatus:
        """The API's own line."""
        if self._runner is None:
            return PartStatus("api", "stopped")
        app = self._runner.app
        values = {"url": self._url, "requests": app[DISPATCHER].requests, **app[SERVICES].counts()}
        return PartStatus("api", "ready", values=values)

    async def _listen_tcp(self, runner: web.AppRunner) -> None:
        settings = self._parts.settings.api
        site = web.TCPSite(runner, settings.host, settings.port, backlog=BACKLOG)
        try:
            await site.start()
        except OSError as error:
            raise _tcp_error(error, settings.host, settings.port) from error
        self._url = _url(settings.host, runner.addresses[0][1])

    async def _listen_unix(self, runner: web.AppRunner, path: Path) -> None:
        try:
            listener = await asyncio.to_thread(_bind_unix, path)
        except OSError as error:
            raise ConfigError(ConfigReason.BAD_VALUE, f"api.socket: cannot listen at {path}: {error}") from error
        self._bound = path
        await web.SockSite(runner, listener, backlog=BACKLOG).start()


def _tcp_error(error: OSError, host: str, port: int) -> ApiError | ConfigError:
    if error.errno == errno.EADDRINUSE:
        return ApiError(ApiReason.PORT_IN_USE, f"api.port: another program listens on port {port} of {host}")
    if error.errno == errno.EACCES:
        return ConfigError(ConfigReason.BAD_VALUE, f"api.port: the service may not listen on port {port}")
    return ConfigError(ConfigReason.BAD_VALUE, f"api.host: cannot listen on {host!r}: {error}")


def _url(host: str, port: int) -> str:
    shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]", "": "127.0.0.1"}.get(host)
    return f"http://{shown or (f'[{host}]' if ':' in host else host)}:{port}/"


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
