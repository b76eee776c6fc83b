"""Can results be written and made durable?"""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path

from daemon.diagnostics.checks.base import Check, CheckResult

SLOW_SYNC_S = 1.0  # results are committed once a second


class StateDirectory(Check):
    """Writes, syncs and removes a small file in the state directory."""

    name = "state_directory"
    remedy = "Make the state directory writable for the service's user, and check the health of its disk."

    def __init__(self, state_dir: Path) -> None:
        self._state_dir = state_dir

    def run(self) -> CheckResult:
        limit = f"a file written and synced in {self._state_dir} within {SLOW_SYNC_S:g} s"
        began_s = time.monotonic()
        try:
            with tempfile.NamedTemporaryFile(dir=self._state_dir, prefix=".selftest-") as file:
                file.write(b"photometryd")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            return self.result("fail", f"{error.strerror} ({self._state_dir})", limit)
        took_s = time.monotonic() - began_s
        return self.result("pass" if took_s <= SLOW_SYNC_S else "warn", f"{took_s * 1e3:.1f} ms", limit)
