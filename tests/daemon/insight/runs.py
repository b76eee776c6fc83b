"""Runs as tables, made from what is planted in them: no photometry, no store."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from daemon.cell.samples import CellRow
from daemon.events import Event
from daemon.insight.run_data import Columns, RunData
from daemon.tables import CYCLES, ENSEMBLE
from tests.daemon.store.helpers import WAIT_S, cell_row, running, summary

ECHEM = ("t_s", "voltage_v", "current_ma", "charge_mah", "cycle", "step", "step_kind")


def particle_columns(rng: np.random.Generator, count: int) -> Columns:
    """Ellipses, lognormal in size and aspect ratio, at random in a field of 1920 x 1200 px of 96 nm."""
    y, x = rng.uniform(20, 1180, count), rng.uniform(20, 1900, count)
    size, aspect = 2.7 * np.exp(rng.normal(0, 0.3, count)), 1 + rng.gamma(2.0, 0.3, count)
    distance = 0.096 * np.hypot(y[:, None] - y, x[:, None] - x)
    np.fill_diagonal(distance, np.inf)
    numbers = {
        "particle_id": np.arange(count) + 1.0, "particle_index": np.arange(count, dtype=float),
        "parent_id": np.full(count, np.nan), "y_px": y, "x_px": x, "area_px": np.pi / 4 * (size / 0.096) ** 2,
        "equivalent_diameter_um": size, "major_um": size * np.sqrt(aspect), "minor_um": size / np.sqrt(aspect),
        "aspect_ratio": aspect, "solidity": 1 - 0.1 * rng.beta(2, 5, count),
        "nearest_neighbour_um": distance.min(axis=1), "neighbours_within_10um": 1.0 * (distance < 10).sum(axis=1),
        "brightness_e": size**2 * np.exp(rng.normal(11, 0.3, count)),
    }  # fmt: skip
    text = {"front_mode": "none", "calibration": "monotone", "state": "active"}
    return numbers | {name: np.array([value] * count, object) for name, value in text.items()}


def without_pixel_size(particles: Columns) -> Columns:
    """What the shape table says when nobody gave the pixel size."""
    unknown = ("equivalent_diameter_um", "major_um", "minor_um", "nearest_neighbour_um", "neighbours_within_10um")
    return particles | {name: np.full(len(particles["y_px"]), np.nan) for name in unknown}


def run_data(
    particles: Columns, halves: list[dict[str, Any]] | None = None, *, events: list[Event] | None = None,
    echem: Columns | None = None, metadata: dict[str, Any] | None = None, path: str = "run.db",
) -> RunData:  # fmt: skip
    """A run; `halves` are {cycle, half, column: (P,) values} each, what is left out is NaN."""
    count = len(particles["particle_id"])
    blocks: list[Columns] = []
    for half in halves or []:
        block: Columns = {name: np.full(count, np.nan) for name in CYCLES}
        block |= {"particle_id": particles["particle_id"], "half": np.array([half["half"]] * count, object)}
        block |= {name: np.broadcast_to(np.asarray(v, float), count) for name, v in half.items() if name != "half"}
        blocks.append(block)
    empty = {name: np.array([], object if name == "half" else float) for name in CYCLES}
    cycles = {name: np.concatenate([block[name] for block in blocks]) for name in CYCLES} if blocks else empty
    facts = {"run_id": Path(path).stem, "pixel_size_nm": 96.0, "capacity_mah": 1.0, "electrode": "cathode"}
    facts |= {"camera": {"height_px": 1200, "width_px": 1920}}
    return RunData(
        Path(path), facts | (metadata or {}), particles, cycles, {name: np.array([]) for name in ENSEMBLE},
        echem if echem is not None else no_record(), events or [], [None] * count,
    )  # fmt: skip


def no_record() -> Columns:
    """A run without a cell's record."""
    return {name: np.array([], object if name == "step_kind" else float) for name in ECHEM}


