"""Axial gradients and centroid shifts in traces, from blocks, baselines and the calibrations there are now."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from daemon.photometry.axial import AxialRows
from daemon.photometry.derive import SocTable
from daemon.store.axial import AxialBlocks
from daemon.store.reader import RunReader

COLUMNS = (
    "axial_gradient", "axial_gradient_sigma", "centroid_shift_px", "centroid_shift_sigma_px", "centroid_shift_nm",
    "dipole_px",
)  # fmt: skip
CENTROIDS = ("centroid_y_px", "centroid_x_px")
GAP_BLOCKS = 4.0
"""Values are carried from block to block over at most so many times their usual spacing."""


class AxialTraces:
    """Of the particles `ids` (K,) at `indices`, whose calibrations are `calibrations` by column."""

    def __init__(
        self, reader: RunReader, ids: np.ndarray, indices: np.ndarray, calibrations: Mapping[int, Mapping[str, Any]]
    ) -> None:
        by_id = {row["particle_id"]: row for row in reader.axes(ids.tolist())}
        self._reader, self._indices = reader, indices
        self._rows = AxialRows([by_id.get(identity) for identity in ids.tolist()])
        self._table = SocTable(calibrations, len(ids))
        size_nm = reader.metadata().get("pixel_size_nm") if self._rows.any else None
        self._pixel_nm = float(size_nm) if size_nm else float("nan")

    def of(self, t_s: np.ndarray, stored: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """(N, K) float32 `COLUMNS` of the frames at `t_s` (N,), in order, from their contrasts, sigmas and centroids.

        A gradient is that of the blocks before and after, linear between; `dipole_px` is the first moment of what
        changed, in units of F0.
        """
        shape = stored["contrast"].shape
        if not self._rows.any or not len(t_s):
            return {name: np.full(shape, np.nan, np.float32) for name in COLUMNS}
        contrast, sigma = (np.asarray(stored[name], float) for name in ("contrast", "contrast_sigma"))
        blocks = self._reader.axial(float(t_s[0]), float(t_s[-1]), self._indices)
        gradient, gradient_sigma = self.gradients(blocks)
        at = _Between(blocks.t_s, t_s)
        drift = np.stack([at(blocks.drift[:, j : j + 1])[:, 0] for j in range(blocks.drift.shape[1])], axis=1)
        centroid = np.stack([np.asarray(stored[name], float) for name in CENTROIDS], axis=2)
        shift, shift_sigma = self._rows.shift(centroid, contrast, sigma, drift)
        found = (
            at(gradient), at(gradient_sigma), shift, shift_sigma, shift * self._pixel_nm, shift * (1.0 + contrast),
        )  # fmt: skip
        return {name: values.astype(np.float32) for name, values in zip(COLUMNS, found, strict=True)}

    def gradients(self, blocks: AxialBlocks) -> tuple[np.ndarray, np.ndarray]:
        """(n, K) axial gradients of the blocks themselves and their standard deviations."""
        return self._rows.gradient(self._table, blocks.bins.astype(float), blocks.sigma.astype(float), blocks.drift)


class _Between:
    """Values of blocks (n, K) at the times of frames: linear, NaN where the blocks either side are far apart."""

    def __init__(self, block_s: np.ndarray, t_s: np.ndarray) -> None:
        self._empty = not len(block_s)
        if self._empty:
            self._frames = len(t_s)
            return
        after = np.searchsorted(block_s, t_s)
        self._low, self._high = np.clip(after - 1, 0, None), np.clip(after, None, len(block_s) - 1)
        apart = block_s[self._high] - block_s[self._low]
        share = (t_s - block_s[self._low]) / np.where(apart > 0, apart, 1.0)
        self._share = np.clip(np.where(apart > 0, share, 0.0), 0.0, 1.0)[:, None]
        usual = float(np.median(np.diff(block_s))) if len(block_s) > 1 else np.inf
        nearest = np.minimum(np.abs(t_s - block_s[self._low]), np.abs(t_s - block_s[self._high]))
        self._far = (np.maximum(apart, nearest) > GAP_BLOCKS * usual)[:, None]

    def __call__(self, values: np.ndarray) -> np.ndarray:
        if self._empty:
            return np.full((self._frames, values.shape[1]), np.nan)
        low, high = values[self._low], values[self._high]
        # one of the two alone where the other is not known
        low, high = np.where(np.isnan(low), high, low), np.where(np.isnan(high), low, high)
        return np.where(self._far, np.nan, low + self._share * (high - low))
