"""What a report is made of: everything its sections read, read once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import file_digest
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from daemon.errors import StoreError, StoreReason
from daemon.insight.cell_halves import CellHalf, capacity_mah, cell_halves
from daemon.insight.run_data import Columns, RunData, Traces
from daemon.mask_edits import MaskVersion
from daemon.report.choice import Choice, choose, named, standing_cycle
from daemon.report.rods import Rod, rods_of
from daemon.report.style import TimeAxis
from daemon.store.clips import StoredClip
from daemon.store.reader import RunReader

POINTS = 1000
"""Of the overview; a screen shows no more."""
DETAIL_POINTS = 1500
LOOKS = 8
"""Stretches of single frames, evenly over the run, that noise is read off."""
LOOK_FRAMES = 60
CLIPS = 2
"""Shown of one particle."""
FRONTS = 120
"""Drawn."""
LOOK_COLUMNS = ("contrast", "contrast_sigma", "flags")
OVERVIEW_SHARE = 0.6  # of the time: the first pass reads every particle
T = TypeVar("T")
Progress = Callable[[float], None]


@dataclass(frozen=True)
class Look:
    """Some consecutive frames as they are stored: (N, P) each."""

    contrast: np.ndarray
    contrast_sigma: np.ndarray
    flags: np.ndarray


@dataclass(frozen=True)
class Material:
    """One run, read for its report."""

    run: RunData
    frames: Columns
    """Per-frame columns, (N,) each."""
    traces: Traces
    """Every particle, contrast and what follows from it; no layers."""
    details: Traces
    """The gallery's particles with their layers, in its order."""
    looks: list[Look]
    chosen: list[Choice]
    cycle: int | None
    """The one that stands for the run; None when no half was measured."""
    halves: list[CellHalf]
    capacity_mah: float
    """What 1C refers to; NaN when unknown."""
    capacity_origin: str
    clips: list[list[StoredClip]]
    """Of each of `chosen`: raw pixels around its largest steps, by time."""
    labels: np.ndarray | None
    """(H, W) of the newest masks: index + 1 of a particle, 0 none; None when they are missing or damaged."""
    reference_dn: np.ndarray | None
    versions: list[MaskVersion]
    fronts: list[dict[str, Any]]
    """Rows of the `fronts` table, without their series."""
    front_series: list[tuple[str, str, dict[str, np.ndarray]]]
    """(mode, half, series) of fronts in the standing cycle, spread over its particles."""
    axes: list[dict[str, Any]]
    """Rows of the `axes` table."""
    rods: list[Rod]
    """Those with the largest axial gradients."""
    health: list[dict[str, Any]]
    drops: list[dict[str, Any]]
    faults: list[dict[str, Any]]
    sha256: str
    time: TimeAxis

    @property
    def pixel_um(self) -> float:
        """Size of a pixel, NaN when nobody knew it."""
        size_nm = self.run.metadata.get("pixel_size_nm")
        return float(size_nm) / 1000.0 if size_nm else float("nan")

    @property
    def state(self) -> np.ndarray:
        """(P,) text."""
        return self.run.particles["state"]

    @property
    def active(self) -> np.ndarray:
        """(P,) bool: active or partial."""
        return np.isin(self.state, ("active", "partial"))


