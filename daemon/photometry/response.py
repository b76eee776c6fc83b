"""Each particle's response C(f), contrast over charge fraction, from anchors: a Gaussian process with its uncertainty.

A constant, a line and a Matern-5/2 process (Rasmussen & Williams 2006, eq. 4.17) of one length and size for all
particles, in units of each one's own span: both are chosen by the particles' marginal likelihood together, and so is
the scatter that the anchors show beyond their noise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from daemon.photometry.slices import Sliced

GRID = np.linspace(0.0, 1.0, 129)
BASE_VARIANCE = 4.0
"""Prior variance of the constant and of the line, in squared spans: no constraint."""
LENGTHS = (0.15, 0.25, 0.4, 0.7)
SIZES = (0.03, 0.1, 0.3, 1.0)
SCATTERS = (2e-4, 5e-4, 1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2)
LAG_LENGTH = 0.3
"""What current drives ahead or behind, it does so over about this much charge."""
TELLING = 48
"""Particles that choose for all."""
AT_ONCE = 64
LEAST_SPAN = 1e-6
"""Contrasts that differ by less are one."""
UNKNOWN = 30.0
"""Standard deviation, in spans, of what was not measured."""
OWN_WEIGHT = 10.0
"""A particle's own misfit counts against that of all as its anchors against so many."""

Process = tuple[float, float, float]
"""Length, size and scatter, of `LENGTHS`, `SIZES` and `SCATTERS`."""


@dataclass(frozen=True)
class Anchors:
    """m instants of known fraction, by rising fraction; (m, S) for S series, NaN where unknown."""

    fraction: np.ndarray
    contrast: np.ndarray
    sigma: np.ndarray
    lag: np.ndarray
    """(m, S) contrast by which current may have driven the anchors of one source, all alike, off."""
    source: np.ndarray
    """(m,) int: anchors of one source err together."""


@dataclass(frozen=True)
class Responses:
    """(S, len(GRID)) each, in contrast."""

    mean: np.ndarray
    sigma: np.ndarray
    misfit: np.ndarray
    """(S,) rms of what each anchor is missed by when left out, over what was expected."""
    process: Process | None
    """That was chosen; None without a series."""


