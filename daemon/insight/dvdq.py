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
RIDGE = 1e-9  # of the mean weight: grid points without samples follow their neighbours
PEAK_SIGMAS = 5.0


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
        self._normal += RIDGE * np.trace(self._normal) / count * np.eye(count)

    def stiffness(self, series: np.ndarray) -> float:
        """The stiffness with the least generalised cross-validation of one (N,) series."""
        y = np.asarray(series, float)[self._known]
        good = np.isfinite(y)
        basis, y = self._basis[good], y[good]
        normal = basis.T @ basis + RIDGE * np.eye(basis.shape[1])
        scores = []
        for stiffness in STIFFNESS:
            inverse = np.linalg.inv(normal + stiffness * self._penalty)
            left = y - basis @ (inverse @ (basis.T @ y))
            free = len(y) - float(np.trace(inverse @ normal))
            scores.append(len(y) * float(left @ left) / max(free, 1e-9) ** 2)
        return float(STIFFNESS[int(np.argmin(scores))])

    def shared_stiffness(self, whole: np.ndarray, several: np.ndarray) -> float:
        """One for an (N,) and (N, K) series: what the first and the median of the others need, whichever is stiffer."""
        single = [self.stiffness(column) for column in several.T]
        return max(self.stiffness(whole), float(np.median(single)) if single else 0.0)

    def resolution_v(self, stiffness: float) -> float:
        """Full width at half maximum of the derivative that a sharp step in the middle of the grid gets, volts."""
        middle = self.edges_v[len(self.edges_v) // 2]
        step = np.where(self._basis @ self.edges_v > middle, 1.0, 0.0)
        inverse = np.linalg.inv(self._normal + stiffness * self._penalty)
        slope = np.diff(inverse @ (self._basis.T @ step))
        return float(self.step_v * max(1, (slope > 0.5 * slope.max()).sum()))

    def differentiate(self, series: np.ndarray, stiffness: float, sigma: np.ndarray | None = None) -> Derivative:
        """dy/dV of (N,) or (N, K) series; those with a gap are left NaN. `sigma` is (K,), one sample's noise."""
        y = np.asarray(series, float)[self._known]
        inverse = np.linalg.inv(self._normal + stiffness * self._penalty)
        smoother = np.diff(inverse @ self._basis.T, axis=0) / self.step_v
        gain = np.sqrt(np.sum(smoother**2, axis=1))
        slope = smoother @ y
        if sigma is None:
            noise = np.full(slope.shape, np.nan)
        else:
            noise = gain.reshape(-1, *([1] * (slope.ndim - 1))) * np.asarray(sigma, float)
            noise = np.where(np.isfinite(slope), noise, np.nan)
        return Derivative((self.edges_v[1:] + self.edges_v[:-1]) / 2.0, slope, noise)
