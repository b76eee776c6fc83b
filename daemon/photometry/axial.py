"""Along a rod's long axis: how its charge differs from end to end, and how far its light has moved.

A particle's axis points down the image, or to the right when it is level; `first` is the end it comes from. Its eight
axial bins, pairs of which are quarters of its area, are mixed by the PSF like layers and are unmixed like them. Light
that moves to one end moves the centroid; so does a drift that registration did not see, which is read off the
displacement of all particles across their axes, where no axial change has a part.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from scipy import ndimage

from daemon.engine.measures import MaskSet
from daemon.photometry.derive import SocTable
from daemon.photometry.mixing import PLAIN, SHARP, unmixing
from daemon.photometry.patches import EDGE_PX, GROW_SIGMA, along_axis, axial_bins, smooth_step
from kernels.leftover import robust_shift
from kernels.photometry import AXIAL_BINS

QUARTERS = 4
ROUND_ASPECT = 1.3
"""Less elongated particles have no axis to speak of: a pixel more on one side would turn it."""
SHORT_SIGMAS = 8.0
"""A quarter of a shorter axis is narrower than twice the PSF's sigma: its light is mostly its neighbours'."""
MOVED_PX = 0.1
"""How far the drift may be off that registration tells: fronts that run alike in most particles look like it."""
SHAPE_PX = 0.02
"""How far a particle's centroid moves by itself where too few tell: a tenth of what strong gradients do along rods."""
LEAST_SHAPE_PX = 3e-4
LEAST_ROWS = 5
HUBER = 1.5
ROUNDS = 5
NEAR = 0.3
"""Of the window: errors of a curve this far apart are as good as independent."""
WHYS = ("round", "short", "not_measured", "no_calibration")
"""Why there is no value: no axis; fewer than four resolved quarters; nothing measured yet; no curve."""


@dataclass(frozen=True)
class Axes:
    """Of P particles, from their outlines and the PSF."""

    direction: np.ndarray
    """(P, 2) unit vectors, y and x."""
    length_px: np.ndarray
    """(P,) extent along the axis."""
    spread_px: np.ndarray
    """(P,) root of the outline's second moment along the axis."""
    share: np.ndarray
    """(P, 4, 4): share of each quarter's light in what the mask of another collects; rows sum to 1."""
    slip: np.ndarray
    """(P, 4): by how much a quarter brightens when the scene moves a px along the axis."""
    why: np.ndarray
    """(P,) text: `round`, `short` or empty."""

    @classmethod
    def of(cls, masks: MaskSet, known: Axes | None = None) -> Axes:
        """The axes of all particles of `masks`; what is `known` already is kept."""
        start = 0 if known is None else len(known.length_px)
        boxes = ndimage.find_objects(masks.labels, max_label=masks.count)
        found = [_axis(masks, i, boxes[i]) for i in range(start, masks.count)]
        columns = list(zip(*found, strict=True)) if found else [()] * 6
        shapes = ((2,), (), (), (QUARTERS, QUARTERS), (QUARTERS,))
        fresh = [np.array(c, float).reshape(len(found), *shape) for c, shape in zip(columns[:5], shapes, strict=True)]
        why = np.array(columns[5], object)
        if known is not None:
            before = (known.direction, known.length_px, known.spread_px, known.share, known.slip)
            fresh = [np.concatenate(pair) for pair in zip(before, fresh, strict=True)]
            why = np.concatenate([known.why, why])
        direction, length_px, spread_px, share, slip = fresh
        return cls(direction, length_px, spread_px, share, slip, why)

    @cached_property
    def ways(self) -> tuple[np.ndarray, np.ndarray]:
        """(2, P, 2) unit vectors along which particles' displacements tell of drift, and (2, P) which kind of row each
        is: rods, 0, tell across their axes only, others, 1, in both directions; NaN where there is none.
        """
        y, x = self.direction.T
        has = np.hypot(y, x) > 0
        ways = np.empty((2, len(y), 2))
        ways[0] = np.where(has[:, None], np.stack([x, -y], axis=1), [1.0, 0.0])
        ways[1] = np.where(has[:, None], np.nan, [0.0, 1.0])
        return ways, np.where(np.stack([has, has]), 0, 1)

    @property
    def rods(self) -> np.ndarray:
        """(P,) bool: those with an axis."""
        return np.asarray(self.why == "", bool)


