"""From fluxes to contrasts: batches wait until F0 is known, then C = F/F0 - 1 for particles and layers."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, fields

import numpy as np

from daemon.engine.measures import LAYERS, MeasureBatch
from daemon.photometry.blocks import VALUES, finite_mean, grown
from daemon.tables import CHUNK_FRAME_COLUMNS, CHUNK_PARTICLE_COLUMNS

MIN_BASELINE_FRAMES = 5
RELEASED_BYTES = 4_000_000
"""Of held measures, with each new batch: all of a long baseline at once would take four times its memory more."""


@dataclass(frozen=True)
class Contrasts:
    """A batch in contrast. Sigmas are the frame's own noise; F0's is common to a particle's frames and left out."""

    batch: MeasureBatch
    values: np.ndarray
    """(N, P, 5) float64: the particle's contrast, then its layers'."""
    sigma: np.ndarray
    """(N, P)"""
    layer_sigma: np.ndarray
    """(N, P, 4)"""
    axial: np.ndarray | None = None
    """(N, P, 8) axial bins as shares of F0; None from a source without them."""

    def frame_columns(self) -> dict[str, np.ndarray]:
        """(N,) arrays as chunks store them."""
        return {name: _cast(getattr(self.batch, name), kind) for name, kind in CHUNK_FRAME_COLUMNS.items()}

    def particle_columns(self) -> dict[str, np.ndarray]:
        """(N, P) arrays as chunks store them."""
        batch = self.batch
        columns = {
            "contrast": self.values[:, :, 0],
            "contrast_sigma": self.sigma,
            **{f"layer_{layer}": self.values[:, :, 1 + k] for k, layer in enumerate(LAYERS)},
            "centroid_y_px": batch.centroid_y_px,
            "centroid_x_px": batch.centroid_x_px,
            "flags": batch.particle_flags,
        }
        return {name: _cast(columns[name], kind) for name, kind in CHUNK_PARTICLE_COLUMNS.items()}


