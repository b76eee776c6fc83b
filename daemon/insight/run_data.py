"""A run file as arrays: what every analysis of a finished run starts from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np

from daemon.events import Event
from daemon.photometry.derive import derive_traces
from daemon.store.reader import RunReader
from daemon.tables import CYCLES, ENSEMBLE, PARTICLES, RATES

LAYER_COLUMNS = ("layer_surface", "layer_outer", "layer_inner", "layer_core")
TRACE_COLUMNS = ("contrast", "contrast_sigma", *LAYER_COLUMNS)
"""What `RunData.traces` may read; each costs about the same time."""
DERIVED_ROWS = 256  # bounds the temporary arrays of the derivation, not its result
TEXT = frozenset({"front_mode", "calibration", "state", "half", "step_kind", "unknown_why"})
ECHEM_COLUMNS = ("t_s", "voltage_v", "current_ma", "charge_mah", "cycle", "step", "step_kind")

DERIVED = ("soc", "soc_lo", "soc_hi", "gradient", "gradient_sigma")

Columns = dict[str, np.ndarray]
"""Columns of equal length by name: float64 with NaN for what is not known, or text (dtype object, "" for unknown)."""


@dataclass(frozen=True)
class Traces:
    """Particles over the run at M times: means over equal numbers of frames. (M, P) arrays, NaN: unknown or unread."""

    t_s: np.ndarray
    """(M,)"""
    contrast: np.ndarray
    contrast_sigma: np.ndarray
    """Standard deviation of the mean, from the frames' own noise."""
    layers: np.ndarray
    """(M, P, 4) contrasts, from the surface inwards."""
    soc: np.ndarray
    soc_lo: np.ndarray
    soc_hi: np.ndarray
    gradient: np.ndarray
    gradient_sigma: np.ndarray
    index: np.ndarray
    """(P,) particle indices of the columns."""
    corrupt_chunks: int = 0
    """Damaged stretches of frames that were left out."""


