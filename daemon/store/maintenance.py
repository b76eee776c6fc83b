"""Work on the store that waits until nothing is measured: one job at a time, given up at once when a run starts."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from daemon.config import StoreSettings
from daemon.errors import InstrumentError, StoreError
from daemon.parts import PartStatus, Runs, RunSummary
from daemon.store.check import check_file
from daemon.store.checking import CHECK_PERIOD_S, FileChecks
from daemon.store.operations import utc_now
from daemon.store.paths import StateLayout
from daemon.store.retention import Interrupted, Keeper, Policy, Stop, remove_orphans
from daemon.store.writer import StoreWriter

LOOK_S = 0.1  # how soon a job hears that a run began; a job looks at least each 1 MB it reads
SETTLE_S = 30.0  # after a run, so that one run close behind another finds a quiet disk
DAY_S = 86_400.0
RETENTION_PERIOD_S = 600.0  # room runs out within hours, not minutes
STOP_S = 10.0  # a job looks far more often; a disk that hangs must not hang the way down

Outcome = Literal["done", "interrupted", "failed"]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Job:
    """A kind of work. `run(stop)` blocks in a thread, looks at `stop()` often and raises `Interrupted` when it is true.

    It returns what it did as a few words, and raises `InstrumentError` when it could not.
    """

    name: str
    period_s: float
    run: Callable[[Stop], str]


@dataclass(frozen=True)
class LastRun:
    """How a job last went."""

    utc: str
    outcome: Outcome
    detail: str
    took_s: float
    reason: str = ""
    remedy: str = ""


class Maintenance:
    """Owns the jobs' order and their one thread. `is_measuring()` is asked on the event loop.

    A job that was interrupted is the first to run again. `on_run(job, outcome, took_s)` feeds the metrics.
    """

    def __init__(
        self,
        jobs: Sequence[Job],
        is_measuring: Callable[[], bool],
        on_run: Callable[[str, str, float], None] = lambda job, outcome, took_s: None,
        *,
        settle_s: float = SETTLE_S,
        look_s: float = LOOK_S,
    ) -> None:
        self._jobs = list(jobs)
        self._is_measuring = is_measuring
        self._on_run = on_run
        self._settle_s = settle_s
        self._look_s = look_s
        self._due_s: dict[str, float] = {}
        self._task: asyncio.Task[None] | None = None
        self.running: str | None = None
        """The job under way."""
        self.last: dict[str, LastRun] = {}
        """By job; none that has not run yet."""

    async def start(self) -> None:
        """Begin to look for idle moments. Every job is due once after a start, in the order given."""
        if self._task is None:
            self._due_s = {job.name: time.monotonic() for job in self._jobs}
            self._task = asyncio.create_task(self._live(), name="maintenance")

    async def stop(self) -> None:
        """Interrupt the job under way and end; idempotent."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task], timeout=STOP_S)

    def status(self) -> PartStatus:
        """The line in the status: what each job last did."""
        values: dict[str, Any] = {"running": self.running}
        for name, last in self.last.items():
            values[name] = {"outcome": last.outcome, "detail": last.detail, "utc": last.utc, "took_s": last.took_s}
        failed = [(name, last) for name, last in self.last.items() if last.outcome == "failed"]
        if not failed:
            return PartStatus("maintenance", "ready", values=values)
        name, last = failed[0]
        return PartStatus("maintenance", "degraded", last.reason, f"{name}: {last.detail}", last.remedy, values)

    async def _live(self) -> None:
        idle_since_s = time.monotonic()
        while True:
            await asyncio.sleep(self._look_s)
            now_s = time.monotonic()
            if self._is_measuring():
                idle_since_s = now_s
            elif now_s - idle_since_s >= self._settle_s:
                job = min(self._jobs, key=lambda job: self._due_s[job.name], default=None)
                if job is not None and self._due_s[job.name] <= now_s:
                    await self._run(job)

    async def _run(self, job: Job) -> None:
        began_s, utc = time.monotonic(), utc_now()
        told = threading.Event()
        work = asyncio.ensure_future(asyncio.to_thread(job.run, told.is_set))
        self.running = job.name
        try:
            while not (await asyncio.wait({work}, timeout=self._look_s))[0]:
                if self._is_measuring():
                    told.set()
        finally:
            told.set()
            await asyncio.wait({work})
            self.running = None
            self._note(job, work, utc, time.monotonic() - began_s)

    def _note(self, job: Job, work: asyncio.Future[str], utc: str, took_s: float) -> None:
        outcome: Outcome = "done"
        detail = reason = remedy = ""
        error = work.exception()
        if error is None:
            detail = work.result()
        elif isinstance(error, Interrupted):
            outcome, detail = "interrupted", "a run began, or the service stopped"
        elif isinstance(error, InstrumentError):
            outcome, detail, reason, remedy = "failed", error.detail, error.code, error.remedy
        else:
            log.error("maintenance '%s'", job.name, exc_info=error)
            outcome, detail = "failed", f"a fault of the software: {type(error).__name__}"
        if outcome != "interrupted":  # what was interrupted stays due
            self._due_s[job.name] = time.monotonic() + job.period_s
        self.last[job.name] = LastRun(utc, outcome, detail, round(took_s, 3), reason, remedy)
        self._on_run(job.name, outcome, took_s)
        log.log(logging.WARNING if outcome == "failed" else logging.DEBUG, "maintenance '%s': %s", job.name, detail)


def keeper_of(
    store: StoreSettings,
    layout: StateLayout,
    writer: StoreWriter,
    runs: Runs,
    tell: Callable[[RunSummary, str], None],
) -> Keeper:
    """The keeper that the settings ask for."""

    def current() -> str | None:
        run = runs.current()
        return None if run is None else run.run_id

    policy = Policy(
        store.keep_days, store.keep_free_mb, store.delete_unexported, store.backup_deadline_s, store.min_free_mb
    )
    return Keeper(layout, writer, policy, current, tell)


def jobs_of(keeper: Keeper, layout: StateLayout, tell: Callable[[StoreError], None]) -> list[Job]:
    """Every kind of work there is: one line each. `tell` hears of each damaged file."""
    return [
        Job("leftovers", DAY_S, lambda stop: remove_orphans(layout.runs_dir, stop)),
        Job("retention", RETENTION_PERIOD_S, keeper.retain),
        Job("check", CHECK_PERIOD_S, FileChecks(layout, check_file, tell).run),
    ]
