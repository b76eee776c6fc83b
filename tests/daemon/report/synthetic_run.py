"""Run files made from formulas: particles that lag differently behind a cell which cycles, every column filled."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from daemon.cell.samples import CellRow
from daemon.events import Event, EventKind
from daemon.mask_edits import MaskVersion
from daemon.store.writer import StoreWriter
from daemon.tables import CHUNK_FRAME_COLUMNS, CHUNK_PARTICLE_COLUMNS

WAIT_S = 300.0
SPAN = 0.2
"""Contrast from discharged to charged."""
RADIUS_PX = 10


@dataclass(frozen=True)
class SyntheticRun:
    """What is in the file. Ids count from 1; the last particle is dead, the first one cracks half-way."""

    particles: int = 12
    frames: int = 400
    rate_hz: float = 1.0
    cycles: int = 2
    chunk: int = 100
    sigma: float = 1e-3
    events: int = 20
    cell: bool = True
    calibrated: bool = True
    masks: bool = True
    pixel_size_nm: float | None = 96.0
    came_later: int = 0
    """So many of the particles appear half-way, by an edit of the masks."""
    lag_sigma_s: float = 20.0
    seed: int = 5

    @property
    def length_s(self) -> float:
        """Of the run."""
        return self.frames / self.rate_hz

    @cached_property
    def lags_s(self) -> np.ndarray:
        """(P,) how far each particle follows the cell."""
        return np.random.default_rng(self.seed).normal(0, self.lag_sigma_s, self.particles)

    def charge(self, t_s: np.ndarray) -> np.ndarray:
        """Charge fraction of the cell: charged and discharged in turns."""
        half_s = self.length_s / (2 * self.cycles)
        return np.abs((t_s / half_s + 1.0) % 2.0 - 1.0)

    def soc(self, t_s: np.ndarray) -> np.ndarray:
        """(N, P) of the particles."""
        return self.charge(np.maximum(t_s[:, None] - self.lags_s, 0.0))

    def write(self, path: Path, **metadata: Any) -> Path:
        """Write the run file."""
        writer = StoreWriter(None)
        writer.start()
        try:
            about = {
                "run_id": path.stem, "capacity_mah": 1.0, "pixel_size_nm": self.pixel_size_nm,
                "started_utc": "2026-01-02T03:04:05+00:00", "software_version": "1.2.3",
            }  # fmt: skip
            writer.create_run(path, about | metadata, None).result(WAIT_S)
            self._tables(writer)
            self._frames(writer)
        finally:
            writer.stop(WAIT_S)
        return path

    def _frames(self, writer: StoreWriter) -> None:
        rng = np.random.default_rng(self.seed + 1)
        noise = rng.normal(0, self.sigma, (self.chunk + 1000, self.particles)).astype("f4")
        for first in range(0, self.frames, self.chunk):
            count = min(self.chunk, self.frames - first)
            numbers = np.arange(first, first + count)
            t_s = numbers / self.rate_hz
            frame = {name: np.zeros(count, dtype) for name, dtype in CHUNK_FRAME_COLUMNS.items()}
            frame |= {"frame": numbers, "block_id": numbers, "t_s": t_s, "host_t_s": t_s}
            frame |= {"drift_sigma_px": np.full(count, 3e-4, "f4"), "illumination": np.ones(count, "f4")}
            contrast = (SPAN * self.soc(t_s)).astype("f4") + noise[first // self.chunk % 1000 :][:count]
            contrast[:, -1] = noise[:count, -1]
            shape = (count, self.particles)
            particle = {name: np.zeros(shape, dtype) for name, dtype in CHUNK_PARTICLE_COLUMNS.items()}
            particle |= {name: contrast for name in particle if name.startswith(("contrast", "layer"))}
            particle["contrast_sigma"] = np.full(shape, self.sigma, "f4")
            known = self.particles - (self.came_later if first < self.frames / 2 else 0)
            version = 2 if self.came_later and first >= self.frames / 2 else 1
            particle = {name: values[:, :known] for name, values in particle.items()}
            writer.put_chunk(frame, particle, wait_s=WAIT_S, mask_version=version)

    def _tables(self, writer: StoreWriter) -> None:
        rng = np.random.default_rng(self.seed + 2)
        ids = np.arange(1, self.particles + 1)
        y_px, x_px, shape = self._places()
        writer.put_particles([self._particle(k, y_px[k], x_px[k]) for k in range(self.particles)])
        if self.masks:
            self._masks(writer, y_px, x_px, shape)
        if self.calibrated:
            curve = {"contrast_knots": [0.0, SPAN], "soc_knots": [0.0, 1.0], "soc_sigma": 0.01}
            known = {"kind": "monotone", "layer_sigma_ratio": [2.0] * 4}
            writer.put_calibrations([{"particle_id": int(k)} | curve | known for k in ids[:-1]])
        at = np.sort(rng.uniform(0, self.length_s, self.events))
        who = rng.integers(1, self.particles + 1, self.events)
        events = [Event(EventKind.STEP, float(t), float(t), int(p), 0.01, 1e-3) for t, p in zip(at, who, strict=True)]
        half_way = self.length_s / 2
        if self.events:
            events.append(Event(EventKind.CRACK, half_way, half_way, 1, -0.05, 1e-3, detail="<b>bold</b>"))
            events.append(Event(EventKind.FOCUS_JUMP, half_way / 2, half_way / 2, None, 0.02))
        writer.put_events(events)
        if self.cell:
            self._cell(writer)

    def _places(self) -> tuple[np.ndarray, np.ndarray, tuple[int, int]]:
        columns = max(1, int(np.ceil(np.sqrt(1.6 * self.particles))))
        rows = -(-self.particles // columns)
        place = np.arange(self.particles)
        return 20.0 + 40 * (place // columns), 20.0 + 40 * (place % columns), (40 * rows, 40 * columns)

    def _masks(self, writer: StoreWriter, y_px: np.ndarray, x_px: np.ndarray, shape: tuple[int, int]) -> None:
        labels = np.zeros(shape, np.int32)
        rows, columns = np.ogrid[: shape[0], : shape[1]]
        for k in range(self.particles):
            box = np.s_[int(y_px[k]) - 15 : int(y_px[k]) + 16, int(x_px[k]) - 15 : int(x_px[k]) + 16]
            inside = (rows[box[0]] - y_px[k]) ** 2 + (columns[:, box[1]] - x_px[k]) ** 2 <= RADIUS_PX**2
            labels[box][inside] = k + 1
        reference = 800.0 + 1200.0 * (labels > 0) + np.random.default_rng(self.seed).normal(0, 9, shape)
        first = self.particles - self.came_later
        about = MaskVersion(1, 0, "2026-01-02T03:04:05Z", particles=first)
        writer.put_masks(about, np.where(labels <= first, labels, 0), reference.astype("f4"))
        if self.came_later:
            edited = MaskVersion(
                2, self.frames // 2, "2026-01-02T03:14:05Z", "<operator>", [{"action": "add"}], self.particles
            )
            writer.put_masks(edited, labels)

    def _particle(self, k: int, y_px: float, x_px: float) -> dict[str, Any]:
        um = (self.pixel_size_nm or float("nan")) / 1000.0
        dead = k == self.particles - 1 and self.particles > 1
        calibration = "monotone" if self.calibrated and not dead else "none"
        return {
            "particle_id": k + 1, "parent_id": None, "y_px": y_px, "x_px": x_px, "area_px": np.pi * RADIUS_PX**2,
            "equivalent_diameter_um": 2 * RADIUS_PX * um, "major_um": 2 * RADIUS_PX * um,
            "minor_um": 2 * RADIUS_PX * um, "aspect_ratio": 1.0, "solidity": 1.0, "nearest_neighbour_um": 40 * um,
            "neighbours_within_10um": 4, "brightness_e": 1e6, "front_mode": "none", "calibration": calibration,
            "state": "dead" if dead else "active", "layer_sigma_ratio": [2.0] * 4,
        }  # fmt: skip

    def _cell(self, writer: StoreWriter) -> None:
        t_s = np.arange(0.0, self.length_s, max(1.0, self.length_s / 50_000))
        charge = self.charge(t_s)
        current = np.gradient(charge, t_s) * 3600.0
        volts = 3.5 + 0.5 * charge + 0.02 * np.sign(current)
        writer.put_cell_samples([
            CellRow(t, t, v, i, 0, 0, "charge" if i > 0 else "discharge", q)
            for t, v, i, q in zip(*(each.tolist() for each in (t_s, volts, current, charge)), strict=True)
        ])  # fmt: skip
        halves = [(c, half) for c in range(self.cycles) for half in ("charge", "discharge")]
        rows = [self._cycle(n, k, *half) for n, half in enumerate(halves) for k in range(self.particles - 1)]
        writer.put_cycles(rows)
        seconds = np.arange(0.0, self.length_s, self.length_s / 500)
        writer.put_ensemble([
            {"t_s": float(t), "soc_mean": float(q), "soc_std": 0.02, "active_fraction": 0.9, "rate_cv": 0.1}
            for t, q in zip(seconds, self.charge(seconds), strict=True)
        ])  # fmt: skip

    def _cycle(self, n: int, k: int, cycle: int, half: str) -> dict[str, Any]:
        half_s, lag_s = self.length_s / (2 * self.cycles), self.lags_s[k]
        return {
            "particle_id": k + 1, "cycle": cycle, "half": half, "swing": SPAN * (1 - 0.01 * n), "soc_start": 0.0,
            "soc_end": 1.0, "onset_t_s": n * half_s + lag_s, "duration_s": 0.9 * half_s, "lag_s": lag_s,
            "rate_per_h": 3600.0 / half_s * (1 + 0.01 * k), "hysteresis_v": 0.04, "retention": 1 - 0.01 * cycle,
        }  # fmt: skip
