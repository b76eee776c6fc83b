"""The configured run, begun without anybody: when the parts it needs are there, and again when it could not begin."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable

from daemon.diagnostics.faults import Faults
from daemon.errors import CellReason, ExperimentReason, InstrumentError, RunReason
from daemon.parts import PartStatus
from daemon.recipe import Recipe
from daemon.runs.manager import RunManager

log = logging.getLogger("daemon.autostart")

LOOK_S = 0.5
PAUSE_S, LONGEST_PAUSE_S = 30.0, 3600.0
"""After the first failure; doubled each time. Each try leaves its row in the catalogue."""
NEVER_AGAIN = (CellReason, ExperimentReason)
"""What the cell or its experiment refuses is for an operator, and so is what one stopped."""


class Autostart:
    """Starts `recipe`, if there is one. Done once a run of it measures, or anybody else has begun one."""

    def __init__(
        self, recipe: Recipe | None, runs: RunManager, parts: Callable[[], Iterable[PartStatus]], faults: Faults
    ) -> None:
        self._recipe, self._runs, self._parts, self._faults = recipe, runs, parts, faults
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to look for the parts; returns at once."""
        if self._recipe is not None:
            self._task = asyncio.create_task(self._begin(self._recipe), name="autostart")

    async def stop(self) -> None:
        """Start nothing from now on; idempotent."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])

    async def _begin(self, recipe: Recipe) -> None:
        pause_s = PAUSE_S
        while await self._possible(recipe):
            try:
                run = await self._runs.start(recipe)
                await self._runs.wait_running(run.run_id)
                return
            except InstrumentError as error:
                self._faults.record(error)
                if isinstance(error.reason, (*NEVER_AGAIN, RunReason)) and error.reason is not RunReason.NO_PARTICLES:
                    return
            log.warning("the run that starts by itself could not; tried again in %g s", pause_s)
            newest = await self._newest()
            await asyncio.sleep(pause_s)
            if await self._newest() != newest:
                return
            pause_s = min(2.0 * pause_s, LONGEST_PAUSE_S)

    async def _possible(self, recipe: Recipe) -> bool:
        """True once the parts that the run needs are there; False when somebody else began a run meanwhile."""
        before = await self._newest()
        told: list[str] = []
        while missing := self._missing(recipe):
            if missing != told:
                told = missing
                log.info("the run that starts by itself waits for: %s", ", ".join(missing))
            await asyncio.sleep(LOOK_S)
        return await self._newest() == before

    def _missing(self, recipe: Recipe) -> list[str]:
        needed = {"camera", "engine", "store"} | ({"cell"} if recipe.experiment is not None else set())
        return [part.name for part in self._parts() if part.name in needed and part.state in ("starting", "failed")]

    async def _newest(self) -> str | None:
        """Id of the latest run."""
        with contextlib.suppress(InstrumentError):
            for run in await self._runs.list(1):
                return run.run_id
        return None
