import asyncio
import os
import signal
import time
from contextlib import asynccontextmanager

import numpy as np
import pytest

from daemon.config import CameraSettings, EngineSettings
from daemon.engine import host as module
from daemon.engine.child import end, spawn
from daemon.engine.host import EngineHost
from daemon.engine.link import Message
from daemon.engine.pipeline import PipelineSettings
from daemon.engine.wire import measure_message
from daemon.errors import EngineError, EngineReason, InstrumentError
from daemon.photometry.noise import NoiseHints
from daemon.recipe import MaskSettings
from daemon.runs.prepare import Reference, prepare
from hw.errors import CameraError, CameraReason
from hw.twin.instrument import TwinInstrument
from hw.twin.recording import write_recording
from hw.twin.settings import TwinOptions

TWIN = {"seed": 3, "particles": 8, "height_px": 200, "width_px": 260, "frame_rate_hz": 40, "c_rate": 0.0}
FAKE = "tests.daemon.engine.fake_engine"


async def until(condition, timeout_s=20.0):
    async with asyncio.timeout(timeout_s):
        while not (found := condition()):
            await asyncio.sleep(0.01)
    return found


@asynccontextmanager
async def started(camera=None, **engine):
    host = EngineHost(camera or CameraSettings(driver="twin", options=TWIN), EngineSettings(**engine))
    try:
        await host.start()
        yield host
    finally:
        await host.stop()


@pytest.fixture
def fake(monkeypatch):
    """The engine is a child that misbehaves."""

    def behave(kind):
        monkeypatch.setenv("FAKE_ENGINE", kind)
        monkeypatch.setattr(module, "spawn", lambda _: spawn(FAKE))
        monkeypatch.setattr(module, "CHECK_S", 0.02)
        monkeypatch.setattr(module, "STOP_S", 0.1)

    return behave


async def test_a_life_with_the_simulated_camera():
    async with started() as host:
        info = await host.camera(20.0)
        assert (info.height_px, info.width_px, info.pixel_format.bit_depth) == (200, 260, 12)
        assert host.status().state == host.camera_status().state == "ready"
        assert host.status().values["pid"] == host.pid != os.getpid()
        taken = await host.capture(10, 20.0)
        mean, variance = taken.mean_dn, taken.variance_dn2
        assert mean.shape == variance.shape == (200, 260) and mean.mean() > 100 and variance.mean() > 1
        preview = await host.preview()
        assert preview.image.shape == (200, 260) and preview.bit_depth == 12 and preview.frame == -1
        assert await host.preview() is preview  # young enough to be shown again
        await host.configure_camera({"exposure_us": 1000.0})
        assert host.info.exposure_us == host.camera_status().values["exposure_us"] == 1000.0
        assert host.info.frame_rate_hz == 40.0
        darker = await host.capture(5, 20.0)
        assert darker.mean_dn.mean() < 0.8 * mean.mean()
        with pytest.raises(CameraError) as caught:
            await host.configure_camera({"exposure_us": -1.0})
        assert caught.value.reason is CameraReason.BAD_SETTING and "exposure_us" in caught.value.detail
        assert host.info.exposure_us == 1000.0
        kept = []

        async def keep(*calibration):
            kept.append(calibration)

        host.on_calibration = keep
        summary = await host.calibrate("dark", 4)
        assert kept[0][0] == "dark" and kept[0][1].shape == (200, 260)
        camera = {name: summary[name] for name in ("pixel_format", "bit_depth", "exposure_us")}
        assert camera == {"pixel_format": "Mono12", "bit_depth": 12, "exposure_us": 1000.0}
        assert summary["frames"] == 4 and summary["mean_dn"] == pytest.approx(kept[0][1].mean()) and summary["noise_dn"]

        batches = []
        host.on_batch = batches.append
        hints = NoiseHints(info.gain_e_per_dn, info.read_noise_e, info.dark_dn)
        reference = Reference(mean, variance, 10, 12, hints, info.pixel_size_nm)
        prepared = await asyncio.to_thread(prepare, reference, MaskSettings())
        assert prepared.masks.count >= 6
        await host.request(measure_message(prepared.operator, PipelineSettings(12, 40.0, 0.2)))
        await until(lambda: sum(map(len, batches)) >= 20)
        await host.request(Message("finish"))
        frames = np.concatenate([batch.frame for batch in batches])
        np.testing.assert_array_equal(frames, np.arange(len(frames)))
        assert batches[-1].baseline_flux_e.shape == (prepared.masks.count,)
        await until(lambda: host.book.counters["measured"] == len(frames))
        totals, depth = host.book.totals(), host.book.counters["ring_depth"]
        assert totals.captured == totals.measured + totals.idle + totals.dropped.total() + depth
    assert host.pid is None and host.status().state == "stopped"
    await host.stop()
    with pytest.raises(EngineError, match="not running"):
        await host.request(Message("finish"))


