"""Measures and cell records made from formulas: no camera, no pixels, truth at hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from daemon.cell.samples import CellRow
from daemon.engine.measures import Detection, MaskSet, MeasureBatch
from daemon.photometry.science import Science, ScienceSettings
from daemon.photometry.update import ScienceUpdate

CAPACITY_MAH = 1.0


def mask_set(count: int, area_px: np.ndarray | None = None) -> MaskSet:
    """`count` particles with ids 10, 11, ..."""
    labels = np.zeros((4, max(count, 1)), np.int32)
    labels[0, :count] = np.arange(1, count + 1)
    area = np.full(count, 100.0) if area_px is None else area_px
    place = np.arange(count, dtype=float)
    return MaskSet(labels, np.arange(10, 10 + count), place, place, {"area_px": area}, 1.5, None)


@dataclass
class Step:
    """A stretch of constant current; `kind` by its sign unless given."""

    duration_s: float
    current_ma: float


def cell_rows(
    steps: list[Step], every_s: float = 5.0, start_fraction: float = 0.0, relax_s: float = 60.0, start_t_s: float = 0.0
) -> list[CellRow]:
    """A cell of 1 mAh: linear open-circuit voltage, 50 mV a C of polarisation that relaxes in `relax_s`."""
    rows, t_s, charge, polarisation = [], start_t_s, 0.0, 0.0
    for number, step in enumerate(steps):
        kind = "charge" if step.current_ma > 0 else "discharge" if step.current_ma < 0 else "rest"
        for _ in range(round(step.duration_s / every_s)):
            t_s += every_s
            charge += step.current_ma * every_s / 3600.0
            target = 0.05 * step.current_ma / CAPACITY_MAH
            polarisation += (target - polarisation) * (1.0 - np.exp(-every_s / relax_s))
            volts = 3.4 + 0.8 * (start_fraction + charge / CAPACITY_MAH) + polarisation
            rows.append(CellRow(t_s, t_s, volts, step.current_ma, 0, number, kind, charge))
    return rows


def charge_at(rows: list[CellRow]) -> Callable[[np.ndarray], np.ndarray]:
    """Net charge as a function of time."""
    times = np.array([row.t_s for row in rows])
    charges = np.array([row.charge_mah for row in rows])
    return lambda t_s: np.interp(t_s, times, charges)


def gitt(pulses: int = 12, pulse_s: float = 300.0, rest_s: float = 600.0) -> list[Step]:
    """Full charge, then full discharge, in pulses with rests; a rest first."""
    current = CAPACITY_MAH * 3600.0 / (pulses * pulse_s)
    steps = [Step(300.0, 0.0)]
    for sign in (1.0, -1.0):
        for _ in range(pulses):
            steps += [Step(pulse_s, sign * current), Step(rest_s, 0.0)]
    return steps


def lagging(t_s: np.ndarray, ensemble: np.ndarray, lag_s: np.ndarray) -> np.ndarray:
    """(N, P) fractions that follow the ensemble with each particle's own time constant."""
    out = np.empty((len(t_s), len(lag_s)))
    out[0] = ensemble[0]
    for k in range(1, len(t_s)):
        share = 1.0 - np.exp(-(t_s[k] - t_s[k - 1]) / lag_s)
        out[k] = out[k - 1] + (ensemble[k] - out[k - 1]) * share
    return out


