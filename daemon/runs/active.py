"""One run in progress: its queue, its clock, its thread of science."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np

from daemon.cell.samples import CellRow
from daemon.engine.measures import NOTHING_SHOWN, MeasureBatch
from daemon.errors import RunError, RunReason, StoreError
from daemon.events import Event
from daemon.parts import RunSummary
from daemon.photometry.clock import ClockRelation
from daemon.recipe import Recipe
from daemon.runs.prepare import Prepared, Reference
from daemon.runs.recorder import Recorder
from daemon.runs.steps import first_of
from daemon.store.writer import StoreWriter
from hw.camera.contract import CameraIdentity

QUEUE_ITEMS = 512  # batches and cell rows: 25 s at 20 batches a second
T = TypeVar("T")

HELD_ROWS = 20_000  # cell rows waiting for the run's first frame


@dataclass(frozen=True)
class Ending:
    """Why a run ends. An empty `reason` means that it ended as asked."""

    reason: str = ""
    detail: str = ""


class ActiveRun:
    """Batches and cell rows meet here, in the order they came, and are digested by one thread.

    Bound: `QUEUE_ITEMS`. Policy at the bound: batches are dropped and counted in frames, cell rows are held back,
    events are refused.
    """

    def __init__(self, summary: RunSummary, recipe: Recipe, writer: StoreWriter) -> None:
        self.summary = summary
        self.recipe = recipe
        self.prepared: Prepared | None = None
        self.recorder: Recorder | None = None
        self.clock: ClockRelation | None = None
        self.camera: CameraIdentity | None = None
        """The one that the run measures, once it does."""
        self.camera_t0_s = float("nan")
        self.last_frame = -1
        """Number of the newest frame that the engine measured, digested or not; -1 before the first."""
        self.last_stamp: tuple[float, float] | None = None
        """Its run time and its host time."""
        self.reference: Reference | None = None
        """What the masks were found in, and are compiled from again when they are edited."""
        self.blank_s = 0.0
        """For how long, by the host's clock, nothing could be measured in the frames that came; 0 while it can."""
        self.blank_why = ""
        self._shown_host_t_s = float("nan")
        self.dropped_frames = 0
        self._offered_frames = self._digested_frames = 0
        self.running = asyncio.Event()
        self.begun = asyncio.Event()
        """Behind `running`: its experiment, where it has one, has begun too."""
        self.finished = asyncio.Event()
        self._ending: asyncio.Future[Ending] = asyncio.get_running_loop().create_future()
        self._writer = writer
        self._queue: asyncio.Queue[Callable[[Recorder], None] | None] = asyncio.Queue(QUEUE_ITEMS)
        self._held: deque[CellRow] = deque(maxlen=HELD_ROWS)
        self._events: deque[Event] = deque()  # those in the queue
        self._ends = False
        self._thread = ThreadPoolExecutor(1, "science")

    @property
    def t_s(self) -> float:
        """Run time of the newest frame; NaN before the first."""
        return self.recorder.last_t_s if self.recorder is not None and self.recorder.frames else float("nan")

    def end(self, ending: Ending) -> None:
        """Ask the run to end; the first asker names the reason."""
        if not self._ending.done():
            self._ending.set_result(ending)

    @property
    def is_ending(self) -> bool:
        """Whether somebody has asked the run to end, or it ends by itself."""
        return self._ending.done()

    async def ended(self) -> Ending:
        """Wait until somebody asks the run to end."""
        return await asyncio.shield(self._ending)

    async def begun_or_finished(self) -> None:
        """Wait until the run has begun, or ended without."""
        await first_of(self.begun.wait(), self.finished.wait())

    def _look(self, batch: MeasureBatch) -> None:
        shows = np.flatnonzero((batch.flags & sum(NOTHING_SHOWN)) == 0)
        if len(shows) or np.isnan(self._shown_host_t_s):
            self._shown_host_t_s = float(batch.host_t_s[shows[-1] if len(shows) else 0])
        self.blank_s = float(batch.host_t_s[-1]) - self._shown_host_t_s
        last = int(batch.flags[-1])
        self.blank_why = next((why for flag, why in NOTHING_SHOWN.items() if last & flag), "")

    def add_batch(self, batch: MeasureBatch) -> None:
        """Queue measures for the science thread."""
        self.last_frame = int(batch.frame[-1])
        self.last_stamp = (float(batch.t_s[-1]), float(batch.host_t_s[-1]))
        self._look(batch)
        if self.clock is not None and self.camera_t0_s != batch.camera_t0_s:
            self.camera_t0_s = batch.camera_t0_s
            self.clock.start(batch.camera_t0_s)
        if self.clock is not None:
            self.clock.add_frame(float(batch.t_s[-1]), float(batch.host_t_s[-1]))
        if self._offer(lambda recorder: self._digest_batch(recorder, batch)):
            self._offered_frames += len(batch)
        else:
            self.dropped_frames += len(batch)
            with contextlib.suppress(StoreError):  # no room for the row either: the count tells
                self._writer.put_drop("science", "full", len(batch), float(batch.t_s[0]))

    def _digest_batch(self, recorder: Recorder, batch: MeasureBatch) -> None:
        recorder.add(batch)
        self._digested_frames += len(batch)

    def add_rows(self, rows: list[CellRow]) -> None:
        """Queue cell rows, dated by the run's clock as soon as that is known."""
        if self.clock is None:
            return
        for row in rows:
            self.clock.add_sample(row.t_s, row.host_t_s)
        self._held.extend(rows)
        dated = [replace(row, t_s=self.clock.run_time(row.t_s)) for row in self._held]
        if not dated or dated[-1].t_s != dated[-1].t_s:
            return
        ready = [row for row in dated if row.t_s >= 0.0]
        if not ready or self._offer(lambda recorder: recorder.add_cell(ready)):
            self._held.clear()

    def add_event(self, event: Event) -> bool:
        """Queue one of the instrument's own events; False when nobody would digest it: the caller has to store it."""
        if self._ends or not self._offer(self._digest_event):
            return False
        self._events.append(event)
        return True

    def _digest_event(self, recorder: Recorder) -> None:
        recorder.record([self._events.popleft()])

    def left_events(self) -> list[Event]:
        """Events that a science which has ended did not digest, given out once."""
        left = list(self._events)
        self._events.clear()
        return left

    async def behind(self, work: Callable[[Recorder], T]) -> T:
        """Call `work` in the science thread behind everything that waits for it. Raises `RunError` (NOT_RUNNING)."""
        done: Future[T] = Future()

        def carry_out(recorder: Recorder) -> None:
            waited_for = done.set_running_or_notify_cancel()
            try:
                result = work(recorder)
            except Exception as error:
                if waited_for:
                    done.set_exception(error)
                raise
            if waited_for:
                done.set_result(result)

        async def carried_out() -> T:
            await self._queue.put(carry_out)
            return await asyncio.wrap_future(done)

        await first_of(carried_out(), self.finished.wait())
        if not done.done() or done.cancelled():
            raise RunError(RunReason.NOT_RUNNING, f"run '{self.summary.run_id}' has ended")
        return done.result()

    def _offer(self, work: Callable[[Recorder], None]) -> bool:
        try:
            self._queue.put_nowait(work)
        except asyncio.QueueFull:
            return False
        return True

    async def digest(self) -> None:
        """Work the queue off until `drain` closes it."""
        try:
            while (work := await self._queue.get()) is not None:
                if self.recorder is not None:
                    await self.in_thread(work, self.recorder)
        finally:
            self._ends = True

    async def drain(self) -> None:
        """Let `digest` end after what is queued; from now on events are refused."""
        self._ends = True
        await self._queue.put(None)

    async def in_thread(self, work: Callable[..., Any], *arguments: Any) -> Any:
        """Call `work` in the science thread."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, work, *arguments)

    def close(self) -> None:
        """End the science thread."""
        self._thread.shutdown(wait=False)

    @property
    def waiting_frames(self) -> int:
        """Frames of batches that the science thread has not digested; once it has ended, it never will."""
        return self._offered_frames - self._digested_frames

    @property
    def depth(self) -> int:
        """Items waiting for the science thread."""
        return self._queue.qsize()
