"""What one half tells of SoC: instants of known charge, and contrasts that turn back."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from daemon.photometry.curves import HalfCurves
from daemon.photometry.halves import Rest

SLOW_BINS = 32
REST_MIN_S = 60.0
REST_DRIFT_V = 0.001
"""A rest is relaxed when the voltage moves less than this over its last fifth."""
REST_DRIFT_SHARE = 0.01
"""... and a particle when its contrast moves less than noise, than this share of the half's typical swing, or than"""
REST_DRIFT_CONTRAST = 1e-3
"""... this: before the first current nothing has swung yet, and light and focus walk as much."""
FOLD_SHARE = 0.10
"""A contrast that turns back by this share of its span, beyond noise, folds."""
FOLD_SIGMAS = 5.0


@dataclass(frozen=True)
class Anchor:
    """Contrasts (P,) at an instant of known ensemble charge; NaN for particles that were not settled."""

    charge_mah: float
    contrast: np.ndarray
    sigma: np.ndarray
    rest: bool


@dataclass(frozen=True)
class Folds:
    """(P,) bool each, of one half."""

    turned: np.ndarray
    """The contrast turned back while the current kept its sign: in a solid solution, a response that folds."""
    beyond: np.ndarray
    """The contrast left what lies between its values at the half's ends. Two phases mix linearly, so only this counts
    for them: a particle may well give back what it took, to its neighbours."""


def folds(curves: HalfCurves) -> Folds:
    """Which particles' contrast turns back, by more than noise and a tenth of its span, while current flows."""
    driven = curves.smooth[curves.driven]
    joined = _without_rests(driven, np.flatnonzero(curves.driven))
    highest, lowest = np.maximum.accumulate(joined, axis=0), np.minimum.accumulate(joined, axis=0)
    back = np.minimum((highest - joined).max(axis=0), (joined - lowest).max(axis=0))
    highest, lowest = driven.max(axis=0, keepdims=True), driven.min(axis=0, keepdims=True)
    over = highest[-1] - np.maximum(driven[0], driven[-1])
    under = np.minimum(driven[0], driven[-1]) - lowest[-1]
    least = np.maximum(FOLD_SIGMAS * curves.block_sigma, FOLD_SHARE * np.ptp(driven, axis=0))
    return Folds(curves.known & (back > least), curves.known & (np.maximum(over, under) > least))


def _without_rests(driven: np.ndarray, place: np.ndarray) -> np.ndarray:
    """The driven stretches (n, P) joined without what changed in the rests between them.

    In a rest fast particles give back to slow ones what they took beyond their share: that is no fold.
    """
    begins = np.flatnonzero(np.diff(place) > 1) + 1
    changed = np.zeros_like(driven)
    changed[begins] = driven[begins] - driven[begins - 1]
    return driven - np.cumsum(changed, axis=0)


def rest_anchor(curves: HalfCurves, rest: Rest) -> Anchor | None:
    """The end of a rest, when voltage and most particles had settled; None otherwise."""
    length = rest.end_t_s - rest.start_t_s
    if not length >= REST_MIN_S:
        return None
    # points are means over a spacing and more: the last one may hold the current that ends the rest
    spacing_s = float(np.median(np.diff(curves.t_s))) if len(curves.t_s) > 1 else 0.0
    late = (curves.t_s > rest.end_t_s - 0.2 * length) & (curves.t_s <= rest.end_t_s - spacing_s)
    late &= np.isfinite(curves.voltage_v)
    early = (curves.t_s > rest.end_t_s - 0.4 * length) & (curves.t_s <= rest.end_t_s - 0.2 * length)
    if not late.any() or not early.any():
        return None
    if not abs(curves.voltage_v[late].mean() - curves.voltage_v[early].mean()) < REST_DRIFT_V:
        return None
    contrast = curves.contrast[late].mean(axis=0)
    moved = np.abs(contrast - curves.contrast[early].mean(axis=0))
    noise = 3.0 * curves.block_sigma * np.sqrt(1.0 / late.sum() + 1.0 / early.sum())
    scale = np.quantile(curves.swing[curves.known], 0.75) if curves.known.any() else 0.0
    settled = curves.known & (moved <= np.maximum(noise, max(REST_DRIFT_SHARE * scale, REST_DRIFT_CONTRAST)))
    if settled.sum() < 0.5 * curves.known.sum():
        return None
    charge = float(curves.charge_mah[late].mean())
    return Anchor(charge, np.where(settled, contrast, np.nan), curves.block_sigma / np.sqrt(late.sum()), True)


def slow_anchors(curves: HalfCurves) -> list[Anchor]:
    """A slow half's driven part, averaged over stretches of equal length."""
    driven = np.flatnonzero(curves.driven & np.isfinite(curves.charge_mah))
    pieces = np.array_split(driven, min(SLOW_BINS, len(driven))) if len(driven) else []
    contrast = np.where(curves.known, curves.contrast, np.nan)
    return [
        Anchor(
            float(curves.charge_mah[piece].mean()),
            contrast[piece].mean(axis=0),
            curves.block_sigma / np.sqrt(len(piece)),
            False,
        )
        for piece in pieces
    ]


def end_points(curves: HalfCurves) -> int:
    """How many points make an end of a half: a fiftieth, at least one."""
    return max(1, len(curves.t_s) // 50)


def point(curves: HalfCurves, part: slice, charge_mah: float) -> Anchor:
    """Mean contrasts over a part of the half, at the charge given; NaN for particles not measured often enough."""
    contrast = np.where(curves.known, curves.contrast[part].mean(axis=0), np.nan)
    return Anchor(charge_mah, contrast, curves.block_sigma / np.sqrt(len(curves.t_s[part])), False)


def middle(curves: HalfCurves) -> Anchor:
    """All particles when half of the half's charge had passed."""
    half = curves.half
    away = np.abs(curves.charge_mah - (half.start_mah + half.end_mah) / 2.0)
    place = int(np.where(np.isfinite(away), away, np.inf).argmin())
    return Anchor(half.start_mah, np.where(curves.known, curves.smooth[place], np.nan), curves.sigma, False)
