"""Is this SQLite one that two writers at once can corrupt?"""

from __future__ import annotations

import sqlite3

from daemon.diagnostics.checks.base import Check, CheckResult

Version = tuple[int, int, int]

FIRST_AFFECTED: Version = (3, 7, 0)
FIXED: Version = (3, 51, 3)
BACK_PORTS: tuple[Version, ...] = ((3, 44, 6), (3, 50, 7))
"""Releases of older branches that carry the fix."""


def has_wal_reset_bug(version: Version) -> bool:
    """Whether `version` has the WAL-reset bug: writers or checkpoints of two connections at once can lose commits."""
    if not FIRST_AFFECTED <= version < FIXED:
        return False
    return not any(version[:2] == fixed[:2] and version >= fixed for fixed in BACK_PORTS)


class SqliteVersion(Check):
    """SQLite's version against those whose WAL-reset bug can lose commits of two writers at once."""

    name = "sqlite_version"
    remedy = (
        "The daemon is safe: only one connection writes. Let no other program write to its files; "
        "update SQLite when the system offers it."
    )

    def __init__(self, version: Version | None = None) -> None:
        self._version = version or sqlite3.sqlite_version_info[:3]

    def run(self) -> CheckResult:
        affected = has_wal_reset_bug(self._version)
        measured = ".".join(map(str, self._version)) + (", has the WAL-reset bug" if affected else "")
        return self.result("warn" if affected else "pass", measured, "3.51.3 or later, 3.50.7 or 3.44.6")
