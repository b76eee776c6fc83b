"""Reading the log for `GET /logs`: the ring in memory, the file for what is older, and following."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from daemon.diagnostics.logs import LogRing, log_files

MAX_ENTRIES = 5000
TAIL_BYTES = 2_000_000  # of each file: a request never reads more
POLL_S = 0.25  # a person follows; nobody notices
IDLE_S = 15.0  # between empty batches, so that dead connections are noticed


class LogReader:
    """Answers ``GET /logs?since=&level=&follow=``."""

    def __init__(self, ring: LogRing, state_dir: Path | None) -> None:
        self._ring = ring
        self._state_dir = state_dir

    def __call__(
        self, *, since_utc: datetime | None, level: str, follow: bool
    ) -> list[dict[str, Any]] | AsyncIterator[list[dict[str, Any]]]:
        """Entries at `level` or above since `since_utc`, newest last.

        A list of at most `MAX_ENTRIES` (blocking), or with `follow` an iterator of batches for ever, beginning with
        what the ring holds since `since_utc` (with None: only what comes).
        """
        number = logging.getLevelNamesMapping()[level.upper()]
        return self._follow(since_utc, number) if follow else self._read(since_utc, number)

    def _read(self, since_utc: datetime | None, number: int) -> list[dict[str, Any]]:
        since_s = since_utc.timestamp() if since_utc else 0.0
        recent = [entry for entry in self._ring.after(0, number) if entry.created_s >= since_s]
        oldest_utc = self._ring.after(0)[0].fields["utc"] if self._ring.last_seq else None
        older = [] if self._state_dir is None else list(self._older(since_s, number, oldest_utc))
        return [*older, *(entry.fields for entry in recent)][-MAX_ENTRIES:]

    def _older(self, since_s: float, number: int, before_utc: str | None) -> Iterator[dict[str, Any]]:
        assert self._state_dir is not None
        levels = logging.getLevelNamesMapping()
        for fields in read_log_files(self._state_dir):
            if before_utc is not None and str(fields.get("utc")) >= before_utc:
                return
            if levels.get(str(fields.get("level")).upper(), 0) >= number and _created_s(fields) >= since_s:
                yield fields

    async def _follow(self, since_utc: datetime | None, number: int) -> AsyncIterator[list[dict[str, Any]]]:
        seq = self._ring.last_seq
        if since_utc is not None:
            since_s = since_utc.timestamp()
            yield [
                entry.fields for entry in self._ring.after(0, number) if entry.seq <= seq and entry.created_s >= since_s
            ]
        quiet_since_s = time.monotonic()
        while True:
            await asyncio.sleep(POLL_S)
            newest = self._ring.last_seq
            batch = [entry.fields for entry in self._ring.after(seq, number) if entry.seq <= newest]
            seq = newest
            if batch or time.monotonic() - quiet_since_s > IDLE_S:
                quiet_since_s = time.monotonic()
                yield batch


def read_log_files(state_dir: Path) -> Iterator[dict[str, Any]]:
    """Entries of the log files, oldest first; the tail of each, lines that are damaged left out. Blocking."""
    for path in reversed(log_files(state_dir)):
        for line in _tail(path).splitlines():
            try:
                fields = json.loads(line)
            except ValueError:
                continue
            if isinstance(fields, dict):
                yield fields


def _tail(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            start = max(0, path.stat().st_size - TAIL_BYTES)
            file.seek(start)
            raw = file.read()
    except OSError:
        return b""
    return raw.partition(b"\n")[2] if start else raw


def _created_s(fields: dict[str, Any]) -> float:
    try:
        return datetime.fromisoformat(str(fields["utc"])).timestamp()
    except (KeyError, ValueError):
        return 0.0
