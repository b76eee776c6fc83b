"""The disk below SQLite: full, failing or slow on order, and how much of it is free."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest import mock

from tests.scenarios.schedule import SCHEDULE

CHANGES = ("INSERT", "UPDATE", "DELETE", "COMMIT", "CREATE", "PRAGMA WAL_CHECKPOINT")
FAULTS = {
    "full": (sqlite3.SQLITE_FULL, "database or disk is full"),
    "io": (sqlite3.SQLITE_IOERR, "disk I/O error"),
}
PLENTY_MB = 50_000
SIZE_BYTES = 64_000_000_000


@dataclass
class Disk:
    """What is wrong with it, until when."""

    free_mb: int = PLENTY_MB
    filled_s: float = -1e18
    """When it was last filled."""
    fault: str = ""
    fault_until_s: float = 0.0
    slow_s: float = 0.0
    """What each commit takes while slow."""
    slow_until_s: float = 0.0
    last_failed_s: float = -1e18
    last_good_s: float = -1e18

    def change(self, sql: str) -> None:
        """Before a statement that writes. Raises what SQLite would."""
        if sql.startswith("COMMIT") and SCHEDULE.now_s < self.slow_until_s:
            SCHEDULE.wait(SCHEDULE.now_s + self.slow_s)
        if SCHEDULE.now_s < self.fault_until_s:
            self.last_failed_s = SCHEDULE.now_s
            code, text = FAULTS[self.fault]
            error = sqlite3.OperationalError(text)
            error.sqlite_errorcode = code
            raise error
        if sql.startswith("COMMIT"):
            self.last_good_s = SCHEDULE.now_s

    @property
    def failing(self) -> bool:
        """Whether writing fails now."""
        return SCHEDULE.now_s < self.fault_until_s


@contextmanager
def installed(disk: Disk) -> Iterator[None]:
    """Every connection opened inside the block writes to `disk`."""

    class Connection(sqlite3.Connection):
        def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
            _before(disk, sql)
            return super().execute(sql, *parameters)

        def executemany(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
            _before(disk, sql)
            return super().executemany(sql, *parameters)

    connect = sqlite3.connect

    def connected(database: Any, **options: Any) -> sqlite3.Connection:
        return connect(database, **options, factory=Connection)

    def usage(_: Any) -> Any:
        free = disk.free_mb * 1_000_000
        return shutil._ntuple_diskusage(SIZE_BYTES, SIZE_BYTES - free, free)  # type: ignore[attr-defined]

    with mock.patch.object(sqlite3, "connect", connected), mock.patch.object(shutil, "disk_usage", usage):
        yield


def _before(disk: Disk, sql: str) -> None:
    start = sql.lstrip()[:24].upper()
    if start.startswith(CHANGES):
        disk.change(start)
