"""Was the wall clock set while the service ran?"""

from __future__ import annotations

from collections.abc import Callable

from daemon.diagnostics.checks.base import Check, CheckResult


class ClockSteps(Check):
    """Steps of the wall clock against the monotonic one since the service started.

    `steps()` is (how many, their sum in s).
    """

    name = "clock_steps"
    remedy = (
        "Give the machine a time server and a battery for its real-time clock. Run times are not affected; "
        "events of kind `clock_step` date the rows again."
    )
    surroundings = True

    def __init__(self, steps: Callable[[], tuple[int, float]]) -> None:
        self._steps = steps

    def run(self) -> CheckResult:
        count, moved_s = self._steps()
        measured = f"{count} steps, {moved_s:+.3f} s in all"
        return self.result("warn" if count else "pass", measured, "no step since the start of the service")
