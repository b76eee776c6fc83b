"""Starting, following and ending runs: reference, masks, measuring, the experiment, and the way back down."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np

from daemon.cell.journal import ExperimentEnd
from daemon.cell.samples import CellRow
from daemon.config import Settings
from daemon.engine.host import EngineHost
from daemon.engine.link import Message
from daemon.engine.measures import MeasureBatch
from daemon.errors import (
    CameraError,
    CameraReason,
    EngineError,
    EngineReason,
    InstrumentError,
    RunError,
    RunReason,
    StoreError,
    StoreReason,
)
from daemon.events import Event, EventKind
from daemon.mask_edits import MaskChange, MaskVersion
from daemon.parts import CellControl, RunState, RunSummary
from daemon.photometry.clock import ClockRelation
from daemon.recipe import Recipe
from daemon.runs.active import ActiveRun, Ending
from daemon.runs.known import KnownRuns
from daemon.runs.masking import MaskEditor
from daemon.runs.recorder import Recorder
from daemon.runs.resuming import Resuming
from daemon.runs.setup import RunSetup
from daemon.runs.steps import or_zero, taken, tried
from daemon.store.paths import StateLayout
from daemon.store.writer import StoreWriter
from hw.potentiostat.contract import PotentiostatInfo

Summaries = list[RunSummary]
Rows = list[CellRow]
Events = list[Event]

log = logging.getLogger("runs")

FINISH_SHARE = 3.0  # of what the store may take for the end of a run: its last results come before
NAN = float("nan")


class RunManager:
    """Owns the run in progress. Event loop only; blocking work goes to threads and processes.

    `cell_info()` describes the open potentiostat, None without one; `publish(events)` is called on the event loop with
    events that are on disk.
    """

    def __init__(
        self,
        settings: Settings,
        paths: StateLayout,
        engine: EngineHost,
        cell: CellControl,
        cell_info: Callable[[], PotentiostatInfo | None],
        writer: StoreWriter,
        publish: Callable[[list[Event]], None],
    ) -> None:
        self._settings, self._paths = settings, paths
        self._engine, self._cell = engine, cell
        self._writer, self._publish_now = writer, publish
        self._finish_s = FINISH_SHARE * settings.store.answer_timeout_s
        self._setup = RunSetup(settings, paths, engine, cell_info, writer, self._publish)
        self._masks = MaskEditor(self._setup)
        self._active: ActiveRun | None = None
        self._task: asyncio.Task[None] | None = None
        self.resuming = Resuming(engine, self._setup.resume)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._starting = False
        self._dropped_before = 0
        self._last_frame_s = NAN
        self._camera_away = False
        self._known = KnownRuns(paths)
        self.begun = 0
        """Runs since the daemon began, by whomever."""
        self.unclaimed_frames = 0
        """Measured frames that no run could take: they came after its end, or its science had ended before them."""
        self.problem: InstrumentError | None = None
        """Why the latest run failed; None after one that did not."""

    async def open(self) -> None:
        """Begin to listen to the engine."""
        self._loop = asyncio.get_running_loop()
        self._engine.on_batch = self._on_batch
        self._engine.on_camera = self._on_camera
        self._engine.on_restart = self._on_restart
        self._engine.on_calibration = self._keep_calibration

    async def close(self) -> None:
        """End the run in progress, if any; idempotent."""
        if self._active is not None:
            self._active.end(Ending("service.stopped", "the service was stopped"))
        if self._task is not None:
            await asyncio.wait([self._task], timeout=self._finish_s)

    # --- the Runs protocol ---------------------------------------------------------------------------------------

    async def start(self, recipe: Recipe) -> RunSummary:
        """Begin a run; returns once it is in the catalogue.

        Raises `RunError`, `ExperimentError`, `StoreError`, `EngineError` (BUSY).
        """
        if self._active is not None:
            raise RunError(RunReason.BUSY, f"run '{self._active.summary.run_id}' is in progress")
        if self._starting:
            raise RunError(RunReason.BUSY, "another run is being started")
        if self._engine.calibrating:
            raise EngineError(EngineReason.BUSY, "a calibration is being taken")
        self._setup.check_experiment(recipe)
        self._starting = True
        self.begun += 1
        try:
            summary = await asyncio.to_thread(self._new_run, recipe)
            await self._enter(summary)
        finally:
            self._starting = False
        self._active = ActiveRun(summary, recipe, self._writer)
        self._task = asyncio.create_task(self._life(self._active), name=f"run-{summary.run_id}")
        return summary

    async def _enter(self, summary: RunSummary) -> None:
        """Put the run into the catalogue. A disk that is too slow may do so after all: then as one that never began."""
        try:
            await self._setup.stored(self._writer.record_run(summary))
        except StoreError as error:
            ended_utc = datetime.now(UTC).isoformat()
            summary = replace(summary, state="failed", ended_utc=ended_utc, reason=error.code, detail=error.detail)
            self._known.remember(summary)
            with contextlib.suppress(StoreError):
                self._writer.record_run(summary)
            raise

    async def stop(self, run_id: str, reason: str = "") -> RunSummary:
        """End the run: cell off first, everything measured stored. Raises `RunError`."""
        active = self._active
        if active is None or active.summary.run_id != run_id:
            await self.get(run_id)
            raise RunError(RunReason.NOT_RUNNING, f"run '{run_id}' is not in progress")
        active.end(Ending(reason, reason or "stopped by an operator"))
        try:
            await asyncio.wait_for(active.finished.wait(), self._finish_s)
        except TimeoutError:
            log.error("run %s did not finish within %g s", run_id, self._finish_s)
        return active.summary

    async def wait_running(self, run_id: str) -> RunSummary:
        """Wait until the run measures and its experiment has begun. Raises the error that kept it from doing so."""
        active = self._active
        if active is None or active.summary.run_id != run_id:
            summary = await self.get(run_id)
        else:
            await active.begun_or_finished()
            summary = active.summary
        if summary.state == "failed" and self.problem is not None:
            raise self.problem
        return summary

    async def edit_masks(self, run_id: str, change: MaskChange, actor: str) -> MaskVersion:
        """Edit the masks of the run in progress: in effect, and on disk, when this returns. Raises `MaskError`,
        `RunError`.
        """
        active = self._active
        if active is None or active.summary.run_id != run_id:
            await self.get(run_id)
            raise RunError(RunReason.NOT_RUNNING, f"run '{run_id}' is not in progress")
        about = await self._masks.edit(active, change, actor)
        if active.prepared is not None:
            self._update(active, particles=active.prepared.masks.count)
        return about

    async def list(self, limit: int = 100) -> Summaries:
        """Newest first."""
        found = await asyncio.to_thread(self._known.newest, limit)
        active = self._active
        if active is None:
            return found
        return [self._fresh(active), *(run for run in found if run.run_id != active.summary.run_id)]

    async def get(self, run_id: str) -> RunSummary:
        """Raises `RunError` (NOT_FOUND)."""
        if self._active is not None and self._active.summary.run_id == run_id:
            return self._fresh(self._active)
        found = await asyncio.to_thread(self._known.find, run_id)
        if found is None:
            raise RunError(RunReason.NOT_FOUND, f"there is no run '{run_id}'")
        return found

    def current(self) -> RunSummary | None:
        """The run in progress, if any."""
        active = self._active  # asked from other threads too
        return self._fresh(active) if active is not None else None

    def live_states(self) -> np.ndarray | None:
        """(P,) indices into `PARTICLE_STATES`."""
        recorder = self._recorder()
        return recorder.told.states if recorder is not None else None

    def live_soc(self) -> np.ndarray | None:
        """(P,) latest state of charge."""
        recorder = self._recorder()
        return recorder.told.soc if recorder is not None else None

    def live_labels(self) -> np.ndarray | None:
        """(H, W) label image."""
        recorder = self._recorder()
        return recorder.told.labels if recorder is not None else None

    def live_summary(self) -> dict[str, Any]:
        """The science's own summary."""
        recorder = self._recorder()
        return recorder.told.summary if recorder is not None and recorder.frames else {}

    # --- news from the other parts -------------------------------------------------------------------------------

    def on_cell_rows(self, rows: Rows) -> None:
        """Samples of the cell, dated by the potentiostat's clock."""
        if self._active is not None:
            self._active.add_rows(rows)

    def on_cell_event(self, event: Event) -> None:
        """An event of the cell, dated by the potentiostat's clock. Raises `StoreError` when it cannot be kept."""
        clock = self._active.clock if self._active is not None else None
        convert = clock.run_time if clock is not None else lambda _: NAN
        kept = self._record(replace(event, t_s=convert(event.t_s), detected_t_s=convert(event.detected_t_s)))
        if kept is not None and kept.done() and (error := kept.exception()) is not None:
            raise error

    def on_experiment_end(self, end: ExperimentEnd) -> None:
        """The experiment ended: by itself (reason empty), by an operator, a limit or a fault."""
        active = self._active
        if active is not None and active.recipe.experiment is not None and active.recipe.stop_with_experiment:
            active.end(Ending(end.reason, end.detail))

    def record(self, event: Event) -> None:
        """Store and publish one of the instrument's own events; dated now when it carries no time. Never raises."""
        self._record(event)

    def _record(self, event: Event) -> Future[Any] | None:
        active = self._active
        if active is not None and active.recorder is not None:
            t_s = active.t_s
            event = event if np.isfinite(event.t_s) else replace(event, t_s=t_s, detected_t_s=t_s)
            if active.add_event(event):
                return None
        return self._put_events([event])

    def _put_events(self, events: Events) -> Future[Any]:
        """Store and publish, not by way of the science."""
        if self._loop is None:  # not open yet, and the cell was found on
            self._loop = asyncio.get_running_loop()
        future = taken(self._writer.put_events, events)
        future.add_done_callback(lambda done: None if done.exception() else self._publish(done.result()))
        return future

    def record_drop(self, stage: str, reason: str, count: int) -> None:
        """Frames lost before they were measured: a row of the run in progress."""
        active = self._active
        if active is not None and active.recorder is not None and active.running.is_set():
            taken(self._writer.put_drop, stage, reason, count, active.t_s if active.recorder.frames else 0.0)

    def fail(self, error: InstrumentError) -> None:
        """End the run in progress because of a fault elsewhere (the store's, say)."""
        if self._active is not None:
            self._active.end(Ending(error.code, error.detail))

    @property
    def dropped_frames(self) -> int:
        """Frames the daemon itself dropped before the store, since it began."""
        return self._dropped_before + (self._active.dropped_frames if self._active is not None else 0)

    @property
    def clock(self) -> ClockRelation | None:
        """How the potentiostat's clock relates to the run in progress."""
        return self._active.clock if self._active is not None else None

    @property
    def blank(self) -> tuple[float, str]:
        """For how many seconds nothing could be measured in the frames that came, and why."""
        return (0.0, "") if self._active is None else (self._active.blank_s, self._active.blank_why)

    @property
    def queue_depth(self) -> int:
        """Items waiting for the science thread."""
        return self._active.depth if self._active is not None else 0

    def _on_batch(self, batch: MeasureBatch) -> None:
        self._last_frame_s = float(batch.host_t_s[-1])
        active = self._active
        if active is None:  # an engine that did not hear of the run's end
            self.unclaimed_frames += len(batch)
            return
        is_first = not np.isfinite(active.camera_t0_s)
        active.add_batch(batch)
        if is_first:
            self._date(active, batch)

    def _date(self, active: ActiveRun, batch: MeasureBatch) -> None:
        """The UTC of t = 0: the wall clock now, less what passed on the monotonic one since the first frame."""
        ago_s = time.monotonic() - float(batch.host_t_s[0])
        started = datetime.now(UTC) - timedelta(seconds=ago_s)
        self._update(active, started_utc=started.isoformat())
        taken(self._writer.set_metadata, {"started_utc": started.isoformat()})

    def _on_camera(self, kind: str, fields: dict[str, Any]) -> None:
        silence_s = time.monotonic() - self._last_frame_s
        if kind == "lost":
            if not self._camera_away:  # further tries that fail belong to the same outage
                detail = str(fields.get("detail", ""))
                self.record(Event(EventKind.CAMERA_LOST, NAN, NAN, magnitude=silence_s, detail=detail))
            self._camera_away = True
            if fields.get("reason") == CameraReason.CHANGED.code:  # nothing it sends compares with what was measured
                self.fail(CameraError(CameraReason.CHANGED, str(fields["detail"])))
        elif kind == "ended" and self._active is not None and self._active.running.is_set():
            self._active.end(Ending())
        elif kind == "open":
            if self._camera_away or (self._active is not None and self._active.running.is_set()):
                self.record(Event(EventKind.CAMERA_BACK, NAN, NAN, magnitude=silence_s))
            self._camera_away = False

    def _on_restart(self) -> None:
        self.record(Event(EventKind.ENGINE_RESTARTED, NAN, NAN))
        active = self._active
        if active is not None and active.running.is_set() and not active.is_ending:
            self.resuming.begin(active)

    # --- a run's life --------------------------------------------------------------------------------------------

    async def _life(self, active: ActiveRun) -> None:
        digest = asyncio.create_task(active.digest(), name="run-digest")
        digest.add_done_callback(lambda _: active.end(Ending()))  # without science there is no run
        state: RunState = "done"
        ending = Ending()
        try:
            await self._begin(active)
            ending = await active.ended()
            if digest.done():
                digest.result()
        except InstrumentError as error:
            state, ending = "failed", Ending(error.code, str(error))
            self.problem = error
            log.error("run %s: %s", active.summary.run_id, error)
        except Exception:
            # whatever it was, the cell must go off and the record must close
            log.exception("run %s", active.summary.run_id)
            self.problem = RunError(RunReason.INTERNAL, f"run '{active.summary.run_id}' met a fault of the software")
            state, ending = "failed", Ending(self.problem.code, self.problem.detail)
        finally:
            await self._finish(active, digest, state, ending)

    async def _begin(self, active: ActiveRun) -> None:
        info = await self._or_ended(active, self._engine.camera(self._settings.camera.start_timeout_s))
        reference = await self._or_ended(active, self._setup.reference(active.recipe, info))
        prepared = await self._or_ended(active, self._setup.prepare(reference, active.recipe))
        active.prepared = prepared
        await self._setup.create(active, info, prepared, reference)
        await self._setup.measure(active, info, prepared, reference)
        self._update(active, state="running", particles=prepared.masks.count)
        active.running.set()
        self.problem = None
        log.info("run %s: measuring %d particles", active.summary.run_id, prepared.masks.count)
        if prepared.noise.estimated:
            log.info("run %s: %s", active.summary.run_id, "; ".join(prepared.noise.sentences()))
        if active.recipe.experiment is not None:
            await self._cell.start_experiment(active.recipe.experiment)
        active.begun.set()

    async def _or_ended(self, active: ActiveRun, work: Coroutine[Any, Any, Any]) -> Any:
        """Await `work`, unless the run is asked to end first."""
        task, ended = asyncio.ensure_future(work), asyncio.ensure_future(active.ended())
        try:
            await asyncio.wait([task, ended], return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                raise RunError(RunReason.NOT_RUNNING, "the run was stopped while it was prepared")
            return task.result()
        finally:
            for one in (task, ended):
                one.cancel()
            await asyncio.gather(task, ended, return_exceptions=True)

    async def _finish(self, active: ActiveRun, digest: asyncio.Task[None], state: RunState, ending: Ending) -> None:
        active.end(ending)
        self._update(active, state="stopping")
        if active.recipe.experiment is not None and active.running.is_set():
            await tried("cell off", self._cell.off(ending.reason or "run ended"))
        await self.resuming.end()
        await tried("last frames", self._engine.request(Message("finish")))
        if not await tried("last results", self._close_record(active, digest)) and state == "done":
            state, ending = "failed", Ending(RunReason.INTERNAL.code, "the last results could not be stored")
        digest.cancel()
        await asyncio.gather(digest, return_exceptions=True)
        if left := active.waiting_frames:
            taken(self._writer.put_drop, "science", "no_run", left, or_zero(active.t_s))
        if events := active.left_events():
            self._put_events(events)
        recorded = self._update(
            active,
            state=state,
            ended_utc=datetime.now(UTC).isoformat(),
            reason=ending.reason,
            detail=ending.detail,
            frames=active.recorder.frames if active.recorder is not None else 0,
        )
        if not await tried("the end of the run", self._setup.stored(recorded)):
            self._known.remember(active.summary)
        await tried("closing the run", self._setup.stored(taken(self._writer.close_run)))
        active.close()
        self._dropped_before += active.dropped_frames
        self.unclaimed_frames += active.waiting_frames
        self._active = None
        active.finished.set()
        log.info("run %s: %s %s", active.summary.run_id, state, ending.detail)

    async def _close_record(self, active: ActiveRun, digest: asyncio.Task[None]) -> None:
        if not digest.done():
            async with asyncio.timeout(self._finish_s / 2):
                await active.drain()
                await asyncio.shield(digest)
        if active.recorder is None:
            return
        await active.in_thread(active.recorder.finish)
        clock = active.clock
        if clock is not None and np.isfinite(clock.offset_s):
            self._writer.set_metadata({"potentiostat_offset_s": clock.offset_s, "clock_offset_sigma_s": clock.sigma_s})

    # --- helpers -------------------------------------------------------------------------------------------------

    def _update(self, active: ActiveRun, **changes: Any) -> Future[None]:
        active.summary = replace(active.summary, **changes)
        if active.recorder is None:
            # not yet, or never, as far as a file: the catalogue still tells that it was tried
            return taken(self._writer.record_run, active.summary)
        return taken(self._writer.update_run, active.summary.run_id, **changes)

    def _publish(self, events: Events) -> None:
        """Called in the writer's thread after the commit."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._publish_now, events)

    async def _keep_calibration(self, kind: str, mean_dn: np.ndarray, summary: dict[str, Any]) -> None:
        await self._setup.stored(self._writer.put_instrument_calibration(kind, mean_dn, dict(summary)))

    def check_space(self) -> None:
        """Raises `StoreError` (DISK_FULL) when less is free than a run may begin, or go on, with. Blocks."""
        free_mb = self._paths.free_mb()
        if free_mb < self._settings.store.min_free_mb:
            raise StoreError(StoreReason.DISK_FULL, f"only {free_mb} MB are free below '{self._paths.state_dir}'")

    def _new_run(self, recipe: Recipe) -> RunSummary:
        """A run that begins now; its id is the UTC to the second, numbered on when that exists. Blocks."""
        self.check_space()
        started = datetime.now(UTC)
        stem = started.strftime("%Y%m%dT%H%M%SZ")
        names = (stem if n == 1 else f"{stem}-{n}" for n in range(1, 1000))
        run_id = next(n for n in names if not self._paths.run_path(n).exists() and self._known.find(n) is None)
        return RunSummary(
            run_id, recipe.name or run_id, "preparing", started.isoformat(), None, self._paths.run_path(run_id),
            recipe.model_dump(mode="json"),
        )  # fmt: skip

    def _recorder(self) -> Recorder | None:
        return self._active.recorder if self._active is not None else None

    def _fresh(self, active: ActiveRun) -> RunSummary:
        frames = active.recorder.frames if active.recorder is not None else 0
        return replace(active.summary, frames=frames)
