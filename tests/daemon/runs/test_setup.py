import asyncio
from dataclasses import replace

import numpy as np
import pytest

from daemon.engine.wire import measure_order, measured_camera
from daemon.errors import CameraError, CameraReason, EngineError, EngineReason, RunError, RunReason
from daemon.parts import RunSummary
from daemon.photometry.noise import NoiseHints
from daemon.recipe import MaskSettings, Recipe
from daemon.runs import setup as module
from daemon.runs.active import ActiveRun, Ending
from daemon.runs.prepare import prepare
from daemon.store.reader import RunReader
from hw.camera.contract import PixelFormat
from hw.potentiostat.contract import HostLoss, PotentiostatInfo
from tests.daemon.runs.rig import FakeEngine, rig

FAKE = "tests.daemon.engine.fake_engine"
CELL = PotentiostatInfo("p", "1", 10, 2.5, 4.5, 10, HostLoss.CELL_OFF, 5.0, 0.7, clock_id="bench", clock_rate=60.0)

TWELVE_BITS = {"pixel_format": "Mono12", "bit_depth": 12}


async def test_a_reference_takes_what_the_camera_says_unless_the_settings_know_better(tmp_path, engine):
    async with rig(tmp_path, engine) as one:
        asked = await one.runs._setup.reference(Recipe(reference_frames=4), engine.info)
    assert engine.captured == [4] and asked.frames == 4 and asked.bit_depth == 12
    assert asked.hints == NoiseHints(8.0, 7.0, 64.0) and asked.pixel_size_nm is None
    assert asked.dark_map is None and asked.flat_map is None
    camera = {"gain_e_per_dn": 2.0, "read_noise_e": 0.0, "dark_dn": 10.0, "pixel_size_nm": 50.0}
    async with rig(tmp_path, engine, camera=camera) as one:
        asked = await one.runs._setup.reference(Recipe(reference_frames=4), engine.info)
    assert asked.hints == NoiseHints(2.0, 0.0, 10.0) and asked.pixel_size_nm == 50.0


async def test_calibrations_of_the_cameras_size_are_used_and_its_own_maps_win(tmp_path, engine):
    shape = (engine.info.height_px, engine.info.width_px)
    async with rig(tmp_path, engine) as one:
        keep, setup = one.writer.put_instrument_calibration, one.runs._setup
        await one.runs._setup.stored(keep("dark", np.full((4, 4), 9, np.float32), TWELVE_BITS))
        await one.runs._setup.stored(keep("flat", np.full((4, 4), 9, np.float32), TWELVE_BITS))
        asked = await setup.reference(Recipe(reference_frames=1), engine.info)
        assert asked.dark_map is None and asked.flat_map is None  # of another camera
        uneven = np.linspace(1000, 3000, shape[0] * shape[1], dtype=np.float32).reshape(shape)
        await one.runs._setup.stored(keep("dark", np.full(shape, 100, np.float32), TWELVE_BITS))
        await one.runs._setup.stored(keep("flat", uneven, TWELVE_BITS))
        asked = await setup.reference(Recipe(reference_frames=1), engine.info)
        np.testing.assert_allclose(asked.dark_map, 100)
        np.testing.assert_allclose(asked.flat_map, (uneven - 100) / (uneven - 100).mean(), rtol=1e-5)
        own = replace(engine.info, flat=np.ones(shape, np.float32))
        asked = await setup.reference(Recipe(reference_frames=1), own)
        assert asked.flat_map is own.flat and asked.dark_map is not None


async def test_patience_with_the_camera_and_with_the_search_is_a_setting(tmp_path, engine, monkeypatch):
    waited = []

    async def capture(frames, timeout_s):
        waited.append(timeout_s)
        return await FakeEngine.capture(engine, frames, timeout_s)

    async def ask(module, order, timeout_s):
        waited.append(timeout_s)
        raise TimeoutError

    monkeypatch.setattr(engine, "capture", capture)
    monkeypatch.setattr(module, "ask", ask)
    settings = {"camera": {"start_timeout_s": 300.0}, "engine": {"prepare_timeout_s": 7.0}}
    async with rig(tmp_path, engine, **settings) as one:
        asked = await one.runs._setup.reference(Recipe(reference_frames=1), engine.info)
        with pytest.raises(EngineError, match="took more than 7 s") as slow:
            await one.runs._setup.prepare(asked, Recipe())
        assert slow.value.reason is EngineReason.PREPARE_SLOW
    assert waited[0] > 300 and waited[1:] == [7.0]


