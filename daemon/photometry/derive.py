"""From contrast to what is computed on reading: SoC with its 90 % interval, gradient, transformed fraction.

Nothing here is stored: chunks hold contrasts, calibrations hold the curves, and a later, better calibration dates back
to the run's first frame. Live science, export and API share this code.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from daemon.engine.measures import LAYERS

TRACE_COLUMNS = (
    "soc", "soc_lo", "soc_hi", "gradient", "gradient_sigma", "transformed_fraction", "front_px", "front_sigma_px",
)  # fmt: skip
"""Keys of `derive_traces`."""

Z90 = 1.645
"""Half-width of a two-sided 90 % interval in standard deviations."""
GRID_POINTS = 129
"""Points of the look-up table; twice the knots of a monotone calibration, so those are met exactly."""
OUTSIDE_MARGIN = 0.10
"""Share of the calibrated contrast span by which a value may leave it and still be read as the nearest end."""
OPEN_EXPONENT = 3.0
"""End members alone: the curve between them is taken to lie between x**3 and 1 - (1 - x)**3."""
OPEN_END_SIGMA = 0.05
"""... and its ends are only as sure as particles that were not at rest there share the ensemble's charge."""


UNIFIED_AT, UNIFIED_BELOW = (1.5, 2.0, 2.5, 3.1), (1.28, 1.42, 1.56, Z90)
"""An estimate so many standard deviations from an end has its bound on that side so many away ..."""
UNIFIED_UNDER, UNIFIED_ABOVE = (-3.0, -2.0, -1.0, 0.0), (0.26, 0.40, 0.81, Z90)
"""... and one beyond the end, its other bound so many inside."""
PROFILE_VARIANCE = 1.0 / 6.75
"""Variance of the fraction within a particle over its squared gradient, for a sphere under even flux."""
BEND_CELLS = 8
"""A curve's slope and bend are taken over this many cells of the look-up table either way."""
LARGEST_BEND = 0.05
"""The mean of a bent response is not taken to differ by more than this."""


