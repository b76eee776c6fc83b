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
Nine particles of 5 to 16 px radius, static in truth, for {seconds:.0f} s at 100 exposures/s (two thirds of it where
nothing is disturbed). Twenty exposures are summed into a frame before it is measured: the sum of their noise, focus and
lamp is exact, drift is taken at its mean. Disturbances: drift of 20 nm rms with 30 s correlation plus a random walk of
100 nm in an hour, at 96 nm/px; focus wandering by an extra blur of 0.3 px rms with 120 s; the lamp warming up by 0.5 %
with 600 s, wandering by 0.1 % rms with 60 s, rippling by 5e-4 at 0.37 of the exposure rate. The bound is a second's
share of the static mask-and-ring bound; scatter is over the whole run. F0 is the mean of the first 10 s."""
SUMMED = 20
REFERENCE_EXPOSURES = 40
BASELINE_S = 10.0
PLAIN_EVERY_S = 5
PER_SECOND = round(EXPOSURE_RATE_HZ / SUMMED)
SLOPE_TAUS_S = (1, 2, 3, 5, 7, 10)
ALONE = {"drift": "drift", "focus": "focus", "lamp": "the lamp"}


def run(effort: Effort) -> list[Figure]:
    """Disturbed and static, each with its Allan deviation, and what each disturbance makes alone."""
    troubles = {seed: Disturbances.draw(seed, effort.long_s, SUMMED) for seed in effort.seeds}
    watched_s = 2 / 3 * effort.long_s
    static = [LongRun(seed, troubles[seed].only("none"), watched_s) for seed in effort.seeds]
    disturbed = [
        LongRun(seed, troubles[seed], effort.long_s, plain=k < effort.plain_seeds)
        for k, seed in enumerate(effort.seeds)
    ]
    return [*_scatter(disturbed, static), *_alone(effort, troubles), *_allan(effort, disturbed, static)]


class LongRun:
    """One run of `seconds` of one seed's scene under `troubles`, in means of a second.

    `seconds` (N, P) contrasts; `bound` (P,) of a mean; `plain_seconds` likewise, every `PLAIN_EVERY_S`, by the plain
    pipeline, or None.
    """

    def __init__(self, seed: int, troubles: Disturbances, seconds: float, *, plain: bool = False) -> None:
        scene = PoissonScene(seed=seed, height=176, width=216, particles=9, radius_px=(5, 16))
        stage = Stage(scene)
        drift, blur, lamp = troubles.drift_px, troubles.blur_px2, troubles.illumination
        mean_e, rendered = stage.mean_e(drift[0], blur[0], lamp[0]), (*drift[0], blur[0], lamp[0])
        subject = Subject(
            scene,
            exposures=SUMMED,
            reference_exposures=REFERENCE_EXPOSURES,
            first_e=mean_e,
        )
        measuring = Measuring(subject.pipeline(BASELINE_S), 1.0 / PER_SECOND)
        peer, peers = subject.plain() if plain else None, []
        for k in range(round(seconds) * PER_SECOND):
            state = (*drift[k], blur[k], lamp[k])
            if state != rendered:
                mean_e, rendered = stage.mean_e(drift[k], blur[k], lamp[k]), state
            dn = subject.expose(mean_e)
            measuring.add(dn)
            if peer is not None and k // PER_SECOND % PLAIN_EVERY_S == 0:
                peers.append(peer(dn)[0][subject.matched])
        contrast = measuring.finish().contrast[:, subject.matched]
        self.seconds = _means_of_a_second(contrast)
        self.bound = subject.bound[subject.matched] / np.sqrt(PER_SECOND)
        self.plain_seconds = None
        if peers:
            flux = _means_of_a_second(np.array(peers))
            self.plain_seconds = flux / flux[: round(BASELINE_S / PLAIN_EVERY_S)].mean(axis=0) - 1.0

    @property
    def ratio(self) -> np.ndarray:
        """(P,) scatter of the means of a second over their bound."""
        return self.seconds.std(axis=0, ddof=1) / self.bound


def _means_of_a_second(values: np.ndarray) -> np.ndarray:
    return values.reshape(-1, PER_SECOND, values.shape[1]).mean(axis=1)


def allan_deviation(values: np.ndarray, m: int) -> np.ndarray:
    """(P,) overlapping Allan deviation of (N, P) values at `m` samples."""
    total = np.concatenate([np.zeros((1, values.shape[1])), np.cumsum(values, axis=0)])
    means = (total[m:] - total[:-m]) / m
    return np.sqrt(((means[m:] - means[:-m]) ** 2).mean(axis=0) / 2)


def _scatter(disturbed: list[LongRun], static: list[LongRun]) -> list[Figure]:
    ratio, still = (np.concatenate([one.ratio for one in runs]) for runs in (disturbed, static))
    peer = np.concatenate(
        [one.plain_seconds.std(axis=0, ddof=1) / one.bound for one in disturbed if one.plain_seconds is not None]
    )
    name = "scatter of means of a second over the bound"
    return [
        at_most(f"{name}, disturbed, median", median(ratio), 1.30, plain=f"{median(peer):.1f}"),
        Figure("  95th percentile", f"{p95(ratio):.2f}", "", plain=f"{p95(peer):.1f}"),
        Figure(f"{name}, static, median", f"{median(still):.2f}", ""),
        Figure("  95th percentile", f"{p95(still):.2f}", ""),
    ]


def _alone(effort: Effort, troubles: dict[int, Disturbances]) -> list[Figure]:
    figures = []
    for kind, name in ALONE.items():
        runs = [LongRun(seed, troubles[seed].only(kind), effort.alone_s) for seed in effort.seeds]
        ratio = median(np.concatenate([one.ratio for one in runs]))
        figures.append(Figure(f"  {name} alone, {effort.alone_s:.0f} s, median", f"{ratio:.2f}", ""))
    return figures


def _allan(effort: Effort, disturbed: list[LongRun], static: list[LongRun]) -> list[Figure]:
    long_tau_s = round(effort.long_s / 3)
    figures = []
    for kind, runs in (("disturbed", disturbed), ("static", static)):
        figures.append(between(f"Allan deviation, {kind}: slope from 1 to 10 s", _slope(runs), -0.55, -0.45))
        figures += [
            Figure(f"  at {tau_s} s, median", f"{median(_deviations(runs, tau_s)):.1e}", "")
            for tau_s in (1, 10, 100)
            if tau_s < long_tau_s
        ]
        last = _deviations(runs, long_tau_s)
        steps = long_tau_s // PLAIN_EVERY_S
        peers = [allan_deviation(one.plain_seconds, steps) for one in runs if one.plain_seconds is not None]
        plain = f"{median(np.concatenate(peers)):.1e}" if peers else ""
        figures.append(at_most(f"  at {long_tau_s} s, median", median(last), 1e-4, digits=None, plain=plain))
        figures.append(at_most(f"  at {long_tau_s} s, worst particle", float(last.max()), 1e-4, digits=None))
    return figures


def _deviations(runs: list[LongRun], tau_s: int) -> np.ndarray:
    return np.concatenate([allan_deviation(one.seconds, tau_s) for one in runs])


def _slope(runs: list[LongRun]) -> float:
    """Median slope over particles on logarithmic axes."""
    deviations = np.log([_deviations(runs, tau_s) for tau_s in SLOPE_TAUS_S])
    return float(np.median(np.polyfit(np.log(SLOPE_TAUS_S), deviations, 1)[0]))