async def test_one_calibration_at_a_time_and_one_that_is_cancelled_makes_room():
    async with started() as host:
        await host.camera(20.0)
        first = asyncio.create_task(host.calibrate("dark", 10_000))
        await until(lambda: host.calibrating)
        for other in (host.calibrate("flat", 2), host.capture(2, 20.0)):
            with pytest.raises(InstrumentError) as caught:
                await other
            assert caught.value.reason is EngineReason.BUSY
        assert not first.done()
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        assert not host.calibrating
        with pytest.raises(EngineError) as caught:
            await host.capture(10_000, 0.2)
        assert caught.value.reason is EngineReason.SILENT
        assert (await host.calibrate("flat", 2))["frames"] == 2


async def test_a_killed_or_stopped_engine_is_replaced_within_its_budget(monkeypatch):
    monkeypatch.setattr(module, "STOP_S", 0.5)
    async with started(max_restarts=2, silence_s=2.1) as host:
        await host.camera(20.0)
        restarts, lost = [], []
        await host.configure_camera({"exposure_us": 700.0, "frame_rate_hz": 25.0})
        host.on_restart = lambda: restarts.append(host.pid)
        host.on_camera = lambda kind, fields: lost.append(kind)
        first = host.pid
        pending = asyncio.create_task(host.request(Message("capture", {"frames": 10_000}), 30.0))
        await asyncio.sleep(0.1)
        os.kill(first, signal.SIGKILL)
        with pytest.raises(EngineError) as caught:
            await pending  # it does not wait for its own deadline
        assert caught.value.reason is EngineReason.DIED
        await until(lambda: restarts)
        assert host.pid != first and host.restarts == 1
        await host.camera(20.0)
        assert lost == ["open"]
        assert (host.info.exposure_us, host.info.frame_rate_hz) == (700.0, 25.0)
        captured = host.book.totals().captured
        second = host.pid
        os.kill(second, signal.SIGSTOP)
        began = time.monotonic()
        await until(lambda: host.restarts == 2)
        assert 1.5 < time.monotonic() - began < 8.0
        assert host.status().reason == EngineReason.SILENT.code
        await until(lambda: len(restarts) == 2)
        assert host.status().state == "ready" and host.status().reason == ""
        assert host.book.totals().captured >= captured
        os.kill(host.pid, signal.SIGKILL)
        await until(lambda: host.status().state == "failed")
        status = host.status()
        assert (
            status.reason == EngineReason.GAVE_UP.code and "signal 9" in status.detail and "2 restarts" in status.detail
        )
        assert status.remedy and host.pid is None


@pytest.mark.parametrize(("kind", "words"), [("dies", "exit code 3"), ("garbage", "makes no sense")])
async def test_an_engine_that_cannot_start_is_given_up_with_the_cause(fake, kind, words):
    fake(kind)
    began = time.monotonic()
    with pytest.raises(EngineError) as caught:
        async with started(max_restarts=1):
            pass
    assert time.monotonic() - began < 10.0  # not the 90 s a start may take
    assert caught.value.reason is EngineReason.GAVE_UP
    assert words in caught.value.detail and "1 restarts" in caught.value.detail


async def test_every_fault_is_told_as_it_happens(fake):
    fake("dies")
    host = EngineHost(CameraSettings(driver="twin", options=TWIN), EngineSettings(max_restarts=1))
    told = []
    host.on_fault = lambda code, detail, remedy: told.append((code, "exit code 3" in detail, bool(remedy)))
    with pytest.raises(EngineError):
        await host.start()
    await host.stop()
    assert told == [("engine.died", True, True), ("engine.died", True, True), ("engine.gave_up", True, True)]
    lost = {"reason": "camera.stalled", "detail": "no frame for 2.0 s", "remedy": "Power-cycle it."}
    host._camera_news(Message("lost", lost))
    host._camera_news(Message("ended", {"detail": "at its end"}))
    assert [code for code, *_ in told[3:]] == ["camera.stalled"]


async def test_a_message_that_cannot_be_used_is_a_protocol_error(fake, caplog):
    fake("nonsense")
    with pytest.raises(EngineError) as caught:
        async with started(max_restarts=0):
            pass
    assert caught.value.reason is EngineReason.GAVE_UP and "could not be used" in caught.value.detail
    assert "Mono99" in caplog.text


async def test_an_engine_that_is_given_up_is_not_ready_from_then_on(fake, monkeypatch):
    fake("garbage")
    host, seen = EngineHost(CameraSettings(), EngineSettings(max_restarts=0)), []
    end_process = host._end_process

    async def seen_ending():
        seen.append(host.status())
        await end_process()

    host._state = "ready"
    monkeypatch.setattr(host, "_end_process", seen_ending)
    await host._spawn()
    await host._supervise()
    await host.stop()
    assert (seen[0].state, seen[0].reason) == ("starting", "engine.protocol")


