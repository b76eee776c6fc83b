"""The cell as the daemon sees it: one owner task, every call to the potentiostat in one thread, off when in doubt."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from daemon.cell.device import Permits
from daemon.cell.journal import Aftermath, ExperimentEnd, Report, Snapshot
from daemon.cell.link import Link
from daemon.cell.plan import plan_experiment
from daemon.cell.samples import CellRow
from daemon.cell.status import part_status
from daemon.cell.worker import DeviceThread
from daemon.config import CellSettings, PotentiostatSettings
from daemon.errors import (
    CellReason,
    ExperimentError,
    ExperimentReason,
    InstrumentError,
    PotentiostatError,
    Reason,
)
from daemon.events import Event, EventKind
from daemon.parts import CellState, PartState, PartStatus
from daemon.recipe import ExperimentSpec
from hw.drivers import DriverError
from hw.potentiostat.contract import Potentiostat, PotentiostatInfo

log = logging.getLogger(__name__)

READ_SLICE_S = 0.05  # longest wait for samples in one go, and so for an order to switch off
PAUSE_SLICE_S = 1.0  # how often a waiting owner shows that it is alive
BACKOFF_FIRST_S = 0.5
BACKOFF_MAX_S = 30.0  # a hub reset takes 8 s; an operator who replugs does not wait a minute
HEALTHY_S = 10.0  # a connection this old has proved itself: the next loss is tried anew without delay
MAX_STUCK_THREADS = 4  # beyond it the driver is not called again until one of them returns
STOP_PATIENCE_S = 12.0  # three calls with their deadlines; opening may take far longer and is not worth the wait
OFF_WAIT_S = 12.0  # for an answer to `off` while a hung driver is being got round


class Cell:
    """Implements `daemon.parts.CellControl`. Event loop only; `docs/cell.md` says what happens on each loss.

    `driver_factory` builds an unopened driver; it is called in a thread, once for every connection. `on_rows` gets
    every sample of the potentiostat, also without an experiment; `on_event` gets `cell_limit` and `cell_lost`, with
    times on the potentiostat's clock. Both are called on the event loop and must not block; when one raises, the cell
    is switched off, because nobody keeps its record.
    """

    def __init__(
        self,
        driver_factory: Callable[[], Potentiostat],
        settings: PotentiostatSettings,
        cell_settings: CellSettings,
        on_rows: Callable[[list[CellRow]], None],
        on_event: Callable[[Event], None],
        *,
        on_experiment_end: Callable[[ExperimentEnd], None] | None = None,
    ) -> None:
        self._factory = driver_factory
        self._settings = settings
        self._cell_settings = cell_settings
        self._on_rows, self._on_event, self._on_end = on_rows, on_event, on_experiment_end
        self._permits = Permits()
        self._link: Link | None = None
        self._owner: asyncio.Task[None] | None = None
        self._stopping = asyncio.Event()
        self._sampled = asyncio.Event()
        self._snapshot = Snapshot()
        self._info: PotentiostatInfo | None = None
        self._aftermath: Aftermath | None = None
        self._answered = False
        self._ending: asyncio.Future[ExperimentEnd] | None = None
        self._phase: PartState = "stopped"
        self._stuck: list[DeviceThread[Any]] = []
        self._closing = False
        self._attempts = 0
        self._next_attempt_s = math.nan
        self._progress_s = math.nan
        self.opens = 0
        """How often the potentiostat was opened."""

    # life

    async def start(self) -> None:
        """Open the potentiostat and begin to watch; a cell found on is switched off.

        A potentiostat that cannot be opened is tried again with growing pauses. Raises `DriverError` when the
        configuration names no usable driver.
        """
        if self._owner is not None:
            return
        self._stopping.clear()
        self._phase = "starting"
        try:
            await self._connect()
        except DriverError:
            self._phase = "stopped"
            raise
        except InstrumentError as error:
            log.warning("opening the potentiostat: %s", error)
        self._phase = "ready"
        self._owner = asyncio.create_task(self._own(), name="cell-owner")

    async def stop(self) -> None:
        """Cell off, confirmed where the device answers; device released. Idempotent."""
        self._permits.withdraw()
        self._stopping.set()
        if self._owner is not None:
            await self._ended(self._owner)
            self._owner = None
        await self._ended(asyncio.create_task(self._disconnect("stopped"), name="cell-disconnect"))
        self._phase = "stopped"

    async def _ended(self, task: asyncio.Task[None]) -> None:
        """Wait for `task`, past a driver that does not return; leaves it alone when this wait is cancelled."""
        done, _ = await asyncio.wait((task,), timeout=STOP_PATIENCE_S)
        if not done and self._link is not None:
            self._link.give_up("the call under way at the stop")
        await asyncio.wait((task,))
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("the task that owned the cell had failed", exc_info=error)

    async def _own(self) -> None:
        """Watch while connected, connect again when lost, until told to stop."""
        delay_s = BACKOFF_FIRST_S
        try:
            while not self._stopping.is_set():
                if self._link is not None:
                    healthy_s = await self._watch(self._link)
                    delay_s = BACKOFF_FIRST_S if healthy_s > HEALTHY_S else delay_s
                    await self._disconnect("stopped")
                if not self._stopping.is_set():
                    await self._pause(delay_s)
                    delay_s = min(2 * delay_s, BACKOFF_MAX_S)
                if not self._stopping.is_set():
                    await self._reconnect()
        except asyncio.CancelledError:
            self._permits.withdraw()
            if self._link is not None:
                with contextlib.suppress(PotentiostatError):
                    self._link.thread.submit(self._link.watch.off, "stopped", urgent=True)
            raise

    async def _watch(self, link: Link) -> float:
        """One read after the other until the device is lost or the daemon stops; how long it went well, seconds."""
        begun_s = time.monotonic()
        while not self._stopping.is_set() and self._snapshot.state != "lost":
            self._progress_s = time.monotonic()
            try:
                await link.finish(link.thread.submit(link.watch.iterate, READ_SLICE_S))
            except PotentiostatError as error:
                self._lost(link, error.reason, error.detail)
                break
            except Exception:
                log.exception("the watch over the cell failed")
                self._lost(link, CellReason.FAULT, "the watch over the cell failed")
                break
        return time.monotonic() - begun_s

    async def _connect(self) -> None:
        """Open a new link. Raises `InstrumentError` with the state `lost`, `DriverError` without."""
        self._stuck = [thread for thread in self._stuck if thread.alive]
        if len(self._stuck) >= MAX_STUCK_THREADS:
            detail = f"{len(self._stuck)} calls to the potentiostat's driver have not returned"
            self._snapshot = replace(self._snapshot, state="lost", reason=CellReason.HUNG, detail=detail)
            raise PotentiostatError(CellReason.HUNG, detail)
        self._attempts += 1
        self._progress_s = time.monotonic()
        limits, deadline_s = self._cell_settings.limits, self._settings.sample_deadline_s
        link = Link(self._factory, self._permits, limits, deadline_s, self._deliver)
        self._link, doubtful = link, self._snapshot.in_doubt
        try:
            await link.open(self._aftermath)
        except InstrumentError as error:
            if not isinstance(error, DriverError):
                self._snapshot = replace(
                    self._snapshot, state="lost", reason=error.reason, cause=error.reason, detail=error.detail
                )
            await self._disconnect("lost", in_doubt=doubtful)
            raise
        self._info, self._aftermath, self._answered = link.info, None, True
        self.opens += 1
        self._attempts, self._next_attempt_s = 0, math.nan

    async def _reconnect(self) -> None:
        try:
            await self._connect()
        except InstrumentError as error:
            log.warning("opening the potentiostat again, attempt %d: %s", self._attempts, error)
        else:
            log.info("the potentiostat is back; the cell stays off until it is started")

    async def _disconnect(self, reason: str, in_doubt: bool = False) -> None:
        """Close the link, whatever state it is in; afterwards `in_doubt` says whether the cell may still be on."""
        link = self._link
        if link is None:
            return
        self._closing = True
        try:
            await link.close(reason)
            if link.hung:
                self._stuck += await link.rescue()
        finally:
            self._closing = False
        in_doubt = in_doubt or link.device.in_doubt
        self._snapshot = replace(self._snapshot, on=in_doubt, in_doubt=in_doubt)
        if in_doubt:
            self._snapshot = replace(self._snapshot, state="lost", reason=CellReason.IN_DOUBT, in_doubt=True)
        self._link = None
        link.settled.set()

    async def _pause(self, delay_s: float) -> None:
        self._next_attempt_s = time.monotonic() + delay_s
        while not self._stopping.is_set() and (left_s := self._next_attempt_s - time.monotonic()) > 0:
            self._progress_s = time.monotonic()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), min(left_s, PAUSE_SLICE_S))

    # what comes from the device's thread

    def _deliver(self, report: Report) -> None:
        """Take a report, in the order in which things happened."""
        before = self._snapshot
        if not (self._closing and before.state == "lost"):  # a lost one stays lost while it is being closed
            self._snapshot = report.snapshot
        if report.began:
            self._ending = asyncio.get_running_loop().create_future()
        self._remember(before, report.snapshot)
        if report.rows:
            self._sampled.set()
        if not self._handed_over(report) and self._link is not None:
            self._permits.withdraw()
            with contextlib.suppress(PotentiostatError):  # the link is being closed: off comes anyway
                detail = "its record cannot be kept"
                self._link.thread.submit(self._link.watch.trip, CellReason.NOT_RECORDED, detail, urgent=True)
        if report.ended is not None:
            self._conclude(report.ended)

    def _handed_over(self, report: Report) -> bool:
        """Whether everyone who wanted to know was told."""
        try:
            if report.rows:
                self._on_rows(report.rows)
            for event in report.events:
                self._on_event(event)
        except Exception:
            log.exception("the record of the cell cannot be kept: it is switched off")
            return False
        return True

    def _remember(self, before: Snapshot, snapshot: Snapshot) -> None:
        """A broken experiment stays visible after the potentiostat has come back, until an operator takes note."""
        broken = before.state in ("running", "paused", "tripped") and snapshot.state == "lost"
        if broken and snapshot.cause is not None:
            detail = f"{snapshot.detail}; since then it has been opened anew, with the cell off"
            self._aftermath = Aftermath(snapshot.cause, detail)

    def _conclude(self, end: ExperimentEnd) -> None:
        if self._ending is not None and not self._ending.done():
            self._ending.set_result(end)
        if self._on_end is not None:
            try:
                self._on_end(end)
            except Exception:
                log.exception("the end of the experiment could not be passed on")

    def _lost(self, link: Link, reason: Reason, detail: str) -> None:
        """The thread could not report: say on its behalf what is known."""
        before, now_s, on = self._snapshot, time.monotonic(), link.device.on
        self._snapshot = replace(before, state="lost", reason=reason, cause=reason, detail=detail, in_doubt=on, on=on)
        self._remember(before, self._snapshot)
        t_s = self._device_time(now_s)
        age_s = now_s - before.last.host_t_s if before.last else math.nan
        event = Event(EventKind.CELL_LOST, t_s, t_s, magnitude=age_s, detail=detail, detected_host_t_s=now_s)
        self._handed_over(Report(self._snapshot, [], [event], began=False, ended=None))
        if before.state in ("running", "paused"):
            self._conclude(ExperimentEnd(reason.code, detail))

    def _device_time(self, now_s: float) -> float:
        last, rate = self._snapshot.last, self._info.clock_rate if self._info else 1.0
        return math.nan if last is None else last.device_t_s + (now_s - last.host_t_s) * rate

    # orders

    @property
    def state(self) -> CellState:
        """What the cell is doing."""
        return self._snapshot.state

    @property
    def info(self) -> PotentiostatInfo | None:
        """What the potentiostat said of itself when it was opened last; None before."""
        return self._info

    @property
    def progress_s(self) -> float:
        """`time.monotonic()` of the owner's last sign of life: a look at the potentiostat, an attempt to open it, a
        wait for either within its deadline, or a pause between two attempts. NaN before the first.
        """
        return self._progress_s if self._link is None else max(self._progress_s, self._link.polled_s)

    @property
    def off_confirmed(self) -> bool:
        """Whether a potentiostat has answered since the start, and the last order to switch off was confirmed."""
        return self._answered and not self._snapshot.in_doubt

    async def start_experiment(self, spec: ExperimentSpec) -> None:
        """Check the whole of `spec`, then begin. Raises `ExperimentError`, `PotentiostatError`, with the cell off."""
        permit = self._permits.issue()
        link = self._connected()
        if self.state in ("running", "paused"):
            raise ExperimentError(ExperimentReason.BUSY, "an experiment is under way")
        plan = plan_experiment(spec, self._cell_settings, link.info)
        await self._first_sample()
        await self._energised(link, link.watch.begin, plan, permit)

    async def _first_sample(self) -> None:
        """A service that has just started may have no sample yet: give it the deadline."""
        last, deadline_s = self._snapshot.last, self._settings.sample_deadline_s
        if last is not None and time.monotonic() - last.host_t_s < deadline_s:
            return
        self._sampled.clear()
        with contextlib.suppress(TimeoutError):  # the watch says so better
            await asyncio.wait_for(self._sampled.wait(), deadline_s)

    async def pause(self) -> None:
        """Open circuit; the experiment can go on later. Raises `ExperimentError` when none runs."""
        self._permits.withdraw()  # a start or resume that waits for its turn was ordered before
        link = self._connected()
        await link.thread.submit(link.watch.pause, urgent=True)

    async def resume(self) -> None:
        """Go on with what is left of the paused step. Raises `ExperimentError`, `PotentiostatError`."""
        permit = self._permits.issue()
        link = self._connected()
        await self._energised(link, link.watch.resume, permit)

    async def _energised(self, link: Link, job: Callable[..., None], *args: object) -> None:
        """Do what energises the cell. A caller who is cancelled does not want it any more: off, as the job goes on."""
        try:
            await link.thread.submit(job, *args)
        except asyncio.CancelledError:
            self._permits.withdraw()
            with contextlib.suppress(PotentiostatError):  # given up already: it is being switched off
                link.thread.submit(link.watch.off, "cancelled", urgent=True)
            raise

    def _connected(self) -> Link:
        if self._link is None or self._link.hung or self.state == "lost" or self._stopping.is_set():
            reason = self._snapshot.reason or CellReason.NOT_FOUND
            raise PotentiostatError(reason, self._snapshot.detail or "the potentiostat is not open")
        return self._link

    async def off(self, reason: str = "operator") -> None:
        """Cell off and the experiment ended; it comes before any other order and right after a call under way.

        Returns when the device confirmed it. Raises `PotentiostatError` (IN_DOUBT) when it did not, or when none has
        answered since the start: a predecessor may have left the cell on.
        """
        self._permits.withdraw()
        link = self._link
        if link is not None:
            try:
                await link.thread.submit(link.watch.off, reason, urgent=True)
            except PotentiostatError as error:
                log.warning("switching the cell off: %s", error)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(link.settled.wait(), OFF_WAIT_S)
        if self._snapshot.in_doubt:
            raise PotentiostatError(CellReason.IN_DOUBT, self._snapshot.detail)
        if not self._answered:
            detail = f"no potentiostat has answered since the start: {self._snapshot.detail or 'none was opened yet'}"
            raise PotentiostatError(CellReason.IN_DOUBT, detail)
        self._aftermath = None

    async def finished(self) -> ExperimentEnd:
        """Wait for the end of the current experiment; the last one's at once when none is under way.

        Raises `ExperimentError` (NOT_RUNNING) before the first.
        """
        if self._ending is None:
            raise ExperimentError(ExperimentReason.NOT_RUNNING, "no experiment has been started")
        return await asyncio.shield(self._ending)

    def status(self) -> PartStatus:
        """The cell's line. See `docs/cell.md` for its values."""
        snapshot, phase = self._snapshot, self._phase
        if phase == "ready" and self._owner is not None and self._owner.done():
            detail = "the task that owns the cell has ended"
            snapshot, phase = replace(snapshot, reason=CellReason.FAULT, detail=detail), "failed"
        waiting = snapshot.state == "lost" and self._link is None and not math.isnan(self._next_attempt_s)
        if waiting and phase == "ready":
            wait_s = max(0.0, self._next_attempt_s - time.monotonic())
            detail = f"{snapshot.detail}; opened again in {wait_s:.0f} s (attempt {self._attempts + 1})"
            snapshot = replace(snapshot, detail=detail)
        return part_status(phase, snapshot, self._info, len(self._stuck), off_confirmed=self.off_confirmed)
