"""What one half tells of SoC: instants of known charge, and contrasts that turn back."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from daemon.engine.measures import LAYERS
from daemon.photometry.blocks import finite_mean, grown
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
REST_LEFT = 3.0
"""What is left of a relaxation that slows by a fourth from one fifth of the rest to the next, over its last step."""
FOLD_SHARE = 0.10
"""A contrast that turns back by this share of its span, beyond noise, folds, however fast the half;"""
FOLD_SHARE_AT_REST, FOLD_SHARE_PER_C = 0.03, 0.02
"""... in a slower half by less: what laggards take or give the wrong way after a turn grows with the current."""
FOLD_SIGMAS = 5.0
LAG_SHARE = 0.4
"""Charge and discharge differ by twice the lag when kinetics are alike in both; by how much they are not is unknown."""
LAG_FRACTION = 0.1
"""A half without its counterpart: lag at C/20 stays below this share of a C-rate, 0.005 of the span."""
SAME_DRIVE = 1.5
"""Currents within this factor drive particles alike."""


@dataclass(frozen=True)
class Anchor:
    """Contrasts at an instant of known ensemble charge; NaN for particles that were not settled."""

    charge_mah: float
    contrast: np.ndarray
    """(P,)"""
    sigma: np.ndarray
    """(P,) of `contrast`: noise, and what a particle still moved at the end of a rest."""
    layers: np.ndarray
    """(P, 4)"""
    lag: np.ndarray
    """(P, 5) how far current may have driven `contrast` and each of `layers` off; 0 at rest."""
    source: int = -1
    """Number of the half whose current drove the particles; negative at rest."""

    @property
    def rest(self) -> bool:
        """Whether no current flowed."""
        return self.source < 0


@dataclass(frozen=True)
class Folds:
    """(P,) bool each, of one half."""

    turned: np.ndarray
    """The contrast turned back while the current kept its sign: in a solid solution, a response that folds."""
    beyond: np.ndarray
    """The contrast left what lies between its values at the half's ends. Two phases mix linearly, so only this counts
    for them: a particle may well give back what it took, to its neighbours."""


def folds(curves: HalfCurves, c_rate: float) -> Folds:
    """Which particles' contrast turns back, by more than noise and a share of its span, while current flows."""
    driven = curves.smooth[curves.driven]
    joined = _without_rests(driven, np.flatnonzero(curves.driven))
    highest, lowest = np.maximum.accumulate(joined, axis=0), np.minimum.accumulate(joined, axis=0)
    back = np.minimum((highest - joined).max(axis=0), (joined - lowest).max(axis=0))
    highest, lowest = driven.max(axis=0, keepdims=True), driven.min(axis=0, keepdims=True)
    over = highest[-1] - np.maximum(driven[0], driven[-1])
    under = np.minimum(driven[0], driven[-1]) - lowest[-1]
    share = min(FOLD_SHARE, FOLD_SHARE_AT_REST + FOLD_SHARE_PER_C * c_rate) if np.isfinite(c_rate) else FOLD_SHARE
    noise, span = FOLD_SIGMAS * curves.block_sigma, np.ptp(driven, axis=0)
    turned = back > np.maximum(noise, share * span)
    beyond = np.maximum(over, under) > np.maximum(noise, FOLD_SHARE * span)
    return Folds(curves.known & turned, curves.known & beyond)


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
    own = curves.block_sigma / np.sqrt(late.sum())
    still_moving = REST_LEFT * np.sqrt(np.maximum(moved**2 - (noise / 1.5) ** 2, 0.0))  # beyond two sigma
    layers = np.where(settled[:, None], finite_mean(curves.layers[late]), np.nan)
    return Anchor(charge, np.where(settled, contrast, np.nan), np.hypot(own, still_moving), layers, _no_lag(contrast))


def _no_lag(contrast: np.ndarray) -> np.ndarray:
    return np.zeros((len(contrast), 1 + len(LAYERS)))


@dataclass(frozen=True)
class Drive:
    """A half's driven part, averaged over stretches of equal length."""

    source: int
    sign: int
    current_ma: float
    charge_mah: np.ndarray
    """(n,)"""
    values: np.ndarray
    """(n, P, 5) contrast, then the layers'."""
    sigma: np.ndarray
    """(n, P) of the contrast."""

    def grown(self, particles: int) -> Drive:
        """The same with more particles, unknown."""
        values, sigma = (grown(each, particles, np.nan, axis=1) for each in (self.values, self.sigma))
        return replace(self, values=values, sigma=sigma)

    def at(self, charge_mah: np.ndarray) -> np.ndarray:
        """(n', P, 5) values between the stretches; NaN beyond them."""
        order = np.argsort(self.charge_mah, kind="stable")
        known = self.charge_mah[order]
        place = np.clip(np.searchsorted(known, charge_mah) - 1, 0, len(known) - 2)
        share = (charge_mah - known[place]) / np.maximum(known[place + 1] - known[place], 1e-12)
        share[(share < -1e-9) | (share > 1.0 + 1e-9)] = np.nan
        low, high = self.values[order[place]], self.values[order[place + 1]]
        found: np.ndarray = low + share[:, None, None] * (high - low)
        return found