def _axis(
    masks: MaskSet, i: int, box: tuple[slice, slice] | None
) -> tuple[tuple[float, float], float, float, np.ndarray, np.ndarray, str]:
    none = (0.0, 0.0), float("nan"), float("nan"), PLAIN, np.zeros(QUARTERS)
    inside = masks.labels[box] == i + 1 if box is not None else np.zeros((0, 0), bool)
    if inside.sum() < AXIAL_BINS:
        return *none, "short"
    places = np.stack(np.nonzero(inside)).astype(float)
    moments = np.linalg.eigvalsh(np.cov(places, bias=True) + np.eye(2) / 12.0)
    if moments[1] < ROUND_ASPECT**2 * moments[0]:
        return *none, "round"
    psf = masks.psf_sigma_px
    inside = np.pad(inside, int(np.ceil(GROW_SIGMA * psf + EDGE_PX + 4.0 * psf)) + 1)
    along = along_axis(inside)
    down, right = (float(along[place] - along[0, 0]) for place in ((1, 0), (0, 1)))
    length, spread = float(np.ptp(along[inside]) + 1.0), float(np.sqrt(moments[1]))
    if length < SHORT_SIGMAS * psf:
        return (down, right), length, spread, PLAIN, np.zeros(QUARTERS), "short"
    return (down, right), length, spread, *_seen(inside, along, (down, right), psf), ""


def _seen(
    inside: np.ndarray, along: np.ndarray, axis: tuple[float, float], psf: float
) -> tuple[np.ndarray, np.ndarray]:
    """(4, 4) shares and (4,) slip of an evenly bright particle."""
    quarter = axial_bins(inside, along) // (AXIAL_BINS // QUARTERS)
    mask = smooth_step(1.0 - (ndimage.distance_transform_edt(~inside) - GROW_SIGMA * psf) / EDGE_PX)
    masks = np.stack([mask * (quarter == k) for k in range(QUARTERS)])
    light = np.stack([ndimage.gaussian_filter((inside & (quarter == j)).astype(float), psf) for j in range(QUARTERS)])
    collected = np.einsum("kyx,jyx->kj", masks, light)
    steep = np.gradient(light.sum(axis=0))
    moved = -(axis[0] * steep[0] + axis[1] * steep[1])
    whole = collected.sum(axis=1)
    return collected / whole[:, None], np.einsum("kyx,yx->k", masks, moved) / whole


def end_weights(share: np.ndarray, departure: float = SHARP) -> np.ndarray:
    """(P, 2, 4): weights of the quarters' contrasts that make those of the first and the last one."""
    plain = (share == PLAIN).all(axis=(1, 2))[:, None, None]
    weights = np.where(plain, PLAIN, unmixing(share, departure)) if len(share) else np.zeros((0, *PLAIN.shape))
    return np.asarray(weights[:, [0, -1]])


def quarters(bins: np.ndarray) -> np.ndarray:
    """(..., 8) shares of F0 to (..., 4)."""
    return np.asarray(bins[..., 0::2] + bins[..., 1::2])


