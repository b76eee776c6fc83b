"""State of charge and its gradient, particle by particle, against an electrode whose every particle is known."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from daemon.cell.samples import CellRow
from daemon.engine.measures import MaskSet, MeasureBatch
from daemon.photometry.derive import derive_traces
from daemon.photometry.science import Science, ScienceSettings
from daemon.photometry.update import ScienceUpdate
from tests.electrode import History, Leg, Optics, SolidSolution, TwoPhase, drive

BATCH_FRAMES = 200
MEDIAN_RADIUS_PX, RADIUS_SPREAD = 14.0, 0.3
NOISE = 6.6e-4
"""Of one exposure of a particle of the median radius, by the CCD equation, relative to its flux."""
CHARGE_END_V, DISCHARGE_END_V = 4.25, 3.46

REST = Leg(0, 1.0, 30)
CYCLE_1C = (Leg(1, 1.1, 10, CHARGE_END_V), REST, Leg(-1, 1.1, 10, DISCHARGE_END_V), REST)
CYCLE_5C = (Leg(5, 0.25, 2, 4.35), REST, Leg(-5, 0.25, 2, 3.35), REST)
PROTOCOLS: dict[str, tuple[Leg, ...]] = {
    "pulses and rests": (
        Leg(0, 0.3, 30),
        *(Leg(0.5, 0.2, 20), Leg(0, 1.0, 30)) * 9,
        Leg(0.5, 0.2, 20, CHARGE_END_V), REST, Leg(-1, 1.1, 10, DISCHARGE_END_V), REST, *CYCLE_1C, *CYCLE_5C,
    ),
    "a slow cycle": (
        Leg(0, 0.3, 30), Leg(0.05, 22, 120, CHARGE_END_V), REST, Leg(-0.05, 22, 120, DISCHARGE_END_V), REST,
        *CYCLE_1C, *CYCLE_5C,
    ),
    "cycles at 1C": (Leg(0, 0.3, 30), *CYCLE_1C, *CYCLE_1C, *CYCLE_5C),
}  # fmt: skip
TWO_PHASES = (
    Leg(0, 0.3, 30), Leg(1, 0.97, 10), REST, Leg(-1, 0.97, 10), REST, Leg(1, 0.5, 10), REST, Leg(1, 0.47, 10), REST,
    Leg(-1, 0.97, 10), REST, Leg(5, 0.194, 2), REST, Leg(-5, 0.194, 2), REST,
)  # fmt: skip


@dataclass
class Series:
    """What a camera would have measured of an electrode's history, without pixels, and what science makes of it."""

    history: History
    optics: Optics
    dead: np.ndarray
    weight: np.ndarray
    seed: int

    def __post_init__(self) -> None:
        rng = np.random.default_rng([self.seed, 21])
        count = self.optics.particles
        self.radius_px = MEDIAN_RADIUS_PX * np.exp(RADIUS_SPREAD * np.clip(rng.normal(0, 1, count), -2.5, 2.5))
        quarters = self.optics.layers(self.history.shells, self.dead)
        self.flux0_e = 1e6 * (self.radius_px / MEDIAN_RADIUS_PX) ** 2
        noise = NOISE * MEDIAN_RADIUS_PX / self.radius_px / 2.0
        # half of the variance is the particle's own light, half background
        self.layer_sigma = noise[:, None] * np.sqrt(0.5 + 0.5 * 4.0 * quarters)
        quarters = quarters + self.layer_sigma * rng.normal(0, 1, quarters.shape)
        self.layer_flux = quarters
        self.result = self._science()

    def _science(self) -> dict[str, np.ndarray]:
        history = self.history
        rows = [
            CellRow(float(t), float(t), float(v), float(i), 0, 0, _kind(i), float(q))
            for t, v, i, q in zip(history.t_s, history.voltage_v, history.current_c, history.charge, strict=True)
        ]
        count = self.optics.particles
        place = np.arange(count)
        labels = np.arange(1, count + 1, dtype=np.int32)[None, :]
        masks = MaskSet(labels, place + 1, place * 1.0, place * 1.0, {"area_px": self.radius_px**2}, 0.0, None)
        self.science = Science(masks, ScienceSettings(capacity_mah=1.0))
        updates, row = [], 0
        for start in range(0, len(history.t_s), BATCH_FRAMES):
            stop = min(start + BATCH_FRAMES, len(history.t_s))
            self.science.add_cell(rows[row:stop])
            row = stop
            updates.append(self.science.add(self._batch(start, stop)))
        updates.append(self.science.finish())
        return self._collect(updates)

    def _batch(self, start: int, stop: int) -> MeasureBatch:
        part, n, count = slice(start, stop), stop - start, self.optics.particles
        none, frames = np.zeros((n, count)), np.arange(start, stop)
        layers = self.layer_flux[part] * self.flux0_e[:, None]
        sigma = self.layer_sigma[part] * self.flux0_e[:, None]
        batch = MeasureBatch(
            frames, frames, self.history.t_s[part], self.history.t_s[part], np.zeros(n), np.zeros(n), np.full(n, 1e-3),
            np.ones(n), np.ones(n), np.zeros(n, np.uint32), layers.sum(axis=2), np.sqrt((sigma**2).sum(axis=2)),
            layers, sigma, none, none, np.zeros((n, count), np.uint16),
        )  # fmt: skip
        if start == 0:
            first = max(5, len(self.history.t_s) // 100)
            base = self.layer_flux[:first].mean(axis=0) * self.flux0_e[:, None]
            batch.baseline_flux_e, batch.baseline_layer_flux_e = base.sum(axis=1), base
        return batch

    def _collect(self, updates: list[ScienceUpdate]) -> dict[str, np.ndarray]:
        chunks = [update.particle_columns for update in updates if update.particle_columns]
        column = {name: np.concatenate([chunk[name] for chunk in chunks]) for name in chunks[0]}
        rows: dict[int, dict] = {}
        for update in updates:
            rows |= {row["particle_id"] - 1: row for row in update.calibrations}
        self.rows = rows
        ratio = np.array([rows[k]["layer_sigma_ratio"] for k in range(self.optics.particles)])
        layers = {name: column[name] for name in column if name.startswith("layer_")}
        return derive_traces(column["contrast"], column["contrast_sigma"], layers, rows, ratio)

    @cached_property
    def truth(self) -> np.ndarray:
        """(N, P) fractions of the window that science chose, 0 to 1."""
        window = self.science._calibrator.window
        return np.clip(window.fraction(self.history.soc - self.history.soc[0]), 0, 1) if window else None

    @property
    def kinds(self) -> np.ndarray:
        """(P,) the calibrations' kinds."""
        return np.array([self.rows[k]["kind"] for k in range(self.optics.particles)])


def _kind(current_c: float) -> str:
    return "rest" if current_c == 0 else "charge" if current_c > 0 else "discharge"


def solid(seed: int, protocol: str, particles: int = 200, optics: Optics | None = None, **kinetics: float) -> Series:
    """A solid solution through one of the protocols."""
    electrode = SolidSolution(particles, seed, **kinetics)
    history = drive(electrode, PROTOCOLS[protocol])
    return Series(history, optics or Optics(particles, seed), electrode.dead, electrode.weight, seed)


def two_phase(seed: int, particles: int = 200, unevenness: float = 0.0) -> Series:
    """Two phases through theirs."""
    electrode = TwoPhase(particles, seed)
    optics = Optics(particles, seed, 0.0, linear=True, unevenness=unevenness)
    return Series(drive(electrode, TWO_PHASES), optics, electrode.dead, electrode.weight, seed)