def driven(curves: HalfCurves) -> Drive | None:
    """The driven part of a half; None when the record knows too little of its charge."""
    points = np.flatnonzero(curves.driven & np.isfinite(curves.charge_mah))
    pieces = np.array_split(points, min(SLOW_BINS, len(points))) if len(points) else []
    if len(pieces) < 2:
        return None
    known = curves.known[None, :, None]
    values = np.concatenate([curves.contrast[:, :, None], curves.layers], axis=2)
    values = np.where(known, np.stack([finite_mean(values[piece]) for piece in pieces]), np.nan)
    sigma = np.stack([curves.block_sigma / np.sqrt(len(piece)) for piece in pieces])
    charge = np.array([curves.charge_mah[piece].mean() for piece in pieces])
    half = curves.half
    return Drive(half.index, half.sign, half.mean_current_ma, charge, values, sigma)


def alike(one: Drive, other: Drive) -> bool:
    """Whether two halves are a charge and a discharge by about the same current."""
    low, high = sorted((one.current_ma, other.current_ma))
    return one.sign == -other.sign and high <= SAME_DRIVE * low


def between(one: Drive, other: Drive) -> list[Anchor]:
    """Means of a charge and a discharge at equal charge: what lags in both by as much cancels.

    How much of half of their difference does not is taken to be `LAG_SHARE`, of a particle's own and of the typical.
    """
    values, others = one.values, other.at(one.charge_mah)
    mean, lag = (values + others) / 2.0, LAG_SHARE * np.abs(values - others) / 2.0
    span = finite_span(mean[:, :, 0])
    share = lag[:, :, 0] / np.where(span > 0, span, np.nan)
    known = np.isfinite(share)
    typical = np.array([np.median(row[good]) if good.any() else np.nan for row, good in zip(share, known, strict=True)])
    lag = np.maximum(lag, (typical[:, None] * span)[:, :, None])
    return _anchors(one, mean, one.sigma / np.sqrt(2.0), lag)


def alone(drive: Drive, c_rate: float) -> list[Anchor]:
    """A slow half without a counterpart."""
    span = finite_span(drive.values[:, :, 0])
    lag = np.broadcast_to((LAG_FRACTION * c_rate * span)[None, :, None], drive.values.shape)
    return _anchors(drive, drive.values, drive.sigma, lag)


def finite_span(values: np.ndarray) -> np.ndarray:
    """(P,) span of (n, P) values; NaN where none is known."""
    span = np.nanmax(values, axis=0, initial=-np.inf) - np.nanmin(values, axis=0, initial=np.inf)
    return np.where(np.isfinite(span), span, np.nan)


def _anchors(drive: Drive, values: np.ndarray, sigma: np.ndarray, lag: np.ndarray) -> list[Anchor]:
    each = zip(drive.charge_mah, values, sigma, lag, strict=True)
    return [Anchor(float(charge), v[:, 0], s, v[:, 1:], shift, drive.source) for charge, v, s, shift in each]


def end_points(curves: HalfCurves) -> int:
    """How many points make an end of a half: a fiftieth, at least one."""
    return max(1, len(curves.t_s) // 50)


def point(curves: HalfCurves, part: slice, charge_mah: float) -> Anchor:
    """Mean contrasts over a part of the half, at the charge given; NaN for particles not measured often enough."""
    contrast = np.where(curves.known, curves.contrast[part].mean(axis=0), np.nan)
    layers = np.where(curves.known[:, None], finite_mean(curves.layers[part]), np.nan)
    sigma = curves.block_sigma / np.sqrt(len(curves.t_s[part]))
    return Anchor(charge_mah, contrast, sigma, layers, _no_lag(contrast), curves.half.index)


def middle(curves: HalfCurves) -> Anchor:
    """All particles when half of the half's charge had passed."""
    half = curves.half
    away = np.abs(curves.charge_mah - (half.start_mah + half.end_mah) / 2.0)
    place = int(np.where(np.isfinite(away), away, np.inf).argmin())
    contrast = np.where(curves.known, curves.smooth[place], np.nan)
    return Anchor(half.start_mah, contrast, curves.sigma, curves.layers[place], _no_lag(contrast), half.index)
