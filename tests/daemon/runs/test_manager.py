import asyncio
import os
import signal
from concurrent.futures import Future
from contextlib import asynccontextmanager

import numpy as np
import pytest

from daemon.cell.journal import ExperimentEnd
from daemon.cell.samples import CellRow
from daemon.config import CameraSettings, EngineSettings
from daemon.engine.host import EngineHost
from daemon.errors import (
    CameraError,
    CameraReason,
    EngineError,
    EngineReason,
    ExperimentError,
    ExperimentReason,
    RunError,
    RunReason,
    StoreError,
    StoreReason,
)
from daemon.events import Event, EventKind
from daemon.recipe import ExperimentSpec, Recipe
from daemon.runs import setup as preparing
from daemon.runs.active import ActiveRun
from daemon.runs.recorder import Recorder
from daemon.store.reader import CatalogueReader, RunReader
from hw.potentiostat.contract import HostLoss, PotentiostatInfo
from hw.twin.instrument import TwinInstrument
from hw.twin.recording import write_recording
from hw.twin.settings import TwinOptions
from tests.daemon.runs.rig import rig, until

SMALL = {"seed": 3, "particles": 8, "height_px": 200, "width_px": 260}
TWIN = {**SMALL, "frame_rate_hz": 40, "c_rate": 0.0}
STILL = Recipe(name="still", reference_frames=10, baseline_s=0.2)
CYCLING = Recipe(reference_frames=5, baseline_s=0.05, experiment=ExperimentSpec(steps=["Rest for 1 hour"]))
CELL = PotentiostatInfo("p", "1", 10, 3.2, 4.5, 10, HostLoss.CELL_OFF, 5.0)
NAN = float("nan")


@asynccontextmanager
async def live(folder, driver="twin", options=None, **settings):
    """A manager over a real engine process."""
    engine = EngineHost(CameraSettings(driver=driver, options=options or TWIN), EngineSettings())
    await engine.start()
    try:
        async with rig(folder, engine, **settings) as one:
            yield one
    finally:
        await engine.stop()


def read(path, *methods):
    with RunReader(path) as reader:
        return [getattr(reader, method)() for method in methods]


def refuse(*_, **__):
    raise StoreError(StoreReason.OVERLOADED, "the store's queue is full")


def in_catalogue(path):
    """The newest run's row."""
    with CatalogueReader(path) as catalogue:
        return catalogue.runs()[0]


async def ended(one):
    await until(lambda: one.runs.current() is None)
    return (await one.runs.list(1))[0]


# --- over the real engine ----------------------------------------------------------------------------------------


async def test_a_run_from_start_to_stop_with_an_engine_killed_on_the_way(tmp_path):
    async with live(tmp_path) as one:
        runs = one.runs
        assert runs.current() is None and await runs.list() == [] and runs.live_summary() == {}
        started = await runs.start(STILL)
        assert started.state == "preparing" and started.name == "still"
        with pytest.raises(RunError) as busy:
            await runs.start(STILL)
        assert busy.value.reason is RunReason.BUSY and started.run_id in busy.value.detail
        running = await runs.wait_running(started.run_id)
        assert running.state == "running" and running.particles >= 6
        await until(lambda: runs.current().frames >= 20)
        assert runs.live_labels().max() == len(runs.live_states()) == len(runs.live_soc()) == running.particles
        assert runs.live_summary()["particles"] == running.particles
        recorder = runs._recorder()
        # its science is nobody else's to ask; a new account may come between the two looks
        assert any(runs.live_summary() is recorder.told.summary for _ in range(100))
        assert (await runs.get(started.run_id)).frames >= 20
        assert [run.run_id for run in await runs.list()] == [started.run_id]
        os.kill(one.engine.pid, signal.SIGKILL)
        await until(lambda: "engine_restarted" in [event.kind for event in one.events])
        before = runs.current().frames  # those on their way when it died are among them
        await until(lambda: runs.current().frames > before + 20)
        stopped = await runs.stop(started.run_id)
        assert stopped.state == "done" and stopped.reason == "" and stopped.ended_utc > stopped.started_utc
        assert runs.current() is None and runs.problem is None
        kept = await runs.get(started.run_id)
        assert (kept.state, kept.frames) == ("done", stopped.frames)
        with pytest.raises(RunError) as caught:
            await runs.stop(started.run_id)
        assert caught.value.reason is RunReason.NOT_RUNNING
        assert one.cell.told == []  # nobody asked for the cell
    frames, metadata, drops = await asyncio.to_thread(read, kept.path, "frames", "metadata", "drops")
    np.testing.assert_array_equal(frames["frame"], np.arange(kept.frames))
    assert (np.diff(frames["t_s"]) > 0).all()
    assert metadata["state"] == "done" and drops == []


