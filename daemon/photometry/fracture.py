"""What changed inside a particle: a crack, a domain that turned, or all of it alike, told from a frame's own sums.

The change of a particle's axial bins, layers and first moments is compared with what shapes on its own mask would do to
them: a dark line along which one side moved and all of it may have darkened (a crack), or a band or shell of it that
turned darker or brighter (a domain, as an avalanche leaves it). All of either are tried; what is left over tells.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from daemon.engine.measures import LAYERS, MaskSet
from daemon.photometry.patches import EDGE_PX, GROW_SIGMA, along_axis, axial_bins, layers, smooth_step
from kernels.photometry import AXIAL_BINS

FEATURES = AXIAL_BINS + len(LAYERS) + 2
"""Axial bins, layers from the surface inwards, moments in y and x: shares of the particle's flux, moments in radii."""
DIRECTIONS = 18
CUTS = 16
"""Bands of equal area a particle is cut into in each direction."""
LINE_PX = 1.5
MOST_SHIFT_PX = 2.0
RIDGE = 1e-6


@dataclass(frozen=True)
class Leftover:
    """Shares of a change's square that each kind of shape leaves unexplained, 0 to 1."""

    uniform: float
    domain: float
    crack: float
    normal: tuple[float, float]
    """y, x: unit vector across the best crack."""
    offset_px: float
    """Of the best crack from the centre, along `normal`."""


