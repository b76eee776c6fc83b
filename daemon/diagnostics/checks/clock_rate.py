"""Does the clock that measures intervals run at the right rate?"""

from __future__ import annotations

import time
from collections.abc import Callable

from daemon.diagnostics.checks.base import Check, CheckResult

LIMIT_PPM = 200.0  # a quartz keeps 100 ppm over its temperatures, and NTP corrects 500 at most
LEAST_UPTIME_S = 600.0  # the kernel's readings differ by microseconds: 0.01 ppm of ten minutes


class ClockRate(Check):
    """How much the time server has to correct the machine's quartz: the monotonic clock against the raw one."""

    name = "clock_rate"
    remedy = "Intervals are corrected all the same. A quartz this far off is ageing or too hot: have the board checked."
    surroundings = True

    def __init__(
        self,
        monotonic_s: Callable[[], float] = time.monotonic,
        raw_s: Callable[[], float] = lambda: time.clock_gettime(time.CLOCK_MONOTONIC_RAW),
    ) -> None:
        self._monotonic_s = monotonic_s
        self._raw_s = raw_s

    def run(self) -> CheckResult:
        limit = f"at most {LIMIT_PPM:g} ppm, the mean since the machine was started"
        raw_s = self._raw_s()
        corrected_s = self._monotonic_s() - raw_s
        if raw_s < LEAST_UPTIME_S:
            return self.not_applicable(f"the machine has run for {raw_s:.0f} s, too short to tell")
        ppm = 1e6 * corrected_s / raw_s
        return self.result("pass" if abs(ppm) <= LIMIT_PPM else "warn", f"{ppm:+.1f} ppm", limit)
