"""Does the wall clock follow a time server?"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

from daemon.diagnostics.checks.base import Check, CheckResult

TIMESYNCD = Path("/run/systemd/timesync/synchronized")
TIME_ERROR = 5  # return value of adjtimex(2): not synchronised
TIMEX_BYTES = 256  # struct timex is 208 bytes; zero means: read only


def is_synchronised(timesyncd: Path = TIMESYNCD) -> bool | None:
    """Whether the clock is synchronised, None where the system does not tell (containers, hardened units)."""
    if timesyncd.exists():
        return True
    libc = ctypes.CDLL(None, use_errno=True)
    state = libc.adjtimex(ctypes.create_string_buffer(TIMEX_BYTES))
    if state < 0:
        return None
    return bool(state != TIME_ERROR)


class Clock(Check):
    """Whether the wall clock follows a time server: labels in results need a right one, intervals do not."""

    name = "clock"
    remedy = (
        "Give the machine a time server (timedatectl set-ntp true). Results stay valid: each row can be dated again."
    )
    surroundings = True

    def __init__(self, timesyncd: Path = TIMESYNCD) -> None:
        self._timesyncd = timesyncd

    def run(self) -> CheckResult:
        synchronised = is_synchronised(self._timesyncd)
        if synchronised is None:
            return self.result("warn", f"not known ({os.strerror(ctypes.get_errno())})", "synchronised")
        return self.result(
            *(("pass", "synchronised") if synchronised else ("warn", "not synchronised")), "synchronised"
        )
