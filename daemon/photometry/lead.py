"""How many cycles a particle has left once it was warned of.

What a trend would reach, and when, does not tell when contact is lost. How long others lasted after their warnings
does: times to failure after Weibull, of which the rate is learnt in the run (gamma prior, living particles as
censored: Soland 1969). Until then it is that of simulated precursors (docs/science.md).
"""

from __future__ import annotations

import numpy as np

from daemon.photometry.blocks import grown

SHAPE = 2.1
"""Of the Weibull distribution: the hazard rises nearly in proportion to the time since the warning."""
PRIOR_FAILURES = 10.0
"""What is known beforehand counts as much as so many failures seen."""
PRIOR_MEDIAN_CYCLES = 7.0
OUTLIVED = 0.95
"""A particle that lived longer than this share of those that fail is none of them: nothing is told any more."""
BOUNDS = (0.05, 0.5, 0.95)


class LeadBook:
    """When particles were warned of and how long they lasted."""

    def __init__(self, particles: int) -> None:
        self._warned = np.full(particles, np.nan)
        """Cycle of the first warning,"""
        self._lasted = np.full(particles, np.nan)
        """and cycles from it to the failure."""

    def grow(self, particles: int) -> None:
        """Go on with more particles."""
        self._warned, self._lasted = (grown(each, particles, np.nan) for each in (self._warned, self._lasted))

    def add(self, cycle: int, warned: np.ndarray, failed: np.ndarray) -> None:
        """Take a cycle: (P,) bool warned of in it, (P,) bool failed by now."""
        self._warned = np.where(warned & np.isnan(self._warned), cycle, self._warned)
        ended = failed & np.isnan(self._lasted) & (self._warned < cycle)
        self._lasted = np.where(ended, cycle - self._warned, self._lasted)

    def left(self, cycle: int) -> np.ndarray:
        """(3, P) cycles left, lower bound, median and upper bound of 90 %; NaN for those not warned of.

        NaN for those that failed, too, and for those that outlived what is known of failures.
        """
        with np.errstate(invalid="ignore"):
            lived = cycle - self._warned
            lived = np.where(np.isfinite(self._lasted), np.nan, lived)
            failures, power = self._known(lived)
            lived = np.where(lived > _quantile(OUTLIVED, failures, power, 0.0), np.nan, lived)
            return np.stack([_quantile(share, failures, power, lived) - lived for share in BOUNDS])

    def _known(self, lived: np.ndarray) -> tuple[float, float]:
        """Failures, and the sum of the powers of all times: parameters of the rate's gamma distribution."""
        prior = PRIOR_MEDIAN_CYCLES**SHAPE / (2.0 ** (1.0 / PRIOR_FAILURES) - 1.0)
        lasted = self._lasted[np.isfinite(self._lasted)]
        failures = PRIOR_FAILURES + len(lasted)
        power = prior + float(np.power(lasted, SHAPE).sum())
        living = lived[lived <= float(_quantile(OUTLIVED, failures, power, 0.0))]
        return failures, power + float(np.power(living, SHAPE).sum())


def _quantile(share: float, failures: float, power: float, lived: np.ndarray | float) -> np.ndarray:
    """Cycles from the warning within which a share of those fails that lived so long; the rate integrated out."""
    lived_power = power + np.power(lived, SHAPE)
    return np.power(lived_power * (1.0 - share) ** (-1.0 / failures) - power, 1.0 / SHAPE)