async def test_a_dead_pixel_of_the_flat_frame_cannot_divide(tmp_path, engine):
    flat = np.full((engine.info.height_px, engine.info.width_px), 1000, np.float32)
    flat[3, 4] = 0
    async with rig(tmp_path, engine) as one:
        await one.runs._setup.stored(one.writer.put_instrument_calibration("flat", flat, TWELVE_BITS))
        asked = await one.runs._setup.reference(Recipe(reference_frames=1), engine.info)
    assert asked.flat_map[3, 4] == pytest.approx(0.05)


async def test_failures_of_the_preparing_process_keep_their_reason(tmp_path, engine, monkeypatch):
    async with rig(tmp_path, engine) as one:
        asked = await one.runs._setup.reference(Recipe(reference_frames=2), engine.info)
        blind = replace(asked, mean_dn=np.full_like(asked.mean_dn, 800))
        with pytest.raises(RunError) as caught:
            await one.runs._setup.prepare(blind, Recipe())
        assert caught.value.reason is RunReason.NO_PARTICLES and caught.value.detail
        monkeypatch.setenv("FAKE_ENGINE", "dies")
        really = module.ask
        monkeypatch.setattr(module, "ask", lambda _, order, timeout_s: really(FAKE, order, timeout_s))
        with pytest.raises(EngineError) as died:
            await one.runs._setup.prepare(asked, Recipe())
        assert died.value.reason is EngineReason.PREPARE_DIED
        assert died.value.detail == "the process for finding the particles ended early: exit status 3"


@pytest.fixture
async def measured(tmp_path, engine):
    """(rig, active run) that was created and ordered, in a cell that shares the camera's accelerated clock."""
    async with rig(tmp_path, engine, cell={"electrode": "anode"}) as one:
        one.cell_info = CELL
        setup, recipe = one.runs._setup, Recipe(reference_frames=10, baseline_s=0.1, masks=MaskSettings())
        dark = np.full((engine.info.height_px, engine.info.width_px), 4, np.float32)
        await setup.stored(one.writer.put_instrument_calibration("dark", dark, TWELVE_BITS | {"bit_depth": 8}))
        asked = await setup.reference(recipe, engine.info)
        prepared = await asyncio.to_thread(prepare, asked, recipe.masks)
        path = one.layout.run_path("r1")
        summary = RunSummary("r1", "r1", "running", "2026-01-02T03:04:05+00:00", None, path, {})
        active = ActiveRun(summary, recipe, one.writer)
        active.prepared = prepared
        await setup.create(active, engine.info, prepared, asked)
        await setup.measure(active, engine.info, prepared, asked)
        yield one, active
        active.close()


async def test_the_order_fits_recipe_camera_and_clock(measured, engine):
    _, active = measured
    order = measure_order(engine.orders[-1])
    assert engine.orders[-1].fields["rewind"] is True
    settings = order["settings"]
    assert (settings.bit_depth, settings.baseline_s) == (12, 0.1)
    assert settings.frame_rate_hz == pytest.approx(100.0 / 60.0)  # frames lie this far apart on the twin's clock
    assert settings.clock_rate is engine.info.clock_rate is None
    engine.info = replace(engine.info, clock_rate=60.0)
    await measured[0].runs._setup.resume(active)
    assert measure_order(engine.orders[-1])["settings"].clock_rate == 60.0
    assert order["operator"].particles == active.prepared.masks.count == 8
    assert order["baseline"] is None and order["first_frame"] == 0


async def test_the_depth_is_the_sources_and_not_that_of_what_holds_its_pixels(measured, engine):
    one, active = measured
    setup, info = one.runs._setup, replace(engine.info, pixel_format=PixelFormat.MONO16, significant_bits=10)
    asked = await setup.reference(Recipe(reference_frames=2), info)
    assert asked.bit_depth == 10
    await setup.measure(active, info, active.prepared, asked)
    settings = measure_order(engine.orders[-1])["settings"]
    assert (settings.bit_depth, settings.pixel_format) == (10, "Mono16")


