"""Is there room for results?"""

from __future__ import annotations

import shutil
from pathlib import Path

from daemon.diagnostics.checks.base import Check, CheckResult

COMFORT = 5  # times the least: warn before runs are refused


class FreeSpace(Check):
    """Free space of the state directory's file system against `store.min_free_mb`."""

    name = "free_space"
    remedy = "Export and remove old runs, or choose a larger disk for the state directory."
    surroundings = True

    def __init__(self, state_dir: Path, min_free_mb: int) -> None:
        self._state_dir = state_dir
        self._min_free_mb = min_free_mb

    def run(self) -> CheckResult:
        limit = f"at least {self._min_free_mb} MB free, better {COMFORT * self._min_free_mb} MB"
        try:
            free_mb = shutil.disk_usage(self._state_dir).free / 1e6
        except OSError as error:
            return self.result("fail", f"{error.strerror} ({self._state_dir})", limit)
        measured = f"{free_mb:.0f} MB"
        if free_mb < self._min_free_mb:
            return self.result("fail", measured, limit)
        return self.result("pass" if free_mb >= COMFORT * self._min_free_mb else "warn", measured, limit)
