"""From contrast to the particle's own charge fraction: anchors, the window, and the curve of each particle.

An anchor is an instant at which every connected solid-solution particle holds the ensemble's charge fraction: the end
of a relaxed rest, or any point of a half slow enough (at most C/20).
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.interpolate import PchipInterpolator
from scipy.optimize import isotonic_regression

from daemon.photometry.anchors import (
    FOLD_SHARE,
    FOLD_SIGMAS,
    Anchor,
    Folds,
    end_points,
    folds,
    middle,
    point,
    rest_anchor,
    slow_anchors,
)
from daemon.photometry.blocks import all_grown, finite_mean
from daemon.photometry.curves import HalfCurves

SLOW_C_RATE = 0.055
"""C/20, and a tenth for a drive that is not exact."""
KNOTS = 33
WINDOW_GROWTH = 1.05
"""A half redefines the window when it passes this much more charge."""
WINDOW_SHARE = 0.10
"""With a known capacity: share of it that a half must pass to define a window."""
END_REACH = 0.10
"""Anchors this close to 0 and 1 reach the ends; half ends this close to them are end members."""
WIDEST_GAP = 0.35
MIN_ANCHORS = 5
BIN_FRACTION = 0.02
WORST_SIGMA = 0.10
"""A monotone curve less certain than this says no more than its ends."""
CHARGE_SIGMA = 0.004
"""Coulometry is of the whole electrode, not of the field of view."""
TWO_PHASE_SIGMA = 0.05
"""End members of two phases mix linearly up to unequal brightness within the particle."""
TWO_PHASE_SPREAD = 0.65
"""Distance between the quartiles of the particles' fractions: 1 when each is at either end, a half when evenly spread,
near 0 when all are alike. Quartiles, because a few cracked particles have lost their scale."""
MIN_POPULATION = 8
MAX_ANCHORS = 512
EQUAL_CONTRAST = 1e-4
"""Contrasts this close, as a share of the span, are one."""
HALF_SAMPLING = 0.75
"""Curves through half of the anchors err more than the curve through all: sqrt(1/(1 + 0.8)) for noise alone."""


@dataclass(frozen=True)
class Window:
    """Net charge at the discharged and the charged end."""

    discharged_mah: float
    charged_mah: float

    @property
    def capacity_mah(self) -> float:
        """Charge between the ends."""
        return self.charged_mah - self.discharged_mah

    def fraction(self, charge_mah: np.ndarray | float) -> np.ndarray:
        """The ensemble's charge fraction."""
        return (np.asarray(charge_mah, float) - self.discharged_mah) / self.capacity_mah


