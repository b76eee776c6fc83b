"""The few statistics that reports state: medians and shares with their intervals."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats

LEVEL = 0.95
MIN_VALUES = 6  # below, no order statistic bounds a median at 95 %


@dataclass(frozen=True)
class Spread:
    """A distribution in numbers; NaN where there are too few values."""

    count: int
    median: float
    median_lo: float
    median_hi: float
    """95 % interval of the median, from order statistics: no shape of the distribution is assumed."""
    q05: float
    q25: float
    q75: float
    q95: float


def spread(values: np.ndarray) -> Spread:
    """Of what is finite."""
    good = np.sort(values[np.isfinite(values)])
    if not len(good):
        return Spread(0, *([float("nan")] * 7))
    low, high = _median_interval(good)
    q05, q25, median, q75, q95 = (float(q) for q in np.quantile(good, (0.05, 0.25, 0.5, 0.75, 0.95)))
    return Spread(len(good), median, low, high, q05, q25, q75, q95)


def medians(values: np.ndarray, least: int = 1) -> np.ndarray:
    """(P,) medians of what is finite in the columns of (N, P); NaN where fewer than `least` are."""
    known = np.isfinite(values)
    enough = known.sum(axis=0) >= least
    found = np.full(values.shape[1], np.nan)
    if enough.any():
        found[enough] = np.nanmedian(np.where(known, values, np.nan)[:, enough], axis=0)
    return found


def _median_interval(ordered: np.ndarray) -> tuple[float, float]:
    count = len(ordered)
    if count < MIN_VALUES:
        return float("nan"), float("nan")
    rank = int(stats.binom.ppf((1 - LEVEL) / 2, count, 0.5))
    return float(ordered[max(rank - 1, 0)]), float(ordered[min(count - rank, count - 1)])


def share_interval(part: int, whole: int) -> tuple[float, float]:
    """95 % interval of a share (Wilson 1927); NaN of nothing."""
    if not whole:
        return float("nan"), float("nan")
    found = stats.binomtest(part, whole).proportion_ci(LEVEL, "wilson")
    return float(found.low), float(found.high)


def rank_correlation(x: np.ndarray, y: np.ndarray) -> tuple[float, float, float, int]:
    """Spearman's correlation, its 95 % interval (Bonett & Wright 2000) and the number of pairs; NaN below ten pairs."""
    good = np.isfinite(x) & np.isfinite(y)
    count = int(good.sum())
    if count < 10 or np.ptp(x[good]) == 0 or np.ptp(y[good]) == 0:
        return float("nan"), float("nan"), float("nan"), count
    rho = float(stats.spearmanr(x[good], y[good]).statistic)
    width = stats.norm.ppf((1 + LEVEL) / 2) * np.sqrt((1 + rho**2 / 2) / (count - 3))
    middle = np.arctanh(np.clip(rho, -0.999999, 0.999999))
    return rho, float(np.tanh(middle - width)), float(np.tanh(middle + width)), count
