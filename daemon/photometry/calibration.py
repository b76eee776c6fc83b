"""Calibration rows: what one particle's response, or its two ends, say of soc(contrast)."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.optimize import isotonic_regression

from daemon.photometry.response import GRID, Anchors, Responses

KNOTS, LAYER_KNOTS = 65, 33
"""Evenly over the contrasts; straight lines between miss 0.001 where a curve is 2.5 times steeper than on average."""
MIN_ANCHORS = 5
END_REACH = 0.10
"""Anchors this close to 0 and 1 reach the ends."""
WIDEST_GAP = 0.35
DISTINCT = 0.02
"""Anchors this far apart are two."""
WORST_SIGMA = 0.10
"""A monotone curve less certain than this says no more than its ends."""
WORST_MISFIT = 4.0
"""Anchors that contradict each other by this many of their own sigmas have no one curve: a crack, or a loop."""
LEAST_SIGMA = 5e-4
"""Straight lines between knots, and illumination, leave about this."""
SPAN_SIGMAS = 5.0
TURN_SIGMAS, TURN_SHARE = 4.0, 0.02
"""A response that turns back by this many sigmas and this share of its span folds."""
PHASE_KNOTS = 9
PHASE_SIGMA = 0.003
"""End members of two phases, half-way: what the solid solutions at either end bend."""

NO_CURVE: dict[str, Any] = {
    "kind": "none", "contrast_knots": [], "soc_knots": [], "soc_sigma": float("nan"), "soc_sigma_knots": [],
    "layers": None,
}  # fmt: skip
FOLDED: dict[str, Any] = NO_CURVE | {"kind": "folded"}


def monotone(anchors: Anchors, responses: Responses, series: int, knots: int = KNOTS) -> dict[str, Any] | None:
    """The curve of one series; None when its anchors do not span, or support no curve; `folded` when they turn back."""
    known = np.isfinite(anchors.contrast[:, series]) & np.isfinite(anchors.sigma[:, series])
    fraction = anchors.fraction[known]
    mean, sigma = responses.mean[series], responses.sigma[series]
    if not spans(fraction) or not np.isfinite(mean).all():
        return None
    span = float(np.ptp(mean))
    if span <= SPAN_SIGMAS * float(np.median(sigma)) or span < 1e-6:
        return NO_CURVE
    if responses.misfit[series] > WORST_MISFIT:
        return None
    inside = np.clip(GRID, fraction.min() - 1e-9, fraction.max() + 1e-9) == GRID
    if turns_back(mean[inside], sigma[inside]):
        return FOLDED
    row = _inverted(mean, sigma, knots)
    return row if row["soc_sigma"] <= WORST_SIGMA else None


def spans(fraction: np.ndarray) -> bool:
    """Whether anchors reach both ends and leave no wide gap."""
    distinct = np.unique(np.round(fraction / DISTINCT))
    if len(distinct) < MIN_ANCHORS:
        return False
    reaches = fraction.min() <= END_REACH and fraction.max() >= 1.0 - END_REACH
    return bool(reaches and np.diff(distinct).max() * DISTINCT <= WIDEST_GAP)


def turns_back(mean: np.ndarray, sigma: np.ndarray) -> bool:
    """Whether a response falls and rises, each by more than its uncertainty and a share of its span."""
    return all(_fall(sign * mean, sigma, max(TURN_SHARE * float(np.ptp(mean)), 1e-12)) for sign in (1.0, -1.0))


def _fall(mean: np.ndarray, sigma: np.ndarray, least: float) -> bool:
    """Whether some later value lies beyond both limits below some earlier one."""
    fall = np.maximum.accumulate(mean) - mean
    place = int(fall.argmax())
    top = int(mean[: place + 1].argmax())
    return bool(fall[place] > max(least, TURN_SIGMAS * float(np.hypot(sigma[place], sigma[top]))))


def _inverted(mean: np.ndarray, sigma: np.ndarray, knots: int) -> dict[str, Any]:
    """soc over contrast, at even knots; its standard deviation there from the response's, over the slope."""
    rising = mean[-1] >= mean[0]
    level = isotonic_regression(mean, increasing=bool(rising)).x
    c, f, s = (each if rising else each[::-1] for each in (level, GRID, sigma))
    c = c + np.arange(len(c)) * (1e-7 * (c[-1] - c[0]))
    grid = np.linspace(c[0], c[-1], knots)
    width = np.interp(grid, c, s)
    below, here, above = (np.interp(grid + shift, c, f) for shift in (-width, 0.0, width))
    own = np.maximum(np.abs(above - here), np.abs(here - below))
    own = np.hypot(own, LEAST_SIGMA)
    return {
        "kind": "monotone",
        "contrast_knots": grid.tolist(),
        "soc_knots": np.round(here, 6).tolist(),
        "soc_sigma": float(np.sqrt(np.mean(own**2))),
        "soc_sigma_knots": np.round(own, 6).tolist(),
        "layers": None,
    }


def end_members(
    discharged: float, charged: float, differ: float, bend: float, error: float | None = None
) -> dict[str, Any]:
    """The line between two known ends; `bend` NaN when nothing is known of the curve between them.

    `bend` is by how much two phases are known not to mix linearly half-way, `error` (`differ` by default) the standard
    deviation of an end. `none` when the ends' distance is not beyond `differ`: noise, or how much ends differ between
    cycles.
    """
    span = abs(charged - discharged)
    if not span > SPAN_SIGMAS * differ:
        return NO_CURVE
    soc = np.linspace(0.0, 1.0, PHASE_KNOTS) if np.isfinite(bend) else np.array([0.0, 1.0])
    contrast = discharged + (charged - discharged) * soc
    if charged < discharged:
        contrast, soc = contrast[::-1], soc[::-1]
    inner = 4.0 * soc * (1.0 - soc)
    own = np.sqrt(((differ if error is None else error) / span) ** 2 + (bend**2 + PHASE_SIGMA**2) * inner**2)
    return {
        "kind": "end_members",
        "contrast_knots": contrast.tolist(),
        "soc_knots": soc.tolist(),
        "soc_sigma": float(np.sqrt(np.mean(own**2))),
        "soc_sigma_knots": np.round(own, 6).tolist() if np.isfinite(bend) else [],
        "layers": None,
    }
