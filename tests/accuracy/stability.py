"""The long run: drift, focus and lamp as an instrument has them, and how far averaging helps."""

from __future__ import annotations

import numpy as np

from tests.accuracy.effort import Effort
from tests.accuracy.noise import median, p95
from tests.accuracy.subject import Measuring, Subject
from tests.bench.figures import Figure, at_most, between
from tests.disturbed import EXPOSURE_RATE_HZ, Disturbances, Stage
from tests.scenes import PoissonScene

TITLE = "Long runs and averaging"
INTRO = """\
Nine particles of 5 to 16 px radius, static in truth, for {seconds:.0f} s at 100 exposures/s. Twenty exposures are
summed into a frame before it is measured (the sum of their noise, drift, focus and lamp is exact; five frames a
second). Disturbances: drift of 20 nm rms with 30 s correlation plus a random walk of 100 nm in an hour, at 96
nm/px; focus wandering by an extra blur of 0.3 px rms with 120 s; the lamp warming up by 0.5 % with 600 s, wandering
by 0.1 % rms with 60 s, rippling by 5e-4 at 0.37 of the exposure rate. The bound is a second's share of the static
mask-and-ring bound; scatter is over the whole run. F0 is the mean of the first 10 s."""
SUMMED = 20
REFERENCE = 40
PER_SECOND = round(EXPOSURE_RATE_HZ / SUMMED)
SLOPE_TAUS_S = (1, 2, 3, 5, 7, 10)


def run(effort: Effort) -> list[Figure]:
    """Disturbed and static, each with its Allan deviation."""
    long_tau_s = min(1000, int(effort.long_s) // 3)
    disturbed = [_Long(seed, effort, disturbed=True) for seed in effort.seeds]
    static = [_Long(seed, effort, disturbed=False) for seed in effort.seeds]
    peers = [one.plain for one in disturbed if one.plain is not None]
    ratio, peer = np.concatenate([one.ratio for one in disturbed]), np.concatenate(peers)
    still = np.concatenate([one.ratio for one in static])
    figures = [
        at_most("scatter of means of a second, disturbed, over the bound, median", median(ratio), 1.30,
                plain=f"{median(peer):.1f}"),
        Figure("  95th percentile", f"{p95(ratio):.2f}", "", plain=f"{p95(peer):.1f}"),
        at_most("  static, median", median(still), 1.0),
        Figure("  static, 95th percentile", f"{p95(still):.2f}", ""),
        between("Allan deviation, slope from 1 to 10 s, static", _slope(static), -0.55, -0.45),
        between("  disturbed", _slope(disturbed), -0.55, -0.45),
    ]  # fmt: skip
    for tau_s in (1, 10, 100, long_tau_s):
        names = [f"Allan deviation at {tau_s} s, {kind}, median" for kind in ("disturbed", "static")]
        for name, runs in zip(names, (disturbed, static), strict=True):
            value = median(np.concatenate([one.allan(tau_s) for one in runs]))
            if tau_s == long_tau_s:
                worst = float(np.max([one.allan(tau_s) for one in runs]))
                plain = median(
                    np.concatenate([one.plain_allan(tau_s) for one in runs if one.plain is not None] or [[np.nan]])
                )
                figures.append(at_most(name, value, 1e-4, digits=None, plain="" if np.isnan(plain) else f"{plain:.1e}"))
                figures.append(Figure("  worst particle", f"{worst:.1e}", ""))
            else:
                figures.append(Figure(name, f"{value:.1e}", ""))
    return figures


class _Long:
    """One long run of one seed."""

    def __init__(self, seed: int, effort: Effort, *, disturbed: bool) -> None:
        seconds = effort.long_s if disturbed else 2 / 3 * effort.long_s
        scene = PoissonScene(seed=seed, height=180, width=220, particles=9, radius_px=(5, 16))
        stage = Stage(scene)
        troubles = Disturbances.draw(seed, seconds, SUMMED)
        first = stage.mean_e(troubles.drift_px[0], troubles.blur_px2[0], troubles.illumination[0])
        subject = Subject(
            scene, exposures=SUMMED, reference_exposures=REFERENCE, first_e=first if disturbed else scene.mean_e()
        )
        plain = subject.plain() if disturbed and seed in effort.seeds[: effort.plain_seeds] else None
        self._peers: list[np.ndarray] = []
        measuring = Measuring(subject.pipeline(10.0), 1.0 / PER_SECOND)
        still = scene.mean_e()
        for k in range(len(troubles)):
            mean_e = still
            if disturbed:
                mean_e = stage.mean_e(troubles.drift_px[k], troubles.blur_px2[k], troubles.illumination[k])
            dn = subject.expose(mean_e)
            if plain is not None and k % PER_SECOND == 0:
                self._peers.append(plain(dn)[0])
            measuring.add(dn)
        self.series = measuring.finish()
        self.troubles, self.subject = troubles, subject
        good = subject.matched
        self.seconds = self.series.contrast[:, good]
        self.seconds = self.seconds[: len(self.seconds) // PER_SECOND * PER_SECOND]
        self.seconds = self.seconds.reshape(-1, PER_SECOND, good.sum()).mean(axis=1)
        bound = subject.bound[good] / np.sqrt(PER_SECOND)
        self.ratio = self.seconds.std(axis=0, ddof=1) / bound
        self.plain = self._plain_contrast(good)
        if self.plain is not None:
            self.plain_seconds, self.plain = self.plain, self.plain.std(axis=0, ddof=1) / bound

    def _plain_contrast(self, good: np.ndarray) -> np.ndarray | None:
        if not self._peers:
            return None
        flux = np.array(self._peers)[:, good]
        return flux / flux[:10].mean(axis=0) - 1.0

    def allan(self, tau_s: int) -> np.ndarray:
        """(P,) overlapping Allan deviation of the contrast at `tau_s`."""
        return allan_deviation(self.seconds, tau_s)

    def plain_allan(self, tau_s: int) -> np.ndarray:
        return allan_deviation(self.plain_seconds, tau_s)


def allan_deviation(values: np.ndarray, m: int) -> np.ndarray:
    """(P,) overlapping Allan deviation of (N, P) values at `m` samples."""
    total = np.concatenate([np.zeros((1, values.shape[1])), np.cumsum(values, axis=0)])
    means = (total[m:] - total[:-m]) / m
    steps = means[m:] - means[:-m]
    return np.sqrt((steps**2).mean(axis=0) / 2)


def _slope(runs: list[_Long]) -> float:
    deviations = np.concatenate([np.log([one.allan(tau) for tau in SLOPE_TAUS_S]) for one in runs], axis=1)
    return float(np.median(np.polyfit(np.log(SLOPE_TAUS_S), deviations, 1)[0]))
