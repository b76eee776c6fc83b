import subprocess
import sys
import time

import numpy as np
import pytest

import hw.camera
import hw.potentiostat
from hw.camera import twin as twin_module
from hw.camera.contract import PixelFormat
from hw.drivers import DriverError, build_driver
from hw.errors import CameraError, CameraReason
from tests.hw.camera.contract_tests import CameraContract

SMALL = {"particles": 6, "height_px": 120, "width_px": 160}


def build(**options):
    return build_driver(hw.camera.DRIVERS, "twin", options)


def lone(**options):
    """A camera with a cell of its own."""
    return build(**SMALL | options)


@pytest.fixture
def opened():
    """Opens cameras and closes them all."""
    ours = []

    def make(camera):
        ours.append(camera)
        info = camera.open()
        return camera, np.zeros(info.pixel_format.payload_bytes(info.height_px, info.width_px), np.uint8)

    yield make
    for one in ours:
        one.close()


@pytest.fixture
def cell(tmp_path):
    """A potentiostat with a world file at `world`, and its path."""
    path = tmp_path / "world"
    one = build_driver(hw.potentiostat.DRIVERS, "twin", SMALL | {"world": str(path), "speed": 60.0, "seed": 9})
    one.info = one.open()
    yield one, str(path)
    one.close()


class TestContract(CameraContract):
    @pytest.fixture
    def camera(self):
        one = lone()
        yield one
        one.close()


class TestContractOnAWorld(CameraContract):
    @pytest.fixture
    def camera(self, cell):
        one = build(world=cell[1])
        yield one
        one.close()


def next_frames(camera, slot, count):
    return [camera.next_frame(slot, 1.0) for _ in range(count)]


def test_it_tells_its_calibration(opened):
    camera = lone(gain_e_per_dn=5.0, read_noise_e=3.0, dark_dn=40.0, pixel_size_nm=50.0, radius_um=0.6)
    info = camera.open()
    camera.close()
    assert (info.gain_e_per_dn, info.read_noise_e, info.dark_dn, info.pixel_size_nm) == (5.0, 3.0, 40.0, 50.0)
    assert info.dark is None and info.flat is None and info.exposure_us == 2000.0


def test_a_calibrated_camera_hands_over_its_flat_field():
    camera = lone(publish_flat=True)
    info = camera.open()
    camera.close()
    assert info.flat.shape == (120, 160) and info.flat.mean() == pytest.approx(1.0, abs=1e-4)


@pytest.mark.parametrize(
    "name, share, dtype", [("Mono8", 1 / 16, np.uint8), ("Mono12", 1, np.uint16), ("Mono16", 16, np.uint16)]
)
def test_formats_show_the_same_light_on_their_own_scale(opened, name, share, dtype):
    camera, slot = opened(lone(pixel_format=name, static=True))
    info = camera._info()
    camera.start()
    next_frames(camera, slot, 1)
    assert info.pixel_format is PixelFormat(name)
    assert info.gain_e_per_dn == pytest.approx(8 / share) and info.dark_dn == pytest.approx(64 * share)
    light = (slot.view(dtype).mean() - info.dark_dn) * info.gain_e_per_dn
    assert 5_000 < light < 14_000


def test_packed_pixels_are_those_of_the_unpacked_format(opened):
    pictures = []
    for name in ("Mono12", "Mono12p"):
        camera, slot = opened(lone(pixel_format=name, static=True, noise="none", c_rate=0.0))
        camera.start()
        next_frames(camera, slot, 1)
        pictures.append(slot.copy())
    low = pictures[1][0::3].astype(int) | (pictures[1][1::3].astype(int) & 0xF) << 8
    np.testing.assert_array_equal(low, pictures[0].view(np.uint16)[0::2])


def test_frames_come_at_their_rate(opened):
    camera, slot = opened(lone(frame_rate_hz=50.0, timestamp_jitter_us=0.0, speed=10.0))
    camera.start()
    began = time.monotonic()
    stamps = next_frames(camera, slot, 10)
    assert 0.19 <= time.monotonic() - began < 0.6
    steps = np.diff([s.device_t_s for s in stamps]) / np.diff([s.block_id for s in stamps])
    np.testing.assert_allclose(steps, 10.0 / 50.0, rtol=1e-6)


FOUR_FRAMES = {"buffer_mb": 4 * 120 * 160 * 2 / 1e6}


def test_a_late_host_finds_a_gap(opened):
    camera, slot = opened(lone(**FOUR_FRAMES))
    camera.start()
    first = next_frames(camera, slot, 1)[0]
    time.sleep(0.3)
    stamps = next_frames(camera, slot, 8)
    gap = stamps[0].block_id - first.block_id - 1
    assert 20 <= gap <= 40
    assert stamps[-1].block_id - stamps[0].block_id <= 12  # the buffered ones come without gaps


def test_what_the_buffer_holds_is_not_lost(opened):
    camera, slot = opened(lone(frame_rate_hz=20.0, **FOUR_FRAMES))
    camera.start()
    next_frames(camera, slot, 1)
    time.sleep(0.17)
    stamps = next_frames(camera, slot, 3)
    assert [s.block_id for s in stamps] == [1, 2, 3]


def test_frames_the_camera_loses_leave_gaps(opened):
    camera, slot = opened(lone(dropped_fraction=0.5, frame_rate_hz=400.0))
    camera.start()
    stamps = next_frames(camera, slot, 30)
    assert 30 < stamps[-1].block_id + 1 < 200


def test_exposure_scales_the_light(opened):
    camera, slot = opened(lone(static=True, c_rate=0.0))
    camera.start()
    light = []
    for exposure_us in (2000.0, 1000.0):
        assert camera.configure({"exposure_us": exposure_us}).exposure_us == exposure_us
        next_frames(camera, slot, 1)
        light.append(slot.view(np.uint16).mean() - 64)
    assert light[1] / light[0] == pytest.approx(0.5, rel=0.01)


