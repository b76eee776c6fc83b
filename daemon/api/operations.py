"""Work that takes longer than a second: started once, watched, cancelled, remembered for a while."""

from __future__ import annotations

import asyncio
import secrets
import shutil
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar

from daemon.api import problems
from daemon.api.workers import Workers
from daemon.config import Scope
from daemon.errors import ApiError, ApiReason, InstrumentError
from daemon.parts import Operation

T = TypeVar("T")
State = Literal["pending", "running", "done", "failed", "cancelled"]
MAX_LOG_LINES = 200
MAX_RUNNING = 32
MAX_KEPT = 200
MAX_KEPT_FILES = 4  # archives on the instrument's own disk
SOON_S = 0.9  # what is ready within a second is answered at once


class Cancelled(Exception):
    """Raised inside blocking work whose operation was cancelled."""


@dataclass
class Job:
    """One operation while it lives; `view` is what others see."""

    operation_id: str
    kind: str
    actor: str
    scope: Scope
    key: str = ""
    fingerprint: str = ""
    state: State = "pending"
    progress: float = 0.0
    log: list[str] = field(default_factory=list)
    result: dict[str, Any] | None = None
    error: dict[str, Any] | None = None
    failure: InstrumentError | None = None
    file: Path | None = None
    """What it made, in a directory of its own that is removed with the job."""
    file_headers: dict[str, str] = field(default_factory=dict)
    """Sent with the file, beyond its type and name."""
    on_fetched: Callable[[], Awaitable[None]] | None = None
    """Awaited when somebody has fetched the file as a whole."""
    task: asyncio.Task[None] | None = None
    accepted: bool = False
    """Whether its request was answered before it ended."""
    stop: threading.Event = field(default_factory=threading.Event)
    announced: asyncio.Event = field(default_factory=asyncio.Event)
    """Set by work that can tell part of its `result` early."""

    def say(self, line: str) -> None:
        """Add a line to the log; beyond `MAX_LOG_LINES` the oldest go."""
        self.log.append(line)
        del self.log[:-MAX_LOG_LINES]

    def advance(self, fraction: float) -> None:
        """Report progress, 0 to 1. Raises `Cancelled` once the operation was cancelled; callable from any thread."""
        if self.stop.is_set():
            raise Cancelled
        self.progress = max(self.progress, min(fraction, 1.0))

    @property
    def finished(self) -> bool:
        """Whether its state will not change any more."""
        return self.state in ("done", "failed", "cancelled")

    @property
    def view(self) -> Operation:
        """The operation as answered."""
        return Operation(
            self.operation_id, self.kind, self.state, self.progress, list(self.log), self.result, self.error
        )


Work = Callable[[Job], Awaitable[dict[str, Any] | None]]