async def test_a_scene_without_particles_fails_with_what_to_do(tmp_path):
    empty = TWIN | {"particle_e": 1e-3, "background_texture": 0.0, "hot_pixels": 0, "particles": 1}
    async with live(tmp_path, options=empty) as one:
        run = await one.runs.start(STILL)
        with pytest.raises(RunError) as caught:
            await one.runs.wait_running(run.run_id)
        assert caught.value.reason is RunReason.NO_PARTICLES
        failed = await ended(one)
        assert (failed.state, failed.reason) == ("failed", "run.no_particles")
        assert failed.detail == str(caught.value) and caught.value.remedy in failed.detail
        assert not failed.path.exists()
        assert one.runs.problem is caught.value


@pytest.fixture
def recording(tmp_path):
    path = tmp_path / "scene.h5"
    write_recording(path, TwinInstrument(TwinOptions(**SMALL, frame_rate_hz=40)), 60)
    return path


async def test_a_recording_is_measured_to_its_end_and_may_be_played_again(tmp_path, recording):
    async with live(tmp_path / "state", "replay", {"path": str(recording), "speed": 2}) as one:
        done = []
        for _ in range(2):
            run = await one.runs.start(STILL)
            assert (await one.runs.wait_running(run.run_id)).state == "running"
            done.append(await ended(one))
        too_long = await one.runs.start(Recipe(reference_frames=100))
        with pytest.raises(CameraError) as caught:
            await one.runs.wait_running(too_long.run_id)
        assert caught.value.reason is CameraReason.ENDED and "40 frames shorter" in caught.value.detail
        await ended(one)
    assert [(run.state, run.reason, run.frames) for run in done] == [("done", "", 60)] * 2


# --- over an engine without a process -----------------------------------------------------------------------------


@pytest.fixture
def prepared_here(monkeypatch):
    """Finding the particles in this process: a second less a test."""
    from daemon.runs.prepare import prepare

    monkeypatch.setattr(
        preparing.RunSetup,
        "prepare",
        lambda _, reference, recipe: asyncio.to_thread(prepare, reference, recipe.masks),
    )


async def test_a_missing_camera_fails_the_run_with_its_reason(tmp_path, engine):
    engine.problem = CameraError(CameraReason.NOT_FOUND, "no camera '123' on the bus")
    async with rig(tmp_path, engine) as one:
        run = await one.runs.start(STILL)
        with pytest.raises(CameraError) as caught:
            await one.runs.wait_running(run.run_id)
        assert caught.value is engine.problem
        failed = await ended(one)
        assert (failed.state, failed.reason) == ("failed", "camera.not_found") and "123" in failed.detail
        assert one.cell.told == []


async def test_an_unknown_run_is_not_found(tmp_path, engine):
    async with rig(tmp_path, engine) as one:
        for ask in (one.runs.get, one.runs.stop, one.runs.wait_running):
            with pytest.raises(RunError) as caught:
                await ask("nope")
            assert caught.value.reason is RunReason.NOT_FOUND and "'nope'" in caught.value.detail


async def test_a_run_may_be_stopped_while_it_is_prepared(tmp_path, engine):
    engine.hold = True
    async with rig(tmp_path, engine) as one:
        run = await one.runs.start(STILL)
        await until(lambda: engine.captured)
        stopped = await one.runs.stop(run.run_id)
        assert stopped.state == "failed" and stopped.reason == RunReason.NOT_RUNNING.code
        assert "while it was prepared" in stopped.detail


async def test_no_run_begins_on_a_full_disk(tmp_path, engine):
    async with rig(tmp_path, engine, store={"min_free_mb": 10**9}) as one:
        with pytest.raises(StoreError) as caught:
            await one.runs.start(STILL)
        assert caught.value.reason is StoreReason.DISK_FULL and "MB" in caught.value.detail
        assert one.runs.current() is None and await one.runs.list() == []


