"""A cell over the fake potentiostat, with everything that it told."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncIterator, Callable

from daemon.cell.cell import Cell
from daemon.cell.journal import ExperimentEnd
from daemon.cell.samples import CellRow
from daemon.config import CellSettings, PotentiostatSettings
from daemon.errors import CellReason, PotentiostatError
from daemon.events import Event
from daemon.recipe import CellLimits, ExperimentSpec
from tests.daemon.cell.fake import Bench, FakePotentiostat

DEADLINE_S = 0.6
CHARGE = "Charge at 1C until 4.2 V"
UNPLUGGED = PotentiostatError(CellReason.UNPLUGGED, "gone")


class Rig:
    def __init__(self, bench: Bench, **limits: float) -> None:
        self.bench = bench
        self.rows: list[CellRow] = []
        self.events: list[Event] = []
        self.ends: list[ExperimentEnd] = []
        self.on_rows: Callable[[list[CellRow]], None] = self.rows.extend
        self.cell = Cell(
            lambda: FakePotentiostat(bench),
            PotentiostatSettings(sample_deadline_s=DEADLINE_S),
            CellSettings(capacity_mah=1.0, limits=CellLimits(**({"max_voltage_v": 4.3} | limits))),
            self.take_rows,
            self.events.append,
            on_experiment_end=self.ends.append,
        )

    def take_rows(self, rows: list[CellRow]) -> None:
        self.on_rows(rows)

    async def start(self, *steps: str, **spec: object) -> Rig:
        await self.cell.start()
        if steps:
            await self.cell.start_experiment(ExperimentSpec(steps=list(steps), **spec))  # type: ignore[arg-type]
        return self

    async def until(self, condition: Callable[[], bool], within_s: float = 6.0) -> float:
        """How long it took."""
        begun_s = time.monotonic()
        while not condition():
            assert time.monotonic() - begun_s < within_s, self.cell.status()
            await asyncio.sleep(0.005)
        return time.monotonic() - begun_s

    async def until_state(self, *states: str, within_s: float = 6.0) -> float:
        return await self.until(lambda: self.cell.state in states, within_s)

    def let_go(self) -> None:
        for gate in self.bench.hangs.values():
            gate.set()


@contextlib.asynccontextmanager
async def rigged(bench: Bench | None = None, **limits: float) -> AsyncIterator[Rig]:
    rig = Rig(bench or Bench(), **limits)
    try:
        yield rig
    finally:
        rig.let_go()
        await rig.cell.stop()
        await rig.until(lambda: not [t for t in threading.enumerate() if t.name.startswith("potentiostat")])
        assert not rig.bench.energised or rig.bench.unplugged
