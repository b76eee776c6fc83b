"""Calibration rows: what one particle's response, or its two ends, say of soc(contrast)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from daemon.photometry.response import GRID, Anchors, Responses
from kernels.curves import invert, turn_back

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


def monotone(
    anchors: Anchors, responses: Responses, which: Sequence[int], knots: int = KNOTS
) -> list[dict[str, Any] | None]:
    """The curves of `which` series; None when anchors do not span or support no curve, `folded` when they turn back."""
    series = np.asarray(which, int)
    mean, sigma, misfit = responses.mean[series], responses.sigma[series], responses.misfit[series]
    first, last = _reach(anchors, series)
    fit = (first >= 0) & np.isfinite(mean).all(axis=1)
    safe = np.where(fit[:, None], mean, 0.0)
    wide, span = np.where(fit[:, None], sigma, 1.0), np.ptp(safe, axis=1)
    told = (span > SPAN_SIGMAS * np.median(wide, axis=1)) & (span >= 1e-6)
    turned = turn_back(safe, wide, np.maximum(first, 0), last, TURN_SHARE, TURN_SIGMAS)
    rows: list[dict[str, Any] | None] = [None] * len(series)
    for k in np.flatnonzero(fit & ~(told & (misfit > WORST_MISFIT))).tolist():
        rows[k] = FOLDED if told[k] else NO_CURVE
    curved = np.flatnonzero(fit & told & ~(misfit > WORST_MISFIT) & ~turned)
    for k, row in zip(curved.tolist(), _inverted(mean[curved], sigma[curved], knots), strict=True):
        rows[k] = row if row["soc_sigma"] <= WORST_SIGMA else None
    return rows


def _reach(anchors: Anchors, series: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """First and last place of `GRID` within the known anchors of each of some series; -1 first where they do not span.

    Most series know the same anchors: each pattern is looked at once.
    """
    known = np.isfinite(anchors.contrast[:, series]) & np.isfinite(anchors.sigma[:, series])
    patterns, which = np.unique(known, axis=1, return_inverse=True)
    first, last = np.full(patterns.shape[1], -1), np.zeros(patterns.shape[1], int)
    for k, pattern in enumerate(patterns.T):
        fraction = anchors.fraction[pattern]
        if spans(fraction):
            first[k] = np.searchsorted(GRID, fraction.min() - 1e-9)
            last[k] = np.searchsorted(GRID, fraction.max() + 1e-9, "right") - 1
    return first[which.ravel()], last[which.ravel()]


def spans(fraction: np.ndarray) -> bool:
    """Whether anchors reach both ends and leave no wide gap."""
    distinct = np.unique(np.round(fraction / DISTINCT))
    if len(distinct) < MIN_ANCHORS:
        return False
    reaches = fraction.min() <= END_REACH and fraction.max() >= 1.0 - END_REACH
    return bool(reaches and np.diff(distinct).max() * DISTINCT <= WIDEST_GAP)


def _inverted(mean: np.ndarray, sigma: np.ndarray, knots: int) -> list[dict[str, Any]]:
    """soc over contrast, at even knots; its standard deviation there from the response's, over the slope."""
    contrast, soc, width = invert(mean, sigma, GRID, knots)
    own = np.hypot(width, LEAST_SIGMA)
    soc_sigma = np.sqrt(np.mean(own**2, axis=1))
    columns = (contrast, np.round(soc, 6), soc_sigma, np.round(own, 6))
    names = ("contrast_knots", "soc_knots", "soc_sigma", "soc_sigma_knots")
    each = zip(*(column.tolist() for column in columns), strict=True)
    return [{"kind": "monotone", **dict(zip(names, row, strict=True)), "layers": None} for row in each]


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


def warm_curves() -> None:
    """Compile, or load, what calibrating needs, with the types of work."""
    mean, place = np.zeros((1, len(GRID))), np.zeros(1, int)
    turn_back(mean, mean, place, place, TURN_SHARE, TURN_SIGMAS)
    invert(mean, mean, GRID, KNOTS)