async def test_the_file_says_what_it_was_made_with(measured):
    one, active = measured
    await one.runs._setup.stored(one.writer.set_metadata({}))

    def read():
        with RunReader(active.summary.path) as reader:
            return reader.metadata(), reader.particles()

    metadata, particles = await asyncio.to_thread(read)
    assert metadata["electrode"] == "anode" and metadata["capacity_mah"] == 0.7
    assert metadata["source"] == "driver twin" and metadata["started_utc"].startswith("2026-01-02")
    assert metadata["dark_frame"] is False and "the dark frame is left out" in metadata["notes"][0]
    assert len(particles) == 8
    assert active.clock.same_clock


async def test_a_restarted_engine_goes_on_where_the_run_was(measured, engine):
    one, active = measured
    one.engine.on_batch = active.add_batch
    engine.show(20)
    digest = asyncio.create_task(active.digest())
    await active.drain()
    await digest
    await one.runs._setup.resume(active)
    order = measure_order(engine.orders[-1])
    assert engine.orders[-1].fields["rewind"] is False
    assert order["first_frame"] == 20 and order["first_t_s"] == 50.0
    assert order["last_stamp"] == (pytest.approx(0.19), active.recorder.last_host_t_s)
    np.testing.assert_array_equal(order["baseline"][0], active.recorder.baseline[0])
    begun, resumed = (measured_camera(message) for message in (engine.orders[-2], engine.orders[-1]))
    assert begun == resumed == engine.info.identity


async def test_frames_that_wait_for_the_science_keep_their_numbers_when_the_engine_restarts(measured, engine):
    one, active = measured
    one.engine.on_batch = active.add_batch
    for _ in range(4):
        engine.show(20)
    digest = asyncio.create_task(active.digest())
    await active.behind(lambda _: None)
    engine.show(20)  # its science has not seen these
    last = engine.pipeline._last_stamp
    await one.runs._setup.resume(active)
    order = measure_order(engine.orders[-1])
    assert active.recorder.last_frame == 79
    assert (order["first_frame"], order["last_stamp"], order["first_t_s"]) == (100, last, 50.0)
    engine.show(5)
    await active.drain()
    await digest
    assert (active.recorder.frames, active.recorder.last_frame) == (105, 104)


async def test_an_f0_that_waits_for_the_science_is_not_measured_again(measured, engine):
    one, active = measured
    one.engine.on_batch = active.add_batch
    engine.show(20)
    digest = asyncio.create_task(active.digest())
    await one.runs._setup.resume(active)
    order = measure_order(engine.orders[-1])
    assert order["first_frame"] == 20 and np.isfinite(order["baseline"][0]).all()
    await active.drain()
    await digest


async def test_a_restarted_engine_that_found_another_camera_ends_the_run(measured, engine, monkeypatch):
    one, active = measured
    begun = engine.info.identity
    engine.info = replace(engine.info, pixel_format=PixelFormat.MONO8)

    async def refuse(message, timeout_s):
        assert measured_camera(message) == begun
        raise CameraError(CameraReason.CHANGED, "pixel_format Mono8, was Mono12")

    monkeypatch.setattr(engine, "request", refuse)
    await one.runs._setup.resume(active)
    async with asyncio.timeout(5.0):
        assert await active.ended() == Ending("camera.changed", "pixel_format Mono8, was Mono12")


async def test_a_restarted_engine_that_fails_otherwise_does_not_end_the_run(measured, engine, monkeypatch):
    one, active = measured

    async def refuse(message, timeout_s):
        raise CameraError(CameraReason.STALLED, "gone again")

    monkeypatch.setattr(engine, "request", refuse)
    with pytest.raises(CameraError):
        await one.runs._setup.resume(active)
    assert not active._ending.done()


async def test_a_run_that_was_not_created_is_not_resumed(tmp_path, engine):
    async with rig(tmp_path, engine) as one:
        summary = RunSummary("r1", "r1", "preparing", "2026-01-02T03:04:05+00:00", None, tmp_path / "r1.db", {})
        active = ActiveRun(summary, Recipe(), one.writer)
        await one.runs._setup.resume(active)
        active.close()
    assert engine.orders == []
