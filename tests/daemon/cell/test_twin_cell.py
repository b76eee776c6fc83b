"""The cell on the simulated potentiostat, whose physics, device limits and loss of host are its own."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator

import pytest

from daemon.cell.cell import Cell
from daemon.cell.samples import CellRow
from daemon.config import CellSettings, PotentiostatSettings
from daemon.events import Event, EventKind
from daemon.recipe import CellLimits, ExperimentSpec
from hw.drivers import build_driver
from hw.potentiostat import DRIVERS

SETTINGS = PotentiostatSettings(
    driver="twin", options={"speed": 2000.0, "particles": 5, "seed": 3, "height_px": 200, "width_px": 200}
)
CELL = CellSettings(capacity_mah=0.5, limits=CellLimits(min_voltage_v=2.5, max_voltage_v=4.35, max_current_ma=5.0))


@contextlib.asynccontextmanager
async def twin_cell(**options: object) -> AsyncIterator[tuple[Cell, list[CellRow], list[Event]]]:
    rows: list[CellRow] = []
    events: list[Event] = []
    settings = SETTINGS.model_copy(update={"options": SETTINGS.options | options})
    cell = Cell(
        lambda: build_driver(DRIVERS, settings.driver, settings.options), settings, CELL, rows.extend, events.append
    )
    try:
        await cell.start()
        yield cell, rows, events
    finally:
        await cell.stop()


async def test_cc_cv_rest_discharge() -> None:
    async with twin_cell() as (cell, rows, events):
        steps = [
            "Charge at 1C until 4.0 V",
            "Hold at 4.0 V for 5 minutes",
            "Rest for 5 minutes",
            "Discharge at 1C for 5 minutes",
        ]
        await cell.start_experiment(ExperimentSpec(steps=steps))
        end = await asyncio.wait_for(cell.finished(), 20)
        assert end.reason == "", end
        assert events == []
    held = [row for row in rows if row.step_kind == "hold"]
    assert max(abs(row.voltage_v - 4.0) for row in held) < 0.01
    assert 0 < held[-1].current_ma < held[0].current_ma
    for kind, current_ma in (("charge", 0.5), ("rest", 0.0), ("discharge", -0.5)):
        found = sorted(row.current_ma for row in rows if row.step_kind == kind)
        assert found[len(found) // 2] == pytest.approx(current_ma, abs=0.01)
    assert [row.t_s for row in rows] == sorted(row.t_s for row in rows)
    charged = max(row.charge_mah for row in rows)
    assert 0.05 < charged < 0.6
    assert rows[-1].charge_mah < charged


async def test_limits_hold_on_a_real_physics() -> None:
    async with twin_cell() as (cell, rows, events):
        limits = CellLimits(max_voltage_v=3.98, max_current_ma=4.0)
        await cell.start_experiment(ExperimentSpec(steps=["Charge at 1C for 10 hours"], limits=limits))
        end = await asyncio.wait_for(cell.finished(), 20)
        assert end.reason == "cell.limit"
        assert cell.state == "tripped"
        (event,) = events
    assert event.kind is EventKind.CELL_LIMIT
    assert "max_voltage_v = 3.98" in event.detail
    assert event.magnitude == pytest.approx(3.98, abs=0.1)
    assert all(math.isfinite(row.voltage_v) and row.voltage_v < 4.0 for row in rows)


async def test_found_on() -> None:
    async with twin_cell(found_current_ma=1.0) as (cell, _, events):
        assert cell.status().reason == "cell.found_on"
        assert "found on" in events[0].detail
