"""Traces of a run: read chunk by chunk, derived, reduced to what was asked for. Blocking: called in threads."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from daemon.api.reduce import bucket_starts, bucket_width_s, extreme_rows
from daemon.errors import ApiError, ApiReason, NamedFieldsError
from daemon.photometry.derive import TRACE_COLUMNS, derive_traces
from daemon.store.axial_traces import CENTROIDS
from daemon.store.axial_traces import COLUMNS as AXIAL_COLUMNS
from daemon.store.export_tables import LAYER_COLUMNS, Selection, WantedParticles
from daemon.store.reader import RunReader

WITHIN_S = 60.0  # two days of 1000 particles; what takes longer is an export
WINDOW_VALUES = 2_000_000  # 16 MB of float64: what one request may hold before it reduces
FRAME_COLUMNS = ("frame", "t_s")
STORED = ("contrast", "contrast_sigma", "flags")

Series = dict[str, np.ndarray]


@dataclass(frozen=True)
class Wanted:
    """What to read."""

    particle_ids: Sequence[int]
    """Empty: all."""
    columns: Sequence[str]
    """Of `daemon.tables.TRACES`, without `particle_id`, `frame`, `t_s`."""
    from_s: float | None
    to_s: float | None
    points: int


@dataclass(frozen=True)
class Traces:
    """What was read: for each particle `frame`, `t_s` and the columns asked for."""

    particle_ids: list[int]
    series: list[Series]
    reduced: bool


def read_traces(path: Path, wanted: Wanted, within_s: float = WITHIN_S) -> Traces:
    """Raises `NamedFieldsError` for a particle the run does not have, `ApiError` (BUSY) when late, `StoreError`."""
    until_s = time.monotonic() + within_s
    with RunReader(path) as reader:
        particles = _particles(reader, wanted.particle_ids)
        reducer = Reducer(wanted.columns, len(particles.ids), wanted.points)
        for window in _windows(reader, particles, wanted) if len(particles.ids) else ():
            reducer.add(window)
            if time.monotonic() > until_s:
                detail = f"reading took longer than {within_s:g} s; ask for a shorter span, or export the run"
                raise ApiError(ApiReason.BUSY, detail)
    return Traces(particles.ids.tolist(), reducer.finish(), reducer.reduces)


def _particles(reader: RunReader, particle_ids: Sequence[int]) -> WantedParticles:
    particles = WantedParticles.of(reader, Selection(frozenset(particle_ids) or None, None, None))
    missing = set(particle_ids).difference(particles.ids.tolist())
    if missing:
        raise NamedFieldsError([{"field": "particles", "detail": f"the run has no particle {min(missing)}"}])
    return particles


def _windows(reader: RunReader, particles: WantedParticles, wanted: Wanted) -> Iterator[Series]:
    """Chunk by chunk `frame` and `t_s` (N,) and every wanted column (N, P)."""
    derives = any(name in TRACE_COLUMNS for name in wanted.columns)
    axial = any(name in AXIAL_COLUMNS for name in wanted.columns)
    stored = [name for name in STORED if name in wanted.columns or ((derives or axial) and name != "flags")]
    read = [*stored, *(LAYER_COLUMNS if derives else ()), *(CENTROIDS if axial else ())]
    for chunk in reader.iter_chunks(wanted.from_s, wanted.to_s, read, particles.indices, FRAME_COLUMNS):
        columns = chunk.particle_columns
        if derives:
            columns = columns | _derived(columns, chunk.frame_columns["t_s"], particles)
        if axial:
            columns = columns | particles.axial.of(chunk.frame_columns["t_s"], chunk.particle_columns)
        yield chunk.frame_columns | {name: columns[name] for name in wanted.columns}


def _derived(stored: Series, t_s: np.ndarray, particles: WantedParticles) -> Series:
    """(N, P) of each derived column."""
    layers = {name: stored[name] for name in LAYER_COLUMNS}
    derived = derive_traces(
        stored["contrast"], stored["contrast_sigma"], layers, particles.calibrations, particles.layer_sigma_ratio
    )
    particles.fronts.fill(t_s, derived)
    return derived


class Reducer:
    """Keeps the rows that hold an extreme, so that memory follows the answer and not the run.

    Windows of (N,) `frame` and `t_s` and (N, P) columns come in order of time; out come P series.
    """

    def __init__(self, columns: Sequence[str], particles: int, points: int) -> None:
        self._columns = list(columns)
        self._by_extremes = [name for name in columns if name != "flags"] or self._columns
        self._points = points
        self._window_frames = max(points, WINDOW_VALUES // max(1, particles * (len(columns) + 2)))
        self._pending: list[Series] = []
        self._pending_frames = 0
        self._kept: list[Series] | None = None
        self._particles = particles
        self._first_s = np.nan

    @property
    def reduces(self) -> bool:
        """Whether rows were left out."""
        return self._kept is not None

    def add(self, window: Series) -> None:
        """One window."""
        self._pending.append(window)
        self._pending_frames += len(window["t_s"])
        if self._pending_frames > self._window_frames:
            self._fold()

    def finish(self) -> list[Series]:
        """Each particle's rows."""
        if self._kept is None and self._pending_frames <= self._points:
            return self._split(self._joined())
        if self._pending:
            self._fold()
        return self._kept or []

    def _fold(self) -> None:
        """Reduce what is pending, with what was kept before."""
        window = self._joined()
        if self._kept is None:
            self._first_s = float(window["t_s"][0])
        width_s = bucket_width_s(float(window["t_s"][-1]) - self._first_s, self._points, len(self._by_extremes))
        fresh = self._split(window)
        earlier = self._kept or [{} for _ in fresh]
        self._kept = [self._reduced(before, after, width_s) for before, after in zip(earlier, fresh, strict=True)]

    def _joined(self) -> Series:
        parts, self._pending, self._pending_frames = self._pending, [], 0
        if not parts:
            wide = {name: np.empty((0, self._particles)) for name in self._columns}
            return {"frame": np.empty(0, np.int64), "t_s": np.empty(0)} | wide
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def _split(self, window: Series) -> list[Series]:
        shared = {name: window[name] for name in ("frame", "t_s")}
        return [shared | {name: window[name][:, column] for name in self._columns} for column in range(self._particles)]

    def _reduced(self, before: Series, after: Series, width_s: float) -> Series:
        series = {name: np.concatenate([before[name], after[name]]) for name in after} if before else after
        values = np.stack([series[name].astype(float) for name in self._by_extremes or ["frame"]])
        rows = extreme_rows(values, bucket_starts(series["t_s"], width_s))
        return {name: column[rows] for name, column in series.items()}
