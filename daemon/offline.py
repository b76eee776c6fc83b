"""`photometryctl analyse`: a recording through the same pipeline as live frames, as fast as it goes."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from daemon.cell.samples import CellRow, StepKind
from daemon.config import Settings
from daemon.engine.measures import NoiseModel
from daemon.engine.pipeline import Pipeline, PipelineSettings
from daemon.engine.transfer import Transfer, TransferSums
from daemon.errors import (
    InstrumentError,
    RecordingError,
    RecordingReason,
    RunError,
    RunReason,
    StoreError,
    StoreReason,
)
from daemon.photometry.noise import NoiseHints
from daemon.photometry.science import ScienceSettings
from daemon.photometry.transfer import inactive_pixels
from daemon.recipe import Recipe
from daemon.runs.baseline import baseline_seconds
from daemon.runs.metadata import run_metadata
from daemon.runs.prepare import Prepared, Reference, level, prepare
from daemon.runs.recorder import Recorder
from daemon.schema import dotted
from daemon.store.writer import StoreWriter
from hw.camera.contract import FrameStamp
from hw.recording import Recording, open_recording

BLOCK_FRAMES = 32
READ_AHEAD_BLOCKS = 4
STORE_WAIT_S = 60.0
STRETCH_FRAMES = 16  # successive differences then lose 6 % of the frames, and the disk seeks rarely
SAMPLED_PIXELS = 250_000_000  # tells 7 e of read noise within 5 %; two seconds
MIN_SAMPLED, MAX_SAMPLED = 96, 2000
REST_CURRENT_FRACTION = 0.01  # of the largest current in the record: below it the cell rests


@dataclass
class AnalysisSummary:
    """What an analysis did."""

    frames: int
    particles: int
    seconds: float
    faults: list[tuple[str, str]] = field(default_factory=list)
    """(code, detail) of everything that was wrong and survivable."""
    dropped: dict[str, int] = field(default_factory=dict)
    """Frames by ``stage.reason``; what the camera counted is these and `frames`."""
    noise: NoiseModel | None = None
    """How DN became electrons, and how that is known."""


def analyse(
    recording: Path,
    out: Path,
    *,
    overrides: dict[str, Any] | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
    scheduler: str | None = None,
) -> AnalysisSummary:
    """Analyse `recording` into the run file `out`, which must not exist yet.

    `overrides` are the recording's attributes (`pixel_size_nm`, `gain_e_per_dn`, ...), `masks.NAME`, `reference_frames`
    and `baseline_s`. Raises `RecordingError`, `RunError`, `StoreError`; a failed analysis leaves no file behind.
    """
    if scheduler is not None:
        raise RecordingError(RecordingReason.UNREADABLE, "analysis on a cluster is not part of this version")
    recipe, facts = _split(overrides or {})
    if out.exists():
        raise StoreError(StoreReason.EXISTS, f"'{out}' exists already")
    started = time.monotonic()
    with open_recording(recording, facts) as source:
        partial = out.with_name(out.name + ".partial")
        partial.unlink(missing_ok=True)
        refused: list[StoreError] = []
        writer = StoreWriter(None, on_fault=refused.append)
        writer.start()
        try:
            summary = _Analysis(source, recipe, writer, partial, refused).run(progress)
        except BaseException:
            writer.stop(5.0)
            for leftover in partial.parent.glob(partial.name + "*"):
                leftover.unlink(missing_ok=True)
            raise
        writer.stop(60.0)
        partial.rename(out)
    summary.seconds = time.monotonic() - started
    return summary


def _split(overrides: dict[str, Any]) -> tuple[Recipe, dict[str, Any]]:
    """Overrides of the recipe and overrides of the recording's own facts."""
    masks = {name.removeprefix("masks."): value for name, value in overrides.items() if name.startswith("masks.")}
    own = {name: value for name, value in overrides.items() if name in ("reference_frames", "baseline_s")}
    facts = {name: value for name, value in overrides.items() if name not in own and not name.startswith("masks.")}
    try:
        return Recipe.model_validate({**own, "masks": masks}), facts
    except ValidationError as error:
        wrong = "; ".join(_wrong(dict(entry)) for entry in error.errors(include_url=False))
        raise RecordingError(RecordingReason.BAD_VALUE, f"an override is wrong: {wrong}") from None