class Operations:
    """The operations in memory; the oldest finished ones are forgotten first. Single event loop only."""

    def __init__(self, keep: int = MAX_KEPT, max_running: int = MAX_RUNNING) -> None:
        self._jobs: dict[str, Job] = {}
        self._keep = keep
        self._max_running = max_running
        self._removals: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._jobs)

    @property
    def running(self) -> int:
        """How many are not finished."""
        return sum(not job.finished for job in self._jobs.values())

    def begin(
        self, kind: str, work: Work, *, actor: str, scope: Scope = "read", key: str = "", fingerprint: str = ""
    ) -> tuple[Job, bool]:
        """Start `work` and return its job and True; or the job that the same `key` started before, and False.

        Raises `ApiError`: CONFLICT when the key was used for something else, BUSY when too much is running.
        """
        known = self._by_key(key) if key else None
        if known is not None:
            if known.fingerprint != fingerprint:
                raise ApiError(ApiReason.CONFLICT, "the Idempotency-Key was used for a different request")
            return known, False
        if self.running >= self._max_running:
            raise ApiError(ApiReason.BUSY, f"{self._max_running} operations are running already")
        job = Job(secrets.token_hex(8), kind, actor, scope, key, fingerprint)
        self._jobs[job.operation_id] = job
        job.task = asyncio.create_task(self._run(job, work), name=f"operation-{kind}")
        job.task.add_done_callback(partial(self._settle, job))
        self._forget_oldest()
        return job, True

    def get(self, operation_id: str) -> Job:
        """Raises `ApiError` (NOT_FOUND)."""
        job = self._jobs.get(operation_id)
        if job is None:
            raise ApiError(ApiReason.NOT_FOUND, f"there is no operation {operation_id[:50]!r}; old ones are forgotten")
        return job

    def jobs(self) -> list[Job]:
        """All that are remembered, newest first."""
        return list(reversed(self._jobs.values()))

    async def wait(self, job: Job, within_s: float = SOON_S) -> bool:
        """Whether the job finished in time; it goes on otherwise."""
        if job.task is not None:
            await asyncio.wait({job.task}, timeout=within_s)
        return job.finished

    async def wait_announced(self, job: Job, within_s: float) -> None:
        """Until the job has told part of its result, or ended without."""
        announced = asyncio.ensure_future(job.announced.wait())
        tasks = {announced} if job.task is None else {announced, job.task}
        try:
            await asyncio.wait(tasks, timeout=within_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            announced.cancel()

    def cancel(self, job: Job) -> None:
        """Ask a job to stop; it says `cancelled` once it has. Finished ones stay as they are."""
        if not job.finished and job.task is not None:
            job.stop.set()
            job.task.cancel()

    def forget_key(self, job: Job) -> None:
        """Let the next request with the same key start anew."""
        job.key = ""

    async def stop(self) -> None:
        """Cancel and forget everything. Idempotent."""
        jobs = list(self._jobs.values())
        for job in jobs:
            self.cancel(job)
        await asyncio.gather(*(job.task for job in jobs if job.task is not None), return_exceptions=True)
        await asyncio.gather(*self._removals, *(_remove_file(job) for job in jobs))
        self._jobs.clear()

    async def _run(self, job: Job, work: Work) -> None:
        job.state = "running"
        try:
            result = await work(job)
        except (asyncio.CancelledError, Cancelled):
            self._end(job, "cancelled")
        except InstrumentError as error:
            job.failure = error
            job.error = problems.document(error)
            self._end(job, "failed")
        except Exception:  # noqa: BLE001 - logged with its traceback, shown as a problem document
            job.error = problems.unexpected(f"operation {job.kind}")
            self._end(job, "failed")
        else:
            job.result = result if result is not None else job.result
            job.progress = 1.0
            self._end(job, "done")
        if job.state != "done":
            await _remove_file(job)

    def _settle(self, job: Job, _: asyncio.Task[None]) -> None:
        """A task cancelled before its first step never ran `_run`."""
        if not job.finished:
            self._end(job, "cancelled")

    def _end(self, job: Job, state: State) -> None:
        job.state = state
        if state != "done":
            self.forget_key(job)  # what failed may be tried again under the same key

    def _by_key(self, key: str) -> Job | None:
        return next((job for job in self._jobs.values() if job.key == key), None)

    def _forget_oldest(self) -> None:
        finished = [job for job in self._jobs.values() if job.finished]
        with_files = [job for job in finished if job.file is not None]
        doomed = (
            finished[: max(0, len(self._jobs) - self._keep)] + with_files[: max(0, len(with_files) - MAX_KEPT_FILES)]
        )
        for job in {job.operation_id: job for job in doomed}.values():
            del self._jobs[job.operation_id]
            removal = asyncio.create_task(_remove_file(job), name="operation-forget")
            self._removals.add(removal)
            removal.add_done_callback(self._removals.discard)


async def in_thread(job: Job, workers: Workers, function: Callable[[], T]) -> T:
    """Blocking work of a job: a cancelled job ends when its thread has, never before.

    The thread notices at its next `job.advance`.
    """

    def checked() -> T:
        job.advance(0.0)
        return function()

    thread = asyncio.ensure_future(workers.run(checked))
    try:
        return await asyncio.shield(thread)
    except asyncio.CancelledError:
        await asyncio.wait({thread})
        if not thread.cancelled():
            thread.exception()  # the job is cancelled whatever the thread came to
        raise


async def _remove_file(job: Job) -> None:
    if job.file is not None:
        directory, job.file = job.file.parent, None
        await asyncio.to_thread(shutil.rmtree, directory, ignore_errors=True)
