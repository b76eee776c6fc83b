"""Where the columns of each exported table come from, piece by piece."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from daemon.errors import StoreError, StoreReason
from daemon.photometry.derive import derive_traces
from daemon.store.axial_traces import CENTROIDS, AxialTraces
from daemon.store.front_traces import FrontTraces
from daemon.store.reader import ChunkData, RunReader
from daemon.store.rows import json_text
from daemon.tables import EXPORT_TABLES, FRAMES, JSON_COLUMNS, ROW_TABLES

LAYER_COLUMNS = ("layer_surface", "layer_outer", "layer_inner", "layer_core")

Columns = dict[str, "np.ndarray | list[Any]"]
"""Columns of equal length by name; None in a list is a value that is not known."""

Progress = Callable[[float], None]


@dataclass(frozen=True)
class Selection:
    """What of the run is wanted. `particles` are ids; None means all. Times are inclusive run time.

    Raises `StoreError` (BAD_RANGE) for NaN, with which nothing would compare.
    """

    particles: frozenset[int] | None
    from_s: float | None
    to_s: float | None

    def __post_init__(self) -> None:
        if any(each is not None and math.isnan(each) for each in (self.from_s, self.to_s)):
            raise StoreError(StoreReason.BAD_RANGE, f"times from {self.from_s} to {self.to_s} are no range")

    def has_particle(self, particle_id: int | None) -> bool:
        """True for wanted particles and for what belongs to no particle."""
        return self.particles is None or particle_id is None or particle_id in self.particles

    def has_time(self, t_s: float | None) -> bool:
        """True inside the range, and for a time that is not known."""
        if t_s is None or math.isnan(t_s):
            return True
        return (self.from_s is None or t_s >= self.from_s) and (self.to_s is None or t_s <= self.to_s)


def source(reader: RunReader, table: str, selection: Selection, progress: Progress | None) -> Iterator[Columns]:
    """The exported columns of `table` in pieces of bounded size, in the order they happened."""
    if table == "frames":
        return _frames(reader, selection, progress)
    if table == "traces":
        return _traces(reader, selection, progress)
    return _rows(reader, table, selection)


def _rows(reader: RunReader, table: str, selection: Selection) -> Iterator[Columns]:
    stored, when = STORED_AS[table]
    columns = EXPORT_TABLES[table] if table in ROW_TABLES else None
    axes = {row["particle_id"]: row for row in reader.axes()} if table == "particles" else {}
    for page in reader.iter_rows(stored, columns=columns):
        kept = [
            row
            for row in page
            if selection.has_particle(row.get("particle_id")) and (when is None or selection.has_time(row[when]))
        ]
        if table == "particles":
            kept = [axes.get(row["particle_id"], {}) | row for row in kept]
        if table == "echem":
            kept = [_battery_data_format(row) for row in kept]
        yield {name: [_cell(name, row.get(name)) for row in kept] for name in EXPORT_TABLES[table]}


def _cell(name: str, value: Any) -> Any:
    return json_text(value) if name in JSON_COLUMNS else value


STORED_AS: dict[str, tuple[str, str | None]] = {
    "particles": ("particles", None),
    "events": ("events", "t_s"),
    "ensemble": ("ensemble", "t_s"),
    "echem": ("cell_samples", "t_s"),
} | {name: (name, table.when) for name, table in ROW_TABLES.items()}
"""Table of the run file and the time by which its rows are selected."""


def _battery_data_format(row: dict[str, Any]) -> dict[str, Any]:
    """Current in A, positive charges; no cycle and no step outside an experiment."""
    return {
        "Test Time / s": row["t_s"],
        "Voltage / V": row["voltage_v"],
        "Current / A": None if row["current_ma"] is None else row["current_ma"] * 1e-3,
        "Cycle Count / 1": _inside_experiment(row["cycle"]),
        "Step Index / 1": _inside_experiment(row["step"]),
    }


def _inside_experiment(number: int | None) -> int | None:
    return None if number is None or number < 0 else number


def _frames(reader: RunReader, selection: Selection, progress: Progress | None) -> Iterator[Columns]:
    tell = _teller(progress, reader)
    for chunk in reader.iter_chunks(selection.from_s, selection.to_s, ()):
        yield {name: chunk.frame_columns[name] for name in FRAMES}
        tell(chunk)


def _traces(reader: RunReader, selection: Selection, progress: Progress | None) -> Iterator[Columns]:
    wanted = WantedParticles.of(reader, selection)
    tell = _teller(progress, reader)
    columns = ("contrast", "contrast_sigma", *LAYER_COLUMNS, *CENTROIDS, "flags")
    for chunk in reader.iter_chunks(selection.from_s, selection.to_s, columns, indices=wanted.indices):
        yield _trace_rows(chunk, wanted)
        tell(chunk)


class WantedParticles:
    """The particles of an export: ids, chunk columns, and what turns their contrast into charge, read when wanted."""

    def __init__(self, reader: RunReader, rows: list[dict[str, Any]], only: Iterable[int] | None) -> None:
        self._reader, self._rows, self._only = reader, rows, only
        self.ids = np.array([row["particle_id"] for row in rows], dtype=np.int64)
        self.indices = np.array([row["particle_index"] for row in rows], dtype=np.int64)

    @classmethod
    def of(cls, reader: RunReader, selection: Selection) -> WantedParticles:
        """The selected particles of the run, by index."""
        return cls(reader, reader.particles(selection.particles), selection.particles)

    @cached_property
    def calibrations(self) -> dict[int, dict[str, Any]]:
        """By position in `indices`."""
        by_id = {row["particle_id"]: row for row in self._reader.calibrations(self._only)}
        return {i: by_id[row["particle_id"]] for i, row in enumerate(self._rows) if row["particle_id"] in by_id}

    @cached_property
    def layer_sigma_ratio(self) -> np.ndarray:
        """(K, 4), NaN where unknown."""
        ratio = np.full((len(self._rows), 4), np.nan)
        for i, row in enumerate(self._rows):
            known = self.calibrations.get(i, {}).get("layer_sigma_ratio") or row["layer_sigma_ratio"]
            if known:
                ratio[i] = np.array(known, dtype=float)
        return ratio

    @cached_property
    def fronts(self) -> FrontTraces:
        """For chunks in order of time."""
        return FrontTraces(self._reader, self.ids)

    @cached_property
    def axial(self) -> AxialTraces:
        """Of rods."""
        return AxialTraces(self._reader, self.ids, self.indices, self.calibrations)


def _trace_rows(chunk: ChunkData, wanted: WantedParticles) -> Columns:
    """One row a frame and particle: all particles of a frame, then the next frame."""
    stored = chunk.particle_columns
    layers = {name: stored[name] for name in LAYER_COLUMNS}
    derived = derive_traces(
        stored["contrast"], stored["contrast_sigma"], layers, wanted.calibrations, wanted.layer_sigma_ratio
    )
    wanted.fronts.fill(chunk.frame_columns["t_s"], derived)
    derived |= wanted.axial.of(chunk.frame_columns["t_s"], stored)
    frames, count = stored["contrast"].shape
    columns: Columns = {name: values.ravel() for name, values in derived.items()}
    columns |= {name: stored[name].ravel() for name in ("contrast", "contrast_sigma", "flags")}
    columns |= {name: np.repeat(chunk.frame_columns[name], count) for name in ("frame", "t_s")}
    return columns | {"particle_id": np.tile(wanted.ids, frames)}


def _teller(progress: Progress | None, reader: RunReader) -> Callable[[ChunkData], None]:
    """Tells how far the walk is that has come to a chunk. The last one is looked for once: that reads every row."""
    if progress is None:
        return lambda chunk: None
    last = max(1, reader.last_chunk_id())
    return lambda chunk: progress(min(1.0, chunk.chunk_id / last))