async def test_an_engine_that_is_never_ready_is_an_error_in_time(fake):
    fake("deaf")
    with pytest.raises(EngineError) as caught:
        async with started(start_timeout_s=0.3, max_restarts=0):
            pass
    assert caught.value.reason in (EngineReason.SILENT, EngineReason.GAVE_UP)


async def test_an_engine_that_cannot_be_spawned_is_tried_again(monkeypatch):
    attempts = []

    async def fail(_):
        attempts.append(1)
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(module, "spawn", fail)
    monkeypatch.setattr(module, "CHECK_S", 0.02)
    with pytest.raises(EngineError, match="Cannot allocate memory"):
        async with started(max_restarts=2):
            pass
    assert len(attempts) == 3


async def test_restarts_out_of_the_window_are_forgiven(fake):
    fake("dies")
    host = EngineHost(CameraSettings(), EngineSettings(max_restarts=1, restart_window_s=0.01))
    start = asyncio.create_task(host.start())
    try:
        await until(lambda: host.restarts >= 3)
        assert host.status().state == "starting"
    finally:
        start.cancel()
        await asyncio.gather(start, return_exceptions=True)
        await host.stop()


async def test_a_request_that_is_not_answered_times_out(fake):
    fake("echo")
    host = EngineHost(CameraSettings(), EngineSettings())
    start = asyncio.create_task(host.start())
    try:
        await until(lambda: host.pid)
        with pytest.raises(EngineError) as caught:
            await host.request(Message("finish"), 0.1)
        assert caught.value.reason is EngineReason.SILENT and "'finish'" in caught.value.detail
    finally:
        start.cancel()
        await asyncio.gather(start, return_exceptions=True)
        await host.stop()


async def test_a_missing_camera_is_told_with_its_own_reason(tmp_path):
    camera = CameraSettings(driver="replay", options={"path": str(tmp_path / "gone.h5")})
    async with started(camera) as host:
        lost = []
        host.on_camera = lambda kind, fields: lost.append((kind, fields.get("reason")))
        await until(lambda: host.camera_status().reason)
        with pytest.raises(CameraError) as caught:
            await host.camera(0.05)
        assert caught.value.code == "recording.unreadable" and "gone.h5" in caught.value.detail
        status = host.camera_status()
        assert (status.state, status.reason) == ("failed", "recording.unreadable") and status.remedy
        assert host.status().state == "ready"  # the engine is well
        await asyncio.to_thread(_record, tmp_path / "gone.h5")
        info = await host.camera(15.0)  # it is found without anybody's help
        assert info.height_px == 100
        await until(lambda: host.camera_status().reason == "camera.ended")
        assert host.camera_status().state == "stopped"
        again = await host.camera(0.1)  # after its end it can be played again
        assert again.height_px == 100
        mean = (await host.capture(5, 10.0)).mean_dn
        assert mean.shape == (100, 130)
        with pytest.raises(CameraError) as caught:
            await host.capture(50, 10.0)
        assert caught.value.reason is CameraReason.ENDED


async def test_a_preview_is_as_deep_as_the_recording(tmp_path):
    path = tmp_path / "r.h5"
    await asyncio.to_thread(_record, path)
    options = {"path": str(path), "loop": True, "overrides": {"bit_depth": 14}}
    async with started(CameraSettings(driver="replay", options=options)) as host:
        await host.camera(20.0)
        assert (await until_shown(host)).bit_depth == 14


async def until_shown(host):
    async with asyncio.timeout(20.0):
        while (preview := await host.preview()) is None:
            await asyncio.sleep(0.01)
    return preview


def _record(path):
    options = TwinOptions(seed=3, particles=3, height_px=100, width_px=130, frame_rate_hz=30)
    write_recording(path.with_suffix(".part"), TwinInstrument(options), 12)
    path.with_suffix(".part").rename(path)


async def test_stopping_while_an_engine_is_being_replaced_leaves_none(fake, monkeypatch):
    fake("deaf")
    monkeypatch.setattr(module, "STOP_S", 60.0)
    host = EngineHost(CameraSettings(), EngineSettings(start_timeout_s=0.1))
    with pytest.raises(EngineError):
        await host.start()
    await until(lambda: host.pid is None)  # the supervisor waits for the silent one to end
    await host.stop()  # that nothing is left, the harness checks


async def test_the_listener_ends_with_the_stop_even_when_an_end_is_cut_short(fake, monkeypatch):
    fake("deaf")
    ending = asyncio.get_running_loop().create_future()

    async def cut_short(process, writer, grace_s):
        ending.set_result((process, writer))
        await asyncio.sleep(60.0)

    monkeypatch.setattr(module, "end", cut_short)
    host = EngineHost(CameraSettings(), EngineSettings(start_timeout_s=0.1))
    with pytest.raises(EngineError):
        await host.start()
    process, writer = await ending
    await host.stop()
    left = {task.get_name() for task in asyncio.all_tasks() - {asyncio.current_task()}}
    await end(process, writer, 0.0)
    assert not left