def _wrong(entry: dict[str, Any]) -> str:
    """One line on what pydantic refused."""
    place = dotted(entry["loc"])
    if entry["type"] == "extra_forbidden":
        return f"there is no setting '{place}'"
    message = entry["msg"].removeprefix("Value error, ")
    if entry["type"] == "value_error":
        return f"'{place}': {message}"
    return f"'{place}' is {entry['input']!r:.80}: {message[:1].lower()}{message[1:]}"


class _Analysis:
    """One recording's way through reference, masks, pipeline, science and store."""

    def __init__(
        self, source: Recording, recipe: Recipe, writer: StoreWriter, path: Path, refused: list[StoreError]
    ) -> None:
        self._source, self._recipe, self._writer, self._path = source, recipe, writer, path
        self._refused = refused
        self._cell_rows = cell_rows(source)
        self._cell_next = 0

    def run(self, progress: Callable[[int, int], None]) -> AnalysisSummary:
        source = self._source
        reference = self._reference()
        prepared = prepare(reference, self._recipe.masks)
        pipeline = Pipeline(prepared.operator, self._pipeline_settings(reference))
        recorder = self._recorder(prepared)
        recorder.open(reference.mean_dn, level(reference, prepared.noise))
        measured = np.zeros(source.frames, bool)
        for start, frames in _read_ahead(source):
            measured[start : start + len(frames)] = True
            for k, frame in enumerate(frames):
                t_s = float(source.t_s[start + k])
                pipeline.add(frame, FrameStamp(int(source.block_id[start + k]), t_s, t_s))
            self._digest(recorder, pipeline)
            self._check_stored()
            progress(start + len(frames), source.frames)
        pipeline.close_baseline()
        self._digest(recorder, pipeline)
        self._feed_cell(recorder, float("inf"))
        recorder.finish()
        for fault in source.faults:
            self._writer.put_fault(fault.code, fault.detail)
        dropped: Counter[str] = Counter()
        for stage, reason, count, t_s in losses(source, measured):
            self._writer.put_drop(stage, reason, count, t_s)
            dropped[f"{stage}.{reason}"] += count
        self._writer.close_run().result(60.0)
        self._check_stored()
        faults = [(fault.code, fault.detail) for fault in source.faults]
        return AnalysisSummary(recorder.frames, recorder.masks.count, 0.0, faults, dict(dropped), prepared.noise)

    def _check_stored(self) -> None:
        """Raises `StoreError`, or `RunError` (INTERNAL), for frames or results that did not reach the file: a recording
        can be analysed again.
        """
        stats = self._writer.stats()
        if not (stats.lost_frames or stats.failed_operations):
            return
        if self._refused:
            raise self._refused[-1]
        if stats.lost_frames:
            raise StoreError(StoreReason.OVERLOADED, f"the store took {stats.lost_frames} frames too late")
        raise RunError(RunReason.INTERNAL, f"{stats.failed_operations} results could not be stored, see the log")

    def _reference(self) -> Reference:
        source, info = self._source, self._source.info
        sums, count, following = TransferSums((info.height_px, info.width_px)), 0, 0
        for start, frames in source.blocks(frames=BLOCK_FRAMES):
            if start != following:  # what cannot be read is left out here too
                sums.begin_stretch()
            for frame in frames[: self._recipe.reference_frames - count]:
                sums.add(frame)
                count += 1
            following = start + len(frames)
            if count == self._recipe.reference_frames:
                break
        taken = sums.result()
        hints = NoiseHints(info.gain_e_per_dn, info.read_noise_e, info.dark_dn).with_dark(info.dark)
        return Reference(
            taken.mean_dn, taken.variance_dn2, count, source.bit_depth, hints, info.pixel_size_nm, info.dark, info.flat,
            taken if hints.complete else sampled_transfer(source, taken, source.bit_depth),
        )  # fmt: skip

    def _pipeline_settings(self, reference: Reference) -> PipelineSettings:
        source = self._source
        duration_s = float(source.t_s[-1]) if source.frames > 1 else 0.0
        rate_hz = (source.frames - 1) / duration_s if duration_s > 0 else 1.0
        return PipelineSettings(
            bit_depth=source.bit_depth,
            frame_rate_hz=rate_hz,
            baseline_s=baseline_seconds(self._recipe.baseline_s, duration_s),
            false_alarms_per_day=Settings().engine.step_false_alarms_per_day,
            dark_map=reference.dark_map,
            flat_map=reference.flat_map,
        )

    def _recorder(self, prepared: Prepared) -> Recorder:
        source = self._source
        run_id = self._path.name.removesuffix(".partial").removesuffix(".db")
        metadata = run_metadata(
            run_id=run_id,
            started=datetime.now(UTC),
            recipe=self._recipe,
            prepared=prepared,
            camera=source.info,
            electrode=source.electrode or "cathode",
            capacity_mah=source.capacity_mah,
            source=str(source.path),
            notes=list(source.notes),
            dark_frame=source.info.dark is not None,
            flat_frame=source.info.flat is not None,
        )
        self._writer.create_run(self._path, metadata, None).result(10.0)
        settings = ScienceSettings(
            electrode="anode" if source.electrode == "anode" else "cathode", capacity_mah=source.capacity_mah
        )
        return Recorder(run_id, prepared.masks, settings, self._writer, lambda events: None, STORE_WAIT_S)

    def _digest(self, recorder: Recorder, pipeline: Pipeline) -> None:
        batch = pipeline.take()
        if batch is None:
            return
        self._feed_cell(recorder, float(batch.t_s[-1]))
        recorder.add(batch)

    def _feed_cell(self, recorder: Recorder, until_s: float) -> None:
        """Cell rows up to a run time, so that science meets both records in order."""
        stop = self._cell_next
        while stop < len(self._cell_rows) and self._cell_rows[stop].t_s <= until_s:
            stop += 1
        if stop > self._cell_next:
            recorder.add_cell(self._cell_rows[self._cell_next : stop])
            self._cell_next = stop


