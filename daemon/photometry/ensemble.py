"""The ensemble: one row about every second of run time, and how far its particles' rates are spread."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from daemon.photometry.activity import ACTIVE, DEAD, LOST
from daemon.photometry.cycles import HalfMeasures, SocOf
from daemon.photometry.kinetics import StepRates, spread, step_spread

MIN_RATES = 5
MAD_TO_SIGMA = 1.4826
STEP_SHARE = 0.8
"""A potential step tells the spread of rates when this share of the particles passed both of its levels: the others
would be missing at one end of the distribution."""
SPREAD_MEANS = {
    "potential_step": "rates at equal charge after a potential step: reaction rates",
    "held_voltage": "rates under held voltage",
    "held_current": "rates under held current, which fixes their mean and evens them out: reaction rates show after "
    "potential steps, and in lags",
    "unknown": "fewer than five particles have a rate",
}
"""What a spread is the spread of, by its basis."""


@dataclass(frozen=True)
class RateSpread:
    """`cv` and its standard deviation over `count` particles; `basis` is a key of `SPREAD_MEANS`."""

    cv: float = float("nan")
    sigma: float = float("nan")
    count: int = 0
    basis: str = "unknown"


def ensemble_row(
    t_s: float, soc: np.ndarray, weights: np.ndarray, states: np.ndarray, *, judged: bool, rate_cv: float
) -> dict[str, Any]:
    """One row: area-weighted SoC of active, calibrated particles; the share not dead among those not lost."""
    mean, std = weighted(np.where(states == ACTIVE, soc, np.nan), weights)
    present = int((states != LOST).sum())
    fraction = float(((states != LOST) & (states != DEAD)).sum()) / present if judged and present else float("nan")
    return {"t_s": t_s, "soc_mean": mean, "soc_std": std, "active_fraction": fraction, "rate_cv": rate_cv}


def weighted(values: np.ndarray, weights: np.ndarray) -> tuple[float, float]:
    """Weighted mean and standard deviation of what is finite; NaN when nothing is (one value has no deviation)."""
    good = np.isfinite(values) & (weights > 0)
    if not good.any():
        return float("nan"), float("nan")
    share = weights[good] / weights[good].sum()
    mean = float(share @ values[good])
    spread = float(np.sqrt(share @ (values[good] - mean) ** 2))
    return mean, spread if good.sum() > 1 else float("nan")


def rate_spread(measures: HalfMeasures, soc: SocOf, members: np.ndarray, steps: list[StepRates]) -> RateSpread:
    """Spread of the particles' rates in a half over their mean, the variance of measuring them subtracted.

    After a potential step rates are compared at equal charge, where every particle feels the same overpotential.
    """
    cv, sigma, count = step_spread(steps)
    if count >= STEP_SHARE * members.sum() and np.isfinite(cv):
        return RateSpread(cv, sigma, count, "potential_step")
    rate = np.where(members, measures.rate_per_h(soc), np.nan)
    cv, sigma, count = spread(rate, rate * measures.span_sigma_s / measures.span_s)
    basis = "held_voltage" if measures.potentiostatic else "held_current"
    return RateSpread(cv, sigma, count, basis if np.isfinite(cv) else "unknown")
