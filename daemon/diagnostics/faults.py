"""Recent faults: what went wrong, how often, when first and last, and what to do. Survives restarts, bounded."""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from daemon.errors import InstrumentError

log = logging.getLogger(__name__)

MAX_FAULTS = 200
MAX_DETAIL_CHARS = 1000


@dataclass
class Fault:
    """Equal faults (code and detail) are one entry with a count. UTC values are labels, never compared."""

    code: str
    detail: str
    remedy: str
    count: int
    first_utc: str
    last_utc: str
    first_monotonic_s: float
    last_monotonic_s: float
    this_boot: bool = True
    """False for faults of an earlier start of the daemon, whose monotonic times cannot be compared."""


def faults_file(state_dir: Path) -> Path:
    """Where a daemon with this state directory keeps its recent faults."""
    return state_dir / "faults.jsonl"


def read_faults(state_dir: Path) -> list[dict[str, Any]]:
    """The faults on disk as plain rows, damaged lines left out. Blocking."""
    try:
        lines = faults_file(state_dir).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    rows = []
    for line in lines[-MAX_FAULTS:]:
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict):
            rows.append(row)
    return rows


class Faults:
    """The list. `record` is cheap and may be called from any thread; `load` and `persist` are blocking."""

    def __init__(self, state_dir: Path | None, on_fault: Callable[[str], None] = lambda code: None) -> None:
        self._state_dir = state_dir
        self._on_fault = on_fault
        self._faults: dict[tuple[str, str], Fault] = {}
        self._lock = threading.Lock()
        self._is_dirty = False

    def load(self) -> None:
        """Take over what an earlier start of the daemon left."""
        for row in read_faults(self._state_dir) if self._state_dir else []:
            try:
                fault = Fault(**{**row, "this_boot": False})
                key = (str(fault.code), str(fault.detail))
            except TypeError:  # written by another version
                continue
            with self._lock:
                self._faults.setdefault(key, fault)

    def record(self, error: InstrumentError) -> None:
        """Note an error of the instrument."""
        self.note(error.code, error.detail, error.remedy)

    def note(self, code: str, detail: str, remedy: str = "") -> None:
        """Note a fault; the first of its kind is logged, all are counted."""
        detail = detail[:MAX_DETAIL_CHARS]
        now_s, now_utc = time.monotonic(), datetime.now(UTC).isoformat(timespec="milliseconds")
        with self._lock:
            known = self._faults.pop((code, detail), None)
            is_new = known is None or not known.this_boot
            if known is None:
                known = Fault(code, detail, remedy, 0, now_utc, now_utc, now_s, now_s)
            known.count += 1
            known.last_utc, known.last_monotonic_s, known.this_boot = now_utc, now_s, True
            self._faults[code, detail] = known  # newest last
            while len(self._faults) > MAX_FAULTS:
                del self._faults[next(iter(self._faults))]
            self._is_dirty = True
        self._on_fault(code)
        if is_new:
            log.warning("%s: %s. %s", code, detail.rstrip("."), remedy)

    def recent(self, limit: int = MAX_FAULTS) -> list[dict[str, Any]]:
        """Newest first, as plain values."""
        with self._lock:
            return [asdict(fault) for fault in list(self._faults.values())[: -limit - 1 : -1]]

    def persist(self) -> None:
        """Write the list if it changed; a full disk is logged, not raised. Blocking, one thread at a time."""
        if self._state_dir is None or not self._is_dirty:
            return
        with self._lock:
            rows = [asdict(fault) for fault in self._faults.values()]
            self._is_dirty = False
        path = faults_file(self._state_dir)
        new = path.with_suffix(".new")
        try:
            new.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
            os.replace(new, path)
        except OSError as error:
            self._is_dirty = True
            log.warning("recent faults cannot be written to %s: %s", path, error.strerror)