class Anatomy:
    """The shapes of one particle, by its outline in the masks."""

    def __init__(self, inside: np.ndarray, psf_sigma_px: float) -> None:
        y, x = np.nonzero(inside)
        rows, columns = np.indices(inside.shape)
        self._y, self._x = rows - y.mean(), columns - x.mean()
        self.radius_px = float(np.sqrt(len(y) / np.pi))
        self._inside = inside.ravel()
        planes = self._planes(inside, psf_sigma_px)
        blurred = [ndimage.gaussian_filter(plane, psf_sigma_px) for plane in planes]
        slopes = [np.gradient(plane) for plane in blurred]
        count = inside.size
        self._weights = np.reshape(blurred, (FEATURES, count))
        self._held = np.ascontiguousarray(self._weights[:, self._inside])
        self._slopes = np.reshape(slopes, (FEATURES, 2, count))
        self._held_slopes = np.reshape(self._slopes[:, :, self._inside], (FEATURES * 2, -1))
        self._whole = self._weights @ self._inside
        self._total = self._whole[:AXIAL_BINS].sum()
        self._whole /= self._total
        # what the ring takes for background wrongly is missing in each part by its area
        self._ground, _ = np.linalg.qr(np.column_stack([self._whole, self._weights.sum(axis=1) / self._total]))
        self._bands, self._shells = self._domains(inside)

    def _planes(self, inside: np.ndarray, psf_sigma_px: float) -> list[np.ndarray]:
        outside = ndimage.distance_transform_edt(~inside)
        mask = smooth_step(1.0 - (outside - GROW_SIGMA * psf_sigma_px) / EDGE_PX)
        axial, layer = axial_bins(inside, along_axis(inside)), layers(inside)
        return [
            *(mask * (axial == k) for k in range(AXIAL_BINS)),
            *(mask * (layer == k) for k in range(len(LAYERS))),
            mask * self._y / self.radius_px,
            mask * self._x / self.radius_px,
        ]

    def _domains(self, inside: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(M, FEATURES) of bands between parallel lines, and of shells; normalised."""
        angles = np.pi * np.arange(DIRECTIONS) / DIRECTIONS
        orders = [self._y * np.sin(a) + self._x * np.cos(a) for a in angles]
        self._normals = np.column_stack([np.sin(angles), np.cos(angles)])
        self._orders = np.reshape(orders, (DIRECTIONS, -1))
        self._limits = np.quantile(self._orders[:, self._inside], np.arange(1, CUTS) / CUTS, axis=1).T
        bands = np.concatenate([self._between(order) for order in self._orders])
        depth = ndimage.distance_transform_edt(inside)
        return bands, self._between(depth.ravel() + 1e-6 * np.arange(depth.size))

    def _between(self, order: np.ndarray) -> np.ndarray:
        """(M, FEATURES) unit vectors: parts of the particle whose `order` lies between any two of its quantiles."""
        order = order[self._inside]
        below = (order[:, None] < np.quantile(order, np.arange(1, CUTS) / CUTS)).astype(float)
        upto = np.concatenate(
            [np.zeros((FEATURES, 1)), self._held @ below, (self._whole * self._total)[:, None]], axis=1
        )
        low, high = np.triu_indices(CUTS + 1, 1)
        part = (upto[:, high] - upto[:, low]).T
        norm = np.linalg.norm(part, axis=1, keepdims=True)
        return part / np.where(norm > 0, norm, np.inf)

    def explain(self, change: np.ndarray) -> Leftover:
        """What each kind of shape leaves of a `change` (FEATURES,), which must not be zero."""
        square = float(change @ change)
        uniform = 1.0 - (change @ self._whole) ** 2 / (self._whole @ self._whole) / square
        best = max(float(((shape @ change) ** 2).max()) for shape in (self._bands, self._shells))
        domain = 1.0 - max(best, float(((change @ self._ground) ** 2).sum())) / square
        left, direction, cut = self._cracked(change)
        normal = self._normals[direction]
        return Leftover(
            float(uniform), domain, left / square, (float(normal[0]), float(normal[1])),
            float(self._limits[direction, cut]),
        )  # fmt: skip

    def uneven(self, change: np.ndarray) -> float:
        """Square of what a `change` (FEATURES,) is beside a change of all of the particle alike."""
        return float(change @ change - (change @ self._whole) ** 2 / (self._whole @ self._whole))

    def of_crack(self, normal: tuple[float, float], offset_px: float) -> np.ndarray:
        """(FEATURES, 7) shapes of one crack as shares of the particle's flux: all of it, the line, the piece beyond
        moved in y and x, brightness that rises in y, in x and from the centre outwards.
        """
        line, sides, trends = self._torn(normal, offset_px)
        moved = self._slopes @ sides[:, 1]
        columns = [self._weights @ self._inside, self._weights @ line, *moved.T, *(self._weights @ trends).T]
        return np.stack(columns, axis=1) / self._total

    def of_pieces(self, normal: tuple[float, float], offset_px: float, amount: np.ndarray) -> np.ndarray:
        """(FEATURES, 4) shapes of either piece alone, as bright, as dark at the line and as far moved as `amount` (7,)
        of the columns of `of_crack` says; and of both moved together, by a px in y and in x.
        """
        line, sides, trends = self._torn(normal, offset_px)
        light = self._inside * (1.0 + amount[0]) + amount[1] * line + trends @ amount[4:]
        lit = sides * light[:, None]
        pieces = self._weights @ lit
        pieces[:, 1] += self._slopes @ lit[:, 1] @ amount[2:4]
        return np.column_stack([pieces, self._slopes @ lit.sum(axis=1)]) / self._total

    def _torn(self, normal: tuple[float, float], offset_px: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Pictures of a crack: (P,) its line, (P, 2) bool either side, (P, 3) brightness that rises."""
        along = (normal[0] * self._y + normal[1] * self._x).ravel()
        line = np.clip(LINE_PX / 2 + 0.5 - np.abs(along - offset_px), 0, 1) * self._inside
        sides = np.stack([self._inside & (along < offset_px), self._inside & (along >= offset_px)], axis=1)
        y, x = self._y.ravel() / self.radius_px, self._x.ravel() / self.radius_px
        return line, sides, np.stack([y, x, y * y + x * x], axis=1) * self._inside[:, None]

    def sides(self, normal: tuple[float, float], offset_px: float) -> tuple[np.ndarray, np.ndarray]:
        """Either side of a crack: (2, 2) centres y, x from the particle's own, and (2,) areas, px."""
        along = (normal[0] * self._y + normal[1] * self._x).ravel()
        parts = [self._inside & (along < offset_px), self._inside & (along >= offset_px)]
        centres = [[self._y.ravel()[part].mean(), self._x.ravel()[part].mean()] for part in parts if part.any()]
        return np.array(centres), np.array([part.sum() for part in parts], float)

    def _cracked(self, change: np.ndarray) -> tuple[float, int, int]:
        """Square left by the best crack, its direction and its cut: a line, all of it and one side moved, freely."""
        along = self._orders[:, self._inside].T[:, :, None]  # (n, DIRECTIONS, 1)
        shape = (len(along), -1)
        lines = self._held @ np.clip(LINE_PX / 2 + 0.5 - np.abs(along - self._limits), 0, 1).reshape(shape)
        moved = self._held_slopes @ (along >= self._limits).astype(float).reshape(shape)
        moved = moved.reshape(FEATURES, 2, DIRECTIONS, 1, CUTS - 1)
        whole = self._held_slopes.sum(axis=1).reshape(FEATURES, 2, 1, 1, 1)
        columns = np.empty((DIRECTIONS, 2, CUTS - 1, FEATURES, 4))
        columns[..., 0] = self._whole
        columns[..., 1] = np.moveaxis(lines.reshape(FEATURES, DIRECTIONS, 1, CUTS - 1), 0, -1) / self._total
        beyond = np.concatenate([moved, whole - moved], axis=3) / self._total
        columns[..., 2:] = np.moveaxis(beyond, (0, 1), (-2, -1))
        left, place = _best(columns.reshape(-1, FEATURES, 4), change)
        square = float(change @ change)
        if not left < square:
            return square, 0, CUTS // 2 - 1
        return left, place // (2 * (CUTS - 1)), place % (CUTS - 1)


def _best(columns: np.ndarray, change: np.ndarray) -> tuple[float, int]:
    """Least square left by (M, FEATURES, 4) columns and which; only dark lines, and shifts within reason."""
    normal = np.swapaxes(columns, 1, 2) @ columns
    normal += RIDGE * np.eye(4) * np.trace(normal, axis1=1, axis2=2)[:, None, None]
    right = np.swapaxes(columns, 1, 2) @ change
    amount = np.linalg.solve(normal, right[:, :, None])[:, :, 0]
    left = ((change - (columns @ amount[:, :, None])[:, :, 0]) ** 2).sum(axis=1)
    sound = (amount[:, 1] < 0) & (np.hypot(amount[:, 2], amount[:, 3]) < MOST_SHIFT_PX)
    left = np.where(sound, left, np.inf)
    return float(left.min()), int(left.argmin())


def anatomy(masks: MaskSet, index: int) -> Anatomy | None:
    """Of the particle at `index`; None when it has no outline to tell shapes by."""
    box = ndimage.find_objects((masks.labels == index + 1).astype(np.int8))
    if not box or box[0] is None:
        return None
    height, width = masks.labels.shape
    reach = int(np.ceil(GROW_SIGMA * masks.psf_sigma_px + EDGE_PX)) + 2
    rows, columns = box[0]
    window = (
        slice(max(rows.start - reach, 0), min(rows.stop + reach, height)),
        slice(max(columns.start - reach, 0), min(columns.stop + reach, width)),
    )
    inside = masks.labels[window] == index + 1
    return Anatomy(inside, masks.psf_sigma_px) if inside.sum() >= 4 * CUTS else None
