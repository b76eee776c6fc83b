"""A tar.gz of evidence: every file listed with its hash and why, what could not be had with the reason, no secrets."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import logging
import os
import tarfile
import tempfile
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from daemon.diagnostics.redact import redacted, redacted_value
from daemon.errors import StoreError, StoreReason

log = logging.getLogger(__name__)


class Archive:
    """Files collected so far, within a cap on their sum. Blocking."""

    def __init__(self, secrets: Iterable[str], max_bytes: int) -> None:
        self._secrets = list(secrets)
        self._max_bytes = max_bytes
        self._files: dict[str, bytes] = {}
        self._reasons: dict[str, str] = {}
        self._missing: list[dict[str, str]] = []

    def add(self, name: str, why: str, content: Callable[[], Any]) -> None:
        """Add a file: bytes and text as they are, rows as JSON lines, other values as JSON.

        What `content` raises is why the file is missing: evidence is wanted most where things are broken.
        """
        try:
            raw = _encoded(content(), self._secrets)
        except Exception as error:
            log.debug("evidence '%s' cannot be had", name, exc_info=True)
            self._miss(name, why, f"{type(error).__name__}: {error}")
            return
        if len(raw) > self._max_bytes - sum(map(len, self._files.values())):
            self._miss(name, why, f"{len(raw)} bytes do not fit: all files together are limited to {self._max_bytes}")
            return
        self._files[name] = raw
        self._reasons[name] = why

    def _miss(self, name: str, why: str, reason: str) -> None:
        self._missing.append({"file": name, "why": why, "reason": redacted(reason, self._secrets)})

    def manifest(self) -> bytes:
        """The list of everything."""
        entries = [
            {"file": name, "bytes": len(raw), "sha256": hashlib.sha256(raw).hexdigest(), "why": self._reasons[name]}
            for name, raw in self._files.items()
        ]
        made = datetime.now(UTC).isoformat(timespec="seconds")
        return _json({"made_utc": made, "files": entries, "missing": self._missing})

    def write(self, out: Path, root: str) -> None:
        """Write it below the folder `root`, whole or not at all; readable by its owner only. Raises `StoreError`."""
        try:
            self._write(out, root)
        except OSError as error:
            reason = StoreReason.DISK_FULL if error.errno == errno.ENOSPC else StoreReason.NOT_WRITABLE
            raise StoreError(reason, f"{root} cannot be written to {out}: {error.strerror}") from None

    def _write(self, out: Path, root: str) -> None:
        handle, name = tempfile.mkstemp(prefix=f".{out.name}.", dir=out.parent)  # mode 0600
        try:
            with os.fdopen(handle, "wb") as file:
                with tarfile.open(fileobj=file, mode="w:gz") as archive:
                    for inner, raw in [("manifest.json", self.manifest()), *self._files.items()]:
                        entry = tarfile.TarInfo(f"{root}/{inner}")
                        entry.size, entry.mode = len(raw), 0o600
                        entry.mtime = int(datetime.now(UTC).timestamp())
                        archive.addfile(entry, io.BytesIO(raw))
                file.flush()
                os.fsync(file.fileno())
            os.replace(name, out)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise


def _encoded(content: Any, secrets: list[str]) -> bytes:
    if isinstance(content, bytes):
        return content
    if isinstance(content, str):
        return redacted(content, secrets).encode("utf-8", "replace")
    clean = redacted_value(content, secrets)
    if isinstance(clean, list):
        return b"".join(json.dumps(row, default=str).encode() + b"\n" for row in clean)
    return _json(clean)


def _json(value: Any) -> bytes:
    return json.dumps(value, indent=1, default=str).encode() + b"\n"
