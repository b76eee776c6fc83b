import asyncio

import pytest

from daemon.engine.link import Message
from daemon.errors import CameraError, CameraReason, EngineError, EngineReason
from daemon.recipe import Recipe
from daemon.runs import resuming as module
from tests.daemon.runs.rig import rig, until

STILL = Recipe(name="still", reference_frames=10, baseline_s=0.2)


@pytest.fixture(autouse=True)
def _soon(monkeypatch):
    monkeypatch.setattr(module, "AGAIN_S", 0.02)


def resuming():
    return [task for task in asyncio.all_tasks() if task.get_name() == "run-resume"]


async def test_a_camera_that_was_away_for_longer_than_resuming_waits_is_measured_again(tmp_path, engine):
    async with rig(tmp_path, engine) as one:
        faults = []
        one.runs.resuming.on_fault = faults.append
        run = await one.runs.start(STILL)
        await one.runs.wait_running(run.run_id)
        engine.show(50)
        engine.problem = CameraError(CameraReason.NOT_FOUND, "no camera is on the USB")
        engine.pipeline = None
        engine.on_restart()
        await until(lambda: len(faults) >= 3)
        assert {error.code for error in faults} == {"camera.not_found"} and engine.pipeline is None
        engine.problem = None
        await until(lambda: engine.pipeline is not None)
        await until(lambda: not resuming())
        engine.show(30)
        assert (await one.runs.stop(run.run_id)).frames == 80


async def test_an_order_that_was_obeyed_and_answered_late_numbers_no_frame_twice(tmp_path, engine, monkeypatch):
    async with rig(tmp_path, engine) as one:
        run = await one.runs.start(STILL)
        await one.runs.wait_running(run.run_id)
        engine.show(50)
        request = engine.request

        async def late(message: Message, timeout_s: float = 1.0):
            reply = await request(message, timeout_s)
            if message.kind == "measure" and len(engine.orders) < 3:
                engine.show(10)
                raise EngineError(EngineReason.SILENT, "the engine did not answer in time")
            if message.kind == "finish":
                await asyncio.sleep(0.05)
            return reply

        monkeypatch.setattr(engine, "request", late)
        engine.on_restart()
        await until(lambda: len(engine.orders) >= 4 and not resuming())
        assert [order.kind for order in engine.orders] == ["measure", "measure", "finish", "measure"]
        assert [engine.orders[n].fields["first_frame"] for n in (1, 3)] == [50, 60]
        engine.show(20)
        assert (await one.runs.stop(run.run_id)).frames == 80


async def test_a_fault_of_ours_while_resuming_ends_the_run(tmp_path, engine, monkeypatch):
    async with rig(tmp_path, engine) as one:
        run = await one.runs.start(STILL)
        await one.runs.wait_running(run.run_id)

        async def broken(timeout_s):
            raise ZeroDivisionError

        monkeypatch.setattr(engine, "camera", broken)
        engine.on_restart()
        await until(lambda: one.runs.current() is None)
        assert (await one.runs.get(run.run_id)).reason == "run.internal"
