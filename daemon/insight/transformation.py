"""Rate constants of two-phase particles: how fast each passes from one phase to the other, for how far it is driven.

A passage from X = 0.2 to 0.8 (or back) of duration T at the mean cell voltage V and current I is taken to be

    0.6 / T = k_i 2 sinh(F (|V - I R - U| - h) / 2RT),

U the plateau, R the series resistance, h what the plateau's two directions are apart by of themselves: common to all,
found by making each particle's passages agree. k_i holds what the particle does between its ends, and is a rate
constant of the transformation, not of its surface.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import least_squares

from daemon.insight.observe import Cell
from daemon.photometry.curves import first_crossing
from kernels.electrode import THERMAL_V

LOW, HIGH = 0.2, 0.8
MIN_DRIVE = 0.05
"""Least argument of the sinh: passages driven less than by a few mV would weigh without bound."""
MIN_POINTS = 3.0
"""Points within a passage; a shorter one only bounds the rate."""
FLOOR = 0.05
"""Of ln(duration): what two crossings of a straight line between points may be off by."""


@dataclass(frozen=True)
class Transformations:
    """(P,) arrays; rates in 1/s, NaN where unknown."""

    ln_rate: np.ndarray
    sigma: np.ndarray
    passages: np.ndarray
    """How many were seen."""
    unresolved: np.ndarray
    """bool: passages were faster than the points; `ln_rate` is a lower bound."""
    plateau_v: float
    ohm: float
    """V per mA."""
    threshold_v: float


def fit(
    t_s: np.ndarray, fraction: np.ndarray, pieces: list[tuple[float, float, int]], cell: Cell, plateau_v: float
) -> Transformations:
    """From (M, P) transformed fractions at (M,) times; `plateau_v` is where U is first looked for."""
    rate, resolved, volts, current = _passages(t_s, fraction, pieces, cell)
    known = np.isfinite(rate)
    sign = np.sign(current)[:, None]
    largest = max(cell.largest_ma, 1e-30)

    volts = np.where(known, volts, plateau_v)

    def driven(common: np.ndarray) -> np.ndarray:
        drive = (sign * (volts - common[1] * current[:, None] / largest - common[0]) - common[2]) / (2 * THERMAL_V)
        return np.asarray(drive)

    def rest(common: np.ndarray) -> np.ndarray:
        soft = MIN_DRIVE * np.logaddexp(0.0, driven(common) / MIN_DRIVE) + 1e-6
        return np.asarray(np.log(rate) - np.log(2.0 * np.sinh(soft)))

    use = known & resolved
    several = use.sum(axis=0) >= 2
    start = np.array([plateau_v, 0.0, 0.0])

    def scatter(common: np.ndarray) -> np.ndarray:
        each = np.where(use, rest(common), np.nan)[:, several]
        prior = (common - start) / np.array([0.05, 0.2, 0.05])
        return np.concatenate([(each - np.nanmean(each, axis=0))[np.isfinite(each)] / 0.1, prior])

    common = start
    if several.any():
        bounds = ([plateau_v - 0.3, 0.0, 0.0], [plateau_v + 0.3, 1.0, 0.2])
        common = least_squares(scatter, start + np.array([0, 1e-4, 1e-4]), bounds=bounds, loss="soft_l1").x
    weak = driven(common) < 2 * MIN_DRIVE
    return _summary(rest(common), known & ~weak, use & ~weak, common, largest)


def _summary(
    ln_rate: np.ndarray, known: np.ndarray, use: np.ndarray, common: np.ndarray, largest: float
) -> Transformations:
    unresolved = np.asarray(known.any(axis=0) & ~use.any(axis=0))
    taken = np.where(unresolved, known, use)
    count = taken.sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.where(taken, ln_rate, 0.0).sum(axis=0) / count
        away = np.where(taken, ln_rate - mean, 0.0)
        freedom = max(int(np.sum(count) - np.sum(count > 0)), 1)
        pooled = np.sqrt(np.sum(away**2) / freedom)
        sigma = np.hypot(max(pooled, FLOOR), FLOOR) / np.sqrt(count)
    plateau, ohm, threshold = (float(value) for value in common)
    unknown = count == 0
    mean, sigma = np.where(unknown, np.nan, mean), np.where(unknown, np.nan, sigma)
    return Transformations(mean, sigma, count, unresolved, plateau, ohm / largest, threshold)


def _passages(
    t_s: np.ndarray, fraction: np.ndarray, pieces: list[tuple[float, float, int]], cell: Cell
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(n, P) rates in 1/s, whether points resolve them, the cell's mean voltage meanwhile; (n,) mean currents.

    n driven pieces of the record; NaN where a particle does not pass.
    """
    driven = [(begin, end, sign) for begin, end, sign in pieces if sign]
    shape = (len(driven), fraction.shape[1])
    rate, volts, resolved = np.full(shape, np.nan), np.full(shape, np.nan), np.zeros(shape, bool)
    current = np.zeros(len(driven))
    for k, (begin, end, sign) in enumerate(driven):
        mine = (t_s >= begin) & (t_s <= end)
        if mine.sum() < 4:
            continue
        current[k] = float(np.mean(cell.means(np.array([begin, end]))[1]))
        x = fraction[mine] if sign > 0 else 1.0 - fraction[mine]
        x = np.where(np.isfinite(x), x, 0.0)
        first, last = (first_crossing(t_s[mine], x - level) for level in (LOW, HIGH))
        spacing = float(np.median(np.diff(t_s[mine])))
        passes = np.isfinite(first) & np.isfinite(last) & (last > first) & (x[0] < LOW)
        duration = np.where(passes, np.maximum(last - first, spacing), np.nan)
        rate[k] = (HIGH - LOW) / duration
        resolved[k] = passes & (duration >= MIN_POINTS * spacing)
        for i in np.flatnonzero(passes):
            volts[k, i] = cell.means(np.array([first[i], max(last[i], first[i] + 1e-3)]))[0][0]
    return rate, resolved, volts, current
