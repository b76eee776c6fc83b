"""Once a second: frame accounts, metrics, free space, watchdog beats."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from daemon.engine.book import Totals
from daemon.errors import InstrumentError, RunReason
from daemon.service.memory import release_free_memory
from daemon.store.forecast import DiskWatch
from daemon.tables import PARTICLE_STATES

if TYPE_CHECKING:
    from daemon.bootstrap import Instrument

log = logging.getLogger("pulse")

PERIOD_S = 1.0
SPACE_PERIOD_S = 5.0
BLANK_S = 10.0  # a stage that settles, a hand in the light: shorter is in the frames' flags only
RELEASE_PERIOD_S = 30.0
SEVERITY = {"ready": 0, "stopped": 0, "starting": 1, "degraded": 1, "failed": 2}
MEASURED_AFTER = ("camera", "ring", "engine")  # losses that only the engine knows; the others are rows already


@dataclass
class FrameAccounts:
    """Where every frame went since the daemon began: captured = idle + stored + dropped + in flight."""

    captured: int = 0
    idle: int = 0
    """Captured while no run was in progress."""
    measured: int = 0
    stored: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    """By ``stage.reason``."""
    in_flight: int = 0

    @classmethod
    def of(cls, engine: Totals, daemon_dropped: dict[str, int], stored: int) -> FrameAccounts:
        """From the engine's totals, the daemon's own drops and what the store has committed."""
        dropped = engine.dropped + Counter({reason: count for reason, count in daemon_dropped.items() if count})
        in_flight = engine.captured - engine.idle - stored - dropped.total()
        return cls(engine.captured, engine.idle, engine.measured, stored, dropped, in_flight)

    def as_dict(self) -> dict[str, Any]:
        """For the status."""
        return asdict(self) | {"dropped": dict(self.dropped)}


class Pulse:
    """The daemon's once-a-second task."""

    def __init__(self, instrument: Instrument) -> None:
        self._instrument = instrument
        self._task: asyncio.Task[None] | None = None
        self.accounts = FrameAccounts()
        store = instrument.settings.store
        self.disk = DiskWatch(store.min_free_mb, store.low_free_mb, store.low_full_h)
        self._seen: Counter[str] = Counter()
        self._restarts = 0
        self._next_space_s = self._next_release_s = 0.0
        self._progress_s = self._cell_progress_s = 0.0
        self._blank = False

    async def start(self) -> None:
        """Begin."""
        self._instrument.watchdog.register("store")
        self._instrument.watchdog.register("loop")
        self._instrument.watchdog.register("cell")
        self._task = asyncio.create_task(self._run(), name="pulse")

    async def stop(self) -> None:
        """End; idempotent."""
        task, self._task = self._task, None
        for name in ("store", "loop", "cell"):
            self._instrument.watchdog.unregister(name)
        if task is not None:
            task.cancel()
            await asyncio.wait([task])

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(PERIOD_S)
            self._count()
            self._beat()
            self._look()
            await self._space()
            await asyncio.to_thread(self._instrument.faults.persist)
            await self._release()

    async def _release(self) -> None:
        now = time.monotonic()
        if now >= self._next_release_s:
            self._next_release_s = now + RELEASE_PERIOD_S
            await asyncio.to_thread(release_free_memory)

    def _beat(self) -> None:
        stats = self._instrument.writer.stats()
        watchdog = self._instrument.watchdog
        watchdog.beat("loop")
        if stats.progress_s > self._progress_s:
            self._progress_s = stats.progress_s
            watchdog.beat("store")
        if self._instrument.cell.progress_s > self._cell_progress_s:  # one without a potentiostat gets on, too
            self._cell_progress_s = self._instrument.cell.progress_s
            watchdog.beat("cell")

    def _look(self) -> None:
        """Tell once of frames that come and show nothing of what the run measures."""
        blank_s, why = self._instrument.runs.blank
        if blank_s >= BLANK_S and not self._blank:
            reason, detail = RunReason.NOTHING_SHOWN, f"nothing could be measured for {blank_s:.0f} s: {why}"
            self._instrument.faults.note(reason.code, detail, reason.remedy)
        self._blank = blank_s >= BLANK_S

    def _count(self) -> None:
        instrument, metrics = self._instrument, self._instrument.metrics
        engine, stats = instrument.engine, instrument.writer.stats()
        if engine.restarts > self._restarts:
            self._restarts = engine.restarts
            metrics.engine_restarted()
        counters = engine.book.counters
        runs = instrument.runs
        lost = {"science.full": runs.dropped_frames, "science.no_run": runs.unclaimed_frames}
        lost["store.full"] = stats.lost_frames
        self.accounts = FrameAccounts.of(engine.book.totals(), lost, stats.stored_frames)
        accounts = self.accounts
        metrics.frames_captured(self._rise("captured", accounts.captured))
        metrics.frames_idle(self._rise("idle", accounts.idle))
        metrics.frames_processed(self._rise("measured", accounts.measured))
        metrics.frames_stored(self._rise("stored", accounts.stored))
        for name, count in accounts.dropped.items():
            stage, _, reason = name.partition(".")
            if rise := self._rise(name, count):
                metrics.frames_dropped(stage, reason, rise)
                if reason == "full":
                    metrics.queue_dropped(stage, rise)
                if stage in MEASURED_AFTER:
                    instrument.runs.record_drop(stage, reason, rise)
        metrics.frames_in_flight(accounts.in_flight)
        metrics.log_lines_dropped(instrument.logs.dropped_lines)
        clock = instrument.runs.clock
        if clock is not None and math.isfinite(clock.offset_s):
            metrics.clock_offset(clock.offset_s, clock.sigma_s)
        science = instrument.runs.live_summary()
        for state in PARTICLE_STATES:
            metrics.particles(state, science.get(f"particles_{state}", 0))
        metrics.loss_bound(stats.loss_bound_s)
        metrics.wal_bytes(stats.wal_bytes)
        if self._rise("commits", stats.commits):
            metrics.commit(stats.last_commit_took_s, self._rise("bytes", stats.chunk_bytes))
        metrics.failed_commits(self._rise("failed_commits", stats.failed_commits))
        metrics.store_lag(stats.lag_s)
        self._parts(counters)
        metrics.queue("store", stats.queue_ops, stats.queue_ops_bound)
        metrics.queue("science", instrument.runs.queue_depth, 512)
        if counters:
            # one frame may be between the camera's count and the ring's
            held = counters["ring_depth"] + 1
            known = counters["idle"] + counters["measured"] + sum(counters["dropped"].values())
            metrics.frames_unaccounted(max(0, counters["captured"] - known - held))
            metrics.queue("ring", counters["ring_depth"], counters["ring_bound"])
            metrics.queue("link", counters["link_depth"], instrument.settings.engine.link_batches)
            if counters["last_frame_host_t_s"] == counters["last_frame_host_t_s"]:
                metrics.frame_arrived(counters["last_frame_host_t_s"])
            self._stage(counters)

    def _parts(self, counters: dict[str, Any]) -> None:
        """States of the parts, and what was done to mend their devices."""
        instrument, metrics = self._instrument, self._instrument.metrics
        for part in instrument.status_parts():
            metrics.part(part.name, SEVERITY[part.state])
        for step, count in counters.get("remedies", {}).items():
            metrics.camera_remedy(step, self._rise(f"remedy {step}", count))
        for device, opens in (("camera", instrument.engine.camera_opens), ("potentiostat", instrument.cell.opens)):
            metrics.reconnected(device, self._rise(device, max(0, opens - 1)))

    def _stage(self, counters: dict[str, Any]) -> None:
        frames = self._rise("worked", counters["measured"] + counters["idle"])
        busy_us = self._rise("busy_us", round(1e6 * counters["busy_s"]))
        if frames and busy_us:
            self._instrument.metrics.stage_duration("engine", 1e-6 * busy_us / frames)

    def _rise(self, name: str, value: int) -> int:
        """By how much a counter rose since last asked; 0 when it began anew."""
        rise = max(0, value - self._seen[name])
        self._seen[name] = value
        return rise

    async def _space(self) -> None:
        now = time.monotonic()
        if now < self._next_space_s:
            return
        self._next_space_s = now + SPACE_PERIOD_S
        instrument = self._instrument
        try:
            free_mb = await asyncio.to_thread(instrument.layout.free_mb)
        except InstrumentError as error:
            instrument.faults.record(error)
            return
        run = instrument.runs.current()
        low = self.disk.add(now, free_mb, run.run_id if run is not None else "")
        instrument.metrics.free_bytes(free_mb * 1_000_000)
        instrument.metrics.full_in(self.disk.full_in_h)
        instrument.metrics.runs_deleted(instrument.keeper.deleted)
        if low:
            instrument.warn_of_disk(low, free_mb)
        if run is not None and (problem := self.disk.problem) is not None:
            instrument.disk_low(problem)
