"""Do the devices deliver?"""

from __future__ import annotations

from collections.abc import Callable

from daemon.diagnostics.checks.base import Check, CheckResult


class Arrivals(Check):
    """The age of the newest delivery against a deadline; `age_s()` is None before the first.

    Without a deadline nothing is expected.
    """

    def __init__(self, age_s: Callable[[], float | None], deadline_s: float | None) -> None:
        self._age_s = age_s
        self._deadline_s = deadline_s

    def run(self) -> CheckResult:
        if self._deadline_s is None:
            return self.not_applicable("none is configured")
        limit = f"at most {self._deadline_s:g} s old"
        age_s = self._age_s()
        if age_s is None:
            return self.result("fail", "none since the start", limit)
        return self.result("pass" if age_s <= self._deadline_s else "fail", f"{age_s:.2f} s old", limit)


class CameraFrames(Arrivals):
    """Frames arrive from the camera, the newest within `camera.frame_deadline_s`."""

    name = "camera_frames"
    remedy = "See the camera's line in the status for the reason; check its cable and power."


class CellSamples(Arrivals):
    """Samples arrive from the potentiostat, the newest within `potentiostat.sample_deadline_s`."""

    name = "cell_samples"
    remedy = "See the cell's line in the status for the reason; check the potentiostat's cable and power."
