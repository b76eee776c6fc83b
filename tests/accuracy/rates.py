"""Rates and lags of particles that differ: their spread at potential steps, and what a held current leaves of it."""

from __future__ import annotations

import numpy as np

from daemon.insight.step_rates import step_slopes
from daemon.tables import RATES
from tests.accuracy.effort import Effort
from tests.accuracy.electrode import (
    F_2RT,
    Electrode,
    HalfTruth,
    Optics,
    Outcome,
    Recorder,
    Step,
    drive,
    exchange,
    open_v,
    science_of,
)
from tests.accuracy.noise import median, p95
from tests.bench.figures import Figure, at_most, between

TITLE = "Rates, their spread, and lags"
INTRO = """\
300 particles of a solid solution share a cell (`tests/accuracy/electrode.py`): Butler-Volmer rates with rate constants
spread by 30 to 50 %, contrasts of 3 to 30 % over charge, each curved by up to 30 %, one Poisson exposure every few
seconds at the photons of 5 to 16 px radius, slow wander of 1e-4 besides. A C/20 cycle first, then voltage steps of 150
and 80 mV, or cycles at constant current. The truth of a spread is the one these 300 rate constants have; its sampling
error is what another 300 would differ by. The plain pipeline takes the largest slope of a smoothed contrast (Savitzky,
Golay, 9 points) over its own swing, noise included."""
COUNT = 300
C_RATES = (0.2, 1.0, 5.0)
LOW_X = 0.02


def run(effort: Effort) -> list[Figure]:
    """Potential steps, then lags and spreads under current."""
    steps = [StepRun(seed, seed % 2) for seed in effort.seeds]
    drives = [CurrentRun(seed, c_rate) for seed in effort.seeds for c_rate in C_RATES]
    return [*_spreads(steps), *_overpotentials(steps), *_slopes(steps), *_lags(drives), *_even(drives)]


class Cell:
    """One seed's electrode with its record so far."""

    def __init__(self, seed: int, median_k_per_h: float) -> None:
        self.rng = np.random.default_rng([seed, 31])
        self.optics = Optics.draw(self.rng, COUNT)
        sigma = self.rng.uniform(0.3, 0.5)
        self.k = median_k_per_h * np.exp(self.rng.normal(0, sigma, COUNT))
        share = self.optics.area_px**1.5
        self.electrode = Electrode(self.k, share / share.sum(), np.full(COUNT, LOW_X))
        self.recorder = Recorder(self.optics, self.rng)
        self._number = 0
        self.go(Step(duration_s=600, frame_s=60))

    def go(self, step: Step) -> HalfTruth:
        """Run one step."""
        self._number += 1
        return drive(self.electrode, self.recorder, step, self._number)

    def slow_cycle(self) -> tuple[float, float]:
        """C/20 both ways, for the curves; (lowest, highest) mean charge."""
        ends = [float(self.electrode.share @ self.electrode.x)]
        for sign in (1, -1):
            self.go(Step(c_rate=sign * 0.05, until_v=4.15 if sign > 0 else 3.45, frame_s=300))
            ends.append(float(self.electrode.share @ self.electrode.x))
            self.go(Step(duration_s=3600, frame_s=120))
        return ends[0], ends[1]


class StepRun:
    """Voltage steps: spreads that were told, with their truth."""

    def __init__(self, seed: int, small: int) -> None:
        cell = Cell(seed, 0.2)
        self.window = cell.slow_cycle()
        low_v = float(open_v(0.2))
        high_v = float(open_v(0.2 + (0.15 if small else 0.3)))
        for _ in range(2):
            for volts in (high_v, low_v):
                cell.go(Step(hold_v=volts, duration_s=3 * 3600, frame_s=10))
        self.k = cell.k
        self.outcome = science_of(cell.recorder)
        self.cv = float(cell.k.std(ddof=1) / cell.k.mean())
        self.told = self.outcome.science.summary()
        self.plain_cv = _plain_spread(cell.recorder, 2 * 3600)
        self.bound = _sampling_error(cell.k)


