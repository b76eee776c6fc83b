"""Particles whose inside is known: charge fraction pixel by pixel from a moving front or a profile, true Poisson noise.

It extends `PoissonScene` and shares no code with the simulated instrument. Each particle carries an order map on a grid
eight times finer than the pixels: a coordinate in px that grows along a front's way. Pixels are sorted into bins of
`BIN_PX` of it, so that a picture of the inside is one product of a matrix with one value a bin.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import ndimage
from scipy.special import erfc

from tests.scenes import PAD_PX, SUPERSAMPLING, PoissonScene

BIN_PX = 0.25
"""Of the order coordinate: a sixth of the blur, so that a sharp front is placed exactly between two bins."""
BEYOND_EDGE = 0.27
"""How far the nearest pixel outside lies beyond an outline, in pixels, mean over directions: a half along the grid."""
Order = Literal["core", "axial", "axial_back", "mixed"]


@dataclass
class Interior:
    """One particle's order map in B bins, all by rising coordinate."""

    order_px: np.ndarray
    """(B,) centres of the bins: depth from the outline (`core`), or distance along the major axis from the outline's
    upper (`axial`) or lower (`axial_back`) end; upper is left where the axis is level. `mixed`: the mean of depth and
    of distance along the axis, the latter scaled to the deepest depth.
    """
    area_px: np.ndarray
    """(B,) area of each bin."""
    covers: np.ndarray
    """(K, B) share of each of the patch's K pixels that each bin covers."""

    @property
    def length_px(self) -> float:
        """The farthest coordinate there is."""
        return float(self.order_px[-1] + BIN_PX / 2)

    @property
    def rank(self) -> np.ndarray:
        """(B,) share of the area before each bin's centre: 0 where fronts begin, 1 where they end."""
        return (np.cumsum(self.area_px) - self.area_px / 2) / self.area_px.sum()

    def front(self, position_px: float, width_px: float = 0.0) -> np.ndarray:
        """(B,) transformed share of each bin: 1 before the front, 0 beyond it, a Gaussian step of sigma `width_px`."""
        away = self.order_px - position_px
        if width_px > 0:
            return 0.5 * erfc(away / (np.sqrt(2) * width_px))
        return np.clip(0.5 - away / BIN_PX, 0.0, 1.0)

    def fraction(self, values: np.ndarray) -> float:
        """Mean of one value a bin, (B,), over the area."""
        return float(values @ self.area_px / self.area_px.sum())

    def position_px(self, fraction: float) -> float:
        """Where a sharp front stands that has transformed this share of the area."""
        edges = np.append(self.order_px - BIN_PX / 2, self.length_px)
        passed = np.append(0.0, np.cumsum(self.area_px)) / self.area_px.sum()
        return float(np.interp(fraction, passed, edges))

    def length_of_front_px(self, position_px: float) -> float:
        """Length L of the line at a coordinate: area per px of way, over half a px."""
        near = np.abs(self.order_px - position_px) <= 0.25 + BIN_PX / 2
        return float(self.area_px[near].sum() / (BIN_PX * max(near.sum(), 1)))


