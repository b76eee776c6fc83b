"""The one writer: a thread that owns the only writing connections, behind a bounded queue."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from daemon.cell.samples import CellRow
from daemon.engine.measures import Clip
from daemon.errors import StoreError, StoreReason
from daemon.events import Event
from daemon.mask_edits import MaskVersion
from daemon.parts import PartStatus, RunSummary
from daemon.store import operations, rows
from daemon.store.assemble import checked_batch
from daemon.store.axial import insert_axes, insert_axial
from daemon.store.clips import insert_clips
from daemon.store.loop import WriteLoop
from daemon.store.queue import Op, OpQueue
from daemon.store.schema import CATALOGUE
from daemon.store.session import OpenFile, Session
from daemon.tables import CYCLES, ENSEMBLE, FRONTS, HEALTH, RATES

T = TypeVar("T")
SUBMIT_DEADLINE_S = 5.0  # longer than a slow card's worst sync; a caller that waits longer should say so


@dataclass(frozen=True)
class StoreStats:
    """The writer at one moment."""

    queue_ops: int
    queue_ops_bound: int
    queue_bytes: int
    queue_bytes_bound: int
    stored_frames: int
    lost_frames: int
    """Refused by the full queue or not written by a failed commit; recorded in `drops` with the next good commit."""
    commits: int
    failed_commits: int
    failed_operations: int
    last_commit_took_s: float
    chunk_bytes: int
    """Bytes of compressed columns written."""
    wal_bytes: int
    lag_s: float
    """Age of the oldest submitted thing that is not on disk yet."""
    loss_bound_s: float
    """What a power cut may cost while `lag_s` stays below it."""
    progress_s: float
    """Monotonic time at which the thread last showed life."""


class StoreWriter:
    """Writes catalogue and run files; usable from any thread, with or without asyncio.

    Every method that writes returns a `concurrent.futures.Future`, resolved once the data is durable; it carries a
    `StoreError` when the disk refused. A full queue refuses dense frames at once (their future fails, the loss is
    counted and becomes a row of `drops`); anything else waits up to `SUBMIT_DEADLINE_S` for room, or not at all when
    called from a running event loop, and then raises `StoreError` (OVERLOADED). `on_fault` is called in the writer's
    thread when commits begin to fail.
    """

    def __init__(
        self,
        catalogue: Path | None,
        *,
        commit_interval_s: float = 1.0,
        queue_ops: int = 4096,
        queue_bytes: int = 128 << 20,
        on_fault: Callable[[StoreError], None] | None = None,
    ) -> None:
        self._catalogue = catalogue
        self._commit_interval_s = commit_interval_s
        self._session = Session()
        self._queue = OpQueue(queue_ops, queue_bytes)
        self._loop = WriteLoop(self._queue, self._session, commit_interval_s, on_fault)
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Open or make the catalogue and start the thread. Blocks; raises `StoreError`."""
        if self._catalogue is not None:
            exists = self._catalogue.exists()
            self._session.catalogue = OpenFile.open(self._catalogue, CATALOGUE, create=not exists)
        self._thread = threading.Thread(target=self._loop.run, name="store-writer", daemon=True)
        self._thread.start()

    def stop(self, timeout_s: float = 10.0) -> None:
        """Write everything submitted, close the run and the catalogue. Blocks; safe to repeat.

        Raises `StoreError` (OVERLOADED) when the disk did not take it all in time; the thread goes on trying.
        """
        self._queue.close()
        if self._thread is None:
            return
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            raise StoreError(StoreReason.OVERLOADED, f"the store did not finish within {timeout_s:g} s")

    def create_run(self, path: Path, metadata: dict[str, Any], summary: RunSummary | None = None) -> Future[None]:
        """Make a run file and open it; what follows goes there until `close_run`.

        `metadata` and the fields of `summary` become the file's metadata rows; the run's id is that of either, or the
        file's stem. With a summary the run also gets its row in the catalogue. Fails with `RunError` (BUSY) while
        another run is open, `StoreError` (EXISTS, NOT_WRITABLE, DISK_FULL).
        """
        return self._submit(Op("new run", control=partial(operations.create_run, path, dict(metadata), summary)))

    def record_run(self, summary: RunSummary) -> Future[None]:
        """Put the whole row of a run into the catalogue, at once; for runs that have no file (yet)."""
        return self._submit(Op("run", catalogue=partial(operations.record_run, summary), urgent=True))

    def close_run(self) -> Future[None]:
        """Commit and finish the open run's file, so that it is complete by itself; does nothing when none is open."""
        return self._submit(Op("end of run", control=Session.close_run))

    def set_aside(self, run_id: str, path: Path, why: StoreError) -> Future[Path | None]:
        """Keep the damaged file of a run that is closed under another name, at once; the catalogue tells its new path.

        The result is None when that run is open: its file is set aside when it is closed.
        """
        return self._submit(Op("damaged run", control=partial(operations.set_aside, run_id, path, why)))

    def update_run(self, run_id: str, **changes: Any) -> Future[None]:
        """Change fields of `RunSummary` in catalogue and run file, at once; the run may be closed already.

        Fails with `RunError` (NOT_FOUND); `ValueError` for an unknown field.
        """
        rows.known_only([changes], rows.RUN_FIELDS[1:], "runs")
        change = partial(operations.change_run, run_id, changes) if self._catalogue and changes else None
        describe = partial(operations.describe_run, run_id, changes)
        return self._submit(Op("run state", catalogue=change, run=describe, needs_run=False, urgent=True))

    def set_metadata(self, values: dict[str, Any]) -> Future[None]:
        """Add or replace metadata of the open run; values are anything JSON can hold (NaN becomes null)."""
        return self._run_rows("metadata", rows.set_metadata, dict(values))

    def put_particles(self, particles: Iterable[dict[str, Any]]) -> Future[None]:
        """Whole rows, in the order of the chunks' second axis unless they carry `particle_index`."""
        known = rows.known_only(particles, rows.PARTICLE_COLUMNS, "particles")
        return self._run_rows("particles", rows.insert_particles, known)

    def update_particles(self, particles: Iterable[dict[str, Any]]) -> Future[None]:
        """`particle_id` and the columns that changed."""
        known = rows.known_only(particles, rows.PARTICLE_COLUMNS, "particles")
        return self._run_rows("particles", rows.update_particles, known)

    def put_calibrations(self, calibrations: Iterable[dict[str, Any]]) -> Future[None]:
        """The latest of each particle replaces the earlier; keys beyond the known columns are kept as given."""
        return self._run_rows("calibrations", rows.insert_calibrations, [dict(row) for row in calibrations])

    def put_cycles(self, cycles: Iterable[dict[str, Any]]) -> Future[None]:
        """A later row of the same (particle_id, cycle, half) replaces the earlier."""
        return self._run_rows("cycles", rows.insert_cycles, rows.known_only(cycles, CYCLES, "cycles"))

    def put_health(self, health: Iterable[dict[str, Any]]) -> Future[None]:
        """A later row of the same (particle_id, cycle) replaces the earlier."""
        return self._run_rows("health", rows.insert_health, rows.known_only(health, HEALTH, "health"))

    def put_rates(self, rates: Iterable[dict[str, Any]]) -> Future[None]:
        """A later row of the same (particle_id, cycle, half, step) replaces the earlier."""
        return self._run_rows("rates", rows.insert_rates, rows.known_only(rates, RATES, "rates"))

    def put_fronts(self, fronts: Iterable[dict[str, Any]]) -> Future[None]:
        """A later row of the same (particle_id, cycle, half) replaces the earlier; a front brings its series."""
        known = rows.known_only(fronts, (*FRONTS, *rows.FRONT_SERIES), "fronts")
        nbytes = sum(256 + sum(getattr(value, "nbytes", 0) for value in row.values()) for row in known)
        return self._submit(Op("fronts", run=partial(_insert_into_run, rows.insert_fronts, (known,)), nbytes=nbytes))

    def put_ensemble(self, ensemble: Iterable[dict[str, Any]]) -> Future[None]:
        """A later row of the same `t_s` replaces the earlier."""
        return self._run_rows("ensemble", rows.insert_ensemble, rows.known_only(ensemble, ENSEMBLE, "ensemble"))

    def put_axes(self, axes: Iterable[dict[str, Any]]) -> Future[None]:
        """A later row of the same particle replaces the earlier."""
        return self._run_rows("axes", insert_axes, [dict(row) for row in axes])

    def put_axial(self, axial: Iterable[dict[str, Any]]) -> Future[None]:
        """Axial bins of consecutive blocks: arrays as of `ScienceUpdate.axial`."""
        given = list(axial)
        nbytes = sum(value.nbytes for row in given for value in row.values())
        step = partial(_insert_into_run, insert_axial, (given,))
        return self._submit(Op("axial", run=step, nbytes=max(nbytes, 256)))

    def put_clips(self, clips: Iterable[tuple[int, Clip]]) -> Future[None]:
        """Raw pixels around steps, each with the id of its particle."""
        given = list(clips)
        nbytes = sum(clip.pixels.nbytes for _, clip in given)
        step = partial(_insert_into_run, insert_clips, (given,))
        return self._submit(Op("clips", run=step, nbytes=max(nbytes, 256)))

    def put_cell_samples(self, samples: Iterable[CellRow]) -> Future[None]:
        """Samples whose `t_s` is run time (camera's clock) already."""
        return self._run_rows("cell samples", rows.insert_cell_samples, list(samples))

    def put_masks(self, about: MaskVersion, labels: np.ndarray, reference: np.ndarray | None = None) -> Future[None]:
        """A version of the masks, at once: (H, W) label image, and the (H, W) reference frame when it is a new one."""
        image = None if reference is None else reference.copy()
        step = partial(operations.store_masks, about, labels.copy(), image)
        return self._submit(Op("masks", run=step, urgent=True, nbytes=labels.nbytes * (1 if image is None else 2)))

    def put_chunk(
        self,
        frame_columns: dict[str, np.ndarray],
        particle_columns: dict[str, np.ndarray],
        *,
        wait_s: float = 0.0,
        mask_version: int = 1,
    ) -> Future[int]:
        """N frames: (N,) and (N, P) columns named as in `daemon.tables`; copied, then gathered into chunks of a second.

        A chunk holds frames of one mask version only.

        A full queue is waited for at most `wait_s` (offline work waits, live work does not); then the frames are
        dropped, counted, and the future fails with `StoreError` (OVERLOADED). Wrong columns are a `ValueError`.
        """
        batch = checked_batch(frame_columns, particle_columns, mask_version)
        op = Op("frames", batch=batch, nbytes=batch.nbytes)
        if not batch.frames:
            op.future.set_result(0)
            return op.future
        try:
            self._queue.put(op, wait_s)
        except StoreError as error:
            self._loop.losses.add(error.code, batch.frames, float(batch.frame_columns["t_s"][0]))
            op.future.set_exception(error)
        return op.future

    def put_events(self, events: Iterable[Event]) -> Future[list[Event]]:
        """Store at once; the result is the events with `seq`, `event_id` and `run_id` set, in order.

        `seq` is instrument-wide with a catalogue and counts within the run without. An event without `run_id`
        belongs to the open run, if any.
        """
        work = operations.EventNumbering(list(events))
        number = work.catalogue if self._catalogue else None
        return self._submit(Op("events", catalogue=number, run=work.run, needs_run=number is None, urgent=True))

    def put_drop(self, stage: str, reason: str, count: int, t_s: float) -> Future[None]:
        """`count` frames were lost at `stage` before they reached the store, the first at run time `t_s`."""
        columns = ("stage", "reason", "count", "t_s")
        row = {"stage": stage, "reason": reason, "count": count, "t_s": t_s}
        return self._run_rows("drops", rows.replace_rows, "drops", columns, [row])

    def put_fault(self, code: str, detail: str, t_s: float | None = None) -> Future[None]:
        """Something failed: kept in the open run, if any, and in the catalogue, if any."""
        row = {"code": code, "detail": detail, "t_s": t_s, "host_t_s": time.monotonic(), "utc": operations.utc_now()}
        into_run = partial(_insert_into_run, rows.replace_rows, ("faults", tuple(row), [row]))
        into_catalogue = partial(_insert_fault, row) if self._catalogue else None
        needs_run = into_catalogue is None
        return self._submit(Op("fault", catalogue=into_catalogue, run=into_run, needs_run=needs_run, urgent=True))

    def change_catalogue(self, what: str, step: Callable[[Session], T]) -> Future[T]:
        """`step(session)` in one transaction on the catalogue, at once."""
        return self._submit(Op(what, catalogue=step, urgent=True))

    def audit(self, actor: str, action: str, detail: str = "") -> Future[None]:
        """Who did what, in the catalogue."""
        row = {"utc": operations.utc_now(), "actor": actor, "action": action, "detail": detail}
        return self._submit(Op("audit", catalogue=partial(_insert_into_catalogue, "audit", row)))

    def put_instrument_calibration(self, kind: str, array: np.ndarray, summary: dict[str, Any]) -> Future[None]:
        """A dark or flat frame (H, W) that later runs use, and what was measured with it."""
        step = partial(operations.store_instrument_calibration, kind, array.copy(), dict(summary))
        return self._submit(Op("calibration", catalogue=step, urgent=True, nbytes=array.nbytes))

    def stats(self) -> StoreStats:
        """A snapshot; cheap, any thread."""
        ops, nbytes = self._queue.depth
        counters, oldest_s = self._loop.counters, self._queue.oldest_s()
        return StoreStats(
            queue_ops=ops,
            queue_ops_bound=self._queue.max_ops,
            queue_bytes=nbytes,
            queue_bytes_bound=self._queue.max_bytes,
            stored_frames=counters.stored_frames,
            lost_frames=self._loop.losses.total_frames,
            commits=counters.commits,
            failed_commits=counters.failed_commits,
            failed_operations=counters.failed_operations,
            last_commit_took_s=counters.last_commit_took_s,
            chunk_bytes=counters.chunk_bytes,
            wal_bytes=counters.wal_bytes,
            lag_s=0.0 if oldest_s is None else time.monotonic() - oldest_s,
            loss_bound_s=self._commit_interval_s,
            progress_s=counters.progress_s,
        )

    def status(self) -> PartStatus:
        """The store's line in the status."""
        stats = self.stats()
        values = {"lag_s": round(stats.lag_s, 3), "queue_ops": stats.queue_ops, "lost_frames": stats.lost_frames}
        fault = self._loop.counters.fault
        if self._thread is None or not self._thread.is_alive():
            return PartStatus("store", "stopped", StoreReason.STOPPED.code, "", StoreReason.STOPPED.remedy, values)
        if fault is not None:
            return PartStatus("store", "failed", fault.code, fault.detail, fault.remedy, values)
        return PartStatus("store", "ready", values=values)

    def _run_rows(self, what: str, insert: Callable[..., Any], *arguments: Any) -> Future[Any]:
        nbytes = 256 * max(1, len(arguments[-1]))
        return self._submit(Op(what, run=partial(_insert_into_run, insert, arguments), nbytes=nbytes))

    def _submit(self, op: Op) -> Future[Any]:
        self._queue.put(op, 0.0 if _in_event_loop() else SUBMIT_DEADLINE_S)
        return op.future


def _insert_into_run(insert: Callable[..., Any], arguments: tuple[Any, ...], session: Session) -> Any:
    assert session.run is not None
    return insert(session.run.conn, *arguments)


def _insert_into_catalogue(table: str, row: dict[str, Any], session: Session) -> None:
    assert session.catalogue is not None
    rows.replace_rows(session.catalogue.conn, table, tuple(row), [row])


def _insert_fault(row: dict[str, Any], session: Session) -> None:
    _insert_into_catalogue("faults", {**row, "run_id": session.run_id}, session)


def _in_event_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