async def test_the_experiment_begins_after_the_measuring_and_the_cell_is_off_at_the_end(
    tmp_path, engine, prepared_here
):
    async with rig(tmp_path, engine) as one:
        run = await one.runs.start(CYCLING)
        await one.runs.wait_running(run.run_id)
        await until(lambda: one.cell.told)
        assert one.cell.told == [CYCLING.experiment]
        assert [order.kind for order in engine.orders] == ["measure"]
        stopped = await one.runs.stop(run.run_id, "operator")
        assert one.cell.told[1:] == ["off: operator"]
        assert engine.orders[-1].kind == "finish"
        assert (stopped.state, stopped.reason) == ("done", "operator")


@pytest.mark.parametrize(("reason", "detail"), [("", ""), ("cell.limit", "4.51 V is above 4.5 V")])
async def test_the_end_of_the_experiment_ends_the_run(tmp_path, engine, prepared_here, reason, detail):
    async with rig(tmp_path, engine) as one:
        run = await one.runs.start(CYCLING)
        await one.runs.wait_running(run.run_id)
        engine.show(10)
        one.runs.on_experiment_end(ExperimentEnd(reason, detail))
        done = await ended(one)
        assert (done.state, done.reason, done.detail, done.frames) == ("done", reason, detail, 10)


async def test_a_run_may_outlive_its_experiment(tmp_path, engine, prepared_here):
    async with rig(tmp_path, engine) as one:
        run = await one.runs.start(CYCLING.model_copy(update={"stop_with_experiment": False}))
        await one.runs.wait_running(run.run_id)
        one.runs.on_experiment_end(ExperimentEnd(""))
        await asyncio.sleep(0.05)
        assert one.runs.current().state == "running"


async def test_an_experiment_that_cannot_begin_ends_the_run_with_the_cell_off(tmp_path, engine, prepared_here):
    async with rig(tmp_path, engine) as one:
        one.cell.problem = ExperimentError(ExperimentReason.BUSY, "an experiment is under way")
        run = await one.runs.start(CYCLING)
        with pytest.raises(ExperimentError) as caught:
            await one.runs.wait_running(run.run_id)
        assert caught.value is one.cell.problem
        failed = await ended(one)
        assert (failed.state, failed.reason) == ("failed", "experiment.busy")
        assert one.cell.told[-1].startswith("off: ")
        with pytest.raises(ExperimentError):  # asked when it has failed already
            await one.runs.wait_running(run.run_id)


@pytest.mark.parametrize(
    ("step", "info", "reason"),
    [
        ("Discharge at 1 mA until 2.0 V", None, ExperimentReason.OUTSIDE_LIMITS),
        ("Discharge at 1 mA until 3.0 V", CELL, ExperimentReason.OUTSIDE_LIMITS),
        ("Charge at 1C for 1 hour", None, ExperimentReason.NO_CAPACITY),
        ("Charge slowly", None, ExperimentReason.SYNTAX),
    ],
)
async def test_an_experiment_that_could_never_begin_is_refused_before_the_run_exists(
    tmp_path, engine, step, info, reason
):
    async with rig(tmp_path, engine) as one:
        one.cell_info = info
        with pytest.raises(ExperimentError) as caught:
            await one.runs.start(Recipe(experiment=ExperimentSpec(steps=[step])))
        assert caught.value.reason is reason and "step 1" in caught.value.detail
        assert one.runs.current() is None and await one.runs.list() == []
        assert one.cell.told == [] and not engine.captured


async def test_a_fault_of_the_science_ends_the_run_with_the_cell_off_and_the_next_may_begin(
    tmp_path, engine, prepared_here, monkeypatch
):
    async with rig(tmp_path, engine) as one:
        run = await one.runs.start(CYCLING)
        await one.runs.wait_running(run.run_id)
        engine.show(10)
        await until(lambda: one.runs.current().frames == 10)

        def fail(*_):
            raise RuntimeError("singular matrix")

        with monkeypatch.context() as patch:
            patch.setattr(Recorder, "add", fail)
            engine.show(5)
            failed = await ended(one)
        assert (failed.state, failed.reason) == ("failed", RunReason.INTERNAL.code)
        assert one.cell.told[-1].startswith("off: ")
        assert one.runs.problem.reason is RunReason.INTERNAL
        again = await one.runs.start(STILL)
        assert (await one.runs.wait_running(again.run_id)).state == "running"
        assert one.runs.problem is None
    frames, _ = await asyncio.to_thread(read, failed.path, "frames", "metadata")
    assert len(frames["frame"]) == 10  # what was measured is stored