class SocTable:
    """The calibrations of P particles compiled into one look-up table over contrast.

    `rows` maps the column (0..P-1) to a calibration row: `kind`, `contrast_knots`, `soc_knots` (piecewise linear
    between knots), `soc_sigma` (NaN or None: nothing is known between two end members) and, where the file has it,
    `soc_sigma_knots`, the same knot by knot. Columns without a usable row give NaN.
    """

    def __init__(self, rows: Mapping[int, Mapping[str, Any]], count: int) -> None:
        self.usable = np.zeros(count, bool)
        self.open_interior = np.zeros(count, bool)
        self.two_phase = np.zeros(count, bool)
        self._sigma = np.zeros((count, GRID_POINTS))
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
        contrast, soc, own = knots
        sigma = row.get("soc_sigma")
        known = sigma is not None and np.isfinite(sigma)
        grid = np.linspace(contrast[0], contrast[-1], GRID_POINTS)
        self._first[column] = grid[0]
        self._step[column] = (grid[-1] - grid[0]) / (GRID_POINTS - 1)
        self._table[column] = np.interp(grid, contrast, soc)
        if known:
            self._sigma[column] = sigma if own is None else np.interp(grid, contrast, own)
        self.usable[column] = True
        self.two_phase[column] = row["kind"] == "end_members" and known
        self.open_interior[column] = row["kind"] == "end_members" and not known

    def soc(self, contrast: np.ndarray, slack: np.ndarray | float = 0.0) -> np.ndarray:
        """SoC for (N, P) contrasts, float64 in 0..1; NaN where unknown or beyond the calibrated span.

        `slack` is extra contrast by which a value may leave the span, for noise.
        """
        return self._read(self._table, contrast, slack)

    @property
    def cell(self) -> np.ndarray:
        """(P,) contrast between two points of the look-up table."""
        return self._step

    def soc_beyond(self, contrast: np.ndarray, slack: np.ndarray | float = 0.0) -> np.ndarray:
        """Like `soc`, but continued beyond 0 and 1 along the curve's ends: means of noisy values are not bent there."""
        position = (contrast - self._first) / self._step
        under, over = np.minimum(position, 0.0), np.maximum(position - (GRID_POINTS - 1), 0.0)
        near = self._table[:, BEND_CELLS] - self._table[:, 0]
        far = self._table[:, -1] - self._table[:, -1 - BEND_CELLS]
        return self.soc(contrast, slack) + (under * near + over * far) / BEND_CELLS

    def bend(self, contrast: np.ndarray, variance: np.ndarray) -> np.ndarray:
        """By how much the mean fraction lies above the fraction of the mean contrast, for (N, P) variances of the
        fraction within the particle: half of g''/g'^2 times the variance, g the curve soc(contrast).
        """
        place = np.clip(np.arange(GRID_POINTS), BEND_CELLS, GRID_POINTS - 1 - BEND_CELLS)
        below, here, above = (self._table[:, place + shift] for shift in (-BEND_CELLS, 0, BEND_CELLS))
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = np.nan_to_num((above - 2.0 * here + below) / ((above - below) / 2.0) ** 2, posinf=0.0, neginf=0.0)
        bent = 0.5 * self._read(ratio, contrast, np.inf) * variance
        return np.clip(np.nan_to_num(bent), -LARGEST_BEND, LARGEST_BEND)

    def sigma(self, contrast: np.ndarray, slack: np.ndarray | float = 0.0) -> np.ndarray:
        """Standard deviation of the calibration at (N, P) contrasts, 0 where nothing is known between two ends."""
        return self._read(self._sigma, contrast, slack)

    def _read(self, table: np.ndarray, contrast: np.ndarray, slack: np.ndarray | float) -> np.ndarray:
        position = (contrast - self._first) / self._step
        margin = OUTSIDE_MARGIN * (GRID_POINTS - 1) + np.asarray(slack) / self._step
        known = self.usable & (position >= -margin) & (position <= GRID_POINTS - 1 + margin)
        position = np.clip(np.where(known, position, 0.0), 0.0, GRID_POINTS - 1)
        cell = np.minimum(position.astype(np.intp), GRID_POINTS - 2)
        fraction = position - cell
        flat, place = table.ravel(), self._base + cell
        if not flat.size:
            return np.full(np.shape(contrast), np.nan)
        return np.where(known, flat[place] * (1.0 - fraction) + flat[place + 1] * fraction, np.nan)

    def interval(
        self, contrast: np.ndarray, sigma: np.ndarray, shift: np.ndarray | float = 0.0
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """SoC and the bounds of its 90 % interval, from contrast noise and the calibration's own uncertainty, all moved
        by `shift`.
        """
        width = Z90 * np.where(np.isfinite(sigma), sigma, 0.0)
        slack = 3.0 * width
        soc, left, right = (self.soc_beyond(contrast + away, slack) for away in (0.0, -width, width))
        low, high = np.fmin(left, right), np.fmax(left, right)
        own = Z90 * self.sigma(contrast, slack)
        below, above = (np.hypot(side, own) / Z90 for side in (soc - low, high - soc))
        lo, hi = bounded(soc + shift, below, above)
        if self.open_interior.any():
            low, high = np.clip(low, 0, 1), np.clip(high, 0, 1)
            lo = np.where(self.open_interior, low**OPEN_EXPONENT - Z90 * OPEN_END_SIGMA, lo)
            hi = np.where(self.open_interior, 1.0 - (1.0 - high) ** OPEN_EXPONENT + Z90 * OPEN_END_SIGMA, hi)
        unknown = np.isnan(soc) | ~np.isfinite(sigma)
        lo, hi = (np.where(unknown, np.nan, np.clip(bound, 0, 1)) for bound in (lo, hi))
        return np.clip(soc + shift, 0, 1), lo, hi


def bounded(estimate: np.ndarray, below: np.ndarray, above: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """90 % interval of a fraction that lies in 0..1, from an estimate that need not, and its standard deviation towards
    0 and towards 1: the unified intervals of Feldman & Cousins (1998), table X, at either end.
    """
    lo, from_low = _unified(estimate, below, above)
    hi, from_high = _unified(1.0 - estimate, above, below)
    near = estimate < 0.5
    return np.where(near, lo, 1.0 - from_high), np.where(near, from_low, 1.0 - hi)


def _unified(estimate: np.ndarray, below: np.ndarray, above: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Bounds of what is known not to be negative."""
    with np.errstate(divide="ignore", invalid="ignore"):
        place = np.nan_to_num(estimate / below, posinf=9.0, neginf=-9.0)
    lo = estimate - below * np.interp(place, UNIFIED_AT, UNIFIED_BELOW)
    hi = np.where(estimate >= 0.0, estimate + Z90 * above, above * np.interp(place, UNIFIED_UNDER, UNIFIED_ABOVE))
    return np.maximum(lo, 0.0), hi


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
    table, own = _compiled(calibrations, contrast.shape[1])
    ratio = np.asarray(layer_sigma_ratio, float)
    by_name = {name.removeprefix("layer_"): np.asarray(values, float) for name, values in layers.items()}
    gradient, gradient_sigma = own.gradient(by_name, sigma, ratio)
    soc, lo, hi = table.interval(contrast, sigma, own.shift(table, contrast, gradient, gradient_sigma))
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


class LayerTables:
    """How the layers' contrasts of P particles become the SoC of each of the layers `names`."""

    def __init__(
        self, rows: Mapping[int, Mapping[str, Any]], count: int, names: Sequence[str] = (LAYERS[0], LAYERS[-1])
    ) -> None:
        places = [LAYERS.index(name) for name in names]
        self.weights = np.repeat(np.eye(len(LAYERS))[None, places], count, axis=0)
        """(P, len(names), 4): their contrasts from those measured."""
        self.tilt = np.zeros(count)
        """(P,) SoC read too high by this much a gradient: the surface shines brighter than the core."""
        self.unsure = np.zeros(count)
        """(P,) standard deviation of a gradient by what blur hides of the layers, as a share of it."""
        parts: list[dict[int, Mapping[str, Any]]] = [{} for _ in names]
        for column, row in rows.items():
            own = row.get("layers")
            if not 0 <= column < count or row.get("kind") not in ("monotone", "end_members"):
                continue
            if own:
                self.weights[column] = np.asarray(own["weights"], float)[places]
                self.tilt[column] = own.get("tilt") or 0.0
                self.unsure[column] = own.get("unsure") or 0.0
                for part, name in zip(parts, names, strict=True):
                    part[column] = {"kind": "monotone", "soc_sigma": 0.0, **own[name]}
            elif "layers" not in row and row["kind"] == "monotone":  # a file of an earlier version
                for part in parts:
                    part[column] = row
        self.tables = [SocTable(part, count) for part in parts]

    def gradient(
        self, layers: Mapping[str, np.ndarray], sigma: np.ndarray, ratio: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """soc(surface) - soc(core), each by its own curve, with its standard deviation; NaN where unknown."""
        (surface, surface_slope, surface_own), (core, core_slope, core_own) = (
            self.layer(part, layers, sigma, ratio) for part in (0, -1)
        )
        variance = surface_own**2 + core_own**2
        for place, name in enumerate(LAYERS):  # both hold something of every layer: their noise is one
            weight = surface_slope * self.weights[:, 0, place] - core_slope * self.weights[:, -1, place]
            if name in layers and self.weights[:, :, place].any():
                variance = variance + np.where(weight != 0.0, weight * sigma * ratio[:, place], 0.0) ** 2
        gradient = surface - core
        variance = variance + (self.unsure * np.where(np.isfinite(gradient), gradient, 0.0)) ** 2
        known = np.isfinite(gradient) & np.isfinite(sigma)
        return gradient, np.where(known, np.sqrt(variance), np.nan)

    def layer(
        self, part: int, layers: Mapping[str, np.ndarray], sigma: np.ndarray, ratio: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """SoC of one of the layers from the (N, P) measured contrasts by layer, its slope over contrast, and the
        standard deviation of its calibration.
        """
        weights, table = self.weights[:, part], self.tables[part]
        contrast, variance = np.zeros(sigma.shape), np.zeros(sigma.shape)
        for place, name in enumerate(LAYERS):
            used = weights[:, place] != 0.0
            if used.any():
                values = layers.get(name, np.full(sigma.shape, np.nan))
                contrast += np.where(used, weights[:, place] * values, 0.0)
                variance += np.where(used, weights[:, place] * sigma * ratio[:, place], 0.0) ** 2
        width = np.where(np.isfinite(variance), np.sqrt(variance), 0.0)
        slack, reach = 3.0 * Z90 * width, np.maximum(width, table.cell)
        below, above = (table.soc_beyond(contrast + away, slack + reach) for away in (-reach, reach))
        return table.soc_beyond(contrast, slack), (above - below) / (2.0 * reach), table.sigma(contrast, slack)

    def shift(
        self, table: SocTable, contrast: np.ndarray, gradient: np.ndarray, gradient_sigma: np.ndarray
    ) -> np.ndarray:
        """What a gradient does to the particle's SoC: the mean of a bent response is not the response of the mean, and
        a layer brighter than others counts for more. 0 where no gradient is known.
        """
        square = np.where(np.isfinite(gradient_sigma), gradient**2 - gradient_sigma**2, 0.0)
        bent = np.where(table.two_phase, 0.0, table.bend(contrast, PROFILE_VARIANCE * square))
        return np.nan_to_num(bent - self.tilt * gradient) if self.tilt.any() else np.nan_to_num(bent)


_Compiled = tuple[Mapping[int, Mapping[str, Any]], int, SocTable, LayerTables]
_last: list[_Compiled] = []
"""The tables of the last call: chunk after chunk is read with the same calibrations."""


def _compiled(rows: Mapping[int, Mapping[str, Any]], count: int) -> tuple[SocTable, LayerTables]:
    """The tables of `rows`; those of the last call when it had the same mapping, which nobody changes."""
    for known, known_count, table, own in _last[:1]:
        if known is rows and known_count == count:
            return table, own
    table, own = SocTable(rows, count), LayerTables(rows, count)
    _last[:] = [(rows, count, table, own)]
    return table, own


def _clean_knots(row: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray, np.ndarray | None] | None:
    """Finite knots in rising contrast with their sigmas, if any; None when the row gives no curve."""
    if row.get("kind") not in ("monotone", "end_members"):
        return None
    contrast, soc = (np.asarray(row.get(name, ()), float).ravel() for name in ("contrast_knots", "soc_knots"))
    if len(contrast) != len(soc) or len(contrast) < 2 or not (np.isfinite(contrast) & np.isfinite(soc)).all():
        return None
    sigma = np.asarray(row.get("soc_sigma_knots") or (), float).ravel()
    order = np.argsort(contrast, kind="stable")
    contrast, soc = contrast[order], soc[order]
    own = sigma[order] if len(sigma) == len(order) and np.isfinite(sigma).all() else None
    return (contrast, soc, own) if contrast[-1] - contrast[0] > 1e-9 else None