def gather(path: Path, particles: Sequence[int] | None, progress: Progress) -> Material:
    """Read a run for its report. `particles` are ids for the gallery in place of those that matter.

    Raises `StoreError`, NO_PARTICLE for an id that the run does not have.
    """
    run = RunData.load(path)
    with RunReader(path) as reader:
        frames = reader.frames()
        labels, reference_dn = _if_sound(reader.labels), _if_sound(reader.reference)
        versions, drops, faults = reader.mask_versions(), reader.drops(), reader.faults()
        looks = _looks(reader, frames["t_s"])
    ends = [float(t[-1]) for t in (frames["t_s"], run.echem["t_s"]) if len(t)]
    time = TimeAxis.of(max(ends, default=0.0))
    halves = cell_halves(run)
    cycle = standing_cycle(run, halves)
    chosen = choose(run, cycle, time) if particles is None else named(run, particles, cycle, time)
    indices = [choice.index for choice in chosen]
    with RunReader(path) as reader:
        clips = [_clips(reader, run, index) for index in indices]
        fronts, health = reader.fronts(), reader.health()
        front_series = _front_series(reader, cycle)
        axes = reader.axes()
        rods = rods_of(run, reader, axes)
    columns = ("contrast", "contrast_sigma")
    traces = run.traces(POINTS, progress=lambda share: progress(OVERVIEW_SHARE * share), columns=columns)

    def further(share: float) -> None:
        progress(OVERVIEW_SHARE + (1.0 - OVERVIEW_SHARE) * share)

    details = run.traces(DETAIL_POINTS, progress=further, indices=indices)
    capacity, origin = capacity_mah(run, halves)
    return Material(
        run, frames, traces, details, looks, chosen, cycle,
        halves, capacity, origin, clips, labels, reference_dn, versions, fronts,
        front_series, axes, rods, health, drops, faults, _sha256(path), time,
    )  # fmt: skip


def _clips(reader: RunReader, run: RunData, index: int) -> list[StoredClip]:
    """Those that hold the particle's largest steps; none where an older version of the software wrote the file."""
    identity = int(run.particle_id[index])
    known = _if_sound(lambda: reader.clips(identity)) or []
    events = [event for event in run.events if event.particle_id == identity and np.isfinite(event.magnitude)]

    def size(row: dict[str, Any]) -> float:
        return max((abs(e.magnitude) for e in events if row["t0_s"] <= e.t_s <= row["t1_s"]), default=0.0)

    largest = sorted(known, key=lambda row: (-size(row), row["clip_id"]))[:CLIPS]
    found = (_if_sound(partial(reader.clip, row["clip_id"])) for row in largest)
    return sorted((clip for clip in found if clip is not None), key=lambda clip: float(clip.t_s[0]))


def _front_series(reader: RunReader, cycle: int | None) -> list[tuple[str, str, dict[str, np.ndarray]]]:
    """Every second (third, ...) of them when there are many."""
    spans = [span for span in reader.front_spans() if span["cycle"] == cycle and span["mode"] != "none"]
    spans = spans[:: max(1, -(-len(spans) // FRONTS))]
    found = reader.front_series([span["rowid"] for span in spans])
    return [(span["mode"], span["half"], found[span["rowid"]]) for span in spans if span["rowid"] in found]


def _if_sound(read: Callable[[], T | None]) -> T | None:
    try:
        return read()
    except StoreError as error:
        if error.reason is not StoreReason.CORRUPT:
            raise
        return None  # its section says so


def _looks(reader: RunReader, t_s: np.ndarray) -> list[Look]:
    looks: list[Look] = []
    if not len(t_s):
        return looks
    for start in np.unique(np.linspace(0, max(len(t_s) - LOOK_FRAMES, 0), LOOKS).astype(int)):
        stop = min(start + LOOK_FRAMES, len(t_s)) - 1
        _, values = reader.particle_columns(LOOK_COLUMNS, None, float(t_s[start]), float(t_s[stop]))
        looks.append(Look(*(values[name] for name in LOOK_COLUMNS)))
    return looks


def padded(values: np.ndarray, particles: int) -> np.ndarray:
    """(N, P') values as (N, P): particles that came later are unknown."""
    missing = particles - values.shape[1]
    return np.pad(values.astype(float), ((0, 0), (0, missing)), constant_values=np.nan) if missing > 0 else values


def _sha256(path: Path) -> str:
    """While no reader is open: closing the file drops the locks of this process on it (`daemon/store/held.py`)."""
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()
