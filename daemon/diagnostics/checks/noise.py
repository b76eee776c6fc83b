"""Is the photometry as quiet as light allows?"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable

import numpy as np

from daemon.diagnostics.checks.base import Check, CheckResult
from daemon.errors import StoreError
from daemon.parts import RunSummary
from daemon.store.reader import RunReader

WINDOW_S, WINDOW_FRAMES = 2.0, 60  # of the run's newest results, whichever is longer
LEAST_DIFFERENCES = 300  # the ratio is then known to about 10 %
NOISY, USELESS, TOO_QUIET = 1.5, 3.0, 0.6
GAUSS = 1.4826  # median absolute deviation to standard deviation


class Noise(Check):
    """The scatter of contrast from frame to frame against what photons and read noise alone would give.

    Of the newest stored seconds of the run in progress, `current()`: the median over particles and frames,
    so that steps of a few particles do not count. Far below one is possible only with a wrong gain.
    """

    name = "noise"
    remedy = (
        "Too noisy: look for vibration, flicker of the lamp, stray light, bad focus. "
        "Too quiet: `camera.gain_e_per_dn` is wrong, or the camera smooths its pixels."
    )
    surroundings = True

    def __init__(self, current: Callable[[], RunSummary | None]) -> None:
        self._current = current

    def run(self) -> CheckResult:
        run = self._current()
        if run is None or run.state != "running":
            return self.not_applicable("no run is in progress")
        try:
            with RunReader(run.path) as reader:
                extent = reader.time_range()
                if extent is None:
                    return self.not_applicable("nothing is stored of the run yet")
                period_s = (extent[1] - extent[0]) / max(1, reader.frame_count())
                from_s = extent[1] - max(WINDOW_S, WINDOW_FRAMES * period_s)
                _, values = reader.particle_columns(("contrast", "contrast_sigma"), None, from_s)
        except (StoreError, sqlite3.Error) as error:
            return self.result("warn", f"not known: {error}", f"at most {NOISY:g} times the bound")
        return self._judged(*noise_ratio(values["contrast"], values["contrast_sigma"]))

    def _judged(self, ratio: float, differences: int) -> CheckResult:
        limit = f"{TOO_QUIET:g} to {NOISY:g} times the bound of photons and read noise"
        if differences < LEAST_DIFFERENCES:
            return self.not_applicable(f"{differences} differences are too few to tell")
        measured = f"{ratio:.2f} times the bound (median of {differences} differences of frames)"
        if ratio > USELESS:
            return self.result("fail", measured, limit)
        return self.result("pass" if TOO_QUIET <= ratio <= NOISY else "warn", measured, limit)


def noise_ratio(contrast: np.ndarray, sigma: np.ndarray) -> tuple[float, int]:
    """Robust scatter of second differences over their predicted sigma, and of how many; (N, P) each.

    c[i - 1] - 2 c[i] + c[i + 1] of consecutive frames: a change that goes on is no noise.
    """
    if len(contrast) < 3:
        return float("nan"), 0
    difference = np.diff(np.asarray(contrast, float), 2, axis=0)
    variance = np.asarray(sigma, float) ** 2
    expected = np.sqrt(variance[:-2] + 4 * variance[1:-1] + variance[2:])
    with np.errstate(invalid="ignore", divide="ignore"):
        scaled = np.abs(difference / expected)
    scaled = scaled[np.isfinite(scaled)]
    return (GAUSS * float(np.median(scaled)), scaled.size) if scaled.size else (float("nan"), 0)
