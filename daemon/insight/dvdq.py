"""Regularised derivatives over potential: dQ/dV of the cell, dC/dV of particles, on one grid with one resolution.

Differential capacity divides small differences of noisy numbers. Here a curve y(V) on an even grid is fitted to all
samples of one half with a penalty on its bending (Whittaker 1923; Eilers, Anal. Chem. 75, 3631, 2003),

    min over z of  sum of w (y - B z)^2 + stiffness |D2 z|^2,

B interpolating linearly on the grid, D2 second differences; the derivative is that of z. The stiffness is the one with
the least generalised cross-validation (Craven & Wahba, Numer. Math. 31, 377, 1979); cell and particles share one,
so that a peak is as wide for one as for all.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

MIN_SAMPLES = 20
STEP_V = 0.005  # finer than kT/e = 26 mV, below which no peak of intercalation is
MAX_GRID = 400
MIN_GRID = 8
STIFFNESS = 10.0 ** np.arange(-3.0, 7.0, 0.5)
PEAK_SIGMAS = 5.0
LEAST_STEPS = 4
CORE_SHARE, CORE_STEPS, FINEST_V = 0.8, 40, 0.001
"""The grid puts this many steps where that share of the charge passed, none finer than a millivolt."""


@dataclass(frozen=True)
class Derivative:
    """dy/dV on a grid, of one curve (G,) or of several (G, K); NaN outside the potentials that were passed."""

    voltage_v: np.ndarray
    """(G,), the middles of the grid's cells."""
    slope: np.ndarray
    sigma: np.ndarray
    """One standard deviation, from the noise given; NaN when none was."""

    @property
    def peak_v(self) -> np.ndarray:
        """(K,) or () potential of the largest magnitude, by a parabola through three points.

        NaN where it does not stand out of noise or lies at an end of the grid.
        """
        size = np.abs(self.slope)
        best = np.nanargmax(np.where(np.isfinite(size), size, -1.0), axis=0)
        top, noise = (np.take_along_axis(each, best[None], 0)[0] for each in (size, self.sigma))
        sure = np.isfinite(top) & ((top > PEAK_SIGMAS * noise) | np.isnan(noise))
        inside = (best > 0) & (best < len(self.voltage_v) - 1)
        step_v = float(self.voltage_v[1] - self.voltage_v[0])
        around = [np.take_along_axis(size, np.clip(best + k, 0, len(size) - 1)[None], 0)[0] for k in (-1, 0, 1)]
        bend = around[0] - 2.0 * around[1] + around[2]
        with np.errstate(invalid="ignore", divide="ignore"):
            beside = np.where(bend < 0, 0.5 * (around[0] - around[2]) / bend, 0.0)
        return np.where(sure & inside, self.voltage_v[best] + step_v * beside, np.nan)


