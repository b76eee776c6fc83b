"""Who may ask for what: bearer tokens with scopes, trusted peers, and protection from foreign web pages."""

from __future__ import annotations

import hmac
import ipaddress
import socket
import struct
from dataclasses import dataclass
from hashlib import sha256
from urllib.parse import urlsplit

from aiohttp import web

from daemon.config import ApiSettings, Scope
from daemon.errors import ApiError, ApiReason, ConfigError, ConfigReason

LEVELS: dict[Scope, int] = {"read": 1, "operate": 2, "admin": 3}
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
PROXY_HEADERS = ("Forwarded", "X-Forwarded-For", "X-Real-IP")


@dataclass(frozen=True)
class Actor:
    """Who asks, for the audit, and how much they may."""

    name: str
    level: int

    def require(self, scope: Scope) -> None:
        """Raises `ApiError` (FORBIDDEN) unless the actor has the scope."""
        if self.level < LEVELS[scope]:
            raise ApiError(ApiReason.FORBIDDEN, f"this needs the scope '{scope}', which {self.name} does not have")


def is_loopback(host: str) -> bool:
    """Whether a host name or address is this machine's own, seen from inside only."""
    if host.lower().rstrip(".") == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


class Gate:
    """Decides on every request. Scopes include each other: admin > operate > read."""

    def __init__(self, settings: ApiSettings) -> None:
        self._host = settings.host
        self._tokens = [
            (sha256(token.secret.encode()).digest(), Actor(f"token:{token.name}", _level(token.scopes)))
            for token in settings.tokens
        ]

    @property
    def asks_for_tokens(self) -> bool:
        """Whether requests over TCP need a token."""
        return bool(self._tokens)

    def check_settings(self) -> None:
        """Raises `ConfigError` when the API would be open to the network."""
        if not self._tokens and not is_loopback(self._host):
            raise ConfigError(
                ConfigReason.BAD_VALUE,
                f"api.host: {self._host!r} can be reached from other machines, so api.tokens must list at least one",
            )

    def admit(self, request: web.Request) -> Actor:
        """The actor behind a request. Raises `ApiError` (UNAUTHORISED)."""
        connection = _socket_of(request)
        if connection is not None and connection.family == socket.AF_UNIX:
            return Actor(f"unix:uid={_peer_uid(connection)}", LEVELS["admin"])
        if self._tokens:
            return self._by_token(request.headers.getall("Authorization", []))
        self._require_local(request)
        return Actor(f"local:{request.remote}", LEVELS["admin"])

    def anyone(self, request: web.Request) -> Actor:
        """The actor where no token is needed."""
        return Actor(f"anyone:{request.remote}", 0)

    def check_site(self, request: web.Request) -> None:
        """Refuse what a foreign web page makes a browser send. Raises `ApiError` (CROSS_SITE).

        Without tokens any page open in a local browser could act as the operator: a rebound DNS name shows in Host,
        a cross-site form or script in Origin.
        """
        host = _host_name(request.headers.get("Host", ""))
        if host and not self._tokens and is_loopback(self._host) and not self._is_own_name(host, request):
            raise ApiError(ApiReason.CROSS_SITE, f"the request was sent to the host name {host[:100]!r}")
        if request.method not in SAFE_METHODS:
            _check_origin(request)

    def _is_own_name(self, host: str, request: web.Request) -> bool:
        connection = _socket_of(request)
        over_unix = connection is not None and connection.family == socket.AF_UNIX
        return over_unix or is_loopback(host) or host == self._host.lower()

    def _by_token(self, headers: list[str]) -> Actor:
        if not headers:
            raise ApiError(ApiReason.UNAUTHORISED, "the request carries no token")
        scheme, _, secret = headers[0].partition(" ")
        if len(headers) > 1 or scheme.lower() != "bearer" or not secret.strip():
            raise ApiError(ApiReason.UNAUTHORISED, "the Authorization header is not 'Bearer <token>'")
        digest = sha256(secret.strip().encode("utf-8", "surrogateescape")).digest()
        found = None
        for known, actor in self._tokens:  # all of them, so that the time tells nothing
            if hmac.compare_digest(known, digest):
                found = actor
        if found is None:
            raise ApiError(ApiReason.UNAUTHORISED, "the token is not known")
        return found

    def _require_local(self, request: web.Request) -> None:
        proxied = next((name for name in PROXY_HEADERS if name in request.headers), None)
        if proxied:
            raise ApiError(
                ApiReason.UNAUTHORISED, f"the request came through a proxy ({proxied}); configure api.tokens for that"
            )
        if not is_loopback(request.remote or ""):
            raise ApiError(ApiReason.UNAUTHORISED, "without api.tokens only this machine may ask")


def _level(scopes: list[Scope]) -> int:
    return max((LEVELS[scope] for scope in scopes), default=0)


def _socket_of(request: web.Request) -> socket.socket | None:
    return None if request.transport is None else request.transport.get_extra_info("socket")


def _peer_uid(connection: socket.socket) -> int:
    """User id of the process at the other end of a Unix socket; -1 where the system does not tell."""
    if not hasattr(socket, "SO_PEERCRED"):
        return -1
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return int(struct.unpack("3i", credentials)[1])


def _host_name(netloc: str) -> str:
    """Host without port and brackets, lower case; an unreadable one is returned whole."""
    try:
        return (urlsplit(f"//{netloc}").hostname or "").lower()
    except ValueError:
        return netloc.lower()


def _check_origin(request: web.Request) -> None:
    origin = request.headers.get("Origin")
    if origin is None:
        if request.headers.get("Sec-Fetch-Site", "none") not in ("same-origin", "none"):
            raise ApiError(ApiReason.CROSS_SITE, "the request was sent by a page of another site")
        return
    own = _place(f"//{request.headers.get('Host', '')}")
    if own is None or _place(origin) != own:
        raise ApiError(ApiReason.CROSS_SITE, f"the request was sent by a page of {origin[:100]!r}")


def _place(url: str) -> tuple[str, int | None] | None:
    """Host and explicit port of a URL; default ports count as none."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return None
    if not parts.hostname:
        return None
    return parts.hostname.lower(), None if port in (80, 443) else port
