"""Groups of cells against each other where every cell has its own luck: the cell is the replicate, not the particle."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from daemon.insight.estimates import Estimate

POWER = 0.9
QUANTILES = 2000
"""Of the chi distribution, for the power of a t test."""


@dataclass(frozen=True)
class Groups:
    """Means of groups of cells with a random effect a cell, one variance for all groups."""

    means: tuple[Estimate, ...]
    """`sigma` holds cells and particles, `free` is cells minus groups; NaN without a group of two cells."""
    cell_sd: float
    """Standard deviation between equal cells beyond what their particles' numbers explain; NaN where unknown."""
    free: int


def grouped(cells: Sequence[Sequence[Estimate]]) -> Groups:
    """Means weighted by what is known of each cell, Hartung & Knapp's standard errors (2001, Stat. Med. 20, 3875) with
    t of cells minus groups, never below what Paule & Mandel's variance between cells (1982, J. Res. NBS 87, 377) and
    the particles give.

    The weights take the variance between cells for at least that of a middling cell's particles: found weights that
    differ a lot make the standard error too small. For cells with equally many particles this is the t test of the
    cells' means: exact, however few the cells.
    """
    known = [[each for each in group if math.isfinite(each.value) and each.sigma > 0] for group in cells]
    value = [np.array([each.value for each in group]) for group in known]
    variance = [np.array([each.sigma**2 for each in group]) for group in known]
    free = sum(max(0, len(group) - 1) for group in known)
    between = _between(value, variance, free) if free else math.nan
    steady = max(between, float(np.median(np.concatenate(variance)))) if free else 0.0
    misfit = _misfit(value, variance, steady) / free if free else math.nan
    means = []
    for group, v, s2 in zip(known, value, variance, strict=True):
        if not len(group):
            means.append(Estimate(math.nan, math.nan, free, 0))
            continue
        share = 1 / (steady + s2)
        total = float(share.sum())
        least = float((between + s2) @ np.square(share)) / total**2
        sigma = math.sqrt(max(misfit / total, least)) if free else math.nan
        means.append(Estimate(float(share @ v) / total, sigma, free, len(group)))
    return Groups(tuple(means), math.sqrt(between) if free else math.nan, free)


def difference(b: Estimate, a: Estimate) -> Estimate:
    """b - a of two independent estimates that share their degrees of freedom."""
    return Estimate(b.value - a.value, math.hypot(a.sigma, b.sigma), min(a.free, b.free), a.count + b.count)


def detectable(sigma: float, free: float, alpha: float, power: float = POWER) -> float:
    """The smallest true difference seen at `alpha` with `power`, when a difference has standard error `sigma`."""
    from scipy import optimize

    if not (math.isfinite(sigma) and sigma > 0 and free > 0):
        return math.nan
    high = 2.0
    while power_of(high, 1.0, free, alpha) < power:
        high *= 2
    return float(optimize.brentq(lambda shift: power_of(shift, 1.0, free, alpha) - power, 0.0, high)) * sigma


def power_of(shift: float, sigma: float, free: float, alpha: float) -> float:
    """Chance that a true difference is seen at `alpha`, two-sided."""
    from scipy import special

    if not (math.isfinite(sigma) and sigma > 0 and free > 0):
        return math.nan
    if math.isinf(free):
        z = float(special.ndtri(1 - alpha / 2))
        return float(special.ndtr(shift / sigma - z) + special.ndtr(-shift / sigma - z))
    # over the chi distribution of the standard error: the non-central t of scipy is NaN far out
    share = (np.arange(QUANTILES) + 0.5) / QUANTILES
    bound = float(special.stdtrit(free, 1 - alpha / 2)) * np.sqrt(2 * special.gammaincinv(free / 2, share) / free)
    return float(np.mean(special.ndtr(shift / sigma - bound) + special.ndtr(-shift / sigma - bound)))


def cells_needed(shift: float, particle_sigma: float, cell_sd: float, alpha: float, most: int = 200) -> int | None:
    """Cells a group for a shift to be seen with power 0.9, cells having `particle_sigma` each; None beyond `most`."""
    for count in range(2, most + 1):
        sigma = math.sqrt(2 / count * (cell_sd**2 + particle_sigma**2))
        if power_of(shift, sigma, 2 * (count - 1), alpha) >= POWER:
            return count
    return None


def cell_sd_for_nothing(found: Estimate, alpha: float) -> float:
    """The standard deviation between equal cells above which a difference of two cells would be nothing at `alpha`; 0
    when it is nothing anyway."""
    from scipy import special

    bound = float(special.stdtrit(found.free, 1 - alpha / 2))
    left = (found.value / bound) ** 2 - found.sigma**2
    return math.sqrt(left / 2) if left > 0 else 0.0


def _misfit(value: list[np.ndarray], variance: list[np.ndarray], between: float) -> float:
    """Weighted squares of cells about their groups' means."""
    total = 0.0
    for v, s2 in zip(value, variance, strict=True):
        if len(v):
            weight = 1 / (s2 + between)
            total += float(weight @ np.square(v - weight @ v / weight.sum()))
    return total


def _between(value: list[np.ndarray], variance: list[np.ndarray], free: int) -> float:
    """The variance between cells at which the misfit is what is expected; 0 when it is less without any."""
    from scipy import optimize

    if _misfit(value, variance, 0.0) <= free:
        return 0.0
    high = float(sum(np.square(v - v.mean()).sum() for v in value if len(v))) / free
    while _misfit(value, variance, high) > free:
        high *= 2
    return float(optimize.brentq(lambda between: _misfit(value, variance, between) - free, 0.0, high))