class Calibrator:
    """Collects anchors, end members and folds half by half; `rows` gives the calibrations they support."""

    def __init__(self, particles: int, capacity_mah: float | None) -> None:
        self._particles = particles
        self._capacity_mah = capacity_mah
        self.window: Window | None = None
        self.two_phase = False
        self._anchors: deque[Anchor] = deque(maxlen=MAX_ANCHORS)
        self._ends: deque[Anchor] = deque(maxlen=16)
        self._middles: deque[Anchor] = deque(maxlen=4)
        self._folds: deque[Folds] = deque(maxlen=2)

    def grow(self, particles: int) -> None:
        """Go on with more particles, of which nothing is known yet."""
        self._particles = particles
        everything: list[deque[Any]] = [self._anchors, self._ends, self._middles, self._folds]
        for kept in everything:
            for place, each in enumerate(kept):
                kept[place] = all_grown(each, particles)

    def add(self, curves: HalfCurves) -> None:
        """Take one finished half, or the lead-in before the first current (for its rest only)."""
        for rest in curves.half.rests:
            self._keep(self._anchors, rest_anchor(curves, rest))
        if not curves.half.sign or not curves.driven.any():
            return
        if curves.half.index == 0:
            self._keep(self._ends, point(curves, slice(0, end_points(curves)), curves.half.start_mah))
        self._keep(self._ends, point(curves, slice(-end_points(curves), None), curves.half.end_mah))
        self._widen(curves)
        if self.window is None or not self.passed_enough(curves, 0.5):
            return
        self._folds.append(folds(curves))
        self._middles.append(middle(curves))
        capacity = self._capacity_mah or self.window.capacity_mah
        if curves.half.mean_current_ma / capacity <= SLOW_C_RATE:
            self._anchors.extend(slow_anchors(curves))

    @staticmethod
    def _keep(anchors: deque[Anchor], anchor: Anchor | None) -> None:
        if anchor is not None and np.isfinite(anchor.charge_mah):
            anchors.append(anchor)

    def _widen(self, curves: HalfCurves) -> None:
        half = curves.half
        low, high = sorted((half.start_mah, half.end_mah))
        least = WINDOW_SHARE * self._capacity_mah if self._capacity_mah else 0.0
        known = self.window.capacity_mah if self.window else 0.0
        if np.isfinite(high - low) and high - low > max(least, known * WINDOW_GROWTH, 1e-12):
            self.window = Window(low, high)

    def passed_enough(self, curves: HalfCurves, share: float) -> bool:
        """Whether the half passed at least this share of the window."""
        return self.window is not None and abs(curves.half.passed_mah) >= share * self.window.capacity_mah

    def rows(self, particle_id: np.ndarray, dead: np.ndarray, layer_sigma_ratio: np.ndarray) -> list[dict[str, Any]]:
        """One calibration row a particle, in order, from all that is known now."""
        discharged, charged, end_sigma = self._end_members()
        self._judge_phases(discharged, charged, dead)
        folded = self._folded()
        fractions, contrasts, sigmas = self._anchor_matrix()
        rows = []
        for index in range(self._particles):
            ends = (float(discharged[index]), float(charged[index]), float(end_sigma[index]))
            if dead[index] or self.window is None:
                curve = NO_CURVE
            elif folded[index]:
                curve = FOLDED
            elif self.two_phase:
                curve = end_members(*ends, TWO_PHASE_SIGMA)
            else:
                curve = monotone(fractions, contrasts[:, index], sigmas[:, index]) or end_members(*ends, float("nan"))
            ratio = [float(value) for value in layer_sigma_ratio[index]]
            rows.append({"particle_id": int(particle_id[index]), **curve, "layer_sigma_ratio": ratio})
        return rows

    def _folded(self) -> np.ndarray:
        """Particles that folded in each of the last two halves (in the one there is)."""
        seen = [fold.beyond if self.two_phase else fold.turned for fold in self._folds]
        return np.logical_and.reduce(seen) if seen else np.zeros(self._particles, bool)

    def _anchor_matrix(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(m,) fractions within the window, (m, P) contrasts and sigmas, by rising fraction."""
        none = np.zeros((0, self._particles))
        if self.window is None or not self._anchors:
            return np.zeros(0), none, none
        fractions = self.window.fraction(np.array([anchor.charge_mah for anchor in self._anchors]))
        order = [k for k in np.argsort(fractions, kind="stable") if -0.03 <= fractions[k] <= 1.03]
        if not order:
            return np.zeros(0), none, none
        anchors = list(self._anchors)
        contrasts = np.stack([anchors[k].contrast for k in order])
        return np.clip(fractions[order], 0, 1), contrasts, np.stack([anchors[k].sigma for k in order])

    def _end_members(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Contrasts at the discharged and the charged end, (P,) each, and their standard deviation."""
        unknown = np.full(self._particles, np.nan)
        if self.window is None:
            return unknown, unknown, unknown
        places = [(float(self.window.fraction(end.charge_mah)), end) for end in self._ends]
        low = [end for place, end in places if abs(place) <= END_REACH]
        high = [end for place, end in places if abs(place - 1.0) <= END_REACH]
        if not low or not high:
            return unknown, unknown, unknown
        (discharged, low_sigma), (charged, high_sigma) = _mean_end(low[-4:]), _mean_end(high[-4:])
        return discharged, charged, np.fmax(low_sigma, high_sigma)

    def _judge_phases(self, discharged: np.ndarray, charged: np.ndarray, dead: np.ndarray) -> None:
        """Two phases show as particles at either end while the ensemble is between; relaxed rests tell best."""
        if self.window is None:
            return
        rests = [anchor for anchor in self._anchors if anchor.rest]
        for anchors in (rests, list(self._middles)):
            spreads = [phase_spread(anchor.contrast, anchor.sigma, discharged, charged, dead) for anchor in anchors]
            known = [spread for spread in spreads if np.isfinite(spread)]
            if known:
                self.two_phase = bool(np.median(known) > TWO_PHASE_SPREAD)
                return


NO_CURVE: dict[str, Any] = {"kind": "none", "contrast_knots": [], "soc_knots": [], "soc_sigma": float("nan")}
FOLDED: dict[str, Any] = NO_CURVE | {"kind": "folded"}


def end_members(discharged: float, charged: float, sigma: float, soc_sigma: float) -> dict[str, Any]:
    """The line between two known ends; `soc_sigma` NaN when nothing is known of the curve between them.

    `none` when the ends' distance is not beyond `sigma`, their uncertainty: noise, or ends that differ between cycles.
    """
    if not abs(charged - discharged) > FOLD_SIGMAS * sigma:
        return NO_CURVE
    knots = sorted([(discharged, 0.0), (charged, 1.0)])
    contrast, soc = zip(*knots, strict=True)
    return {
        "kind": "end_members",
        "contrast_knots": list(contrast),
        "soc_knots": list(soc),
        "soc_sigma": soc_sigma,
    }


def monotone(fraction: np.ndarray, contrast: np.ndarray, sigma: np.ndarray) -> dict[str, Any] | None:
    """The monotone curve through one particle's anchors (m,); None when too few, or when no such curve fits."""
    good = np.isfinite(contrast) & np.isfinite(sigma)
    fraction, contrast, sigma = fraction[good], contrast[good], sigma[good]
    if not _spans(fraction):
        return None
    f, c = _pooled(fraction, contrast)
    noise, span = float(np.sqrt(np.mean(sigma**2))), float(np.ptp(c))
    if span <= FOLD_SIGMAS * noise or span < 1e-6:
        return NO_CURVE
    rising = bool((f - f.mean()) @ c >= 0.0)
    fitted = isotonic_regression(c, increasing=rising).x
    misfit = np.abs(fitted - c).max()
    if misfit > max(FOLD_SIGMAS * noise, FOLD_SHARE * span) or np.ptp(fitted) < 0.5 * span:
        return None
    f, c = _extended(f, fitted)
    curve = _curve(f, c)
    missed = curve(np.clip(contrast, c.min(), c.max())) - fraction
    soc_sigma = float(np.hypot(max(_rms(missed), HALF_SAMPLING * _half_sampled(f, c)), CHARGE_SIGMA))
    if not soc_sigma <= WORST_SIGMA:
        return None
    grid = np.linspace(c.min(), c.max(), KNOTS)
    return {
        "kind": "monotone",
        "contrast_knots": grid.tolist(),
        "soc_knots": np.clip(curve(grid), 0.0, 1.0).tolist(),
        "soc_sigma": soc_sigma,
    }


def _spans(fraction: np.ndarray) -> bool:
    """Whether anchors reach both ends and leave no wide gap."""
    distinct = np.unique(np.round(fraction / BIN_FRACTION))
    if len(distinct) < MIN_ANCHORS:
        return False
    reaches = fraction.min() <= END_REACH and fraction.max() >= 1.0 - END_REACH
    return bool(reaches and np.diff(distinct).max() * BIN_FRACTION <= WIDEST_GAP)


def _pooled(fraction: np.ndarray, contrast: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Anchors of nearly equal fraction averaged, by rising fraction."""
    _, group, count = np.unique(np.round(fraction / BIN_FRACTION), return_inverse=True, return_counts=True)
    return np.bincount(group, fraction) / count, np.bincount(group, contrast) / count


def _extended(f: np.ndarray, c: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The anchors continued to fractions 0 and 1 along the slope of the outer three."""
    first = c[0] - f[0] * (c[2] - c[0]) / (f[2] - f[0])
    last = c[-1] + (1.0 - f[-1]) * (c[-1] - c[-3]) / (f[-1] - f[-3])
    inside = (f > 1e-9) & (f < 1.0 - 1e-9)
    return np.r_[0.0, f[inside], 1.0], np.r_[first, c[inside], last]


def _curve(f: np.ndarray, c: np.ndarray) -> PchipInterpolator:
    """Fraction over contrast; neighbours of equal contrast share their mean fraction."""
    if c[0] > c[-1]:
        f, c = f[::-1], c[::-1]
    group = np.floor((c - c[0]) / (c[-1] - c[0]) / EQUAL_CONTRAST).astype(np.intp)
    group = np.r_[0, np.cumsum(np.diff(group) > 0)]
    count = np.bincount(group)
    return PchipInterpolator(np.bincount(group, c) / count, np.bincount(group, f) / count, extrapolate=True)


def _half_sampled(f: np.ndarray, c: np.ndarray) -> float:
    """What curves through every other anchor miss the rest by, rms."""
    inner = np.arange(1, len(f) - 1)
    missed = []
    for keep in (0, 1):
        left_out = inner[inner % 2 == keep]
        kept = np.setdiff1d(np.arange(len(f)), left_out)
        missed.append(_curve(f[kept], c[kept])(c[left_out]) - f[left_out])
    return _rms(np.concatenate(missed))


def _rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(values**2)))


def phase_spread(
    contrast: np.ndarray, sigma: np.ndarray, discharged: np.ndarray, charged: np.ndarray, dead: np.ndarray
) -> float:
    """Distance between the quartiles of the particles' fractions between their ends; NaN when it tells nothing."""
    span = charged - discharged
    good = np.isfinite(contrast) & np.isfinite(span) & (np.abs(span) > FOLD_SIGMAS * sigma) & ~dead
    if good.sum() < MIN_POPULATION:
        return float("nan")
    fraction = np.clip((contrast[good] - discharged[good]) / span[good], 0.0, 1.0)
    if not 0.25 < fraction.mean() < 0.75:
        return float("nan")
    low, high = np.quantile(fraction, [0.25, 0.75])
    return float(high - low)


def _mean_end(ends: list[Anchor]) -> tuple[np.ndarray, np.ndarray]:
    """Mean contrast at one end, and its standard deviation: noise, or how much it differed from cycle to cycle."""
    contrast = np.stack([end.contrast for end in ends])
    mean = finite_mean(contrast)
    noise = np.sqrt(finite_mean(np.stack([end.sigma for end in ends]) ** 2))
    return mean, np.fmax(noise, np.sqrt(finite_mean((contrast - mean) ** 2)))
