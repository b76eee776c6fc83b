"""The diagnostics bundle: one tar.gz with everything a support engineer asks for. Works with the daemon dead.

Every file is listed in ``manifest.json`` with its size, its SHA-256 and why it is there; what could not be had is
listed with the reason. Secrets are taken out.
"""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import sqlite3
import subprocess
import tarfile
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import psutil

from daemon.diagnostics import evidence
from daemon.diagnostics.faults import faults_file
from daemon.diagnostics.logs import log_files
from daemon.diagnostics.redact import redacted, redacted_value, secrets_in
from daemon.errors import StoreError, StoreReason

ROOT = "photometryd-bundle"
MAX_BYTES = 30_000_000  # of all files together; fits a mail once compressed
JOURNAL = ["journalctl", "-u", "photometryd", "-n", "5000", "-o", "short-iso-precise", "--no-pager"]
DMESG = ["dmesg", "--ctime"]
ABSENT = (OSError, ValueError, subprocess.SubprocessError, sqlite3.Error, psutil.Error)
"""What gathering may raise of its environment."""


@dataclass
class _Bundle:
    """Files collected so far, within the size cap."""

    secrets: list[str]
    files: dict[str, bytes] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    missing: list[dict[str, str]] = field(default_factory=list)

    def add(self, name: str, why: str, content: Callable[[], Any]) -> None:
        """Add a file: text as it is, rows as JSON lines, other values as JSON. What is absent is listed as missing."""
        try:
            raw = _encoded(content(), self.secrets)
        except ABSENT as error:
            self._miss(name, why, f"{type(error).__name__}: {error}")
            return
        if len(raw) > MAX_BYTES - sum(map(len, self.files.values())):
            self._miss(name, why, f"{len(raw)} bytes do not fit: the bundle is limited to {MAX_BYTES}")
            return
        self.files[name] = raw
        self.reasons[name] = why

    def _miss(self, name: str, why: str, reason: str) -> None:
        self.missing.append({"file": name, "why": why, "reason": redacted(reason, self.secrets)})

    def manifest(self) -> bytes:
        """The list of everything."""
        entries = [
            {"file": name, "bytes": len(raw), "sha256": hashlib.sha256(raw).hexdigest(), "why": self.reasons[name]}
            for name, raw in self.files.items()
        ]
        made = datetime.now(UTC).isoformat(timespec="seconds")
        return _json({"made_utc": made, "files": entries, "missing": self.missing})


def write_bundle(out: Path, *, config_path: Path | None, state_dir: Path, status: dict[str, Any] | None = None) -> None:
    """Write the bundle to `out`, whole or not at all; readable by its owner only. Blocking, up to half a minute.

    `status` is the reply of ``GET /status`` when the daemon answers. Raises `StoreError` when `out` cannot be written.
    """
    bundle = _collect(config_path, state_dir, status)
    try:
        _write(out, bundle)
    except OSError as error:
        reason = StoreReason.DISK_FULL if error.errno == errno.ENOSPC else StoreReason.NOT_WRITABLE
        raise StoreError(reason, f"the bundle cannot be written to {out}: {error.strerror}") from None


def _collect(config_path: Path | None, state_dir: Path, status: dict[str, Any] | None) -> _Bundle:
    bundle = _Bundle(_secrets(config_path))
    bundle.add("status.json", "what the daemon says of itself", lambda: _present(status, "the daemon did not answer"))
    bundle.add("config.toml", "the settings, without secrets", lambda: evidence.tail(_settings_file(config_path)))
    bundle.add("versions.json", "software and system", evidence.versions)
    bundle.add(
        "faults.jsonl", "recent faults with counts and remedies", lambda: evidence.json_lines(faults_file(state_dir))
    )
    bundle.add("selftest.json", "checks of this machine", lambda: evidence.selftest(state_dir))
    bundle.add("machine.json", "memory, load, disk, clocks", lambda: evidence.machine(state_dir))
    bundle.add("state-directory.txt", "which files there are, and their sizes", lambda: evidence.listing(state_dir))
    bundle.add("usb.txt", "USB devices as the kernel sees them", evidence.usb_devices)
    bundle.add("journal.txt", "what systemd recorded of the service", lambda: evidence.output(JOURNAL))
    bundle.add("dmesg.txt", "kernel messages: USB resets, disk faults, memory", lambda: evidence.output(DMESG))
    for number, path in enumerate(log_files(state_dir)):
        if number == 0 or path.exists():  # rotated ones need not be there
            bundle.add(f"logs/{path.name}", "the daemon's own log", partial(evidence.json_lines, path))
    return bundle


def _write(out: Path, bundle: _Bundle) -> None:
    handle, name = tempfile.mkstemp(prefix=f".{out.name}.", dir=out.parent)  # mode 0600
    try:
        with os.fdopen(handle, "wb") as file:
            with tarfile.open(fileobj=file, mode="w:gz") as archive:
                for inner, raw in [("manifest.json", bundle.manifest()), *bundle.files.items()]:
                    entry = tarfile.TarInfo(f"{ROOT}/{inner}")
                    entry.size, entry.mode = len(raw), 0o600
                    entry.mtime = int(datetime.now(UTC).timestamp())
                    archive.addfile(entry, io.BytesIO(raw))
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, out)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _settings_file(config_path: Path | None) -> Path:
    return Path(_present(config_path, "no settings file is in use"))


def _present(value: Any, otherwise: str) -> Any:
    if value is None:
        raise ValueError(otherwise)
    return value


def _secrets(config_path: Path | None) -> list[str]:
    try:
        return secrets_in(evidence.tail(_settings_file(config_path)))
    except ABSENT:
        return []


def _encoded(content: Any, secrets: list[str]) -> bytes:
    if isinstance(content, str):
        return redacted(content, secrets).encode("utf-8", "replace")
    clean = redacted_value(content, secrets)
    if isinstance(clean, list):
        return b"".join(json.dumps(row, default=str).encode() + b"\n" for row in clean)
    return _json(clean)


def _json(value: Any) -> bytes:
    return json.dumps(value, indent=1, default=str).encode() + b"\n"
