"""What all particles did during one half, smoothed just enough to be measured."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
from scipy.ndimage import uniform_filter1d

from daemon.photometry.blocks import History, finite_mean, grown
from daemon.photometry.halves import Half

MIN_POINTS = 4
"""Fewer points than this say nothing about a half."""
SMOOTH_LEAST = 3
SMOOTH_SHARES = (0.01, 0.02, 0.04, 0.08, 0.16)
"""The smoothing window is three points, or one of these shares of the half where noise is large beside the swing;"""
SMOOTH_NOISE = 0.002
"""it grows until a smoothed point is known to this share of the swing, or the curve is not straight over the window:"""
SMOOTH_SAME = 4.0
"""twice the window moved it by this many of its standard deviations (of 1.4 at the ends, where noise alone does)."""
EDGE_SPACINGS = 3.0
"""The half before has ended where this one begins when at most this many points would lie between."""
MIN_MEASURED = 0.5
"""Share of a half's points a particle must have been measured in."""
SECOND_DIFFERENCE = 0.6745 * np.sqrt(6.0)
"""Median absolute second difference of white noise with unit standard deviation."""
SCATTER_SIGMA = 1.4
"""Relative standard deviation of a scatter told by the median of n such differences, times the root of n."""


@dataclass(frozen=True)
class HalfCurves:
    """One half's n points of P particles."""

    half: Half
    t_s: np.ndarray
    contrast: np.ndarray
    """(n, P) float64, gaps filled linearly; 0 for particles that are not `known`."""
    layers: np.ndarray
    """(n, P, 4) as measured."""
    smooth: np.ndarray
    """(n, P): `contrast` after a local straight line, as wide as noise asks for; straight ramps pass unchanged."""
    block_sigma: np.ndarray
    """(P,) standard deviation of a point: the larger of the frames' own noise and the scatter seen."""
    sigma: np.ndarray
    """(P,) standard deviation of `smooth`, twice that at both ends."""
    known: np.ndarray
    """(P,) bool: there from the start, and measured often enough."""
    voltage_v: np.ndarray
    current_ma: np.ndarray
    charge_mah: np.ndarray

    def grown(self, particles: int) -> HalfCurves:
        """The same with more particles, not `known`."""
        wide: dict[str, Any] = {
            name: grown(getattr(self, name), particles, fill, axis=1)
            for name, fill in (("contrast", 0.0), ("layers", np.nan), ("smooth", 0.0))
        }
        own: dict[str, Any] = {name: grown(getattr(self, name), particles, np.nan) for name in ("block_sigma", "sigma")}
        return replace(self, known=grown(self.known, particles, False), **wide, **own)

    def preceded(self, before: HalfCurves | None) -> HalfCurves:
        """The same from where the half before left its particles: a potential step moves them at once."""
        gap_s = self.half.start_t_s - before.t_s[-1] if before is not None else np.inf
        spacing_s = np.median(np.diff(self.t_s))
        if before is None or before.half.index != self.half.index - 1 or not gap_s <= EDGE_SPACINGS * spacing_s:
            return self
        start_s = min(max(self.half.start_t_s, before.t_s[-1]), self.t_s[0] - 1e-3 * spacing_s)
        start = np.where(before.known, before.smooth[-1], self.smooth[0])
        wide: dict[str, Any] = {
            name: np.concatenate([row, getattr(self, name)])
            for name, row in (
                ("t_s", [start_s]), ("contrast", start[None]), ("smooth", start[None]), ("layers", self.layers[:1]),
                ("voltage_v", self.voltage_v[:1]), ("current_ma", self.current_ma[:1]),
                ("charge_mah", self.charge_mah[:1]),
            )
        }  # fmt: skip
        return replace(self, **wide)

    @property
    def driven(self) -> np.ndarray:
        """(n,) bool: not after the half's last current."""
        return self.t_s <= self.half.drive_end_t_s

    @property
    def start(self) -> np.ndarray:
        """(P,) contrast at the start."""
        return self.smooth[0]

    @property
    def farthest(self) -> np.ndarray:
        """(P,) contrast farthest from the start."""
        away = np.abs(self.smooth - self.smooth[0]).argmax(axis=0)
        return np.take_along_axis(self.smooth, away[None], axis=0)[0]

    @property
    def swing(self) -> np.ndarray:
        """(P,) contrast span; NaN where not known."""
        return np.where(self.known, np.ptp(self.smooth, axis=0), np.nan)

    def crossing_s(self, levels: np.ndarray) -> np.ndarray:
        """(P,) time at which each particle first passes its contrast `levels` (P,), linear between points; else NaN."""
        side = np.sign(levels - self.start)
        return first_crossing(self.t_s, (self.smooth - levels) * side)

    def level(self, fraction: float) -> np.ndarray:
        """(P,) contrast after a fraction of the way from the start to the farthest point."""
        return self.start + fraction * (self.farthest - self.start)