async def test_results_that_fail_at_the_end_fail_the_run(tmp_path, engine, prepared_here, monkeypatch):
    def fail(_):
        raise RuntimeError("no")

    monkeypatch.setattr(Recorder, "finish", fail)
    async with rig(tmp_path, engine) as one:
        run = await one.runs.start(STILL)
        await one.runs.wait_running(run.run_id)
        stopped = await one.runs.stop(run.run_id)
        assert (stopped.state, stopped.reason) == ("failed", RunReason.INTERNAL.code)
        assert one.runs.current() is None


async def test_the_service_ends_its_run_and_says_so(tmp_path, engine, prepared_here):
    async with rig(tmp_path, engine) as one:
        run = await one.runs.start(STILL)
        await one.runs.wait_running(run.run_id)
        engine.show(10)
        await one.runs.close()
        await one.runs.close()
        stopped = await one.runs.get(run.run_id)
        assert (stopped.state, stopped.reason) == ("done", "service.stopped")


async def test_a_full_disk_ends_the_run_while_it_can_still_be_ended(tmp_path, engine, prepared_here):
    async with rig(tmp_path, engine) as one:
        run = await one.runs.start(STILL)
        await one.runs.wait_running(run.run_id)
        one.runs.fail(StoreError(StoreReason.DISK_FULL, "no space left"))
        done = await ended(one)
        assert (done.reason, done.detail) == ("store.disk_full", "no space left")


async def test_a_run_ends_with_its_cell_off_when_another_camera_comes_back(tmp_path, engine, prepared_here):
    async with rig(tmp_path, engine) as one:
        run = await one.runs.start(CYCLING)
        await one.runs.wait_running(run.run_id)
        engine.show(10)
        engine.on_camera("lost", {"reason": "camera.unplugged", "detail": "pulled", "remedy": "plug it in"})
        assert one.runs.current() is not None
        told = {"reason": CameraReason.CHANGED.code, "detail": "pixel_format Mono8, was Mono12", "remedy": "do"}
        engine.on_camera("lost", told)
        done = await ended(one)
        assert (done.reason, done.detail, done.frames) == ("camera.changed", told["detail"], 10)
        assert one.cell.told[-1] == "off: camera.changed"
        engine.on_camera("lost", told)  # without a run it is nobody's end


async def test_a_run_whose_end_the_disk_refused_is_told_as_ended(tmp_path, engine, prepared_here, monkeypatch):
    def refuse(*_, **__):
        refused = Future()
        refused.set_exception(StoreError(StoreReason.DISK_FULL, "no space left"))
        return refused

    async with rig(tmp_path, engine) as one:
        run = await one.runs.start(STILL)
        await one.runs.wait_running(run.run_id)
        monkeypatch.setattr(one.writer, "update_run", refuse)
        await one.runs.stop(run.run_id)
        assert (await one.runs.get(run.run_id)).state == (await one.runs.list())[0].state == "done"


async def test_a_run_that_a_slow_disk_lets_in_after_all_is_failed(tmp_path, engine, monkeypatch):
    async with rig(tmp_path, engine, store={"answer_timeout_s": 0.05}) as one:
        record_run, asked = one.writer.record_run, []

        def late(summary):
            asked.append(record_run(summary))
            return asked[-1] if len(asked) > 1 else Future()

        monkeypatch.setattr(one.writer, "record_run", late)
        with pytest.raises(StoreError, match="took more than"):
            await one.runs.start(STILL)
        assert one.runs.current() is None
        await until(lambda: all(record.done() for record in asked))
        run = await asyncio.to_thread(in_catalogue, one.layout.catalogue)
        assert (run.state, run.reason) == ("failed", "store.overloaded")


async def test_an_engine_that_comes_back_without_its_camera_is_not_told_to_measure_for_a_run_that_ended(
    tmp_path, engine, monkeypatch
):
    async with rig(tmp_path, engine) as one:
        run = await one.runs.start(STILL)
        await one.runs.wait_running(run.run_id)
        asked = []

        async def away(timeout_s):
            asked.append(timeout_s)
            await asyncio.sleep(3600)

        monkeypatch.setattr(engine, "camera", away)
        for restarts in (1, 2):
            engine.on_restart()
            await until(lambda restarts=restarts: len(asked) == restarts)
        orders = len(engine.orders)
        await one.runs.stop(run.run_id)
        assert "run-resume" not in {task.get_name() for task in asyncio.all_tasks()}
        assert [order.kind for order in engine.orders[orders:]] == ["finish"]


