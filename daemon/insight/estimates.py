"""An estimate with its uncertainty, and what tests and intervals are made of it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Estimate:
    """A value that is normal with standard error `sigma` known to `free` degrees of freedom (inf: known)."""

    value: float
    sigma: float
    free: float
    count: int
    """How many particles it is of."""

    @property
    def p(self) -> float:
        """Two-sided p-value of zero."""
        from scipy import stats

        return float(2 * stats.t.sf(abs(self.value) / self.sigma, self.free)) if self.sigma > 0 else math.nan

    def interval(self, coverage: float = 0.95) -> tuple[float, float]:
        """Where the truth is with this probability."""
        from scipy import stats

        reach = float(stats.t.ppf((1 + coverage) / 2, self.free)) * self.sigma
        return self.value - reach, self.value + reach


def normal_scores(values: np.ndarray) -> np.ndarray:
    """(P,) quantiles of the normal distribution by rank, ties alike; NaN stays (van der Waerden 1952).

    What is far out counts by its place only, and any rising scale (micrometres or their logarithm) gives the same.
    """
    from scipy import stats

    scores = np.full(len(values), np.nan)
    known = np.isfinite(values)
    if known.any():
        scores[known] = stats.norm.ppf(stats.rankdata(values[known]) / (known.sum() + 1))
    return scores


def standardised(values: np.ndarray) -> np.ndarray:
    """(P,) with mean 0 and standard deviation 1 over what is known; NaN everywhere when that does not vary."""
    known = values[np.isfinite(values)]
    spread = float(known.std()) if len(known) else 0.0
    return (values - known.mean()) / spread if spread > 0 else np.full(len(values), np.nan)
