"""Has an engine that was restarted measure its run again, however long it takes until it can."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from daemon.engine.host import EngineHost
from daemon.engine.link import Message
from daemon.errors import InstrumentError, RunReason
from daemon.runs.active import ActiveRun, Ending

log = logging.getLogger("runs")

AGAIN_S = 1.0


class Resuming:
    """Event loop only. `resume(active)` raises what keeps the engine from measuring, `on_fault` is told of it."""

    def __init__(self, engine: EngineHost, resume: Callable[[ActiveRun], Awaitable[None]]) -> None:
        self._engine, self._resume = engine, resume
        self._task: asyncio.Task[None] | None = None
        self.on_fault: Callable[[InstrumentError], None] = lambda error: log.error("%s", error)

    def begin(self, active: ActiveRun) -> None:
        """Try until the run is measured or has ended; a try with an engine that is gone is given up."""
        if self._task is not None:
            self._task.cancel()
        self._task = asyncio.get_running_loop().create_task(self._try(active), name="run-resume")

    async def end(self) -> None:
        """Try no more: an engine is not told to measure for a run that has ended. Idempotent."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])

    async def _try(self, active: ActiveRun) -> None:
        try:
            while not await self._resumed(active):
                await asyncio.sleep(AGAIN_S)
                await self._forget()
        except Exception:
            log.exception("resuming run %s", active.summary.run_id)
            active.end(Ending(RunReason.INTERNAL.code, "the run could not be resumed: a fault of the software"))

    async def _resumed(self, active: ActiveRun) -> bool:
        try:
            await self._resume(active)
        except InstrumentError as error:
            if error.reason is not RunReason.NOT_RUNNING:
                self.on_fault(error)
                return False
        return True

    async def _forget(self) -> None:
        """An order that was answered late may have been obeyed: the next would give its frames' numbers again."""
        try:
            await self._engine.request(Message("finish"))
        except InstrumentError as error:
            self.on_fault(error)
