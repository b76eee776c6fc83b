"""Tokens made by `photometryctl token`: their hashes in one file beside the state, replaced as a whole.

A token is 256 random bits, so one SHA-256 is enough: a slow hash protects what people choose and dictionaries hold, and
would only let strangers spend the instrument's processor time.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from daemon.config import TOKEN_FILE, Scope
from daemon.errors import TokenError, TokenReason

PREFIX = "ph_"  # finds a leaked one in a log or a repository
MODE = 0o640
MAX_TOKENS = 1000
MAX_BYTES = 1 << 20
LOCK_DEADLINE_S = 5.0  # another command holds it for milliseconds
CLOCK_SLACK = timedelta(hours=1)

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.@-]{0,99}$")]


class StoredToken(BaseModel):
    """One token as it is kept: never the secret itself."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Name
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    scope: Scope
    created_utc: Annotated[datetime, Field(strict=False)]
    expires_utc: Annotated[datetime | None, Field(strict=False)] = None

    def expiry_problem(self, now: datetime) -> str:
        """Why it is not valid at `now` of the wall clock; empty when it is.

        A clock that reads earlier than the token's making is wrong, and must not bring an expired one back to life.
        """
        if self.expires_utc is None:
            return ""
        if now < self.created_utc - CLOCK_SLACK:
            return f"the instrument's clock reads {now:%Y-%m-%d}, before the token was made: it cannot tell its expiry"
        if now >= self.expires_utc:
            return f"the token expired at {self.expires_utc.isoformat(timespec='seconds')}"
        return ""


class _TokenFile(BaseModel):
    model_config = ConfigDict(extra="forbid")

    version: Literal[1]
    tokens: Annotated[list[StoredToken], Field(max_length=MAX_TOKENS)]


def digest_of(secret: str) -> str:
    """SHA-256 of a secret, in hex."""
    return sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()


def read_tokens(path: Path) -> list[StoredToken]:
    """What the file holds. Raises `FileNotFoundError` without one, `TokenError` (DAMAGED) when it makes no sense.

    Blocking.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise TokenError(TokenReason.DAMAGED, f"'{path}' cannot be read: {error.strerror or error}") from error
    if len(raw) > MAX_BYTES:
        raise TokenError(TokenReason.DAMAGED, f"'{path}' is larger than {MAX_BYTES} bytes")
    try:
        tokens = _TokenFile.model_validate_json(raw).tokens
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"])) or "the file"
        raise TokenError(TokenReason.DAMAGED, f"'{path}': {place}: {first['msg'][:200]}") from None
    if len({token.name for token in tokens}) < len(tokens):
        raise TokenError(TokenReason.DAMAGED, f"'{path}' has two tokens of one name")
    if any(when is not None and when.tzinfo is None for t in tokens for when in (t.created_utc, t.expires_utc)):
        raise TokenError(TokenReason.DAMAGED, f"'{path}' has a time without its offset from UTC")
    return tokens


class TokenFile:
    """The file of a state directory as the operator's tool changes it. Blocking; raises `TokenError`, `OSError`."""

    def __init__(self, state_dir: Path) -> None:
        self._state_dir = state_dir
        self.path = state_dir / TOKEN_FILE

    def tokens(self) -> list[StoredToken]:
        """In the order they were made; none without a file."""
        try:
            return read_tokens(self.path)
        except FileNotFoundError:
            return []

    def create(self, name: str, scope: Scope, lifetime: timedelta | None = None) -> tuple[StoredToken, str]:
        """Add a token; it and its secret, which is kept nowhere."""
        secret = PREFIX + secrets.token_urlsafe(32)
        now = datetime.now(UTC).replace(microsecond=0)
        expires = None if lifetime is None else now + lifetime
        try:
            made = StoredToken(
                name=name, sha256=digest_of(secret), scope=scope, created_utc=now, expires_utc=expires
            )  # fmt: skip
        except ValidationError:
            detail = f"'{name[:100]}' cannot name a token: letters, digits and . _ @ - only, at most 100"
            raise TokenError(TokenReason.BAD_NAME, detail) from None
        with self._locked():
            tokens = self.tokens()
            if any(token.name == name for token in tokens):
                raise TokenError(TokenReason.EXISTS, f"there is a token '{name}' already")
            if len(tokens) >= MAX_TOKENS:
                raise TokenError(TokenReason.TOO_MANY, f"there are {len(tokens)} tokens")
            self._replace([*tokens, made])
        return made, secret

    def revoke(self, name: str) -> StoredToken:
        """Take one out; the file stays when it was the last, so that requests go on needing tokens."""
        with self._locked():
            tokens = self.tokens()
            gone = next((token for token in tokens if token.name == name), None)
            if gone is None:
                raise TokenError(TokenReason.NOT_FOUND, f"there is no token '{name[:100]}'")
            self._replace([token for token in tokens if token is not gone])
        return gone

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """One command at a time: a lock on the directory, which leaves no file behind."""
        handle = os.open(self._state_dir, os.O_RDONLY | os.O_DIRECTORY)
        try:
            deadline_s = time.monotonic() + LOCK_DEADLINE_S
            while True:
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > deadline_s:
                        raise TokenError(TokenReason.BUSY, f"another command is changing '{self.path}'") from None
                    time.sleep(0.02)
            yield
        finally:
            os.close(handle)

    def _replace(self, tokens: list[StoredToken]) -> None:
        """Old or new, whole, whatever happens; readable by the owner of the directory, who is the service's user."""
        body = _TokenFile(version=1, tokens=tokens).model_dump(mode="json")
        fresh = self.path.with_name(f".{TOKEN_FILE}.{os.getpid()}")
        owner = self._state_dir.stat()
        handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        try:
            with os.fdopen(handle, "wb") as file:
                os.fchmod(file.fileno(), MODE)
                if os.geteuid() == 0:
                    os.fchown(file.fileno(), owner.st_uid, owner.st_gid)
                file.write(json.dumps(body, indent=1).encode() + b"\n")
                file.flush()
                os.fsync(file.fileno())
            os.replace(fresh, self.path)
        except BaseException:
            with suppress(OSError):
                fresh.unlink()
            raise
        directory = os.open(self._state_dir, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