def left_over(
    moved: np.ndarray, direction: np.ndarray, sigma: np.ndarray, group: np.ndarray, shape: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The drift that registration did not see: y, x, and its covariance yy, yx, xx, (5,), px; and (G,) px2 by how much
    more than noise displacements of each group scatter about it, NaN where too few tell.

    `moved` (R,) displacements along unit vectors `direction` (R, 2) with noise `sigma` (R,). What particles' centroids
    do by themselves differs between kinds of rows, `group` (R,) 0 to G - 1: its variance is `shape` (G,). Rows that
    stand out count less (Huber).
    """
    told = np.array([0.0, 0.0, MOVED_PX**2, 0.0, MOVED_PX**2])
    more = np.full(len(shape), np.nan)
    known = np.isfinite(moved) & np.isfinite(sigma)
    if not known.any():
        return told, more
    variance = sigma**2
    spread = np.sqrt(np.maximum(variance, LEAST_SHAPE_PX**2) + np.maximum(shape, 0.0)[group])
    robust_shift(moved, direction, spread, MOVED_PX, HUBER, ROUNDS, told)
    away = np.abs(moved - direction @ told[:2])
    for each in range(len(shape)):
        own = known & (group == each)
        if (count := np.count_nonzero(own)) >= LEAST_ROWS:
            # two of the rows went into the drift
            scatter = (1.4826 * _middle(away[own])) ** 2 * count / (count - 2)
            more[each] = min(max(scatter - _middle(variance[own]), -(MOVED_PX**2)), MOVED_PX**2)
    return told, more


def _middle(values: np.ndarray) -> float:
    """The median; numpy's own takes ten times as long for a few values."""
    half = len(values) // 2
    ordered = np.partition(values, (half - 1 + len(values) % 2, half))
    return float(0.5 * (ordered[half - 1 + len(values) % 2] + ordered[half]))


class AxialRows:
    """What is known of the axes of K particles, from rows as `AxialBook` makes them; NaN where nothing is."""

    def __init__(self, rows: Sequence[Mapping[str, Any] | None]) -> None:
        count = len(rows)
        each = [(row or {}).get("further") or {} for row in rows]
        self.direction = _column(each, "direction", (2,))
        self.base_px = _column(each, "base_px", (2,))
        self.base_sigma_px = _column(each, "base_sigma_px", ())
        self.shift_ratio_px = _column(each, "shift_ratio_px", ())
        self.base = _column(each, "base", (AXIAL_BINS,))
        self.weights = _column(each, "weights", (2, QUARTERS))
        self.slip = _column(each, "slip", (2,))
        self.tilt_px = _column(each, "tilt_px", (2,))
        self.ratio = _column(each, "ratio", ())
        self.even = _column(each, "even", (2,))
        self.even_covariance = _column(each, "even_covariance", (3,))
        self.any = bool(count) and bool(np.isfinite(self.direction).any())

    def along(self, drift: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(n, K) drift along each axis and its variance, from rows of `left_over`, (n, 5)."""
        y, x = self.direction.T
        variance = drift[:, 2:3] * y**2 + 2.0 * drift[:, 3:4] * y * x + drift[:, 4:5] * x**2
        return drift[:, :1] * y + drift[:, 1:2] * x, variance

    def gradient(
        self, table: SocTable, bins: np.ndarray, sigma: np.ndarray, drift: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """soc(last quarter) - soc(first quarter) of the area along the axis and its standard deviation, (n, K) each;
        NaN where unknown.

        `bins` (n, K, 8) shares of F0, `sigma` (n, K) of the contrast, `drift` (n, 5) as of `left_over`.
        """
        moved, moved_variance = self.along(drift)
        with np.errstate(all="ignore"):
            contrast = bins.sum(axis=2) / self.base.sum(axis=1) - 1.0
            parts = quarters(bins) / quarters(self.base) - 1.0
            ends = np.einsum("pek,npk->npe", self.weights, parts)
            ends = ends - self.slip * (moved * (1.0 + contrast))[:, :, None]
            uneven = self.even[:, 0] + self.even[:, 1] * contrast
            oo, ok, kk = self.even_covariance.T
            doubt = np.maximum(oo + 2.0 * ok * contrast + kk * contrast**2, 0.0)
            first, last = ends[:, :, 0] + uneven / 2.0, ends[:, :, 1] - uneven / 2.0
            noise = sigma**2 * self.ratio**2 + (self.slip[:, 1] - self.slip[:, 0]) ** 2 * moved_variance
            reach = np.fmax(table.cell, np.sqrt(noise))
            slack = 5.0 * reach
            low, high = (table.soc_beyond(each, slack) for each in (first, last))
            middle = (first + last) / 2.0
            slope = (table.soc_beyond(middle + reach, slack) - table.soc_beyond(middle - reach, slack)) / (2.0 * reach)
            gradient = high - low
            own = table.sigma(middle, slack)
            curve = 2.0 * own**2 * -np.expm1(-0.5 * (gradient / NEAR) ** 2)
            told = np.sqrt(slope**2 * (noise + doubt) + curve)
        known = np.isfinite(gradient) & np.isfinite(told) & ~table.open_interior
        return np.where(known, gradient, np.nan), np.where(known, told, np.nan)

    def shift(
        self, centroid_px: np.ndarray, contrast: np.ndarray, sigma: np.ndarray, drift: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """How far the centroid of a particle's light stands from where it was in the baseline, along the axis, px, and
        its standard deviation, (n, K) each.

        `centroid_px` (n, K, 2) y and x as measured; `contrast`, `sigma` (n, K); `drift` (n, 5) as of `left_over`.
        """
        moved, moved_variance = self.along(drift)
        with np.errstate(all="ignore"):
            lit = contrast / (1.0 + contrast)
            shift = ((centroid_px - self.base_px) * self.direction).sum(axis=2) - moved + self.tilt_px[:, 0] * lit
            noise = (self.shift_ratio_px * sigma / (1.0 + contrast)) ** 2
            told = np.sqrt(noise + self.base_sigma_px**2 + moved_variance + (self.tilt_px[:, 1] * lit) ** 2)
        known = np.isfinite(shift) & np.isfinite(told)
        return np.where(known, shift, np.nan), np.where(known, told, np.nan)


def _column(rows: Sequence[Mapping[str, Any]], name: str, shape: tuple[int, ...]) -> np.ndarray:
    """(K, *shape) float64 of a key; None within is NaN."""
    out = np.full((len(rows), *shape), np.nan)
    for k, row in enumerate(rows):
        if row.get(name) is not None:
            out[k] = np.array(row[name], float)
    return out


def warm_axial() -> None:
    """Compile, or load, what a block needs, with the types of work."""
    left_over(np.zeros(1), np.zeros((1, 2)), np.ones(1), np.zeros(1, int), np.zeros(1))
