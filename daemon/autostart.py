"""The configured run, begun without anybody: when the parts it needs are there, and again when it could not begin."""

from __future__ import annotations

import asyncio
import logging
import math
import time
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
ENERGISING_S = 600.0
"""After the start of the daemon; from then on, nobody expects a cell to be switched on by itself."""
OPERATORS = (RunReason.BUSY, RunReason.NOT_RUNNING)
"""Somebody else's run is in progress, or somebody stopped this one."""
FOR_OPERATORS = (RunReason, CellReason, ExperimentReason)
"""Reasons that time does not mend."""


class Autostart:
    """Starts `recipe`, if there is one. Done once a run of it measures, or anybody else has begun one.

    A recipe that drives the cell is not started later than `ENERGISING_S`, and never after the cell was missing or
    tripped: a potentiostat that is plugged in, and a cell that was found on, stay off until an operator starts them.
    """

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
        deadline_s = time.monotonic() + ENERGISING_S if recipe.experiment is not None else math.inf
        pause_s = PAUSE_S
        before = self._runs.begun
        while await self._parts_are_there(recipe, deadline_s) and self._runs.begun == before:
            try:
                run = await self._runs.start(recipe)
                await self._runs.wait_running(run.run_id)
                return
            except InstrumentError as error:
                if error.reason in OPERATORS:
                    return
                self._faults.record(error)
                if isinstance(error.reason, FOR_OPERATORS) and error.reason is not RunReason.NO_PARTICLES:
                    return
            before = self._runs.begun
            log.warning("the run that starts by itself could not; tried again in %g s", pause_s)
            await asyncio.sleep(pause_s)
            pause_s = min(2.0 * pause_s, LONGEST_PAUSE_S)

    async def _parts_are_there(self, recipe: Recipe, deadline_s: float) -> bool:
        """Wait for the parts that the run needs; False when it must not be started by itself any more."""
        told: list[str] = []
        while True:
            lacking = self._lacking(recipe)
            if time.monotonic() > deadline_s or lacking.get("cell") in ("failed", "degraded"):
                log.warning("the run does not start by itself any more: nobody expects its cell to be switched on")
                return False
            if not lacking:
                return True
            if list(lacking) != told:
                told = list(lacking)
                log.info("the run that starts by itself waits for: %s", ", ".join(told))
            await asyncio.sleep(LOOK_S)

    def _lacking(self, recipe: Recipe) -> dict[str, str]:
        """States of the parts that the run needs and that are not there, by name."""
        away: dict[str, tuple[str, ...]] = dict.fromkeys(("camera", "engine", "store"), ("starting", "failed"))
        if recipe.experiment is not None:
            away["cell"] = ("starting", "failed", "degraded")
        return {part.name: part.state for part in self._parts() if part.state in away.get(part.name, ())}