def _sampling_error(k: np.ndarray) -> float:
    """What the spread of another 300 such particles would differ by, relative (bootstrap)."""
    rng = np.random.default_rng(5)
    drawn = k[rng.integers(0, len(k), (400, len(k)))]
    cvs = drawn.std(axis=1, ddof=1) / drawn.mean(axis=1)
    return float(cvs.std() / (k.std(ddof=1) / k.mean()))


def _plain_spread(recorder: Recorder, last_s: float) -> float:
    """Largest slope of the smoothed contrast in the last hours, over its swing there; the spread of that."""
    from scipy.signal import savgol_filter

    flux = np.concatenate([batch.flux_e for batch in recorder.batches()])
    t_s = np.array(recorder.t_s)
    part = t_s > t_s[-1] - last_s - 3600.0
    smooth = savgol_filter(flux[part], 9, 2, axis=0)
    slope = np.abs(np.diff(smooth, axis=0)).max(axis=0) / np.ptp(smooth, axis=0)
    return float(slope.std(ddof=1) / slope.mean())


def _spreads(runs: list[StepRun]) -> list[Figure]:
    error = np.array([one.told["rate_cv"] / one.cv - 1.0 for one in runs])
    bound = np.array([one.bound for one in runs])
    plain = np.array([one.plain_cv / one.cv - 1.0 for one in runs])
    covered = np.array([abs(one.told["rate_cv"] - one.cv) / one.told["rate_cv_sigma"] for one in runs])
    named = sum(one.told["rate_cv_basis"] == "potential_step" for one in runs)
    return [
        at_most(
            "spread of rates at potential steps: error over its sampling error, rms",
            float(np.sqrt(np.mean((error / bound) ** 2))), 1.5, plain=f"{np.sqrt(np.mean((plain / bound) ** 2)):.1f}",
        ),
        Figure("  error, rms", f"{100 * np.sqrt(np.mean(error**2)):.1f} %", ""),
        Figure("  sampling error of 300 particles", f"{100 * np.sqrt(np.mean(bound**2)):.1f} %", ""),
        Figure("  error over the standard deviation told, worst", f"{covered.max():.1f}", ""),
        Figure("  told to be from a potential step", f"{named} of {len(runs)} runs", ""),
    ]  # fmt: skip


def _overpotentials(runs: list[StepRun]) -> list[Figure]:
    """Told rates against those of Butler and Volmer at the told charge and overpotential."""
    errors, volts = [], []
    for one in runs:
        low_x, high_x = one.window
        for row in one.outcome.rates:
            x = low_x + (high_x - low_x) * np.linspace(row["soc_from"], row["soc_to"], 41)
            force = np.abs(row["voltage_v"] - open_v(x)) * F_2RT
            pace = 1.0 / np.mean(1.0 / (exchange(x) * 2.0 * np.sinh(force)))
            errors.append(row["rate_per_h"] * (high_x - low_x) / (one.k[row["particle_id"] - 1] * pace) - 1.0)
            over_v = np.arcsinh(1.0 / np.mean(1.0 / np.sinh(force))) / F_2RT
            volts.append(abs(row["overpotential_v"]) - over_v)
    if not errors:
        return [Figure("rates at potential steps", "none told", "")]
    known = np.array(volts)[np.isfinite(volts)]
    return [
        Figure("a particle's rate at a potential step: error, median", f"{100 * median(np.abs(errors)):.1f} %", ""),
        Figure("overpotential told: error, median of sizes", f"{1e3 * median(np.abs(known)):.1f} mV", ""),
        Figure("  told for", f"{len(known)} of {len(volts)} rates", ""),
    ]  # fmt: skip


