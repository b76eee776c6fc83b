"""An electrode of particles that share one potential, for models: its physics is written anew, not the simulator's.

Spheres in shells (finite volumes, implicit in time), Butler-Volmer at their surfaces, one cell voltage such that all
together take the current. All in SoC, in the cell's sense.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from daemon.tables import CHUNK_FRAME_COLUMNS, CHUNK_PARTICLE_COLUMNS
from tests.daemon.store.helpers import WAIT_S, cell_row, particle_rows, running, summary

VOLT = 0.0256926
SHELLS = 12
CAPACITY_MAH = 0.5
IMAGE = 0.8
"""Gradient of the image over that of a section: between 1 for a section and 2/3 for all depths seen alike."""


def open_circuit_v(soc):
    """A voltage with a bend, of no material."""
    return (
        3.55
        + 0.42 * soc
        + 0.10 * np.tanh((soc - 0.35) / 0.15)
        - 0.05 * np.exp(-soc / 0.05)
        + 0.05 * np.exp((soc - 1.0) / 0.03)
    )


def activity(soc):
    """Slower towards both ends; 1 at SoC 0.5."""
    inside = np.clip(soc, 1e-4, 1.0 - 1e-4)
    return 2.0 * np.sqrt(inside * (1.0 - inside)) * np.exp(0.8 * (inside - 0.5))


@dataclass
class Spheres:
    """P particles. `rate_per_h` at SoC 0.5, `tau_s` = R^2/D, the cell's series resistance."""

    rate_per_h: np.ndarray
    tau_s: np.ndarray
    series_ohm: float = 15.0

    def __post_init__(self):
        edges = np.linspace(0.0, 1.0, SHELLS + 1)
        self.volume = np.diff(edges**3)
        self.radius = 0.5 * (edges[1:] + edges[:-1])
        between = 3.0 * edges[1:-1] ** 2 * SHELLS
        self._flow = np.zeros((SHELLS, SHELLS))
        for k, g in enumerate(between):
            for i, j in ((k, k + 1), (k + 1, k)):
                self._flow[i, j] += g / self.volume[i]
                self._flow[i, i] -= g / self.volume[i]
        self.shells = np.full((len(self.rate_per_h), SHELLS), 0.02)
        self._inverse, self._volts, self._rate = {}, 3.4, np.zeros(len(self.rate_per_h))

    def _step_matrix(self, dt):
        if dt not in self._inverse:
            self._inverse[dt] = np.linalg.inv(np.eye(SHELLS) - dt / self.tau_s[:, None, None] * self._flow)
        return self._inverse[dt]

    def surface(self):
        """(P,) straight on from the two outermost shells."""
        return self.shells[:, -1] + 0.5 * (self.shells[:, -1] - self.shells[:, -2])

    def step(self, dt, c_rate):
        """`dt` seconds at `c_rate` (1/h, positive charging); returns the cell voltage at their end."""
        matrix = self._step_matrix(dt)
        top = np.full(SHELLS, 0.0)
        top[-1] = 1.0 / self.volume[-1]
        base = np.einsum("pij,pj->pi", matrix, self.shells)
        unit = np.einsum("pij,j->pi", matrix, top) * dt
        kappa = self.rate_per_h / 3600.0

        by = 1.5 * unit[:, -1] - 0.5 * unit[:, -2]
        ahead = 1.5 * base[:, -1] - 0.5 * base[:, -2]
        volts = self._volts
        for _ in range(80):  # the voltage by Newton, the rates at each by a few steps of no more than 0.05 of SoC
            for _ in range(6):
                s = ahead + self._rate * by
                scale = 2 * kappa * activity(s)
                drive = (volts - open_circuit_v(s)) / (2 * VOLT) - np.arcsinh(self._rate / scale)
                slope = (open_circuit_v(s + 1e-5) - open_circuit_v(s - 1e-5)) / 2e-5
                stiff = by * slope / (2 * VOLT) + 1 / np.hypot(self._rate, scale)
                change = np.clip(drive / stiff, -0.05 / by, 0.05 / by)
                self._rate = self._rate + change
                if np.max(np.abs(change)) < 1e-10:
                    break
            more = (c_rate / 3600.0 - np.mean(self._rate)) / np.mean(1 / stiff / (2 * VOLT))
            volts += np.clip(more, -0.03, 0.03)
            if abs(more) < 1e-9:
                break
        else:
            raise ArithmeticError("no voltage takes this current")
        self._volts = volts
        self.shells = base + self._rate[:, None] * unit
        return volts + self.series_ohm * 1e-3 * c_rate * CAPACITY_MAH


