"""The table of contents: builds every part, starts them in order, takes them down in reverse."""

from __future__ import annotations

import asyncio
import logging
import math
import os
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from daemon.api.parts import ApiParts
from daemon.api.read_process import ReadProcess
from daemon.api.server import ApiServer
from daemon.autostart import Autostart
from daemon.cell.cell import Cell
from daemon.config import LoadedSettings
from daemon.diagnostics.bundle import configured_secrets, write_bundle
from daemon.diagnostics.checks.table import live_checks, site_of
from daemon.diagnostics.clock_watch import ClockWatch
from daemon.diagnostics.faults import Faults
from daemon.diagnostics.log_reader import LogReader
from daemon.diagnostics.logs import LogService
from daemon.diagnostics.metrics import Metrics
from daemon.diagnostics.selftest import SelfTest
from daemon.diagnostics.snapshot import Snapshots, Sources
from daemon.diagnostics.vitals import Vitals
from daemon.engine.host import EngineHost
from daemon.errors import InstrumentError, RunReason, ServiceReason, StoreError, StoreReason
from daemon.events import Event, EventFeed, EventKind
from daemon.parts import PartStatus, RunSummary
from daemon.pulse import Pulse
from daemon.runs.manager import RunManager
from daemon.service.notify import Notifier
from daemon.service.watchdog import Watchdog, interval_from
from daemon.store.lock import StateLock
from daemon.store.maintenance import Maintenance, jobs_of, keeper_of
from daemon.store.paths import StateLayout
from daemon.store.reader import CatalogueReader
from daemon.store.recovery import recover
from daemon.store.writer import StoreWriter
from hw.drivers import build_driver
from hw.potentiostat import DRIVERS as POTENTIOSTATS

log = logging.getLogger("daemon")

FEED_PRELOAD = 1000
STOP_SHARE = 3.0  # of what the store may take for an answer
STORE_OPENS_S = 60.0
FOUND_ON_S = 40.0  # for a start that has failed to find the cell and switch it off; the slowest unit takes 20 s to open
NAN = float("nan")


