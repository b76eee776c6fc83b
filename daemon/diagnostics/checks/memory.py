"""Does the service stay within its memory?"""

from __future__ import annotations

from collections.abc import Callable

import psutil

from daemon.diagnostics.checks.base import Check, CheckResult
from daemon.diagnostics.vitals import resident_bytes

LIMIT_MB = 600.0  # daemon and engine together at full load
MEASURING = ("daemon", "engine")
"""Reading has a process and memory of its own, for as long as somebody reads."""
LEAST_FREE_MB = 200.0  # below this the kernel is about to end processes


class Memory(Check):
    """Resident memory of daemon and engine, and what the machine has left."""

    name = "memory"
    remedy = (
        "Restart the service; if it grows again, make a bundle and report it. Stop other programs if memory is short."
    )

    def __init__(self, processes: Callable[[], dict[str, int]]) -> None:
        self._processes = processes

    def run(self) -> CheckResult:
        by_process = resident_bytes(self._processes())
        used_mb = sum(size for name, size in by_process.items() if name in MEASURING) / 1e6
        free_mb = psutil.virtual_memory().available / 1e6
        shares = ", ".join(f"{name} {size / 1e6:.0f} MB" for name, size in by_process.items())
        measured = f"{used_mb:.0f} MB resident ({shares}), {free_mb:.0f} MB available"
        limit = f"at most {LIMIT_MB:.0f} MB resident, at least {LEAST_FREE_MB:.0f} MB available"
        if free_mb < LEAST_FREE_MB:
            return self.result("fail", measured, limit)
        return self.result("pass" if used_mb <= LIMIT_MB else "warn", measured, limit)