def test_a_new_rate_holds_from_the_next_frame(opened):
    camera, slot = opened(lone(timestamp_jitter_us=0.0))
    camera.start()
    before = next_frames(camera, slot, 2)
    assert camera.configure({"frame_rate_hz": 25.0}).frame_rate_hz == 25.0
    after = next_frames(camera, slot, 3)
    assert after[0].block_id > before[-1].block_id
    assert after[-1].device_t_s - after[-2].device_t_s == pytest.approx(0.04, abs=1e-6)


def test_an_exposure_longer_than_a_frame_is_refused(opened):
    camera, _ = opened(lone())
    with pytest.raises(CameraError, match="exposure_us"):
        camera.configure({"exposure_us": 20_000.0})
    with pytest.raises(CameraError, match="frame_rate_hz"):
        camera.configure({"frame_rate_hz": "fast"})


def test_clock_and_time_are_the_potentiostats(opened, cell):
    potentiostat, world = cell
    camera, slot = opened(build(world=world, timestamp_jitter_us=0.0))
    assert camera._info().clock_id == potentiostat.info.clock_id != ""
    assert camera._info().clock_rate == potentiostat.info.clock_rate == 60.0
    camera.start()
    stamp = next_frames(camera, slot, 5)[-1]
    sample = potentiostat.read(0.5)[-1]
    gap_s = (stamp.host_t_s - sample.host_t_s) * 60.0
    assert stamp.device_t_s - sample.device_t_s == pytest.approx(gap_s, abs=60.0 * 0.1)


def test_what_the_potentiostat_does_shows_in_the_frames(opened, cell):
    potentiostat, world = cell
    camera, slot = opened(build(world=world, static=True, **FOUR_FRAMES))
    potentiostat.set_current(5.0)  # 10C at 60-fold speed
    camera.start()
    next_frames(camera, slot, 1)
    before = slot.view(np.uint16).astype(float)
    time.sleep(0.9)
    next_frames(camera, slot, 1)
    assert (slot.view(np.uint16) - before).reshape(120, 160).max() > 150


def test_a_closed_world_is_an_unplugged_camera(opened, cell):
    potentiostat, world = cell
    camera, slot = opened(build(world=world))
    camera.start()
    next_frames(camera, slot, 1)
    potentiostat.close()
    with pytest.raises(CameraError) as caught:
        next_frames(camera, slot, 10)
    assert caught.value.reason is CameraReason.UNPLUGGED


PHYSICS = """
import sys, time
from hw.potentiostat.twin import TwinPotentiostat
TwinPotentiostat(TwinPotentiostat.Settings(world=sys.argv[1], particles=6, height_px=120, width_px=160)).open()
print("up", flush=True)
"""


@pytest.fixture
def physics_process(tmp_path):
    """(process, path): a world that lives in a process of its own."""
    path = str(tmp_path / "world")
    with subprocess.Popen([sys.executable, "-c", PHYSICS, path], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "up\n"
        yield process, path
        process.kill()


def test_a_world_whose_process_died_is_a_stalled_camera(opened, physics_process):
    process, path = physics_process
    camera, slot = opened(build(world=path, world_stale_s=0.4))
    camera.start()
    assert next_frames(camera, slot, 3)[-1] is not None
    process.kill()
    with pytest.raises(CameraError) as caught:
        next_frames(camera, slot, 200)
    assert caught.value.reason is CameraReason.STALLED and path in caught.value.detail
    camera.close()
    with pytest.raises(CameraError, match="dead") as caught:
        build(world=path, world_stale_s=0.4, world_wait_s=0.1).open()
    assert caught.value.reason is CameraReason.NOT_FOUND


def test_a_missing_world_is_waited_for(tmp_path, monkeypatch, opened):
    path = tmp_path / "world"
    one = build_driver(hw.potentiostat.DRIVERS, "twin", SMALL | {"world": str(path)})
    naps = []

    def nap(seconds):
        naps.append(seconds)
        if len(naps) == 3:
            one.open()

    monkeypatch.setattr(twin_module.time, "sleep", nap)
    opened(build(world=str(path)))
    assert len(naps) == 3
    one.close()


def test_a_world_that_never_comes_is_not_found(tmp_path):
    began = time.monotonic()
    with pytest.raises(CameraError) as caught:
        build(world=str(tmp_path / "world"), world_wait_s=0.2).open()
    assert caught.value.reason is CameraReason.NOT_FOUND and "world" in caught.value.detail
    assert 0.2 <= time.monotonic() - began < 1.0


@pytest.mark.parametrize("content", [b"", b"hello", b"PHTWIN\0\1" + bytes(20_000)])
def test_a_foreign_file_is_no_world(tmp_path, content):
    path = tmp_path / "world"
    path.write_bytes(content)
    with pytest.raises(CameraError) as caught:
        build(world=str(path), world_wait_s=0.0).open()
    assert caught.value.reason is CameraReason.NOT_FOUND and str(path) in caught.value.detail


def test_sample_options_must_agree_with_the_world(cell):
    with pytest.raises(CameraError, match="particles = 7"):
        build(world=cell[1], particles=7).open()


def test_a_crowded_sample_is_a_sentence():
    with pytest.raises(CameraError, match="do not fit"):
        lone(particles=300).open()


def test_an_unknown_option_is_named_with_its_neighbour():
    with pytest.raises(DriverError, match="psf_sigma_px"):
        build(psf_sigma=2.0)


def test_frames_need_a_started_camera(opened):
    camera, slot = opened(lone())
    with pytest.raises(CameraError):
        camera.next_frame(slot, 0.1)
