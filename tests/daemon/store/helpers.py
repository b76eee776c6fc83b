"""Frames, runs and writers that the tests of the store share."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from daemon.cell.samples import CellRow
from daemon.events import Event, EventKind
from daemon.parts import RunSummary
from daemon.store.proof import prove_again
from daemon.store.writer import StoreWriter
from daemon.tables import CHUNK_FRAME_COLUMNS, CHUNK_PARTICLE_COLUMNS

WAIT_S = 10.0
PARTICLES = 7


def frames(first: int, count: int, particles: int = PARTICLES, seed: int = 0) -> tuple[dict[str, Any], dict[str, Any]]:
    """`count` noisy frames at 100 frames/s from frame `first` on, some values unknown; set by the arguments alone."""
    rng = np.random.default_rng([seed, first, count])
    numbers = np.arange(first, first + count)
    frame = {name: rng.standard_normal(count).astype(dtype) for name, dtype in CHUNK_FRAME_COLUMNS.items()}
    frame |= {"frame": numbers, "block_id": numbers + 7, "t_s": numbers / 100, "host_t_s": 1e5 + numbers / 100}
    frame["flags"] = rng.integers(0, 128, count).astype("u4")
    shape = (count, particles)
    particle = {name: rng.normal(0, 2e-3, shape).astype(dtype) for name, dtype in CHUNK_PARTICLE_COLUMNS.items()}
    particle["contrast_sigma"] = rng.uniform(1e-3, 2e-3, shape).astype("f4")
    particle["flags"] = rng.integers(0, 8, shape).astype("u2")
    particle["contrast"][rng.random(shape) < 0.05] = np.nan
    return frame, particle


def summary(run_id: str, path: Path, **changes: Any) -> RunSummary:
    """A run that is running."""
    fields: dict[str, Any] = {
        "run_id": run_id, "name": "a name", "state": "running", "started_utc": "2026-01-02T03:04:05+00:00",
        "ended_utc": None, "path": path, "recipe": {"name": "a name", "masks": {"min_area_px": 30}},
    }  # fmt: skip
    return RunSummary(**fields | changes)


def particle_rows(count: int = PARTICLES) -> list[dict[str, Any]]:
    """Complete rows with ids from 11 on."""
    return [
        {
            "particle_id": 11 + i, "parent_id": None, "y_px": 10.5 + i, "x_px": np.float32(20.25), "area_px": 50 + i,
            "equivalent_diameter_um": float("nan"), "major_um": 1.0, "minor_um": 0.5, "aspect_ratio": 2.0,
            "solidity": 0.9, "nearest_neighbour_um": 3.0, "neighbours_within_10um": np.int64(2),
            "brightness_e": 1e5, "front_mode": "core", "calibration": "none", "state": "active",
            "layer_sigma_ratio": np.array([2.0, 2.1, 2.2, 2.3]),
        }
        for i in range(count)
    ]  # fmt: skip


def event(t_s: float, particle_id: int | None = 11, **changes: Any) -> Event:
    """A step."""
    return Event(EventKind.STEP, t_s, t_s + 0.1, particle_id, magnitude=0.01, **changes)


def cell_row(t_s: float, **changes: Any) -> CellRow:
    """A sample of charging at half a milliampere."""
    fields: dict[str, Any] = {
        "t_s": t_s, "host_t_s": 1e5 + t_s, "voltage_v": 3.7, "current_ma": 0.5, "cycle": 0, "step": 1,
        "step_kind": "charge", "charge_mah": 0.1,
    }  # fmt: skip
    return CellRow(**fields | changes)


@contextmanager
def running(catalogue: Path | None, **options: Any) -> Iterator[StoreWriter]:
    """A started writer, stopped at the end."""
    writer = StoreWriter(catalogue, **options)
    writer.start()
    try:
        yield writer
    finally:
        writer.stop(WAIT_S)


@contextmanager
def open_run(folder: Path, **options: Any) -> Iterator[tuple[StoreWriter, Path]]:
    """A writer with a catalogue and the run `r1` open."""
    path = folder / "runs" / "r1.db"
    path.parent.mkdir(exist_ok=True)
    with running(folder / "instrument.db", **options) as writer:
        writer.create_run(path, {}, summary("r1", path)).result(WAIT_S)
        yield writer, path


def copy_database(source: Path, target: Path) -> None:
    """A database nobody writes just now, with its log but without its shared memory."""
    for suffix in ("", "-wal"):
        part = Path(f"{source}{suffix}")
        Path(f"{target}{suffix}").unlink(missing_ok=True)
        if part.exists():
            shutil.copyfile(part, f"{target}{suffix}")
    Path(f"{target}-shm").unlink(missing_ok=True)


def damaged_copy(source: Path, target: Path) -> Path:
    """A closed run's file in which the times of the second chunk do not match their check sum."""
    copy_database(source, target)
    with closing(sqlite3.connect(target)) as conn, conn:
        conn.execute("update chunk_columns set crc32 = crc32 + 1 where chunk_id = 2 and \"column\" = 't_s'")
    return target


def prove(path: Path, table: str) -> None:
    """Let rows that were changed by hand pass for what the writer wrote."""
    with closing(sqlite3.connect(path)) as conn, conn:
        prove_again(conn, table)


def without_proof(path: Path) -> None:
    """Make it a file from before rows had CRCs."""
    with closing(sqlite3.connect(path)) as conn, conn:
        for (trigger,) in conn.execute("select name from sqlite_master where type = 'trigger'").fetchall():
            conn.execute(f'drop trigger "{trigger}"')
        conn.execute("drop table tallies")
        for (table,) in conn.execute(
            "select m.name from sqlite_master m join pragma_table_info(m.name) c where c.name = 'row_crc32'"
        ).fetchall():
            conn.execute(f'alter table "{table}" drop column row_crc32')
        conn.execute("delete from _sqlite_migrations where name like '%_proof'")