@dataclass(frozen=True)
class RunData:
    """One run's tables. `particles` is by particle index, (P,) each; others by row."""

    path: Path
    metadata: dict[str, Any]
    particles: Columns
    cycles: Columns
    ensemble: Columns
    echem: Columns
    events: list[Event]
    calibrations: list[dict[str, Any] | None]
    """By particle index; None where there is none."""
    rates: Columns = field(default_factory=lambda: _columns([], RATES))
    """Rates after potential steps."""

    @classmethod
    def load(cls, path: Path) -> Self:
        """Everything but the traces. Raises `StoreError`."""
        with RunReader(path) as reader:
            rows = reader.particles()
            known = {row["particle_id"]: row for row in reader.calibrations()}
            return cls(
                path=path,
                metadata=reader.metadata(),
                particles=_columns(rows, (*PARTICLES, "particle_index")),
                cycles=_columns(reader.cycles(), CYCLES),
                ensemble=_columns(reader.ensemble(), ENSEMBLE),
                echem=_columns(reader.echem(), ECHEM_COLUMNS),
                events=reader.events(),
                calibrations=[known.get(row["particle_id"]) for row in rows],
                rates=_columns(reader.rates(), RATES),
            )

    @property
    def particle_id(self) -> np.ndarray:
        """(P,) int64 ids by index."""
        return self.particles["particle_id"].astype(np.int64)

    def by_cycle(self, column: str, half: str) -> tuple[np.ndarray, np.ndarray]:
        """((C,) cycle numbers, (C, P) values) of a `cycles` column in the halves of one kind; NaN where missing."""
        mine = self.cycles["half"] == half
        numbers, row = np.unique(self.cycles["cycle"][mine].astype(int), return_inverse=True)
        place = {identity: k for k, identity in enumerate(self.particle_id.tolist())}
        column_of = np.array([place[int(identity)] for identity in self.cycles["particle_id"][mine]], int)
        values = np.full((len(numbers), len(place)), np.nan)
        values[row, column_of] = self.cycles[column][mine]
        return numbers, values

    def traces(
        self,
        points: int = 2000,
        from_s: float | None = None,
        to_s: float | None = None,
        progress: Callable[[float], None] = lambda share: None,
        columns: Sequence[str] = TRACE_COLUMNS,
        indices: Sequence[int] | np.ndarray | None = None,
    ) -> Traces:
        """At most about `points` means over the range, of the particles at `indices` (all by default).

        Reads every frame in the range once, and of `columns` (of `TRACE_COLUMNS`) only those; what needs another one is
        NaN: SoC needs contrast, its interval `contrast_sigma`, the gradient surface and core. Memory is the means'.
        """
        index = np.arange(len(self.particle_id)) if indices is None else np.asarray(indices, int)
        with RunReader(self.path) as reader:
            means = _Means(len(index), columns)
            size = max(1, -(-_frame_count(reader, from_s, to_s) // points))
            last = max(1, reader.last_chunk_id())
            for chunk in reader.iter_chunks(from_s, to_s, columns, indices):
                means.add(chunk.frame_columns["t_s"], chunk.particle_columns, size)
                progress(chunk.chunk_id / last)
            t_s, values, sigma = means.finish()
            return self._derived(index, t_s, values, sigma, reader.corrupt_chunks)

    def _derived(
        self, index: np.ndarray, t_s: np.ndarray, values: np.ndarray, sigma: np.ndarray, corrupt: int
    ) -> Traces:
        rows = [self.calibrations[k] for k in index.tolist()]
        known = {k: row for k, row in enumerate(rows) if row is not None}
        ratio = np.full((len(rows), 4), np.nan)
        for k, row in known.items():
            ratio[k] = np.array(row.get("layer_sigma_ratio") or [np.nan] * 4, float)
        derived = {name: np.empty(sigma.shape, np.float32) for name in DERIVED}
        for start in range(0, len(t_s), DERIVED_ROWS):
            part = slice(start, start + DERIVED_ROWS)
            layers = {name: values[part, :, 1 + k] for k, name in enumerate(LAYER_COLUMNS)}
            found = derive_traces(values[part, :, 0], sigma[part], layers, known, ratio)
            for name, out in derived.items():
                out[part] = found[name]
        return Traces(
            t_s, values[:, :, 0], sigma, values[:, :, 1:], index=index, corrupt_chunks=corrupt, **derived
        )  # fmt: skip


class _Means:
    """Means over groups of consecutive frames, groups running on from chunk to chunk; NaN for columns not given."""

    def __init__(self, particles: int, columns: Sequence[str]) -> None:
        self._particles = particles
        self._places = {name: k for k, name in enumerate(("contrast", *LAYER_COLUMNS)) if name in columns}
        self._with_sigma = "contrast_sigma" in columns
        self._t: list[float] = []
        self._values: list[np.ndarray] = []
        self._sigma: list[np.ndarray] = []
        self._begin()

    def _begin(self) -> None:
        self._frames, self._t_sum = 0, 0.0
        self._sums = np.zeros((self._particles, 5))
        self._counts = np.zeros((self._particles, 5))
        self._variance = np.zeros(self._particles)
        self._sigmas = np.zeros(self._particles)

    def add(self, t_s: np.ndarray, columns: dict[str, np.ndarray], size: int) -> None:
        """Take a chunk's frames, (N,) and (N, P') with P' at most P (later masks added particles)."""
        start = 0
        while start < len(t_s):
            stop = min(len(t_s), start + size - self._frames)
            self._sum(t_s[start:stop], {name: values[start:stop] for name, values in columns.items()})
            if self._frames == size:
                self._close()
            start = stop

    def _sum(self, t_s: np.ndarray, columns: dict[str, np.ndarray]) -> None:
        self._frames += len(t_s)
        self._t_sum += float(t_s.sum())
        for name, k in self._places.items():
            values = columns[name]
            finite = np.isfinite(values)
            there = slice(0, values.shape[1])
            self._sums[there, k] += np.where(finite, values, 0.0).sum(axis=0, dtype=float)
            self._counts[there, k] += finite.sum(axis=0)
        if self._with_sigma:
            sigma = columns["contrast_sigma"]
            known = np.isfinite(sigma)
            if "contrast" in columns:
                known &= np.isfinite(columns["contrast"])
            there = slice(0, sigma.shape[1])
            self._variance[there] += np.square(np.where(known, sigma, 0.0), dtype=float).sum(axis=0)
            self._sigmas[there] += known.sum(axis=0)

    def _close(self) -> None:
        counts = np.where(self._counts > 0, self._counts, np.nan)
        sigmas = np.where(self._sigmas > 0, self._sigmas, np.nan)
        self._t.append(self._t_sum / self._frames)
        self._values.append((self._sums / counts).astype(np.float32))
        self._sigma.append((np.sqrt(self._variance) / sigmas).astype(np.float32))
        self._begin()

    def finish(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(M,) times, (M, P, 5) means of the contrast and its layers, (M, P) sigmas of the former."""
        if self._frames:
            self._close()
        shape = (len(self._t), self._particles)
        values = np.array(self._values, np.float32).reshape(*shape, 5)
        return np.array(self._t), values, np.array(self._sigma, np.float32).reshape(shape)


def _frame_count(reader: RunReader, from_s: float | None, to_s: float | None) -> int:
    if from_s is None and to_s is None:
        return reader.frame_count()
    return len(reader.frames(from_s, to_s)["t_s"])


def _columns(rows: Sequence[dict[str, Any]], names: Sequence[str]) -> Columns:
    return {name: _column([row[name] for row in rows], name in TEXT) for name in names}


def _column(values: list[Any], is_text: bool) -> np.ndarray:
    if is_text:
        return np.array([value or "" for value in values], object)
    return np.array([np.nan if value is None else value for value in values], float)
