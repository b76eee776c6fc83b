"""A run file of what an independent electrode did, as the daemon would have stored it."""

from __future__ import annotations

import numpy as np

from daemon.tables import CHUNK_FRAME_COLUMNS, CHUNK_PARTICLE_COLUMNS
from tests.daemon.store.helpers import WAIT_S, cell_row, particle_rows, running, summary
from tests.electrode import Record


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