class ContrastMaker:
    """Holds batches back until the engine gives F0, then turns each into contrasts.

    At most `buffer_bytes` are held: beyond that, and at the end of a run too short for its baseline, F0 is the mean of
    what was held, and stays so. Only a particle without F0, one that came later above all, takes one that the engine
    gives later: its contrasts begin behind the baseline it was measured in.
    """

    def __init__(self, particles: int, buffer_bytes: int) -> None:
        self._particles = particles
        self._buffer_bytes = buffer_bytes
        self._held: deque[MeasureBatch] = deque()
        self._held_bytes = 0
        self.flux_e: np.ndarray | None = None
        """F0, (P,); NaN where it cannot divide."""
        self.truncated = False
        """F0 is the mean of a baseline cut short by memory or by the end of the run."""
        self.baseline_frames = MIN_BASELINE_FRAMES
        """How many F0 is the mean of, where the source says so."""
        self._layer_flux_e = np.zeros((particles, len(LAYERS)))
        self._late: np.ndarray | None = None
        self._late_frame = 0

    def grow(self, particles: int) -> None:
        """Go on with more particles, without F0 until the engine gives it; what is held must have been released."""
        self._particles = particles
        self._layer_flux_e = grown(self._layer_flux_e, particles, np.nan)
        if self.flux_e is not None:
            self.flux_e = grown(self.flux_e, particles, np.nan)

    def add(self, batch: MeasureBatch) -> list[Contrasts]:
        """The contrasts to go on with now, in order; what a long baseline held back follows over some calls."""
        self._held.append(batch)
        self._held_bytes += _nbytes(batch)
        if self.flux_e is None and batch.baseline_flux_e is not None:
            self._set(batch.baseline_flux_e, batch.baseline_layer_flux_e)
            first = next((int(held.frame[0]) for held in self._held if len(held)), 0)
            self.baseline_frames = max(batch.baseline_end_frame - first, MIN_BASELINE_FRAMES)
        elif self.flux_e is not None and batch.baseline_flux_e is not None:
            self._set_late(batch)
        if self.flux_e is None and self._held_bytes > self._buffer_bytes:
            self._set_from_held()
        return self._release(RELEASED_BYTES) if self.flux_e is not None else []

    def finish(self) -> list[Contrasts]:
        """What is still held, by the baseline there is."""
        if self.flux_e is None:
            self._set_from_held()
        return self._release(self._held_bytes)

    def _set(self, flux_e: np.ndarray, layer_flux_e: np.ndarray | None) -> None:
        self.flux_e = _divisor(flux_e)
        unknown = np.full((self._particles, len(LAYERS)), np.nan)
        self._layer_flux_e = unknown if layer_flux_e is None else _divisor(layer_flux_e)

    def _set_late(self, batch: MeasureBatch) -> None:
        """F0 of particles that had none; their contrasts of the baseline's own frames stay unknown."""
        flux_e = _divisor(np.asarray(batch.baseline_flux_e))
        known_e = np.asarray(self.flux_e)
        late = np.isnan(known_e) & np.isfinite(flux_e)
        if not late.any():
            return
        self.flux_e = np.where(late, flux_e, known_e)
        if batch.baseline_layer_flux_e is not None:
            self._layer_flux_e = np.where(late[:, None], _divisor(batch.baseline_layer_flux_e), self._layer_flux_e)
        self._late, self._late_frame = late, batch.baseline_end_frame

    def _set_from_held(self) -> None:
        self.truncated = True
        if sum(len(batch) for batch in self._held) < MIN_BASELINE_FRAMES:
            self._set(np.full(self._particles, np.nan), None)
            return
        flux = finite_mean(np.concatenate([batch.flux_e for batch in self._held]))
        self._set(flux, finite_mean(np.concatenate([batch.layer_flux_e for batch in self._held])))

    def _release(self, nbytes: int) -> list[Contrasts]:
        """At least two batches, so that what is held shrinks with each that comes."""
        ready: list[Contrasts] = []
        while self._held and (len(ready) < 2 or nbytes > 0):
            batch = self._held.popleft()
            self._held_bytes -= _nbytes(batch)
            nbytes -= _nbytes(batch)
            if len(batch):
                ready.append(self._contrasts(batch))
        return ready

    def _contrasts(self, batch: MeasureBatch) -> Contrasts:
        flux_e = np.asarray(self.flux_e)
        values = np.empty((len(batch), self._particles, VALUES))
        np.divide(batch.flux_e, flux_e, out=values[:, :, 0])
        np.divide(batch.layer_flux_e, self._layer_flux_e, out=values[:, :, 1:])
        values -= 1.0
        values[~np.isfinite(values)] = np.nan
        sigma = np.asarray(batch.flux_sigma_e) / np.abs(flux_e)
        layer_sigma = np.asarray(batch.layer_sigma_e) / np.abs(self._layer_flux_e)
        axial = None if batch.axial_flux_e is None else batch.axial_flux_e / flux_e[:, None]
        if self._late is not None:
            own = slice(0, int(np.searchsorted(batch.frame, self._late_frame))), self._late
            for each in (values, sigma, layer_sigma, *([] if axial is None else [axial])):
                each[own] = np.nan
            self._late = None
        return Contrasts(batch, values, sigma, layer_sigma, axial)


def _nbytes(batch: MeasureBatch) -> int:
    return sum(getattr(getattr(batch, field.name), "nbytes", 0) for field in fields(batch))


def _divisor(flux_e: np.ndarray) -> np.ndarray:
    """Fluxes that can divide; dark particles have negative ones."""
    flux_e = np.asarray(flux_e, float)
    return np.where(np.isfinite(flux_e) & (np.abs(flux_e) > 1e-6), flux_e, np.nan)


def _cast(values: np.ndarray, kind: str) -> np.ndarray:
    with np.errstate(invalid="ignore", over="ignore"):
        return np.ascontiguousarray(values).astype("<" + kind)
