"""From contrast to what is computed on reading: SoC with its 90 % interval, gradient, transformed fraction.

Nothing here is stored: chunks hold contrasts, calibrations hold the curves, and a later, better calibration dates back
to the run's first frame. Live science, export and API share this code.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

TRACE_COLUMNS = (
    "soc", "soc_lo", "soc_hi", "gradient", "gradient_sigma", "transformed_fraction", "front_px", "front_sigma_px",
)  # fmt: skip
"""Keys of `derive_traces`."""

Z90 = 1.645
"""Half-width of a two-sided 90 % interval in standard deviations."""
GRID_POINTS = 65
"""Points of the look-up table; twice the knots of a monotone calibration, so those are met exactly."""
OUTSIDE_MARGIN = 0.10
"""Share of the calibrated contrast span by which a value may leave it and still be read as the nearest end."""
OPEN_EXPONENT = 3.0
"""End members alone: the curve between them is taken to lie between x**3 and 1 - (1 - x)**3."""
OPEN_END_SIGMA = 0.05
"""... and its ends are only as sure as particles that were not at rest there share the ensemble's charge."""


class SocTable:
    """The calibrations of P particles compiled into one look-up table over contrast.

    `rows` maps the column (0..P-1) to a calibration row: `kind`, `contrast_knots`, `soc_knots` (piecewise linear
    between knots), `soc_sigma` (NaN or None: nothing is known between two end members). Columns without a usable row
    give NaN.
    """

    def __init__(self, rows: Mapping[int, Mapping[str, Any]], count: int) -> None:
        self.usable = np.zeros(count, bool)
        self.open_interior = np.zeros(count, bool)
        self.two_phase = np.zeros(count, bool)
        self.soc_sigma = np.zeros(count)
        self._first = np.zeros(count)
        self._step = np.ones(count)
        self._table = np.zeros((count, GRID_POINTS))
        for column, row in rows.items():
            if 0 <= column < count:
                self._compile(column, row)
        self._base = np.arange(count) * GRID_POINTS

    def _compile(self, column: int, row: Mapping[str, Any]) -> None:
        knots = _clean_knots(row)
        if knots is None:
            return
        contrast, soc = knots
        sigma = row.get("soc_sigma")
        known = sigma is not None and np.isfinite(sigma)
        grid = np.linspace(contrast[0], contrast[-1], GRID_POINTS)
        self._first[column] = grid[0]
        self._step[column] = (grid[-1] - grid[0]) / (GRID_POINTS - 1)
        self._table[column] = np.interp(grid, contrast, soc)
        self.soc_sigma[column] = sigma if known else 0.0
        self.usable[column] = True
        self.two_phase[column] = row["kind"] == "end_members" and known
        self.open_interior[column] = row["kind"] == "end_members" and not known

    def soc(self, contrast: np.ndarray, slack: np.ndarray | float = 0.0) -> np.ndarray:
        """SoC for (N, P) contrasts, float64 in 0..1; NaN where unknown or beyond the calibrated span.

        `slack` is extra contrast by which a value may leave the span, for noise.
        """
        position = (contrast - self._first) / self._step
        margin = OUTSIDE_MARGIN * (GRID_POINTS - 1) + np.asarray(slack) / self._step
        known = self.usable & (position >= -margin) & (position <= GRID_POINTS - 1 + margin)
        position = np.clip(np.where(known, position, 0.0), 0.0, GRID_POINTS - 1)
        cell = np.minimum(position.astype(np.intp), GRID_POINTS - 2)
        fraction = position - cell
        flat, place = self._table.ravel(), self._base + cell
        if not flat.size:
            return np.full(np.shape(contrast), np.nan)
        return np.where(known, flat[place] * (1.0 - fraction) + flat[place + 1] * fraction, np.nan)

    def interval(self, contrast: np.ndarray, sigma: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """SoC and the bounds of its 90 % interval, from contrast noise and the calibration's own uncertainty."""
        width = Z90 * np.where(np.isfinite(sigma), sigma, 0.0)
        slack = 3.0 * width
        soc, left, right = (self.soc(contrast + shift, slack) for shift in (0.0, -width, width))
        low, high = np.fmin(left, right), np.fmax(left, right)
        own = Z90 * self.soc_sigma
        lowest, highest = low**OPEN_EXPONENT, 1.0 - (1.0 - high) ** OPEN_EXPONENT
        open_end = Z90 * OPEN_END_SIGMA
        lo = np.where(self.open_interior, lowest - open_end, soc - np.hypot(soc - low, own))
        hi = np.where(self.open_interior, highest + open_end, soc + np.hypot(high - soc, own))
        unknown = np.isnan(soc) | ~np.isfinite(sigma)
        return soc, np.where(unknown, np.nan, np.clip(lo, 0, 1)), np.where(unknown, np.nan, np.clip(hi, 0, 1))


def derive_traces(
    contrast: np.ndarray,
    contrast_sigma: np.ndarray,
    layers: Mapping[str, np.ndarray],
    calibrations: Mapping[int, Mapping[str, Any]],
    layer_sigma_ratio: np.ndarray,
) -> dict[str, np.ndarray]:
    """The derived columns of `traces` for N frames of P particles: a dictionary of (N, P) float32 (`TRACE_COLUMNS`).

    `contrast` and `contrast_sigma` are (N, P); `layers` holds layer contrasts (N, P) named `surface` .. `core` or
    `layer_surface` .. `layer_core`; `calibrations` maps the column of the arrays (not the particle id) to its row as in
    `ScienceUpdate.calibrations`; `layer_sigma_ratio` is (P, 4), sigma of a layer's contrast over that of the particle.
    `front_px` and `front_sigma_px` are NaN: measured half by half, they are filled in by `daemon.store.front_traces`.
    """
    contrast = np.asarray(contrast, float)
    sigma = np.asarray(contrast_sigma, float)
    table = SocTable(calibrations, contrast.shape[1])
    soc, lo, hi = table.interval(contrast, sigma)
    gradient, gradient_sigma = _gradient(table, sigma, layers, np.asarray(layer_sigma_ratio, float))
    unknown = np.full(contrast.shape, np.nan)
    columns = {
        "soc": soc,
        "soc_lo": lo,
        "soc_hi": hi,
        "gradient": gradient,
        "gradient_sigma": gradient_sigma,
        "transformed_fraction": np.where(table.two_phase, soc, np.nan),
        "front_px": unknown,
        "front_sigma_px": unknown,
    }
    return {name: values.astype(np.float32) for name, values in columns.items()}


def _gradient(
    table: SocTable, sigma: np.ndarray, layers: Mapping[str, np.ndarray], ratio: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """soc(surface) - soc(core) by the particle's own curve; NaN where the curve between its ends is unknown."""
    by_name = {name.removeprefix("layer_"): values for name, values in layers.items()}
    if "surface" not in by_name or "core" not in by_name:
        return np.full(sigma.shape, np.nan), np.full(sigma.shape, np.nan)
    surface, surface_sigma = _layer(table, by_name["surface"], sigma * ratio[:, 0])
    core, core_sigma = _layer(table, by_name["core"], sigma * ratio[:, 3])
    closed = ~table.open_interior
    gradient = np.where(closed, surface - core, np.nan)
    return gradient, np.where(np.isfinite(gradient), np.hypot(surface_sigma, core_sigma), np.nan)


def _layer(table: SocTable, contrast: np.ndarray, sigma: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """SoC of one layer and its standard deviation from the layer's noise alone."""
    contrast = np.asarray(contrast, float)
    width = np.where(np.isfinite(sigma), sigma, 0.0)
    slack = 3.0 * width
    above, below = table.soc(contrast + width, slack), table.soc(contrast - width, slack)
    return table.soc(contrast, slack), np.where(np.isfinite(sigma), np.abs(above - below) / 2.0, np.nan)


def _clean_knots(row: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray] | None:
    """Finite knots in rising contrast, or None when the row gives no curve."""
    if row.get("kind") not in ("monotone", "end_members"):
        return None
    contrast, soc = (np.asarray(row.get(name, ()), float).ravel() for name in ("contrast_knots", "soc_knots"))
    if len(contrast) != len(soc) or len(contrast) < 2 or not (np.isfinite(contrast) & np.isfinite(soc)).all():
        return None
    order = np.argsort(contrast, kind="stable")
    contrast, soc = contrast[order], soc[order]
    return (contrast, soc) if contrast[-1] - contrast[0] > 1e-9 else None