async def test_an_engine_that_restarts_while_its_run_ends_is_not_told_to_measure(tmp_path, engine, monkeypatch):
    async with rig(tmp_path, engine) as one:
        run = await one.runs.start(CYCLING)
        await one.runs.wait_running(run.run_id)
        off = one.cell.off

        async def restart(reason):
            engine.on_restart()
            await off(reason)

        monkeypatch.setattr(one.cell, "off", restart)
        orders = len(engine.orders)
        await one.runs.stop(run.run_id)
        assert [order.kind for order in engine.orders[orders:]] == ["finish"]


async def test_a_full_queue_of_the_store_does_not_keep_a_run_from_ending_with_the_cell_off(
    tmp_path, engine, prepared_here, monkeypatch
):
    async with rig(tmp_path, engine) as one:
        run = await one.runs.start(CYCLING)
        await one.runs.wait_running(run.run_id)
        for name in ("update_run", "put_drop", "put_events"):
            monkeypatch.setattr(one.writer, name, refuse)
        one.runs.record_drop("camera", "lost", 3)
        stopped = await one.runs.stop(run.run_id, "operator")
        assert (stopped.state, one.runs.current()) == ("done", None)
        assert one.cell.told[-1] == "off: operator"
        one.runs.record(Event(EventKind.DISK_LOW, NAN, NAN))
        with pytest.raises(StoreError):
            one.runs.on_cell_event(Event(EventKind.CELL_LOST, NAN, NAN))


async def test_measures_that_come_without_a_run_are_counted(tmp_path, engine):
    async with rig(tmp_path, engine) as one:
        engine.on_batch(np.rec.fromarrays([np.zeros(7)], names=["host_t_s"]))  # all that is asked of it
        assert one.runs.unclaimed_frames == 7


async def test_events_of_the_instrument_are_dated_stored_and_published(tmp_path, engine, prepared_here):
    async with rig(tmp_path, engine) as one:
        one.runs.record(Event(EventKind.CLOCK_STEP, NAN, NAN))
        await until(lambda: len(one.events) == 1)
        run = await one.runs.start(STILL)
        await one.runs.wait_running(run.run_id)
        engine.show(30)
        await until(lambda: one.runs.current().frames == 30)
        engine.on_camera("lost", {"detail": "pulled"})
        engine.on_camera("lost", {"detail": "not found"})  # a try to open it again: the same outage
        engine.on_camera("open", {})
        one.runs.on_cell_event(Event(EventKind.CELL_LIMIT, NAN, NAN))
        await until(lambda: len(one.events) >= 4)
        await one.runs.stop(run.run_id)
    outside, *inside = one.events
    assert outside.run_id == "" and [event.seq for event in one.events] == [1, 2, 3, 4]
    assert [event.kind for event in inside] == ["camera_lost", "camera_back", "cell_limit"]
    assert inside[0].detail == "pulled"
    assert 0.0 <= inside[0].magnitude <= inside[1].magnitude < 60.0
    assert all(event.run_id == run.run_id for event in inside)
    assert all(event.t_s == pytest.approx(0.29, abs=0.01) for event in inside)


async def test_an_event_that_the_science_has_no_room_for_is_stored_all_the_same(
    tmp_path, engine, prepared_here, monkeypatch
):
    async with rig(tmp_path, engine) as one:
        run = await one.runs.start(STILL)
        await one.runs.wait_running(run.run_id)
        with monkeypatch.context() as patch:
            patch.setattr(ActiveRun, "_offer", lambda *_: False)
            one.runs.on_cell_event(Event(EventKind.CELL_LIMIT, NAN, NAN))
        await until(lambda: one.events)
        with monkeypatch.context() as patch:
            patch.setattr(ActiveRun, "_offer", lambda *_: False)
            patch.setattr(one.writer, "put_events", refuse)
            with pytest.raises(StoreError):
                one.runs.on_cell_event(Event(EventKind.CELL_LOST, NAN, NAN))
        stopped = await one.runs.stop(run.run_id)
    (events,) = await asyncio.to_thread(read, stopped.path, "events")
    assert [event.kind for event in events] == ["cell_limit"]