class Instrument:
    """Every part of the running daemon. Construct cheap, `start` touches the world, `stop` is idempotent."""

    def __init__(self, loaded: LoadedSettings, logs: LogService, notifier: Notifier) -> None:
        self.settings = settings = loaded.settings
        self._config_path = loaded.path
        self.logs = logs
        self.notifier = notifier
        self.layout = StateLayout(settings.store.state_dir)
        self._lock = StateLock(self.layout.lock)
        self.metrics = Metrics()
        self.faults = Faults(settings.store.state_dir, self._on_fault)
        self.writer = StoreWriter(
            self.layout.catalogue, commit_interval_s=settings.store.commit_interval_s, on_fault=self._store_fault
        )
        self.feed = EventFeed(self._older_events)
        self.engine = EngineHost(settings.camera, settings.engine)
        self.engine.on_fault = self.faults.note
        self.cell = Cell(
            lambda: build_driver(POTENTIOSTATS, settings.potentiostat.driver, settings.potentiostat.options),
            settings.potentiostat,
            settings.cell,
            on_rows=self._on_rows,
            on_event=lambda event: self.runs.on_cell_event(event),  # noqa: PLW0108  `runs` is built below
            on_experiment_end=lambda end: self.runs.on_experiment_end(end),  # noqa: PLW0108
        )
        self.runs = RunManager(
            settings, self.layout, self.engine, self.cell, lambda: self.cell.info, self.writer, self._publish
        )
        self.runs.resuming.on_fault = self.faults.record
        self.autostart = Autostart(settings.autostart, self.runs, self.status_parts, self.faults)
        self.keeper = keeper_of(settings.store, self.layout, self.writer, self.runs, self._deleted)
        self.maintenance = Maintenance(
            jobs_of(self.keeper, self.layout, self.damage_found),
            lambda: self.runs.current() is not None,
            self.metrics.maintenance,
        )
        self.watchdog = Watchdog(
            notifier,
            settings.service.thread_stall_s,
            interval_s=interval_from(os.environ),
            on_stall=self._on_stall,
        )
        self.vitals = Vitals(self.metrics, self.processes)
        self.clock_watch = ClockWatch(self._on_clock_step)
        self.pulse = Pulse(self)
        self.selftest = SelfTest(live_checks(self), on_result=self.metrics.selftest, settled=self._delivers)
        self.snapshots = Snapshots(
            settings.store.state_dir, settings.store.min_free_mb, self._snapshot_sources(), self.metrics.snapshot
        )
        self.reads = ReadProcess()
        self.api = ApiServer(self._api_parts(loaded, LogReader(logs.ring, settings.store.state_dir)))
        self._down: list[tuple[str, Callable[[], Awaitable[Any]]]] = []
        self._loop: asyncio.AbstractEventLoop | None = None

    async def start(self) -> None:
        """Bring everything up. Raises `InstrumentError` for what makes a start pointless (store, lock, port).

        A missing device does not: its part says so in the status and goes on trying.
        """
        self._loop = asyncio.get_running_loop()
        try:
            await self._start_parts()
        except BaseException as error:
            try:
                await self._leave_no_cell_on(error)
            finally:
                await self.stop()
            raise
        self.engine.on_progress = self.notifier.status
        self.notifier.ready(self._summary())
        await self._up("autostart", self.autostart.start(), self.autostart.stop)

    async def _leave_no_cell_on(self, error: BaseException) -> None:
        """A start that fails before the cell has its owner: a predecessor that was killed may have left it on.

        Not where another daemon holds the lock: the cell is in its hands.
        """
        locked = isinstance(error, InstrumentError) and error.reason is StoreReason.LOCKED
        if locked or any(name == "cell" for name, _ in self._down):
            return
        why = str(error) or "it was called off"
        log.warning("the start failed (%s); the cell is switched off first, if it was left on", why)
        self.notifier.starting("switching off a cell that was left on", expect_s=2 * FOUND_ON_S)
        try:
            await asyncio.wait_for(self.cell.start(), FOUND_ON_S)
        except (InstrumentError, TimeoutError) as away:
            log.warning("no cell was reached: %s", str(away) or f"it took longer than {FOUND_ON_S:g} s")
        finally:
            await self.cell.stop()

    async def stop(self) -> None:
        """Take everything down in reverse order: the cell is off before its record closes."""
        self.notifier.stopping(expect_s=2 * STOP_SHARE * self.settings.store.answer_timeout_s)
        while self._down:
            name, step = self._down.pop()
            try:
                await step()
            except InstrumentError as error:
                log.error("stopping %s: %s", name, error)
            except (OSError, TimeoutError):
                log.exception("stopping %s", name)

    async def _start_parts(self) -> None:
        self.notifier.starting("opening the store", expect_s=STORE_OPENS_S + 2 * FOUND_ON_S)
        await self._up("lock", asyncio.to_thread(self._open_state), lambda: asyncio.to_thread(self._lock.release))
        await self._up("store", self._open_store_in_time(), self._close_store)
        await self._up("vitals", self.vitals.start(), self.vitals.stop)
        await self._up("clock watch", self.clock_watch.start(), self.clock_watch.stop)
        await self._up("watchdog", self.watchdog.start(), self.watchdog.stop)
        await self._up("api", self.api.start(), self.api.stop)
        log.info("the API answers at %s", self.api.url)
        await self._up("cell", self.cell.start(), self.cell.stop)
        self.engine.on_progress = lambda text: self.notifier.starting(text, self.settings.engine.start_timeout_s)
        await self._up("engine", self._start_engine(), self.engine.stop)
        await self._up("runs", self.runs.open(), self.runs.close)
        await self._up("pulse", self.pulse.start(), self.pulse.stop)
        await self._up("snapshots", self.snapshots.start(), self.snapshots.stop)
        await self._up("self-test", self.selftest.start(), self.selftest.stop)
        await self._up("maintenance", self.maintenance.start(), self.maintenance.stop)

    async def _up(self, name: str, start: Awaitable[Any], stop: Callable[[], Awaitable[Any]]) -> None:
        self._down.append((name, stop))
        await start

    def _open_state(self) -> None:
        self.layout.prepare()
        self._lock.acquire()
        self.faults.load()

    async def _open_store_in_time(self) -> None:
        try:
            await asyncio.wait_for(asyncio.to_thread(self._open_store), STORE_OPENS_S)
        except TimeoutError as error:
            detail = f"the store of {self.layout.state_dir} did not open within {STORE_OPENS_S:g} s"
            raise StoreError(StoreReason.OVERLOADED, detail) from error

    def _open_store(self) -> None:
        left = recover(self.layout.catalogue, self.faults.record)
        self.writer.start()
        for run in left:
            self.faults.note("run.interrupted", f"run '{run.run_id}' did not end properly", "What it stored is whole.")
            if run.reason == StoreReason.CORRUPT.code:
                self.faults.note(run.reason, f"run '{run.run_id}': {run.detail}", StoreReason.CORRUPT.remedy)
                event = Event(EventKind.RUN_DAMAGED, NAN, NAN, detail=run.detail or "", run_id=run.run_id)
                self.writer.put_events([event])
        try:
            self.keeper.finish_deletions()
        except StoreError as error:  # tried again by maintenance
            self.faults.record(error)
        with CatalogueReader(self.layout.catalogue) as catalogue:
            last = catalogue.last_seq()
            self.feed.preload(catalogue.events(max(0, last - FEED_PRELOAD), FEED_PRELOAD))

    async def _close_store(self) -> None:
        await asyncio.to_thread(self.writer.stop, STOP_SHARE * self.settings.store.answer_timeout_s)
        await asyncio.to_thread(self.faults.persist)

    async def _start_engine(self) -> None:
        try:
            await self.engine.start()
        except (InstrumentError, TimeoutError) as error:
            # the supervisor goes on trying; the status tells how far it got
            log.error("the engine is not ready: %s", str(error) or "it took too long")

    def _summary(self) -> str:
        parts = [part for part in self.status_parts() if part.state not in ("ready", "stopped")]
        return "ready" if not parts else "; ".join(f"{part.name}: {part.detail or part.state}" for part in parts)

    def status_parts(self) -> list[PartStatus]:
        """Every part's line of the status."""
        return [
            self.engine.camera_status(),
            self.engine.status(),
            self.cell.status(),
            self._store_status(),
            self.watchdog.status(),
            self.maintenance.status(),
        ]

    def status(self) -> dict[str, Any]:
        """What `GET /status` shows beside the runs."""
        return {
            "parts": self.status_parts(),
            "frames": self.pulse.accounts.as_dict(),
            "faults": self.faults.recent(20),
            "disk": self.pulse.disk.as_dict(),
            "memory_bytes": dict(self.vitals.resident_bytes),
            "loop_lag_s": round(self.vitals.worst_lag_s, 4),
            "selftest": self.selftest.summary(),
            "last_run_problem": None if self.runs.problem is None else str(self.runs.problem),
        }

    def blocking(self) -> list[PartStatus]:
        """The parts that keep the instrument from measuring."""
        vital = (self.engine.camera_status(), self.engine.status(), self._store_status())
        return [part for part in vital if part.state != "ready"]

    def _store_status(self) -> PartStatus:
        """Not ready either while no run may begin for want of room, whether or not a write has failed."""
        status, full = self.writer.status(), self.pulse.disk.problem
        if status.state != "ready" or full is None:
            return status
        return replace(status, state="failed", reason=full.code, detail=full.detail, remedy=full.remedy)

    def _api_parts(self, loaded: LoadedSettings, logs: LogReader) -> ApiParts:
        return ApiParts(
            settings=loaded.settings,
            settings_origins=dict(loaded.origins),
            version={"version": version("photometryd")},
            runs=self.runs,
            engine=self.engine,
            cell=self.cell,
            feed=self.feed,
            status=self.status,
            ready=self.blocking,
            metrics_text=self.metrics.text,
            bundle=self._bundle,
            logs=logs,
            audit=self._audit,
            selftest=self.selftest.run,
            keeping=self.keeper,
            reads=self.reads,
            count_request=self.metrics.request,
            count_unauthorised=self.metrics.unauthorised,
            note_fault=self.faults.note,
        )

    def _bundle(self, out: Path) -> None:
        live = {
            "status.json": self._plain_status(),
            "metrics.txt": self.metrics.text(),
            "selftest-daemon.json": self.selftest.last,
        }
        write_bundle(out, config_path=self._config_path, state_dir=self.layout.state_dir, live=live, site=site_of(self))

    def _plain_status(self) -> dict[str, Any]:
        return self.status() | {"parts": [vars(part) for part in self.status_parts()]}

    def _snapshot_sources(self) -> Sources:
        return Sources(
            parts=self.status_parts,
            status=self._plain_status,
            preview=self.engine.preview,
            metrics_text=self.metrics.text,
            log_tail=lambda: [entry.fields for entry in self.logs.ring.after(self.logs.ring.last_seq - 500)],
            secrets=lambda: configured_secrets(self._config_path),
            note=self.faults.note,
        )

    def _on_fault(self, code: str) -> None:
        """Any thread."""
        self.metrics.fault(code)
        self.snapshots.fault(code)

    def _audit(self, actor: str, action: str, detail: str) -> None:
        self.writer.audit(actor, action, detail)

    def _older_events(self, after: int, limit: int) -> list[Event]:
        with CatalogueReader(self.layout.catalogue) as catalogue:
            return catalogue.events(after, limit)

    def _delivers(self) -> bool:
        has_cell = self.settings.potentiostat.driver != "none"
        return self.metrics.last_frame_age_s is not None and (
            self.metrics.last_sample_age_s is not None or not has_cell
        )

    def processes(self) -> dict[str, int]:
        """Pid by name of the daemon's own processes."""
        found = {"daemon": os.getpid(), "engine": self.engine.pid, "reads": self.reads.pid}
        return {name: pid for name, pid in found.items() if pid is not None}

    def _on_rows(self, rows: list[Any]) -> None:
        if rows:
            self.metrics.cell_sample_arrived(rows[-1].host_t_s, len(rows))
        self.runs.on_cell_rows(rows)

    def _publish(self, events: list[Event]) -> None:
        self.feed.publish(events)
        now = time.monotonic()
        for event in events:
            latency_s = now - event.detected_host_t_s
            self.metrics.event(event.kind.value, latency_s if math.isfinite(latency_s) else None)

    def _on_stall(self, part: str, silence_s: float) -> None:
        reason = ServiceReason.STALLED
        self.faults.note(reason.code, f"{part} made no progress for {silence_s:.0f} s", reason.remedy)

    def _on_clock_step(self, step_s: float) -> None:
        log.warning("the wall clock was set by %+.3f s; run times are not affected", step_s)
        self.metrics.clock_step()
        self.runs.record(Event(EventKind.CLOCK_STEP, NAN, NAN, magnitude=step_s))

    def _store_fault(self, error: StoreError) -> None:
        """Called in the writer's thread."""
        self.faults.record(error)
        if self._loop is None or self._loop.is_closed():
            return
        if error.reason is StoreReason.DISK_FULL:
            self._loop.call_soon_threadsafe(self.disk_low, error)
        elif error.reason is StoreReason.CORRUPT and str(self.layout.catalogue) not in error.detail:
            self._loop.call_soon_threadsafe(self.store_damaged, error)

    def damage_found(self, error: StoreError) -> None:
        """A full check found `<path>: <finding>`: a damaged run's file is set aside. Called in a thread; blocks."""
        self.faults.record(error)
        if error.reason is not StoreReason.CORRUPT:  # one that cannot be read now, or by this version
            return
        with CatalogueReader(self.layout.catalogue) as catalogue:
            runs = catalogue.runs(limit=-1)
        run = next((run for run in runs if error.detail.startswith(f"{run.path}:")), None)
        if run is None or self._loop is None:
            return
        self.writer.set_aside(run.run_id, run.path, error)
        event = Event(EventKind.RUN_DAMAGED, NAN, NAN, detail=error.detail, run_id=run.run_id)
        self._loop.call_soon_threadsafe(self.runs.record, event)

    def store_damaged(self, error: StoreError) -> None:
        """End the run, so that its file is set aside and the next one is sound."""
        self.runs.record(Event(EventKind.RUN_DAMAGED, NAN, NAN, detail=error.detail))
        self.runs.fail(error)

    def _deleted(self, run: RunSummary, why: str) -> None:
        """Called in the thread of maintenance."""
        reason = RunReason.DELETED
        detail = f"run '{run.run_id}' was deleted: {why}"
        self.writer.put_fault(reason.code, detail)
        self.faults.note(reason.code, detail, reason.remedy)

    def warn_of_disk(self, sentence: str, free_mb: int) -> None:
        """While there is time to do something about it."""
        reason = StoreReason.DISK_LOW
        self.faults.note(reason.code, sentence, reason.remedy)
        self.runs.record(Event(EventKind.DISK_LOW, NAN, NAN, magnitude=free_mb, detail=sentence))

    def disk_low(self, error: StoreError) -> None:
        """End the run while there is still room to end it properly."""
        self.runs.record(Event(EventKind.DISK_LOW, NAN, NAN, detail=error.detail))
        self.runs.fail(error)
