from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

from daemon import autostart as module
from daemon.autostart import Autostart
from daemon.errors import (
    CameraError,
    CameraReason,
    EngineError,
    EngineReason,
    PotentiostatError,
    RunError,
    RunReason,
    StoreError,
    StoreReason,
)
from daemon.parts import PartStatus
from daemon.recipe import ExperimentSpec, Recipe
from hw.errors import CellReason

STILL = Recipe(name="night")
DRIVEN = Recipe(name="night", experiment=ExperimentSpec(steps=["Rest for 1 hour"]))


class FakeRuns:
    """Runs that fail with what is asked of them, one after the other, and then measure."""

    def __init__(self, *fates: Exception) -> None:
        self.fates, self.ids, self.begun = list(fates), [], 0
        self.measuring = asyncio.Event()

    def begin_another(self):
        self.begun += 1
        self.ids.append("somebody's")

    async def start(self, recipe):
        self.begun += 1
        if self.fates and isinstance(self.fates[0], StoreError):
            raise self.fates.pop(0)
        self.ids.append(f"r{len(self.ids)}")
        return SimpleNamespace(run_id=self.ids[-1])

    async def wait_running(self, run_id):
        if self.fates:
            raise self.fates.pop(0)
        self.measuring.set()


class FakeFaults(list):
    def record(self, error):
        self.append(error.code)


class Bench:
    """Parts, all ready."""

    def __init__(self, runs: FakeRuns) -> None:
        self.runs, self.faults = runs, FakeFaults()
        self.state = dict.fromkeys(("camera", "engine", "cell", "store"), "ready")

    def parts(self):
        return [PartStatus(name, state) for name, state in self.state.items()]

    def autostart(self, recipe: Recipe | None = STILL) -> Autostart:
        return Autostart(recipe, self.runs, self.parts, self.faults)


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(module, "LOOK_S", 0.01)
    monkeypatch.setattr(module, "PAUSE_S", 0.02)


async def ended(one: Autostart) -> None:
    await one.start()
    await asyncio.wait_for(one._task, 10)


async def test_a_run_begins_once_the_parts_it_needs_are_there():
    bench = Bench(FakeRuns())
    bench.state |= {"camera": "failed", "cell": "starting"}
    one = bench.autostart()
    await one.start()
    await asyncio.sleep(0.05)
    assert bench.runs.ids == []
    bench.state["camera"] = "ready"
    await asyncio.wait_for(bench.runs.measuring.wait(), 10)
    assert bench.runs.ids == ["r0"] and bench.faults == []
    await one.stop()
    await one.stop()


async def test_only_an_experiment_waits_for_the_cell_to_start():
    bench = Bench(FakeRuns())
    bench.state["cell"] = "starting"
    one = bench.autostart(DRIVEN)
    await one.start()
    await asyncio.sleep(0.05)
    assert bench.runs.ids == []
    bench.state["cell"] = "ready"
    await asyncio.wait_for(bench.runs.measuring.wait(), 10)
    await one.stop()


@pytest.mark.parametrize("state", ["failed", "degraded"])
async def test_a_cell_that_was_missing_or_tripped_is_not_switched_on_by_itself(state):
    bench = Bench(FakeRuns())
    bench.state["cell"] = state
    await ended(bench.autostart(DRIVEN))
    assert bench.runs.ids == []
    await ended(bench.autostart(STILL))
    assert bench.runs.ids == ["r0"]


async def test_a_cell_is_not_switched_on_by_itself_when_nobody_expects_it_any_more(monkeypatch):
    monkeypatch.setattr(module, "ENERGISING_S", 0.05)
    away = CameraError(CameraReason.STALLED, "away")
    bench = Bench(FakeRuns(*[away] * 100))
    await ended(bench.autostart(DRIVEN))
    assert 1 <= len(bench.runs.ids) < 10 and not bench.runs.measuring.is_set()
    bench = Bench(FakeRuns())
    bench.state["camera"] = "failed"
    await ended(bench.autostart(DRIVEN))
    assert bench.runs.ids == []


@pytest.mark.parametrize(
    "fate",
    [
        StoreError(StoreReason.OVERLOADED, "slow"),
        CameraError(CameraReason.STALLED, "away again"),
        EngineError(EngineReason.PREPARE_SLOW, "slow"),
        RunError(RunReason.NO_PARTICLES, "out of focus"),
    ],
    ids=lambda fate: fate.code,
)
async def test_what_could_not_begin_is_tried_again(fate):
    bench = Bench(FakeRuns(fate, fate))
    await ended(bench.autostart())
    assert bench.runs.measuring.is_set()
    assert bench.faults == [fate.code] * 2


@pytest.mark.parametrize(
    "fate",
    [
        PotentiostatError(CellReason.REFUSED, "no"),
        RunError(RunReason.NOT_RUNNING, "stopped by an operator"),
        RunError(RunReason.BUSY, "another run"),
    ],
    ids=lambda fate: fate.code,
)
async def test_what_the_cell_or_an_operator_refuses_is_not_tried_again(fate):
    bench = Bench(FakeRuns(fate))
    await ended(bench.autostart())
    assert bench.runs.ids == ["r0"] and not bench.runs.measuring.is_set()
    assert bench.faults == ([] if fate.reason in module.OPERATORS else [fate.code])


async def test_a_run_of_somebody_else_ends_it():
    bench = Bench(FakeRuns(CameraError(CameraReason.STALLED, "away")))
    one = bench.autostart()
    await one.start()
    while not bench.faults:
        await asyncio.sleep(0)
    bench.runs.begin_another()
    await asyncio.wait_for(one._task, 10)
    assert bench.runs.ids == ["r0", "somebody's"]


async def test_a_run_of_somebody_else_while_parts_are_missing_ends_it():
    bench = Bench(FakeRuns())
    bench.state["engine"] = "starting"
    one = bench.autostart()
    await one.start()
    await asyncio.sleep(0.03)
    bench.runs.begin_another()
    bench.state["engine"] = "ready"
    await asyncio.wait_for(one._task, 10)
    assert bench.runs.ids == ["somebody's"]


async def test_without_a_recipe_nothing_is_started():
    one = Bench(FakeRuns()).autostart(None)
    await one.start()
    assert one._task is None
    await one.stop()