async def test_an_event_while_a_run_ends_is_stored(tmp_path, engine, prepared_here, monkeypatch):
    async with rig(tmp_path, engine) as one:
        run = await one.runs.start(STILL)
        await one.runs.wait_running(run.run_id)
        loop, finish = asyncio.get_running_loop(), Recorder.finish

        def lose_the_cell(recorder):
            loop.call_soon_threadsafe(one.runs.on_cell_event, Event(EventKind.CELL_LOST, NAN, NAN))
            finish(recorder)

        monkeypatch.setattr(Recorder, "finish", lose_the_cell)
        stopped = await one.runs.stop(run.run_id)
        await until(lambda: one.events)
    (events,) = await asyncio.to_thread(read, stopped.path, "events")
    assert [event.kind for event in events] == ["cell_lost"]


async def test_an_event_behind_a_fault_of_the_science_is_stored(tmp_path, engine, prepared_here, monkeypatch):
    async with rig(tmp_path, engine) as one:
        run = await one.runs.start(STILL)
        await one.runs.wait_running(run.run_id)

        def fail(*_):
            raise RuntimeError("singular matrix")

        monkeypatch.setattr(Recorder, "add", fail)
        engine.show(5)
        one.runs.on_cell_event(Event(EventKind.CELL_LIMIT, NAN, NAN))
        failed = await ended(one)
        await until(lambda: one.events)
    assert (failed.state, run.run_id) == ("failed", one.events[0].run_id)
    (events,) = await asyncio.to_thread(read, failed.path, "events")
    assert [event.kind for event in events] == ["cell_limit"]


async def test_cell_rows_reach_the_file_on_the_runs_clock(tmp_path, engine, prepared_here):
    async with rig(tmp_path, engine) as one:
        one.runs.on_cell_rows([CellRow(1.0, 1.0, 3.7, 0.0, -1, -1, "off", 0.0)])  # before any run: nobody's
        one.cell_info = None
        run = await one.runs.start(STILL)
        await one.runs.wait_running(run.run_id)
        engine.show(30)
        host_t_s = asyncio.get_running_loop().time()
        one.runs.on_cell_rows([CellRow(700.0 + n, host_t_s + n, 3.7, 0.0, -1, -1, "off", 0.0) for n in range(3)])
        stopped = await one.runs.stop(run.run_id)
    (rows,) = await asyncio.to_thread(read, stopped.path, "echem")
    assert len(rows) == 3
    np.testing.assert_allclose(np.diff([row["t_s"] for row in rows]), 1.0, atol=0.05)


async def test_ids_of_runs_differ_within_a_second(tmp_path, engine, prepared_here):
    async with rig(tmp_path, engine) as one:
        ids = []
        for _ in range(3):
            run = await one.runs.start(STILL)
            await one.runs.wait_running(run.run_id)
            await one.runs.stop(run.run_id)
            ids.append(run.run_id)
        assert len(set(ids)) == 3
        assert {run.run_id for run in await one.runs.list()} == set(ids)
        assert len(await one.runs.list(2)) == 2


async def test_failed_runs_within_a_second_are_all_listed(tmp_path, engine):
    engine.problem = CameraError(CameraReason.NOT_FOUND, "gone")
    async with rig(tmp_path, engine) as one:
        for _ in range(3):
            await one.runs.start(STILL)
            await ended(one)
        assert len(await one.runs.list()) == 3


async def test_no_run_begins_while_a_calibration_takes_frames(tmp_path, engine, prepared_here):
    async with rig(tmp_path, engine) as one:
        engine.calibrating = True
        with pytest.raises(EngineError) as caught:
            await one.runs.start(STILL)
        assert caught.value.reason is EngineReason.BUSY
        assert await one.runs.list() == [] and engine.captured == [] and one.runs.begun == 0
        engine.calibrating = False
        assert (await one.runs.start(STILL)).state == "preparing"


async def test_a_calibration_is_kept_for_later_runs(tmp_path, engine):
    async with rig(tmp_path, engine) as one:
        dark = np.full((engine.info.height_px, engine.info.width_px), 70, np.float32)
        await engine.on_calibration("dark", dark, {"frames": 5, "bit_depth": 12})
        asked = await one.runs._setup.reference(STILL, engine.info)
        np.testing.assert_array_equal(asked.dark_map, dark)
