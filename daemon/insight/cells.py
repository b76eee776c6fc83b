"""One cell's numbers for comparing cells: location and spread of its rates, inactive fraction, retention."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from daemon.insight.estimates import Estimate
from daemon.insight.outcomes import nanmedian
from daemon.insight.protocol import MAX_HALVES, Condition, HalfFacts, halves
from daemon.insight.run_data import RunData
from daemon.insight.spatial import Field

MIN_PARTICLES = 10
"""With a known rate, for a cell to have a typical rate and a spread."""
HUBER = 1.345
"""Bend of Huber's location: 95 % as sure as the mean where rates are lognormal, hardly moved by a few strange ones."""
CLEARLY = 0.05
"""Weight of no correlation over distance below which there clearly is one."""
FAR = 3.0
"""Values farther out, in robust standard deviations, count as this far when correlation over distance is looked for."""
UNKNOWN = Estimate(math.nan, math.nan, math.inf, 0)


@dataclass(frozen=True)
class Cell:
    """A run as one cell of a group."""

    group: str
    name: str
    run: RunData
    halves: list[HalfFacts]

    @classmethod
    def of(cls, group: str, name: str, run: RunData) -> Cell:
        """Reads the protocol off the run's record."""
        return cls(group, name, run, halves(run))


def log_rates(cell: Cell, number: int, condition: Condition) -> np.ndarray:
    """(P,) natural logarithm of `rate_per_h`, median over the condition's halves; NaN where unknown."""
    rate = _rows(cell.run, "rate_per_h", condition.half, condition.cycles.get(number, [])[:MAX_HALVES])
    return nanmedian(np.log(np.where(rate > 0, rate, np.nan)))


def combined(values: Sequence[Sequence[np.ndarray]]) -> list[np.ndarray]:
    """(P,) a cell: the mean over conditions, [condition][cell] (P,), after each condition's mean over its cells is
    taken off.

    So a particle known in one condition only is not taken for slow since that one is.
    """
    own = []
    for cells in values:
        centres = [location(each).value for each in cells]
        known = [centre for centre in centres if math.isfinite(centre)]
        own.append([each - (np.mean(known) if known else np.nan) for each in cells])
    joined = []
    for parts in zip(*own, strict=True):
        total, count = np.nansum(parts, axis=0), np.isfinite(parts).sum(axis=0)
        joined.append(np.where(count > 0, total / np.maximum(count, 1), np.nan))
    return joined


def retained(cell: Cell, number: int, shared: Sequence[Condition]) -> np.ndarray:
    """(P,) retention in the last half that all cells have, mean over the conditions with more than one half."""
    parts = [
        _rows(cell.run, "retention", each.half, each.cycles[number][-1:])
        for each in shared
        if len(each.cycles.get(number, [])) > 1
    ]
    if not parts:
        return np.full(len(cell.run.particle_id), np.nan)
    return nanmean(np.concatenate(parts))


def nanmean(values: np.ndarray) -> np.ndarray:
    """Mean along the first axis of what is finite; NaN where nothing is."""
    count = np.isfinite(values).sum(axis=0)
    return np.where(count > 0, np.nansum(values, axis=0) / np.maximum(count, 1), np.nan)


def inactive(cell: Cell) -> tuple[int, int] | None:
    """(dead, all that are not lost); None while nothing has told which are."""
    judged = len(cell.run.cycles["cycle"]) > 0 or len(cell.run.echem["t_s"]) == 0
    states = cell.run.particles["state"]
    known = int((states != "lost").sum())
    return (int((states == "dead").sum()), known) if judged and known else None


def location(values: np.ndarray) -> Estimate:
    """Huber's location (1964, Ann. Math. Stat. 35, 73) in units of the median absolute deviation, with its standard
    error."""
    known = values[np.isfinite(values)]
    count = len(known)
    if count < MIN_PARTICLES:
        return Estimate(math.nan, math.nan, math.inf, count)
    centre = float(np.median(known))
    scale = 1.4826 * float(np.median(np.abs(known - centre)))
    if scale == 0:
        return Estimate(centre, float(known.std(ddof=1)) / math.sqrt(count), count - 1, count)
    for _ in range(50):
        step = float(np.clip((known - centre) / scale, -HUBER, HUBER).mean()) * scale
        centre += step
        if abs(step) < 1e-6 * scale:
            break
    score = np.clip((known - centre) / scale, -HUBER, HUBER)
    inside = float((np.abs(score) < HUBER).mean())
    sigma = scale * math.sqrt(float(np.square(score).sum()) / (count - 1) / count) / inside
    return Estimate(centre, sigma, count - 1, count)


def clustering(cell: Cell, values: np.ndarray) -> float:
    """At least 1: how much less sure a cell's location is since neighbours agree, where they clearly do."""
    y, x = cell.run.particles["y_px"], cell.run.particles["x_px"]
    rows = np.isfinite(values) & np.isfinite(y) & np.isfinite(x)
    known = values[rows]
    if len(known) < MIN_PARTICLES or np.ptp(known) == 0:
        return 1.0
    middle = np.median(known)
    scale = 1.4826 * float(np.median(np.abs(known - middle))) or float(known.std())
    bent = np.clip((known - middle) / scale, -FAR, FAR)
    fit = Field(y[rows], x[rows]).fit(bent, np.ones((len(bent), 1)))
    if fit is None or fit.alone >= CLEARLY:
        return 1.0
    return max(1.0, float(fit.sigma[0]) / (float(bent.std(ddof=1)) / math.sqrt(len(bent))))


def log_spread(values: np.ndarray) -> Estimate:
    """Logarithm of the standard deviation by Gini's mean difference (98 % as sure as the ordinary one for normal
    values, less moved by strange ones), with its standard error from the projection of the U statistic (Hoeffding
    1948)."""
    known = np.sort(values[np.isfinite(values)])
    count = len(known)
    if count < MIN_PARTICLES or known[0] == known[-1]:
        return Estimate(math.nan, math.nan, math.inf, count)
    rank = np.arange(count)
    below = np.concatenate([[0.0], np.cumsum(known)[:-1]])
    above = known.sum() - below - known
    each = (rank * known - below + above - (count - 1 - rank) * known) / (count - 1)
    gini = float(each.mean())
    sigma = 2 * float(each.std(ddof=1)) / math.sqrt(count) / gini
    # the standard error itself is as sure as that of half as many normal values
    return Estimate(math.log(gini * math.sqrt(math.pi) / 2), sigma, count / 2, count)


def _rows(run: RunData, column: str, half: str, cycles: Sequence[int]) -> np.ndarray:
    """(C', P) of the cycles named."""
    numbers, values = run.by_cycle(column, half)
    return values[np.isin(numbers, list(cycles))]