@dataclass
class Record:
    """What was seen: (N,) times, voltage, current; (N, P) charges and their surfaces less their cores."""

    t_s: np.ndarray
    voltage_v: np.ndarray
    current_ma: np.ndarray
    soc: np.ndarray
    gradient: np.ndarray


PROGRAM = ((0.05, 19.0), (0.0, 0.5), (-0.05, 18.5), (0.0, 0.5), (1.0, 0.9), (0.0, 0.4), (-1.0, 0.9), (0.0, 0.4),
           (2.0, 0.42), (0.0, 0.4), (-2.0, 0.42), (0.0, 0.4))  # fmt: skip
"""(C-rate, hours)."""


def cycled(spheres: Spheres, program=PROGRAM, steps: int = 240) -> Record:
    """`spheres` through `program`, `steps` a piece."""
    rows, t_s = [], 0.0
    outer, inner = spheres.radius**2 > 0.75, spheres.radius**2 < 0.25
    area = spheres.radius.copy()
    for part in (outer, inner):
        area[part] /= area[part].sum()
    for c_rate, hours in program:
        for k in range(steps):
            dt = 0.01 if k == 0 else (hours * 3600.0 - 0.01) / (steps - 1)  # a record has a sample right after a switch
            volts = spheres.step(dt, c_rate)
            t_s += dt
            seen = IMAGE * (spheres.shells[:, outer] @ area[outer] - spheres.shells[:, inner] @ area[inner])
            rows.append((t_s, volts, c_rate * CAPACITY_MAH, spheres.shells @ spheres.volume, seen))
    columns = zip(*rows, strict=True)
    return Record(*(np.array(column) for column in columns))


def write_run(folder, record: Record, noise: float = 0.001, seed: int = 7, kinds=None, diameter_um: float = 3.0):
    """A run file of `record`: contrast is 0.1 SoC with noise, calibrated; `kinds` are the calibrations' kinds."""
    rng = np.random.default_rng(seed)
    count, path = record.soc.shape[1], folder / "run.db"
    kinds = kinds or ["monotone"] * count
    with running(folder / "instrument.db", commit_interval_s=0.001) as writer:
        writer.create_run(path, {"electrode": "cathode"}, summary("r", path)).result(WAIT_S)
        rows = particle_rows(count)
        for row, kind in zip(rows, kinds, strict=True):
            row |= {"equivalent_diameter_um": diameter_um, "calibration": kind, "state": "active"}
            row["layer_sigma_ratio"] = np.full(4, 2.0)
        writer.put_particles(rows)
        knots = {"contrast_knots": [-0.005, 0.105], "soc_knots": [-0.05, 1.05], "soc_sigma": 0.006}
        writer.put_calibrations([
            {"particle_id": row["particle_id"], "kind": kind, **(knots if kind in ("monotone", "end_members") else {})}
            for row, kind in zip(rows, kinds, strict=True)
        ])  # fmt: skip
        writer.put_cell_samples([
            cell_row(float(t), voltage_v=float(v), current_ma=float(i))
            for t, v, i in zip(record.t_s, record.voltage_v, record.current_ma, strict=True)
        ])  # fmt: skip
        for first in range(0, len(record.t_s), 400):
            writer.put_chunk(*_frames(record, slice(first, first + 400), noise, rng)).result(WAIT_S)
    return path


def _frames(record, part, noise, rng):
    t_s, soc, gradient = record.t_s[part], record.soc[part], record.gradient[part]
    count = len(t_s)
    frame = {name: np.zeros(count, dtype) for name, dtype in CHUNK_FRAME_COLUMNS.items()}
    frame |= {"frame": np.arange(part.start, part.start + count), "t_s": t_s, "host_t_s": t_s + 1e5}
    frame["block_id"] = frame["frame"]
    particle = {name: np.zeros(soc.shape, dtype) for name, dtype in CHUNK_PARTICLE_COLUMNS.items()}
    for name, share, spread in (("contrast", 0.0, 1), ("layer_surface", 0.5, 2), ("layer_core", -0.5, 2)):
        values = soc + share * gradient + spread * noise * rng.standard_normal(soc.shape)
        particle[name] = (0.1 * values).astype("f4")
    particle["contrast_sigma"] = np.full(soc.shape, 0.1 * noise, "f4")
    return frame, particle