@dataclass
class InteriorScene(PoissonScene):
    """A `PoissonScene` with interiors. `order` is one for all particles, or one each; `elongation` draws aspect ratios.

    Elongated particles need room: `gap_px` and `margin_px` are beyond the reach of a round one. Touching pairs have no
    interiors.
    """

    order: Order | Sequence[Order] = "core"
    elongation: tuple[float, float] = (1.0, 1.0)

    def __post_init__(self) -> None:
        if self.touching_pairs:
            raise ValueError("touching pairs have no interiors")
        rng = np.random.default_rng([self.seed, 3])
        self._stretch = np.sqrt(rng.uniform(*self.elongation, self.particles))
        self._turn = rng.uniform(0, np.pi, self.particles)
        super().__post_init__()
        orders = [self.order] * self.count if isinstance(self.order, str) else list(self.order)
        self.interiors = [self._interior(i, orders[i]) for i in range(self.count)]
        self._values: list[np.ndarray] | None = None

    def axis(self, i: int) -> tuple[float, float]:
        """Unit vector (down, right) of particle i's major axis, from the end where `axial` begins."""
        rows, columns, _ = self._patches[i]
        return major_axis(self._fine_inside(i, rows, columns))

    def _outline(self, i: int) -> np.ndarray:
        radius = super()._outline(i)
        angle = 2 * np.pi * np.arange(len(radius)) / len(radius) - self._turn[i]
        return radius / np.hypot(np.cos(angle) / self._stretch[i], np.sin(angle) * self._stretch[i])

    def _coverage_of(self, i: int) -> tuple[slice, slice, np.ndarray]:
        rows, columns, cover = super()._coverage_of(i)
        if max(cover[0].max(), cover[-1].max(), cover[:, 0].max(), cover[:, -1].max()) > 0:
            raise ValueError(f"particle {i} does not fit its patch: less elongation or irregularity")
        return rows, columns, cover

    def _fine_inside(self, i: int, rows: slice, columns: slice) -> np.ndarray:
        """(8 h, 8 w) bool, the particle on the grid that its coverage was drawn on."""
        cy, cx, radius = self._centres[i]
        fine = [(np.arange((s.stop - s.start) * SUPERSAMPLING) + 0.5) / SUPERSAMPLING - 0.5 for s in (rows, columns)]
        dy, dx = np.meshgrid(fine[0] + rows.start - cy, fine[1] + columns.start - cx, indexing="ij")
        turn = ((np.arctan2(dy, dx) / (2 * np.pi) + 1) * len(radius)).astype(int) % len(radius)
        return dy**2 + dx**2 < radius[turn] ** 2

    def _draw_particles(self) -> None:
        # before centres and radii are replaced by those of the drawn areas
        self._centres = [(self.y_px[i] + PAD_PX, self.x_px[i] + PAD_PX, self._outline(i)) for i in range(self.count)]
        super()._draw_particles()

    def _interior(self, i: int, order: Order) -> Interior:
        rows, columns, cover = self._patches[i]
        inside = self._fine_inside(i, rows, columns)
        shape = cover.shape
        y, x = np.nonzero(inside)
        along = order_coordinate(inside, order)[y, x] / SUPERSAMPLING
        bins = int(np.ceil(along.max() / BIN_PX)) + 1
        pixel = (y // SUPERSAMPLING) * shape[1] + x // SUPERSAMPLING
        index = pixel * bins + np.minimum((along / BIN_PX).astype(int), bins - 1)
        covers = np.bincount(index, minlength=shape[0] * shape[1] * bins).reshape(-1, bins) / SUPERSAMPLING**2
        used = np.flatnonzero(covers.any(axis=0))[-1] + 1
        return Interior((np.arange(used) + 0.5) * BIN_PX, covers[:, :used].sum(axis=0), covers[:, :used])

    def _paint(self, brightness: np.ndarray | None) -> np.ndarray:
        if self._values is None:
            return super()._paint(brightness)
        canvas = np.zeros(self._background.shape)
        for e, (rows, columns, cover), inside, values in zip(
            self.level_e, self._patches, self.interiors, self._values, strict=True
        ):
            canvas[rows, columns] += e * (inside.covers @ values).reshape(cover.shape)
        return canvas

    def interior_e(
        self, brightness: Sequence[np.ndarray], drift: tuple[float, float] = (0.0, 0.0), blur: float | None = None
    ) -> np.ndarray:
        """(H, W) float64 expected electrons: `brightness` is one (B,) array of factors on the level for each particle.

        Others as in `mean_e`.
        """
        self._values = [np.asarray(values, float) for values in brightness]
        try:
            return self.mean_e(drift, blur=blur)
        finally:
            self._values = None

    def fronts_e(
        self,
        position_px: np.ndarray,
        step: np.ndarray | float,
        width_px: np.ndarray | float = 0.0,
        drift: tuple[float, float] = (0.0, 0.0),
    ) -> np.ndarray:
        """(H, W) expected electrons with each particle's front at `position_px` (P,).

        Transformed parts are brighter by the relative `step` (P,); `width_px` (P,) is the front's own width.
        """
        steps, widths = (np.broadcast_to(value, self.count) for value in (step, width_px))
        pairs = zip(self.interiors, position_px, steps, widths, strict=True)
        return self.interior_e([1 + s * inside.front(at, w) for inside, at, s, w in pairs], drift)

    def profiles_e(self, fraction: Callable[[int, np.ndarray], np.ndarray], step: np.ndarray | float) -> np.ndarray:
        """(H, W) expected electrons of particles whose charge fraction is ``fraction(i, rank)``, (B,) by `rank`."""
        steps = np.broadcast_to(step, self.count)
        return self.interior_e([1 + steps[i] * fraction(i, one.rank) for i, one in enumerate(self.interiors)])


def order_coordinate(inside: np.ndarray, order: Order) -> np.ndarray:
    """Coordinate of each pixel of `inside` (h, w) bool in its pixels, 0 at the outline; see `Interior.order_px`."""
    depth = np.maximum(ndimage.distance_transform_edt(inside) - BEYOND_EDGE, 0.0)
    down, right = major_axis(inside)
    rows, columns = np.meshgrid(*(np.arange(n) for n in inside.shape), indexing="ij")
    along = down * rows + right * columns
    low, high = along[inside].min(), along[inside].max()
    forth, back = along - low + 0.5, high - along + 0.5  # from the outline, not from the last pixel's centre
    mixed = 0.5 * (depth + forth * depth.max() / max(high - low, 1.0))
    return np.maximum({"core": depth, "axial": forth, "axial_back": back, "mixed": mixed}[order], 0.0)


def major_axis(inside: np.ndarray) -> tuple[float, float]:
    """Unit vector (down, right) of the largest second moment, pointing down, or right when level."""
    values, vectors = np.linalg.eigh(np.cov(*np.nonzero(inside)))
    down, right = vectors[:, np.argmax(values)].tolist()
    if down < -1e-9 or (abs(down) <= 1e-9 and right < 0):
        return -down, -right
    return down, right
