"""The ensemble: one row about every second of run time, and which particles stand out of it."""

from __future__ import annotations

from typing import Any

import numpy as np

from daemon.photometry.activity import ACTIVE, DEAD, LOST
from daemon.photometry.cycles import HalfMeasures, SocOf

MIN_RATES = 5
UNUSUAL = 5
UNUSUAL_SIGMAS = 3.5
MAD_TO_SIGMA = 1.4826


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


def rate_cv(measures: HalfMeasures, soc: SocOf, members: np.ndarray) -> float:
    """Spread of the particles' rates in a half over their mean, the variance of measuring them subtracted."""
    rate = np.where(members, measures.rate_per_h(soc), np.nan)
    sigma = rate * measures.span_sigma_s / measures.span_s
    good = np.isfinite(rate) & np.isfinite(sigma)
    if good.sum() < MIN_RATES:
        return float("nan")
    mean = float(rate[good].mean())
    variance = float(rate[good].var(ddof=1)) - float(np.mean(sigma[good] ** 2))
    return float(np.sqrt(max(variance, 0.0))) / mean if mean > 0 else float("nan")


def unusual(measures: HalfMeasures, soc: SocOf, particle_id: np.ndarray, members: np.ndarray) -> list[dict[str, Any]]:
    """The particles farthest from the median of the last half, in robust standard deviations, and by what."""
    columns = {"rate_per_h": measures.rate_per_h(soc), "swing": measures.swing, "lag_s": measures.lag_s}
    scores = np.array([robust_score(np.where(members, column, np.nan)) for column in columns.values()])
    if not scores.size:
        return []
    scores = np.nan_to_num(np.abs(scores), nan=0.0)
    worst = scores.max(axis=0)
    order = [index for index in np.argsort(-worst, kind="stable")[:UNUSUAL] if worst[index] >= UNUSUAL_SIGMAS]
    names = list(columns)
    return [
        {
            "particle_id": int(particle_id[index]),
            "by": names[int(scores[:, index].argmax())],
            "score": round(float(worst[index]), 2),
        }
        for index in order
    ]


def robust_score(values: np.ndarray) -> np.ndarray:
    """Distance from the median over 1.4826 times the median absolute deviation; NaN for fewer than five values."""
    good = np.isfinite(values)
    if good.sum() < MIN_RATES:
        return np.full(values.shape, np.nan)
    middle = np.median(values[good])
    spread = MAD_TO_SIGMA * np.median(np.abs(values[good] - middle))
    return (values - middle) / spread if spread > 0 else np.full(values.shape, np.nan)