def responding(
    anchors: Anchors,
    particles: int,
    wanted: np.ndarray | None = None,
    before: Process | None = None,
    alike: np.ndarray | None = None,
) -> Sliced[Responses]:
    """Fit S series, of which the first `particles` choose the process: of `alike`, (P,) bool, only those. Folded
    responses among them would let all others bend as they do. Of `wanted`, (S,) bool, only those are told.

    `before` is the process that was chosen with fewer anchors: the new one is sought from there.
    """
    span = np.nanmax(anchors.contrast, axis=0, initial=-np.inf) - np.nanmin(anchors.contrast, axis=0, initial=np.inf)
    usable = np.isfinite(span) & (span > LEAST_SPAN)
    if not usable.any():
        unknown = np.full((len(usable), len(GRID)), np.nan)
        return Responses(unknown, unknown, np.full(len(usable), np.nan), None)
    scale = np.where(usable, span, 1.0)
    known = np.isfinite(anchors.contrast) & np.isfinite(anchors.sigma) & usable
    level = np.where(known, anchors.contrast, 0.0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)
    y = np.where(known, (anchors.contrast - level) / scale, 0.0)
    noise = np.where(known, anchors.sigma / scale, UNKNOWN)
    lag = np.where(known & np.isfinite(anchors.lag), anchors.lag / scale, 0.0)
    data = _Data(anchors, y, noise, lag)
    telling = np.flatnonzero((known[:, :particles].sum(axis=0) >= 4) & (True if alike is None else alike))
    judging = telling[:: max(1, len(telling) // TELLING)]
    process = yield from _choose(data, judging, before)
    chosen = usable.copy() if wanted is None else usable & wanted
    chosen[judging] = True
    mean, sigma = (np.full((y.shape[1], len(GRID)), np.nan) for _ in range(2))
    z2 = np.full(y.shape[1], np.nan)
    for which in np.split(np.flatnonzero(chosen), range(AT_ONCE, int(chosen.sum()), AT_ONCE)):
        mean[which], sigma[which], z2[which] = data.posterior(which, process)
        yield
    count = known.sum(axis=0)
    typical = np.median(z2[judging] / count[judging]) if len(judging) else 1.0
    misfit = np.sqrt((z2 + OWN_WEIGHT * typical) / (count + OWN_WEIGHT))
    mean, sigma = level[:, None] + scale[:, None] * mean, scale[:, None] * sigma * np.maximum(misfit, 1.0)[:, None]
    return Responses(mean, sigma, misfit, process)


class _Data:
    """Anchors in units of each series' span."""

    def __init__(self, anchors: Anchors, y: np.ndarray, noise: np.ndarray, lag: np.ndarray) -> None:
        self.f, self.y, self.noise, self.lag = anchors.fraction, y, noise, lag
        apart = self.f[:, None] - self.f[None, :]
        alike = anchors.source[:, None] == anchors.source[None, :]
        self._together = np.where(alike, np.exp(-0.5 * (apart / LAG_LENGTH) ** 2), 0.0)

    def covariance(self, which: np.ndarray, process: Process) -> np.ndarray:
        """(S', m, m) of the anchors."""
        length, size, scatter = process
        lag, noise = self.lag[:, which].T, self.noise[:, which].T
        found = _prior(self.f, self.f, length, size) + lag[:, :, None] * lag[:, None, :] * self._together
        place = np.arange(len(self.f))
        found[:, place, place] += noise**2 + scatter**2
        return found

    def likelihood(self, which: np.ndarray, process: Process) -> float:
        """Logarithm of the marginal likelihood of the series `which` together."""
        covariance, y = self.covariance(which, process), self.y[:, which].T
        _, logarithm = np.linalg.slogdet(covariance)
        return float(-0.5 * (logarithm + (y * np.linalg.solve(covariance, y[:, :, None])[:, :, 0]).sum(axis=1)).sum())

    def posterior(self, which: np.ndarray, process: Process) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Mean and standard deviation on `GRID` (S', G); sum of squares of what left-out anchors are missed by (S',),
        each over its own expectation.
        """
        inverse = np.linalg.inv(self.covariance(which, process))
        y = self.y[:, which].T
        across = _prior(GRID, self.f, *process[:2])
        solved = (inverse @ y[:, :, None])[:, :, 0]
        mean = solved @ across.T
        held = ((across @ inverse) * across).sum(axis=2)
        variance = np.diagonal(_prior(GRID, GRID, *process[:2])) - held
        own = np.diagonal(inverse, axis1=1, axis2=2)
        z2 = np.where(self.noise[:, which].T < UNKNOWN, solved**2 / own, 0.0).sum(axis=1)
        return mean, np.sqrt(np.maximum(variance, 1e-12)), z2


def _prior(a: np.ndarray, b: np.ndarray, length: float, size: float) -> np.ndarray:
    far = np.sqrt(5.0) * np.abs(a[:, None] - b[None, :]) / length
    line = BASE_VARIANCE * (1.0 + (a[:, None] - 0.5) * (b[None, :] - 0.5))
    prior: np.ndarray = line + size**2 * (1.0 + far + far**2 / 3.0) * np.exp(-far)
    return prior


def _choose(data: _Data, telling: np.ndarray, before: Process | None) -> Sliced[Process]:
    """The likeliest process: of the grids, one of them at a time; or from the one of `before` on, uphill."""
    if not len(telling):
        return before or (0.4, 0.3, 1e-3)
    known: dict[Process, float] = {}

    def likelier(candidates: Sequence[Process]) -> Sliced[Process]:
        for each in candidates:
            if each not in known:
                known[each] = data.likelihood(telling, each)
                yield
        return max(candidates, key=lambda each: known[each])

    if before is not None:
        while (best := (yield from likelier(_beside(before)))) != before:
            before = best
        return best
    best = 0.4, 0.3, 1e-3
    for _ in range(2):
        best = yield from likelier([(length, size, best[2]) for length in LENGTHS for size in SIZES])
        best = yield from likelier([(*best[:2], scatter) for scatter in SCATTERS])
    return best


def _beside(process: Process) -> list[Process]:
    """The process and those a step of a grid away; length and size make up for each other, so both at once, too."""
    length, size, scatter = process
    shapes = [(one, other) for one in (length, *_near(LENGTHS, length)) for other in (size, *_near(SIZES, size))]
    return [*((*shape, scatter) for shape in shapes), *((length, size, each) for each in _near(SCATTERS, scatter))]


def _near(grid: tuple[float, ...], value: float) -> list[float]:
    place = grid.index(value)
    return [grid[k] for k in (place - 1, place + 1) if 0 <= k < len(grid)]
