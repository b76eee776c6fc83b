"""The smooth background under the particles, and how far its pixels scatter: robust tiles, joined by a spline."""

from __future__ import annotations

import numpy as np
from scipy import ndimage
from scipy.interpolate import RectBivariateSpline

MIN_TILE_SHARE = 0.15  # with fewer free pixels a tile's median is mostly the wings of particles
MAD_TO_SIGMA = 1.4826


def estimate_background(image: np.ndarray, hidden: np.ndarray, mesh_px: int) -> tuple[np.ndarray, np.ndarray]:
    """Level and robust scatter (one standard deviation) of the pixels of `image` that are not `hidden`.

    `image` (H, W) float, NaN allowed; `hidden` (H, W) bool. Both results are (H, W) float64 in the image's unit. Tiles
    are about `mesh_px` wide. Raises ValueError when no tile has enough free pixels.
    """
    tiles, shape = _tiles(np.where(hidden, np.nan, image), mesh_px)
    level = _row_medians(tiles)
    level, scatter = _clip_once(tiles, level)
    enough = np.isfinite(tiles).mean(axis=1) >= MIN_TILE_SHARE
    if not enough.any():
        raise ValueError("no free background pixels")
    return (
        _spread(_fill(level, enough, shape), image.shape),
        np.maximum(_spread(_fill(scatter, enough, shape), image.shape, degree=1), 0.0),
    )


def tile_quantiles(image: np.ndarray, mesh_px: int, quantiles: tuple[float, ...]) -> list[np.ndarray]:
    """Each quantile of (H, W) `image` over tiles about `mesh_px` wide, linearly between them; (H, W), NaN left out."""
    tiles, shape = _tiles(image, mesh_px)
    some = np.isfinite(tiles).any(axis=1)
    values = np.full((len(quantiles), len(tiles)), np.nan)
    values[:, some] = np.nanquantile(tiles[some], quantiles, axis=1)
    return [_spread(_fill(row, some, shape), image.shape, degree=1) for row in values]


def _tiles(image: np.ndarray, mesh_px: int) -> tuple[np.ndarray, tuple[int, int]]:
    """(tiles, pixels) with NaN where a tile sticks out of the frame, and the tiles' arrangement."""
    counts = [max(1, round(n / mesh_px)) for n in image.shape]
    sizes = [-(-n // count) for n, count in zip(image.shape, counts, strict=True)]
    padded = np.full([count * size for count, size in zip(counts, sizes, strict=True)], np.nan, np.float32)
    padded[: image.shape[0], : image.shape[1]] = image
    tiles = padded.reshape(counts[0], sizes[0], counts[1], sizes[1]).swapaxes(1, 2)
    return tiles.reshape(counts[0] * counts[1], -1), (counts[0], counts[1])


def _row_medians(rows: np.ndarray) -> np.ndarray:
    """Median of each row's finite values; NaN for a row without any."""
    ordered = np.sort(rows, axis=1)  # NaN sorts last
    count, row = np.isfinite(rows).sum(axis=1), np.arange(len(rows))
    return (ordered[row, np.maximum(count - 1, 0) // 2] + ordered[row, np.minimum(count // 2, rows.shape[1] - 1)]) / 2


def _clip_once(tiles: np.ndarray, level: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Median and scatter again without what stands 3 sigma off: what is left of particles in the tile."""
    away = np.abs(tiles - level[:, None])
    scatter = MAD_TO_SIGMA * _row_medians(away)
    with np.errstate(invalid="ignore"):
        kept = np.where(away <= 3 * scatter[:, None], tiles, np.nan)
    level = _row_medians(kept)
    return level, MAD_TO_SIGMA * _row_medians(np.abs(kept - level[:, None]))


def _fill(values: np.ndarray, good: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """The tiles in their arrangement; bad ones take the value of the nearest good one."""
    nearest = ndimage.distance_transform_edt(~good.reshape(shape), return_distances=False, return_indices=True)
    return values.reshape(shape)[tuple(nearest)]


def _spread(mesh: np.ndarray, shape: tuple[int, ...], degree: int = 3) -> np.ndarray:
    """Values at tile centres to every pixel; beyond the outermost centres it goes on as it curves there."""
    padded = _continue(_continue(mesh, degree).T, degree).T
    sizes = [-(-n // count) for n, count in zip(shape, mesh.shape, strict=True)]
    centres = [(np.arange(-1, n + 1) + 0.5) * size - 0.5 for n, size in zip(mesh.shape, sizes, strict=True)]
    ky, kx = (min(degree, n - 1) for n in padded.shape)
    spline = RectBivariateSpline(centres[0], centres[1], padded, kx=ky, ky=kx)
    return spline(np.arange(shape[0]), np.arange(shape[1]))


def _continue(mesh: np.ndarray, degree: int) -> np.ndarray:
    """One more row on each side: a parabola through the last three where there are three and `degree` allows."""
    if len(mesh) < 3 or degree < 2:
        return np.pad(mesh, [(1, 1), (0, 0)], mode="reflect", reflect_type="odd")
    first = 3 * mesh[0] - 3 * mesh[1] + mesh[2]
    last = 3 * mesh[-1] - 3 * mesh[-2] + mesh[-3]
    return np.vstack([first, mesh, last])