def half_curves(half: Half, history: History) -> HalfCurves | None:
    """The curves of a finished half; None when too few points were seen."""
    history.close()
    if len(history) < MIN_POINTS:
        return None
    t_s = history.t_s.copy()
    contrast, known = _filled(t_s, history.contrast.astype(float), history.whole)
    block_sigma = _block_sigma(history.contrast.astype(float), history.variance.astype(float))
    smooth, window = _smoothed(contrast, block_sigma)
    volts, current, charge = half.interpolate(t_s)
    return HalfCurves(
        half, t_s, contrast, history.layers.copy(), smooth, block_sigma, block_sigma / np.sqrt(window), known,
        volts, current, charge,
    )  # fmt: skip


def first_crossing(t_s: np.ndarray, signed: np.ndarray) -> np.ndarray:
    """(P,) first time at which columns of `signed` (n, P) reach 0 from below; NaN if they start above or never do."""
    above = signed >= 0.0
    place = above.argmax(axis=0)
    found = above.any(axis=0) & (place > 0)
    later = np.maximum(place, 1)
    columns = np.arange(signed.shape[1])
    low, high = signed[later - 1, columns], signed[later, columns]
    rise = np.where(found, high - low, 1.0)
    share = np.where(found, -low / np.where(rise > 0, rise, 1.0), 0.0)
    return np.where(found, t_s[later - 1] + share * (t_s[later] - t_s[later - 1]), np.nan)


def _smoothed(contrast: np.ndarray, block_sigma: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(n, P) `contrast` smoothed, and (P,) int: over how many points.

    A particle's window doubles while its noise asks for it and the wider one tells the same: only noise is smoothed.
    """
    length = len(contrast)
    windows = [SMOOTH_LEAST, *sorted({max(SMOOTH_LEAST + 2, int(share * length) | 1) for share in SMOOTH_SHARES})]
    windows = [points for points in windows if points <= length]
    smooth, window = _moving_line(contrast, windows[0]), np.full(contrast.shape[1], windows[0])
    open_ = np.full(contrast.shape[1], True)
    for before, points in pairwise(windows):
        sigma = block_sigma / np.sqrt(before)
        open_ &= sigma > SMOOTH_NOISE * np.ptp(smooth, axis=0)
        wider = _moving_line(contrast[:, open_], points)
        same = np.abs(wider - smooth[:, open_]).max(axis=0, initial=0.0) <= SMOOTH_SAME * sigma[open_]
        open_[open_] = same
        smooth[:, open_], window[open_] = wider[:, same], points
    return smooth, window


def _moving_line(values: np.ndarray, window: int) -> np.ndarray:
    """Columns smoothed by straight lines over an odd `window`: a moving mean, at both ends the end window's line."""
    smooth = uniform_filter1d(values, window, axis=0, mode="nearest")
    half, x = window // 2, np.arange(window) - window // 2
    for end, inside in ((slice(0, window), slice(0, half)), (slice(-window, None), slice(half + 1, None))):
        slope, level = np.polyfit(x, values[end], 1)
        smooth[end][inside] = level + slope * x[inside, None]
    return smooth


def _filled(t_s: np.ndarray, contrast: np.ndarray, whole: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    finite = np.isfinite(contrast)
    known = whole & (finite.mean(axis=0) >= MIN_MEASURED)
    filled = np.where(known, contrast, 0.0)
    for column in np.flatnonzero(known & ~finite.all(axis=0)):
        good = finite[:, column]
        filled[:, column] = np.interp(t_s, t_s[good], contrast[good, column])
    return filled, known


def _block_sigma(contrast: np.ndarray, variance: np.ndarray) -> np.ndarray:
    formal = np.sqrt(finite_mean(variance))
    second = np.abs(contrast[2:] - 2.0 * contrast[1:-1] + contrast[:-2])
    seen = np.isfinite(second).all(axis=0) & (len(second) >= 8)
    scatter = np.median(np.where(seen, second, 0.0), axis=0) / SECOND_DIFFERENCE
    # the larger of two estimates of one noise would be too large: what is beyond counts as far as it stands out
    # (James & Stein's estimate, its positive part)
    with np.errstate(divide="ignore", invalid="ignore"):
        beyond = scatter - formal
        share = np.fmax(1.0 - (SCATTER_SIGMA * formal / beyond) ** 2 / max(len(second), 1), 0.0)
    return np.where(np.isfinite(formal), formal + share * np.fmax(beyond, 0.0), scatter)