def by_potential(voltage_v: np.ndarray, series: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """((N-1,) potentials, (N-1,) or (N-1, K) values): a series' increments summed up in the order of potential.

    Where potential moves one way only that is the series itself, rising for a rise whichever way the potential goes.
    Where it turns (the dip of a nucleation, a plateau that wavers) the series is no function of it, but this is: what
    was passed up to each potential. Steps between unknown potentials are NaN there and come last.
    """
    middle = (voltage_v[1:] + voltage_v[:-1]) / 2.0
    steps = np.diff(series, axis=0)
    order = np.argsort(middle, kind="stable")  # NaN last
    return middle[order], np.cumsum(np.where(np.isfinite(steps), steps, 0.0)[order], axis=0)


def suited_step_v(ordered_v: np.ndarray, passed: np.ndarray) -> float:
    """A grid step for charge that passed in the order of potential: fine where a plateau holds most of it."""
    known = np.isfinite(ordered_v)
    if not known.any() or passed[known][-1] <= 0:
        return STEP_V
    share = passed[known] / passed[known][-1]
    low, high = (ordered_v[known][np.searchsorted(share, (1 + side * CORE_SHARE) / 2)] for side in (-1, 1))
    return float(np.clip((high - low) / CORE_STEPS, FINEST_V, STEP_V))


class VoltageGrid:
    """The samples of one half over potential, ready to differentiate any number of series taken at them.

    `voltage_v` is (N,), in any order and with NaN. Samples repeated in a plateau count as often as they are there.
    Raises `ValueError` when fewer than `MIN_SAMPLES` potentials are known or they span fewer than eight grid steps.
    """

    def __init__(self, voltage_v: np.ndarray, step_v: float = STEP_V) -> None:
        self._known = np.isfinite(voltage_v)
        volts = np.asarray(voltage_v, float)[self._known]
        if len(volts) < MIN_SAMPLES:
            raise ValueError(f"{len(volts)} samples of the potential are fewer than {MIN_SAMPLES}")
        low, high = float(volts.min()), float(volts.max())
        step_v = max(step_v, (high - low) / MAX_GRID)
        count = int((high - low) / step_v) + 2
        if count < MIN_GRID:
            raise ValueError(f"the potential moved by {1000 * (high - low):.1f} mV only")
        self.edges_v = low + step_v * np.arange(count)
        self.step_v = step_v
        place = np.clip((volts - low) / step_v, 0, count - 1.0)
        cell = np.minimum(place.astype(int), count - 2)
        self._basis = np.zeros((len(volts), count))
        rows = np.arange(len(volts))
        self._basis[rows, cell] = 1.0 - (place - cell)
        self._basis[rows, cell + 1] = place - cell
        bend = np.diff(np.eye(count), 2, axis=0)
        self._penalty = bend.T @ bend
        self._normal = self._basis.T @ self._basis
        # where B'B + least D2'D2 is 1 and D2'D2 diagonal, any stiffness costs no more than a product
        root = np.linalg.inv(np.linalg.cholesky(self._normal + STIFFNESS[0] * self._penalty))
        self._bending, turn = np.linalg.eigh(root @ self._penalty @ root.T)
        self._to_grid = root.T @ turn

    def _kept(self, stiffness: float) -> np.ndarray:
        """(G,) diagonal of the inverse of B'B + stiffness D2'D2 in those coordinates."""
        return 1.0 / (1.0 + (stiffness - STIFFNESS[0]) * np.clip(self._bending, 0.0, 1.0 / STIFFNESS[0]))

    def stiffness(self, series: np.ndarray) -> np.ndarray:
        """The stiffness with the least generalised cross-validation, one for each of (N,) or (N, K) without gaps."""
        y = np.asarray(series, float)[self._known]
        own = self._to_grid.T @ (self._basis.T @ y)
        inner = 1.0 - STIFFNESS[0] * np.clip(self._bending, 0.0, 1.0 / STIFFNESS[0])
        scores = []
        for stiffness in STIFFNESS:
            kept = self._kept(stiffness)
            fitted = (kept * own.T).T
            left = np.sum(y**2, axis=0) - 2.0 * np.sum(own * fitted, axis=0) + np.sum((inner * (fitted**2).T).T, axis=0)
            free = len(y) - float((kept * inner).sum())
            scores.append(np.maximum(left, 1e-12) / max(free, 1e-9) ** 2)
        return STIFFNESS[np.argmin(scores, axis=0)]

    def shared_stiffness(self, whole: np.ndarray, several: np.ndarray) -> float:
        """One for an (N,) and (N, K) series: what the first and the median of the others need, whichever is stiffer.

        At least so stiff that a sharp step is `LEAST_STEPS` wide: a coulometer has next to no noise, but a grid of its
        own steps shows nothing.
        """
        single = self.stiffness(several)
        least = (each for each in STIFFNESS if self.resolution_v(float(each)) >= LEAST_STEPS * self.step_v)
        return max(float(self.stiffness(whole)), float(np.median(single)) if len(single) else 0.0, float(next(least)))

    def resolution_v(self, stiffness: float) -> float:
        """Full width at half maximum, volts, of the derivative of a sharp step at the samples' median potential."""
        middle = float(np.median(self._basis @ self.edges_v))
        step = np.where(self._basis @ self.edges_v > middle, 1.0, 0.0)
        slope = np.diff(self._to_grid @ (self._kept(stiffness) * (self._to_grid.T @ (self._basis.T @ step))))
        return float(self.step_v * max(1, (slope > 0.5 * slope.max()).sum()))

    def differentiate(self, series: np.ndarray, stiffness: float, sigma: np.ndarray | None = None) -> Derivative:
        """dy/dV of (N,) or (N, K) series; those with a gap are left NaN. `sigma` is (K,), one sample's noise."""
        y = np.asarray(series, float)[self._known]
        smoother = np.linalg.solve(self._normal + stiffness * self._penalty, self._basis.T)
        smoother = np.diff(smoother, axis=0) / self.step_v
        gain = np.sqrt(np.sum(smoother**2, axis=1))
        slope = smoother @ y
        if sigma is None:
            noise = np.full(slope.shape, np.nan)
        else:
            noise = gain.reshape(-1, *([1] * (slope.ndim - 1))) * np.asarray(sigma, float)
            noise = np.where(np.isfinite(slope), noise, np.nan)
        return Derivative((self.edges_v[1:] + self.edges_v[:-1]) / 2.0, slope, noise)