def sampled_transfer(source: Recording, reference: Transfer, bit_depth: int) -> Transfer:
    """Statistics of stretches of frames from the whole recording; the reference's where that has more frames.

    Frames that cannot be read end their stretch.
    """
    info = source.info
    size = info.height_px * info.width_px
    most = min(max(SAMPLED_PIXELS // size, MIN_SAMPLED), MAX_SAMPLED)
    if min(most, source.frames) <= reference.frames:
        return reference
    sums, added = TransferSums((info.height_px, info.width_px), inactive_pixels(reference, bit_depth)), 0
    for start, stop in stretches(source.frames, most):
        sums.begin_stretch()
        with contextlib.suppress(RecordingError):  # told as a fault when the frames are measured
            for frame in _frames(source, start, stop):
                sums.add(frame)
                added += 1
    return replace(sums.result(), duration_s=float(source.t_s[-1])) if added > reference.frames else reference


def _frames(source: Recording, start: int, stop: int) -> Iterator[np.ndarray]:
    """Frames one by one, read in blocks. Raises `RecordingError`."""
    for first in range(start, stop, BLOCK_FRAMES):
        yield from source.read(first, min(first + BLOCK_FRAMES, stop))


def stretches(frames: int, most: int) -> list[tuple[int, int]]:
    """(start, stop) of stretches of `STRETCH_FRAMES` evenly over `frames`, together about `most`; all when fewer."""
    if frames <= max(most, STRETCH_FRAMES):
        return [(0, frames)]
    count = max(most // STRETCH_FRAMES, 1)
    starts = np.linspace(0, frames - STRETCH_FRAMES, count).round().astype(int)
    return [(int(start), int(start) + STRETCH_FRAMES) for start in starts]


def losses(source: Recording, measured: np.ndarray) -> list[tuple[str, str, int, float]]:
    """(stage, reason, count, t_s) of frames that are not measured, (N,) bool `measured`; one a second and reason.

    `camera.lost`: the camera counted it and the recording has no place for it. `recording.unreadable`: it has its place
    between the first and the last frame, and cannot be used.
    """
    places = np.diff(source.frame_index, prepend=source.frame_index[:1] - 1)
    numbers = np.diff(source.block_id, prepend=source.block_id[:1] - 1)
    found = []
    for stage, reason, counts in (
        ("camera", "lost", numbers - places),
        ("recording", "unreadable", places - 1 + ~measured),
    ):
        at = np.flatnonzero(counts)
        second = np.floor(source.t_s[at])
        first = np.flatnonzero(np.diff(second, prepend=-1.0))
        sums = np.add.reduceat(counts[at], first) if len(at) else counts[:0]
        found += [(stage, reason, int(n), float(source.t_s[at[k]])) for k, n in zip(first, sums, strict=True)]
    return sorted(found, key=lambda row: row[3])


def cell_rows(source: Recording) -> list[CellRow]:
    """The recording's cell record as rows; cycles and steps cut where the current changes its sign."""
    cell = source.cell
    if cell is None:
        return []
    current = np.asarray(cell.current_ma, float)
    threshold = REST_CURRENT_FRACTION * float(np.max(np.abs(current), initial=0.0))
    sign = np.where(np.abs(current) <= threshold, 0, np.sign(current)).astype(int)
    step = np.concatenate([[0], np.cumsum(np.diff(sign) != 0)])
    active = sign[sign != 0]
    first = int(active[0]) if active.size else 1
    # a cycle begins where the first half's sign returns after the other sign
    cycle, seen_other = np.zeros(len(sign), int), False
    count = 0
    for i, s in enumerate(sign):
        if s == -first:
            seen_other = True
        elif s == first and seen_other:
            count, seen_other = count + 1, False
        cycle[i] = count
    kinds: dict[int, StepKind] = {0: "rest", 1: "charge", -1: "discharge"}
    charge = cell.charge_mah if cell.charge_mah is not None else _charge(cell.t_s, current)
    return [
        CellRow(float(t), float("nan"), float(v), float(i), int(c), int(k), kinds[int(s)], float(q))
        for t, v, i, c, k, s, q in zip(cell.t_s, cell.voltage_v, current, cycle, step, sign, charge, strict=True)
    ]


def _charge(t_s: np.ndarray, current_ma: np.ndarray) -> np.ndarray:
    steps = 0.5 * (current_ma[1:] + current_ma[:-1]) * np.diff(t_s) / 3600.0
    return np.concatenate([[0.0], np.cumsum(steps)])


def _read_ahead(source: Recording) -> Iterator[tuple[int, np.ndarray]]:
    """Blocks of frames, read by a thread of their own while the kernels work on the one before."""
    blocks: queue.Queue[tuple[int, np.ndarray] | InstrumentError | None] = queue.Queue(READ_AHEAD_BLOCKS)
    stop = threading.Event()

    def put(item: tuple[int, np.ndarray] | InstrumentError | None) -> bool:
        while not stop.is_set():
            try:
                blocks.put(item, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def read() -> None:
        try:
            for start, frames in source.blocks(frames=BLOCK_FRAMES):
                if not put((start, frames)):
                    return
            put(None)
        except InstrumentError as error:
            put(error)

    reader = threading.Thread(target=read, name="read-ahead")
    reader.start()
    try:
        while (item := blocks.get()) is not None:
            if isinstance(item, InstrumentError):
                raise item
            yield item
    finally:
        stop.set()
        reader.join()