@dataclass
class Movie:
    """Measures of a whole run; `batches(size)` cuts it."""

    t_s: np.ndarray
    contrast: np.ndarray
    sigma: float = 1e-3
    seed: int = 1
    layers: np.ndarray | None = None
    flux0_e: float = 1e6
    baseline_frames: int = 5
    flags: np.ndarray | None = None
    particle_flags: np.ndarray | None = None
    detections: list[Detection] = field(default_factory=list)
    focus: np.ndarray | None = None
    illumination: np.ndarray | None = None
    drift_y_px: np.ndarray | None = None
    block_id: np.ndarray | None = None

    def __post_init__(self) -> None:
        rng = np.random.default_rng(self.seed)
        noise = rng.normal(0.0, self.sigma, self.contrast.shape)
        self.flux_e = self.flux0_e * (1.0 + self.contrast + noise)
        layers = np.repeat(self.contrast[:, :, None], 4, axis=2) if self.layers is None else self.layers
        noise = rng.normal(0.0, 2.0 * self.sigma, layers.shape)
        self.layer_flux_e = self.flux0_e / 4.0 * (1.0 + layers + noise)

    def batches(self, size: int) -> list[MeasureBatch]:
        """The run in batches of at most `size` frames."""
        return [self._batch(start, min(start + size, len(self.t_s))) for start in range(0, len(self.t_s), size)]

    def _batch(self, start: int, stop: int) -> MeasureBatch:
        part, count = slice(start, stop), stop - start
        shape = self.contrast[part].shape

        def column(values: np.ndarray | None, default: float) -> np.ndarray:
            return np.full(count, default) if values is None else values[part]

        batch = MeasureBatch(
            frame=np.arange(start, stop),
            block_id=np.arange(start, stop) if self.block_id is None else self.block_id[part],
            t_s=self.t_s[part],
            host_t_s=self.t_s[part] + 1000.0,
            drift_y_px=column(self.drift_y_px, 0.0),
            drift_x_px=np.zeros(count),
            drift_sigma_px=np.full(count, 1e-3),
            illumination=column(self.illumination, 1.0),
            focus=column(self.focus, 1.0),
            flags=np.zeros(count, np.uint32) if self.flags is None else self.flags[part],
            flux_e=self.flux_e[part],
            flux_sigma_e=np.full(shape, self.sigma * self.flux0_e),
            layer_flux_e=self.layer_flux_e[part],
            layer_sigma_e=np.full((*shape, 4), 2.0 * self.sigma * self.flux0_e / 4.0),
            centroid_y_px=np.zeros(shape),
            centroid_x_px=np.zeros(shape),
            particle_flags=np.zeros(shape, np.uint16) if self.particle_flags is None else self.particle_flags[part],
            detections=[found for found in self.detections if start <= found.detected_frame < stop],
        )
        if stop > self.baseline_frames:
            batch.baseline_flux_e = np.full(shape[1], self.flux0_e)
            batch.baseline_layer_flux_e = np.full((shape[1], 4), self.flux0_e / 4.0)
        return batch


@dataclass
class Result:
    """All updates of a run put together as the store would."""

    science: Science
    contrast: np.ndarray
    contrast_sigma: np.ndarray
    layers: dict[str, np.ndarray]
    t_s: np.ndarray
    events: list
    cycles: dict[tuple, dict]
    ensemble: list[dict]
    particles: dict[int, dict]
    calibrations: dict[int, dict]

    def cycle(self, column: str, cycle: int, half: str) -> np.ndarray:
        """One column of one half, by rising particle id."""
        keys = sorted(key for key in self.cycles if key[1:] == (cycle, half))
        return np.array([self.cycles[key][column] for key in keys])


def run(
    movie: Movie,
    rows: list[CellRow],
    batch: int = 100,
    settings: ScienceSettings | None = None,
    masks: MaskSet | None = None,
    lockstep: bool = False,
) -> Result:
    """A whole run: the cell's record first, or in step with the frames."""
    science = Science(
        masks or mask_set(movie.contrast.shape[1]), settings or ScienceSettings(capacity_mah=CAPACITY_MAH)
    )
    if not lockstep:
        science.add_cell(rows)
    updates, place = [], 0
    for part in movie.batches(batch):
        if lockstep:
            upto = place
            while upto < len(rows) and rows[upto].t_s <= part.t_s[-1]:
                upto += 1
            science.add_cell(rows[place:upto])
            place = upto
        updates.append(science.add(part))
    if lockstep:
        science.add_cell(rows[place:])
    updates.append(science.finish())
    return collect(science, updates)


def collect(science: Science, updates: list[ScienceUpdate]) -> Result:
    """Updates merged by the tables' keys."""
    chunks = [update.particle_columns for update in updates if update.particle_columns]
    frames = [update.frame_columns for update in updates if update.frame_columns]
    particles: dict[int, dict] = {}
    for update in updates:
        for row in update.particles:
            particles.setdefault(row["particle_id"], {}).update(row)

    def joined(name: str) -> np.ndarray:
        return np.concatenate([chunk[name] for chunk in chunks]) if chunks else np.zeros((0, 0))

    return Result(
        science,
        joined("contrast"),
        joined("contrast_sigma"),
        {name: joined(name) for name in ("layer_surface", "layer_outer", "layer_inner", "layer_core")},
        np.concatenate([frame["t_s"] for frame in frames]) if frames else np.zeros(0),
        [event for update in updates for event in update.events],
        {(row["particle_id"], row["cycle"], row["half"]): row for update in updates for row in update.cycles},
        [row for update in updates for row in update.ensemble],
        particles,
        {row["particle_id"]: row for update in updates for row in update.calibrations},
    )
