"""Is the processor slowed down, or its supply too weak?"""

from __future__ import annotations

from pathlib import Path

from daemon.diagnostics.checks.base import Check, CheckResult
from daemon.diagnostics.checks.sysfs import number

SYS = Path("/sys")
NOW = {0: "the supply is below 4.63 V", 1: "the clock is capped", 2: "throttled", 3: "at the soft temperature limit"}
SINCE_START = 16  # the same bits, shifted: it has happened since the board was started
UNDERVOLTAGE = 1


class Throttling(Check):
    """Throttling by heat (x86 counters) or by a weak supply (Raspberry Pi), now or since the machine was started."""

    name = "throttling"
    remedy = "Undervoltage: a stronger supply and a short, thick cable. Heat: see `temperature`."
    surroundings = True

    def __init__(self, sys: Path = SYS) -> None:
        self._sys = sys

    def run(self) -> CheckResult:
        # bits as `vcgencmd get_throttled` documents them
        board = number(self._sys / "devices/platform/soc/soc:firmware/get_throttled", 16)
        if board is not None:
            return self._of_board(board)
        cpus = self._sys / "devices/system/cpu"
        counts = [number(path) for path in cpus.glob("cpu[0-9]*/thermal_throttle/*_throttle_count")]
        known = [count for count in counts if count is not None]
        if not known:
            return self.not_applicable("this machine does not count it")
        return self.result(
            "warn" if any(known) else "pass", f"{max(known)} times since the machine was started", "never"
        )

    def _of_board(self, bits: int) -> CheckResult:
        now = [told for bit, told in NOW.items() if bits >> bit & 1]
        before = [told for bit, told in NOW.items() if bits >> (bit + SINCE_START) & 1 and told not in now]
        if not now and not before:
            return self.result("pass", "never since the board was started", "never")
        measured = f"now: {', '.join(now) or 'no'}; since the board was started: {', '.join(now + before)}"
        return self.result("fail" if bits & UNDERVOLTAGE else "warn", measured, "never")
