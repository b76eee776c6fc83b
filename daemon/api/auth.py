"""Who may ask for what: bearer tokens with scopes, trusted peers, and protection from foreign web pages."""

from __future__ import annotations

import hmac
import ipaddress
import logging
import os
import socket
import struct
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from aiohttp import web

from daemon.config import ApiSettings, Scope
from daemon.errors import ApiError, ApiReason, ConfigError, ConfigReason, TokenError, TokenReason
from daemon.tokens import StoredToken, read_tokens

log = logging.getLogger(__name__)

Kind = Literal["missing", "malformed", "unknown", "expired", "proxied", "remote"]
LEVELS: dict[Scope, int] = {"read": 1, "operate": 2, "admin": 3}
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
PROXY_HEADERS = ("Forwarded", "Via", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Real-IP")
"""Never believed: whoever connects can write them. They only tell that a request is not from this machine itself."""


@dataclass(frozen=True)
class Actor:
    """Who asks, for the audit, and how much they may."""

    name: str
    level: int

    def may(self, scope: Scope) -> bool:
        """Whether the actor has the scope."""
        return self.level >= LEVELS[scope]

    def require(self, scope: Scope) -> None:
        """Raises `ApiError` (FORBIDDEN) unless the actor has the scope."""
        if not self.may(scope):
            raise ApiError(ApiReason.FORBIDDEN, f"this needs the scope '{scope}', which {self.name} does not have")


@lru_cache(maxsize=256)
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


class UnauthorisedError(ApiError):
    """Nobody who is let in; `kind` is for counting, `guessed` whether a secret was offered."""

    def __init__(self, kind: Kind, detail: str) -> None:
        super().__init__(ApiReason.UNAUTHORISED, detail)
        self.kind = kind

    @property
    def guessed(self) -> bool:
        """A blank credential is no attempt: a client that forgot its token must not use up another's."""
        return self.kind in ("unknown", "expired")


class MadeTokens:
    """The tokens of `photometryctl token`, as their file is now. `refresh` blocks; the rest is at hand."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._mark: tuple[int, ...] = ()
        self._tokens: list[tuple[bytes, StoredToken]] = []
        self.present = False
        """Whether there was a file in the life of this process: one that vanishes opens nothing."""
        self.problem: TokenError | None = None
        """Why the file lets nobody in."""

    def refresh(self) -> None:
        """Read the file when it changed. One that is damaged lets nobody in, and never counts as none."""
        try:
            found = os.stat(self._path)
            mark = (found.st_mtime_ns, found.st_ino, found.st_size)
            if mark == self._mark:
                return
            tokens = [(bytes.fromhex(token.sha256), token) for token in read_tokens(self._path)]
        except FileNotFoundError:
            self._tokens, self._mark, self.problem = [], (), None
            return
        except OSError as error:
            self._fail(TokenError(TokenReason.DAMAGED, f"'{self._path}' cannot be read: {error.strerror}"))
            return
        except TokenError as error:
            self._fail(error)
            return
        self._tokens, self._mark, self.problem, self.present = tokens, mark, None, True

    def _fail(self, error: TokenError) -> None:
        if str(error) != str(self.problem):
            log.error("%s", error)
        self._tokens, self._mark, self.problem, self.present = [], (), error, True

    def holder(self, digest: bytes) -> StoredToken | None:
        """Whose secret has this SHA-256."""
        found = None
        for known, token in self._tokens:  # all of them, so that the time tells nothing
            if hmac.compare_digest(known, digest):
                found = token
        return found


class Gate:
    """Decides on every request. Scopes include each other: admin > operate > read."""

    def __init__(self, settings: ApiSettings, made: MadeTokens | None = None) -> None:
        self._host = settings.host
        self._configured = [
            (bytes.fromhex(token.digest), Actor(f"token:{token.name}", _level(token.scopes)))
            for token in settings.tokens
        ]
        self.made = made

    @property
    def asks_for_tokens(self) -> bool:
        """Whether requests over TCP need a token."""
        return bool(self._configured) or (self.made is not None and self.made.present)

    def check_settings(self) -> None:
        """Raises `ConfigError` when the API would be open to the network."""
        if not self.asks_for_tokens and not is_loopback(self._host):
            raise ConfigError(
                ConfigReason.BAD_VALUE,
                f"api.host: {self._host!r} can be reached from other machines, so api.tokens must list at least one",
            )

    def admit(self, request: web.Request) -> Actor:
        """The actor behind a request. Raises `UnauthorisedError`, or `TokenError` while tokens cannot be read."""
        connection = _socket_of(request)
        if connection is not None and connection.family == socket.AF_UNIX:
            return Actor(f"unix:uid={_peer_uid(connection)}", LEVELS["admin"])
        if self.asks_for_tokens:
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
        host = _host_asked(request)
        if host and not self.asks_for_tokens and is_loopback(self._host) and not self._is_own_name(host, request):
            raise ApiError(ApiReason.CROSS_SITE, f"the request was sent to the host name {host[:100]!r}")
        if request.method not in SAFE_METHODS:
            _check_origin(request)

    def _is_own_name(self, host: str, request: web.Request) -> bool:
        connection = _socket_of(request)
        over_unix = connection is not None and connection.family == socket.AF_UNIX
        return over_unix or is_loopback(host) or host == self._host.lower()

    def _by_token(self, headers: list[str]) -> Actor:
        scheme, _, secret = (headers[0] if headers else "").partition(" ")
        if not headers or not secret.strip():
            raise UnauthorisedError("missing", "the request carries no token")
        if len(headers) > 1 or scheme.lower() != "bearer":
            raise UnauthorisedError("malformed", "the Authorization header is not 'Bearer <token>'")
        digest = sha256(secret.strip().encode("utf-8", "surrogateescape")).digest()
        found = None
        for known, actor in self._configured:
            if hmac.compare_digest(known, digest):
                found = actor
        return found or self._by_made_token(digest)

    def _by_made_token(self, digest: bytes) -> Actor:
        token = None if self.made is None else self.made.holder(digest)
        if token is None:
            if self.made is not None and self.made.problem is not None:
                raise self.made.problem
            raise UnauthorisedError("unknown", "the token is not known")
        if problem := token.expiry_problem(datetime.now(UTC)):
            raise UnauthorisedError("expired", problem)
        return Actor(f"token:{token.name}", LEVELS[token.scope])

    def _require_local(self, request: web.Request) -> None:
        proxied = next((name for name in PROXY_HEADERS if name in request.headers), None)
        if proxied:
            raise UnauthorisedError(
                "proxied", f"the request came through a proxy ({proxied}), which needs tokens: 'photometryctl token'"
            )
        if not is_loopback(request.remote or ""):
            raise UnauthorisedError("remote", "without tokens only this machine may ask")


GATE = web.AppKey("gate", Gate)


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


def _host_asked(request: web.Request) -> str:
    """Of the target when that names one, else of the Host header (RFC 9112, 3.2.2)."""
    target = request.raw_path
    if target.startswith("/") or "://" not in target:
        return _host_name(request.headers.get("Host", ""))
    return _host_name(target.partition("://")[2].partition("/")[0])


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
