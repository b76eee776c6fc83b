"""A small state directory with every kind of row, written by the real writer, and everything its readers tell of it."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from daemon.engine.measures import Clip
from daemon.errors import StoreError
from daemon.mask_edits import MaskVersion
from daemon.store.reader import CatalogueReader, RunReader
from daemon.store.reading import Reader, forget_tallies
from daemon.store.writer import StoreWriter
from daemon.tables import AXIS, ROW_TABLES
from tests.daemon.store.helpers import (
    PARTICLES,
    WAIT_S,
    cell_row,
    copy_database,
    event,
    frames,
    open_run,
    particle_rows,
    summary,
)

DENSE = ("contrast", "contrast_sigma", "layer_core", "centroid_y_px", "flags")
FILES = ("instrument.db", "instrument.db-wal", "runs/r1.db", "runs/r2.db", "runs/r2.db-wal")


def put_everything(writer: StoreWriter, first: int, rows: int = 25) -> None:
    """A second or so of everything that a run may hold, from frame `first` on; waited for."""
    rng = np.random.default_rng(first)
    waits: list[Any] = [
        writer.put_particles(particle_rows()),
        writer.put_chunk(*frames(first, 20)),
        writer.put_events([event(first + i / rows, 11 + i % 7, detail=f"n° {i}") for i in range(rows)]),
        writer.put_cell_samples([cell_row(first + i / rows, voltage_v=float(rng.random())) for i in range(5 * rows)]),
        writer.put_ensemble([{"t_s": first + i / 8, "soc_mean": float(rng.random())} for i in range(rows)]),
        writer.put_cycles(
            {"particle_id": 11 + i % 7, "cycle": first + i // 7, "half": "charge", "swing": float(rng.random())}
            for i in range(rows)
        ),
        writer.put_health({"particle_id": 11, "cycle": first + i, "risk": float(rng.random())} for i in range(rows)),
        writer.put_rates(
            {"particle_id": 11, "cycle": first, "half": "charge", "step": i, "t_s": first + i, "soc_from": 0.5}
            for i in range(rows)
        ),
        writer.put_fronts([_front(first, i, rng) for i in range(7)]),
        writer.put_calibrations(
            {"particle_id": 11 + i, "kind": "monotone", "contrast_knots": [0.0, 0.5 + first], "method": "rests"}
            for i in range(7)
        ),
        writer.put_clips([(11 + i, _clip(first, rng)) for i in range(3)]),
        writer.put_axes([{"particle_id": 11 + i, "axis_deg": float(i), "length_px": 9.5, "axial_unknown_why": "",
                          "shift_unknown_why": "", "further": {"baseline": [1.5, first]}} for i in range(3)]),
        writer.put_axial([{"t_s": first + np.arange(4) / 4, "drift": rng.normal(size=(4, 5)),
                           "sigma": rng.uniform(1, 2, (4, PARTICLES)).astype("f4"),
                           "bins": rng.normal(size=(4, PARTICLES, 8)).astype("f4")}]),
        writer.put_drop("camera", "late", 3, float(first)),
        writer.put_fault("camera.lost", "gone", float(first)),
        writer.set_metadata({f"note-{first}": {"text": "a note", "value": 0.25}}),
        writer.audit("me", "start", f"run {first}"),
    ]  # fmt: skip
    for wait in waits:
        wait.result(WAIT_S)


def _front(first: int, i: int, rng: np.random.Generator) -> dict[str, Any]:
    t_s = first + np.arange(12.0) / 12
    return {
        "particle_id": 11 + i, "cycle": first, "half": "charge", "mode": "axial", "reason": "", "begin": "first",
        "onset_t_s": float(first), "end_t_s": first + 1.0, "t_s": t_s, "front_px": rng.normal(size=12),
        "front_sigma_px": np.full(12, 0.1), "fraction": np.linspace(0, 1, 12),
    }  # fmt: skip


def _clip(first: int, rng: np.random.Generator) -> Clip:
    pixels = rng.integers(0, 4096, (4, 9, 9)).astype("u2")
    return Clip(index=0, onset_frame=first, y0_px=3, x0_px=4, t_s=first + np.arange(4) / 2, pixels=pixels)


def make_state(folder: Path) -> tuple[Path, Path, Path]:
    """Copies of a state directory without a writer: as a power cut leaves it, a transaction before, and well before.

    `r1` is finished; `r2` is going on, its first half in the main file and its second in the log.
    """
    live, state, before, early = (folder / name for name in ("live", "state", "before", "early"))
    for each in (live, state, before, early):
        (each / "runs").mkdir(parents=True)
    with open_run(live, commit_interval_s=0.001) as (writer, _):
        writer.put_masks(MaskVersion(1, 0, "2026-01-01"), np.ones((8, 9), np.int32), np.ones((8, 9), np.float32))
        for first in (0, 20, 40):
            put_everything(writer, first)
        writer.close_run().result(WAIT_S)
        writer.update_run("r1", state="done").result(WAIT_S)
        second = live / "runs" / "r2.db"
        writer.create_run(second, {}, summary("r2", second)).result(WAIT_S)
        writer.put_masks(MaskVersion(1, 0, "2026-01-01"), np.ones((8, 9), np.int32), np.ones((8, 9), np.float32))
        put_everything(writer, 100)
        writer.put_instrument_calibration("dark", np.arange(600, dtype="u2").reshape(20, 30), {"n": 9}).result(WAIT_S)
        for name in ("instrument.db", "runs/r2.db"):
            with closing(sqlite3.connect(live / name)) as conn:
                conn.execute("PRAGMA wal_checkpoint(PASSIVE)")
        _copy(live, early)
        put_everything(writer, 120, rows=9)
        _copy(live, before)
        writer.put_ensemble([{"t_s": 999.0, "soc_mean": 0.5}]).result(WAIT_S)
        writer.audit("me", "last").result(WAIT_S)
        _copy(live, state)
    shutil.rmtree(live)
    return state, before, early


def _copy(live: Path, state: Path) -> None:
    for name in ("instrument.db", "runs/r1.db", "runs/r2.db"):
        copy_database(live / name, state / name)


Told = dict[str, tuple[list[str], bool]]
"""By what was asked: each row that came back, as text, and whether damage was told."""


def _run_calls() -> dict[str, Callable[[RunReader], Any]]:
    calls: dict[str, Callable[[RunReader], Any]] = {
        "metadata": lambda run: run.metadata().items(),
        "particles": lambda run: [
            {name: value for name, value in row.items() if name not in AXIS} for row in run.particles()
        ],
        "axes": RunReader.axes,
        "calibrations": RunReader.calibrations,
        "events": RunReader.events,
        "events after": lambda run: run.events(after_event_id=37, limit=40),
        "events of": lambda run: run.events(particle_id=12),
        "ensemble": RunReader.ensemble,
        "ensemble within": lambda run: run.ensemble(101.0, 105.0) + run.ensemble(3.0, 22.0),
        "echem": RunReader.echem,
        "echem within": lambda run: run.echem(20.2, 20.6) + run.echem(100.3, 120.4),
        "drops": RunReader.drops,
        "faults": RunReader.faults,
        "masks": lambda run: [*run.mask_versions(), *_images(run)],
        "frame count": lambda run: [run.frame_count(), run.time_range(), run.last_chunk_id()],
        "frames": lambda run: zip(*run.frames().values(), strict=True),
        "dense": _dense,
        "dense within": lambda run: _dense(run, 20.0, 130.0),
        "axial": lambda run: _rows_of(run.axial()),
        "axial within": lambda run: _rows_of(run.axial(20.0, 101.0)),
        "fronts' series": _series,
        "clips' pixels": lambda run: [_pixels(run, row["clip_id"]) for row in run.clips()],
        "walked": lambda run: [row for page in run.iter_rows("cell_samples", page=70) for row in page],
    }
    for table in ROW_TABLES:
        calls[f"pages of {table}"] = lambda run, table=table: list(_pages(run, table))
        calls[f"{table} of 12"] = lambda run, table=table: run.page(table, particle_id=12).rows
    return calls


def _images(run: RunReader) -> list[Any]:
    return [image.tolist() for image in (run.labels(), run.reference()) if image is not None]


def _dense(run: RunReader, *span: float) -> list[Any]:
    rows, values = run.particle_columns(DENSE, None, *span)
    numbers = rows["frame"].tolist()
    return [(number, *(values[name][i].tobytes().hex() for name in DENSE)) for i, number in enumerate(numbers)]


def _rows_of(blocks: Any) -> list[Any]:
    return [
        (t_s, blocks.drift[i].tolist(), blocks.sigma[i].tolist(), blocks.bins[i].tolist())
        for i, t_s in enumerate(blocks.t_s.tolist())
    ]


def _series(run: RunReader) -> list[Any]:
    spans = {span.pop("rowid"): span for span in run.front_spans()}
    found = run.front_series(list(spans))
    return [(spans[rowid], [values.tolist() for values in series.values()]) for rowid, series in found.items()]


def _pixels(run: RunReader, clip_id: int) -> Any:
    clip = run.clip(clip_id)
    return None if clip is None else (clip.clip_id, clip.particle_id, clip.t_s.tolist(), clip.pixels.tolist())


def _pages(run: RunReader, table: str) -> Iterator[Any]:
    after: int | None = 0
    while after is not None:
        page = run.page(table, after, 9)
        yield from page.rows
        after = page.next_after


RUN_CALLS = _run_calls()
CATALOGUE_CALLS: dict[str, Callable[[CatalogueReader], Any]] = {
    "runs": CatalogueReader.runs,
    "r1": lambda catalogue: [catalogue.run("r1")],
    "all events": CatalogueReader.events,
    "later events": lambda catalogue: catalogue.events(100, 50),
    "events of r1": lambda catalogue: catalogue.events_of("r1"),
    "last": lambda catalogue: [catalogue.last_seq()],
    "catalogue's faults": CatalogueReader.faults,
    "audit": CatalogueReader.audit,
    "dark": lambda catalogue: [catalogue.instrument_calibration("dark")],
}


def ask(path: Path, reader: type[Reader], calls: dict[str, Callable[[Any], Any]]) -> Told:
    """For each question the rows that came back, as text, and whether damage was told; a refusal tells it."""
    told: Told = {}
    forget_tallies()
    opened = reader(path)
    for name, call in calls.items():
        opened.damaged_rowids.clear()
        opened._counted.clear()  # as if each were asked by a reader of its own
        opened.missing_rows = {each: count for each, count in opened.missing_rows.items() if each == "log"}
        if isinstance(opened, RunReader):
            opened.corrupt_chunk_ids.clear()
        try:
            rows = [repr(row).replace(str(path.parent), "") for row in call(opened) if row is not None]
            damage = opened.damaged_rows + getattr(opened, "corrupt_chunks", 0) > 0
        except StoreError:
            rows, damage = [], True
        told[name] = (rows, damage)
    opened.close()
    return told