def _slopes(runs: list[StepRun]) -> list[Figure]:
    """Rates over overpotential against those of Butler and Volmer at no overpotential, at the steps' charges."""
    errors, away, inside = [], [], []
    for one in runs:
        low_x, high_x = one.window
        columns = {name: np.array([row[name] for row in one.outcome.rates]) for name in RATES}
        sigma = {row["particle_id"]: row["soc_sigma"] for row in one.outcome.calibrations}
        own = np.array([sigma.get(identity, np.nan) for identity in range(1, COUNT + 1)])
        told = step_slopes(columns, np.arange(1, COUNT + 1), own)
        of_step = {row["t_s"]: (row["soc_from"], row["soc_to"]) for row in one.outcome.rates}
        width = high_x - low_x
        pace = [1.0 / np.mean(1.0 / exchange(low_x + width * np.linspace(*ends, 41))) for ends in of_step.values()]
        truth = one.k * np.exp(np.mean(np.log(pace))) * 2.0 * F_2RT / width
        error = np.log(told.slope_per_h_v / truth)
        known = np.isfinite(error)
        errors.append(error[known])
        away.append(((error - np.median(error[known])) / told.relative_sigma)[known])
        inside.append(((told.slope_lo_per_h_v < truth) & (truth < told.slope_hi_per_h_v))[known])
    error, score = np.concatenate(errors), np.concatenate(away)
    relative = np.concatenate([each - np.median(each) for each in errors])
    return [
        at_most("a particle's rate over overpotential: error, median", 100 * median(np.abs(error)), 15, "%", 1),
        at_most("  beside the median particle", 100 * median(np.abs(relative)), 5, "%", 1),
        Figure("  that over its sigma, rms", f"{np.sqrt(np.mean(score**2)):.2f}", ""),
        between("  share of 90 % intervals that hold the truth", float(np.concatenate(inside).mean()), 0.85, 1.0),
        Figure("  told for", f"{len(error)} of {COUNT * len(runs)}", ""),
    ]


class CurrentRun:
    """Cycles at constant current: lags in contrast, and the rates of `rate_per_h`, with their truth."""

    def __init__(self, seed: int, c_rate: float) -> None:
        cell = Cell(seed, 3.0)
        halves = []
        for _ in range(2):
            for sign in (1, -1):
                until_v = 4.15 if sign > 0 else 3.5
                halves.append(cell.go(Step(c_rate=sign * c_rate, until_v=until_v, frame_s=8 / c_rate)))
        self.outcome: Outcome = science_of(cell.recorder)
        self.told = self.outcome.science.summary()
        errors, scores, cvs = [], [], []
        for number, half in enumerate(halves):
            name = ("charge", "discharge")[number % 2]
            seen = HalfTruth(half.start_s, half.end_s, half.t_s, cell.optics.contrast(half.x))
            truth = seen.crossing_s(0.5) - seen.middle_s(cell.optics.area_px, np.ones(COUNT, bool))
            lag = self.outcome.column("lag_s", number // 2, name)
            errors.append((lag - truth) / (half.end_s - half.start_s))
            scores.append((lag - truth) / self.outcome.column("lag_sigma_s", number // 2, name))
            rate = np.ptp(half.x, axis=0) / (seen.crossing_s(0.8) - seen.crossing_s(0.2))
            cvs.append(rate.std(ddof=1) / rate.mean())
        self.lag_error, self.lag_score, self.cv = np.concatenate(errors), np.concatenate(scores), cvs[-1]


def _lags(runs: list[CurrentRun]) -> list[Figure]:
    error = 100 * np.abs(np.concatenate([one.lag_error for one in runs]))
    score = np.concatenate([one.lag_score for one in runs])
    missing = int((~np.isfinite(error)).sum())
    error, score = error[np.isfinite(error)], score[np.isfinite(score)]
    return [
        at_most("half-swing lag: error in % of the charge time, rms", float(np.sqrt(np.mean(error**2))), 0.5),
        Figure("  median", f"{median(error):.2f} %", ""),
        Figure("  95th percentile", f"{p95(error):.2f} %", ""),
        Figure("  error over lag_sigma_s, rms", f"{np.sqrt(np.mean(score**2)):.2f}", ""),
        Figure("  not told", f"{missing} of {missing + len(error)}", ""),
    ]


def _even(runs: list[CurrentRun]) -> list[Figure]:
    return [
        Figure(
            f"spread of rate_per_h at {c_rate:g}C, told against true",
            ", ".join(f"{one.told['rate_cv']:.3f}/{one.cv:.3f}" for one in runs[place :: len(C_RATES)][:3]),
            "",
        )
        for place, c_rate in enumerate(C_RATES)
    ]
