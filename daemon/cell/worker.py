"""One thread for one device: jobs one after another, urgent ones first, and a say of its own when nobody calls."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import logging
import queue
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from daemon.errors import CellReason, PotentiostatError

log = logging.getLogger(__name__)

R = TypeVar("R")

EXIT_WAIT_S = 5.0  # longer than switching off takes; an interpreter that ends waits no longer for a device


@dataclass
class _Job:
    function: Callable[..., Any]
    args: tuple[Any, ...]
    future: asyncio.Future[Any]


class DeviceThread(Generic[R]):
    """Runs every call to a device, started and used from one event loop.

    After each job `report()` is called in the thread and its value handed to `deliver` on the event loop, in the order
    of the jobs and before the job's own future is done. `idle()` is called in the thread whenever no job came for
    `idle_s`: it works even while the event loop is blocked. `last_words()` is called in the thread when it was
    abandoned in a job and that job returns after all. Neither may raise.
    """

    def __init__(
        self,
        name: str,
        *,
        idle_s: float,
        idle: Callable[[], None],
        last_words: Callable[[], None],
        report: Callable[[], R],
        deliver: Callable[[R], None],
    ) -> None:
        self._idle_s, self._idle, self._last_words = idle_s, idle, last_words
        self._report, self._deliver = report, deliver
        self._tokens: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._urgent: deque[_Job] = deque()
        self._normal: deque[_Job] = deque()
        self._open_futures: set[asyncio.Future[Any]] = set()
        self._stopping = self._abandoned = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Start the thread; call on the event loop."""
        self._loop = asyncio.get_running_loop()
        self._ended = asyncio.Event()
        self._thread.start()
        atexit.register(self._at_exit)

    @property
    def alive(self) -> bool:
        """Whether the thread has not ended yet."""
        return self._thread.is_alive()

    def submit(self, function: Callable[..., Any], *args: Any, urgent: bool = False) -> asyncio.Future[Any]:
        """Queue a job; its result or exception comes through the future, which may be dropped without harm.

        Cancelling the future does not cancel the job. Raises `PotentiostatError` (HUNG) when the thread was given up.
        """
        if self._abandoned or self._stopping:
            raise PotentiostatError(CellReason.HUNG, "the potentiostat's thread was given up")
        future = self._loop.create_future()
        future.add_done_callback(_retrieved)
        self._open_futures.add(future)
        (self._urgent if urgent else self._normal).append(_Job(function, args, future))
        self._tokens.put(None)
        return future

    async def stop(self) -> None:
        """Let queued jobs finish, then end the thread. Never waits for an abandoned one."""
        if self._abandoned:
            return
        self._stopping = True
        self._tokens.put(None)
        await self._ended.wait()
        await asyncio.to_thread(self._thread.join)
        atexit.unregister(self._at_exit)

    def abandon(self, reason: str) -> None:
        """Wait for this thread no more: open jobs fail with HUNG, queued ones are dropped. Call on the event loop."""
        self._abandoned = True
        self._urgent.clear()
        self._normal.clear()
        self._tokens.put(None)
        for future in tuple(self._open_futures):
            if not future.done():
                future.set_exception(PotentiostatError(CellReason.HUNG, reason))
        self._open_futures.clear()

    def _run(self) -> None:
        try:
            while not self._abandoned:
                try:
                    self._tokens.get(timeout=self._idle_s)
                except queue.Empty:
                    self._guarded(self._idle)
                    continue
                job = self._next()
                if job is not None:
                    self._execute(job)
                elif self._stopping:
                    return
            self._guarded(self._last_words)
            atexit.unregister(self._at_exit)
        finally:
            self._on_loop(self._ended.set)

    def _next(self) -> _Job | None:
        for jobs in (self._urgent, self._normal):
            with contextlib.suppress(IndexError):  # cleared by `abandon` in between
                return jobs.popleft()
        return None

    def _execute(self, job: _Job) -> None:
        result: Any = None
        failure: BaseException | None = None
        try:
            result = job.function(*job.args)
        except Exception as error:  # noqa: BLE001 - travels to whoever waits for the job
            failure = error
        if not self._abandoned:
            self._on_loop(self._settle, job.future, result, failure, self._report())

    def _settle(self, future: asyncio.Future[Any], result: Any, failure: BaseException | None, report: R) -> None:
        self._open_futures.discard(future)
        if not self._abandoned:
            self._deliver(report)
        if future.done():
            return
        if failure is None:
            future.set_result(result)
        else:
            future.set_exception(failure)

    def _on_loop(self, function: Callable[..., None], *args: Any) -> None:
        try:
            self._loop.call_soon_threadsafe(function, *args)
        except RuntimeError:  # the loop is closed: nobody is left to be told
            log.debug("the event loop ended before the potentiostat's thread")

    def _guarded(self, function: Callable[[], None]) -> None:
        try:
            function()
        except Exception:
            log.exception("the potentiostat's thread failed")

    def _at_exit(self) -> None:
        """The interpreter ends with the thread alive: last words now, as a daemon thread gets no chance later."""
        self._abandoned = True
        self._tokens.put(None)
        self._thread.join(EXIT_WAIT_S)


def _retrieved(future: asyncio.Future[Any]) -> None:
    """Nobody has to wait for a job: its failure is also in the report."""
    if not future.cancelled():
        future.exception()