def cell_record(cycles: int, c_rate: float = 0.5, capacity_mah: float = 1.0, step_s: float = 60.0) -> Columns:
    """Cycles at constant current with a rest after each half."""
    half_s = 3600.0 / c_rate
    t, kinds, signs = [], [], []
    start = 0.0
    for _ in range(cycles):
        for kind, sign in (("charge", 1.0), ("discharge", -1.0)):
            times = np.arange(0, half_s, step_s)
            t += [start + times, start + half_s + np.array([10.0, 300.0])]
            kinds += [kind] * len(times) + ["rest"] * 2
            signs += [np.full(len(times), sign), np.zeros(2)]
            start += half_s + 600.0
    t_s, current_ma = np.concatenate(t), np.concatenate(signs) * c_rate * capacity_mah
    charge = np.concatenate([[0.0], np.cumsum((current_ma[1:] + current_ma[:-1]) / 2 * np.diff(t_s)) / 3600])
    whole = np.zeros(len(t_s))
    return {
        "t_s": t_s, "voltage_v": 3.7 + 0.4 * np.sign(current_ma), "current_ma": current_ma, "charge_mah": charge,
        "cycle": whole, "step": whole, "step_kind": np.array(kinds, object),
    }  # fmt: skip


def correlated(rng: np.random.Generator, particles: Columns, range_px: float) -> np.ndarray:
    """(P,) standard normal values that neighbours share: exponential covariance, drawn exactly."""
    y, x = particles["y_px"], particles["x_px"]
    covariance = np.exp(-np.hypot(y[:, None] - y, x[:, None] - x) / range_px)
    return np.linalg.cholesky(covariance + 1e-9 * np.eye(len(y))) @ rng.normal(size=len(y))


def plain_cell(
    seed: int, *, shift: float = 0.0, spread: float = 0.4, count: int = 60, c_rate: float = 0.5, cycles: int = 3,
    dead: float = 0.05, name: str = "cell", **options: Any,
) -> RunData:  # fmt: skip
    """A cell of `cycles` at `c_rate`, particles' rates lognormal with a typical one shifted by `shift` (logarithm)."""
    rng = np.random.default_rng(seed)
    particles = particle_columns(rng, count)
    still = rng.random(count) < dead
    particles["state"] = np.where(still, "dead", "active").astype(object)
    log_rate = shift + spread * rng.normal(size=count)
    halves = []
    half_s = 3600.0 / c_rate + 600.0
    for cycle in range(cycles):
        for place, half in enumerate(("charge", "discharge")):
            rate = c_rate * np.exp(log_rate + 0.05 * rng.normal(size=count))
            values = {
                "swing": np.full(count, 0.1), "rate_per_h": rate, "duration_s": np.full(count, 0.8 * half_s),
                "onset_t_s": (2 * cycle + place) * half_s + rng.uniform(50, 150, count),
                "lag_s": rng.normal(0, 100, count), "retention": 1 - 0.01 * cycle + 0.005 * rng.normal(size=count),
            }  # fmt: skip
            moving = {name: np.where(still, np.nan, each) for name, each in values.items() if name != "swing"}
            halves.append(values | moving | {"cycle": cycle, "half": half})
    options.setdefault("echem", cell_record(cycles, c_rate))
    return run_data(particles, halves, path=f"{name}.db", **options)


def write_run(run: RunData, folder: Path) -> Path:
    """The run as a file of the store, which has every table but the frames."""
    path = folder / run.path.name
    rows = [dict(zip(run.cycles, row, strict=True)) for row in zip(*run.cycles.values(), strict=True)]
    for row in rows:
        row |= {"particle_id": int(row["particle_id"]), "cycle": int(row["cycle"])}
    with running(None) as writer:
        writer.create_run(path, run.metadata, summary(str(run.metadata["run_id"]), path)).result(WAIT_S)
        writer.put_particles(_particle_rows(run.particles))
        writer.put_events(run.events)
        writer.put_cycles(rows)
        writer.put_cell_samples(_samples(run.echem))
    return path


def _particle_rows(particles: Columns) -> list[dict[str, Any]]:
    rows = []
    for values in zip(*particles.values(), strict=True):
        row = dict(zip(particles, values, strict=True))
        del row["particle_index"]
        row |= {"particle_id": int(row["particle_id"]), "parent_id": None, "layer_sigma_ratio": np.ones(4)}
        rows.append(row)
    return rows


def _samples(echem: Columns) -> list[CellRow]:
    rows = zip(*(echem[name] for name in ECHEM), strict=True)
    return [cell_row(float(t), voltage_v=float(v), current_ma=float(i), charge_mah=float(q), step_kind=str(kind))
            for t, v, i, q, _, _, kind in rows]  # fmt: skip
