import time

import numpy as np
import pytest

import hw.camera
from hw.camera.contract import PixelFormat
from hw.camera.loop import MAX_LOOP_MB, STEP_GAIN, stepped
from hw.drivers import DriverError, build_driver
from hw.errors import CameraError, CameraReason
from kernels.unpack import unpack
from tests.hw.camera.contract_tests import CameraContract

SMALL = {"particles": 8, "height_px": 120, "width_px": 160, "loop_frames": 8, "frame_rate_hz": 200.0}


def build(**options):
    return build_driver(hw.camera.DRIVERS, "loop", SMALL | options)


class TestContract(CameraContract):
    @pytest.fixture
    def camera(self):
        one = build()
        yield one
        one.close()


@pytest.fixture
def movie():
    """The next `count` pictures of a camera with these options, (count, H, W), and their stamps."""
    ours = []

    def take(count, **options):
        camera = build(**options)
        ours.append(camera)
        info = camera.open()
        slot = np.zeros(info.pixel_format.payload_bytes(info.height_px, info.width_px), np.uint8)
        camera.start()
        stamps, pictures = [], np.zeros((count, info.height_px, info.width_px), np.uint16)
        for picture in pictures:
            stamps.append(camera.next_frame(slot, 1.0))
            unpack(slot, info.pixel_format.value, picture)
        return pictures, stamps

    yield take
    for one in ours:
        one.close()


def test_frames_come_at_their_rate_with_ids_and_times_that_go_on(movie):
    began = time.monotonic()
    _, stamps = movie(30)
    assert [stamp.block_id for stamp in stamps] == list(range(30))
    np.testing.assert_allclose(np.diff([stamp.device_t_s for stamp in stamps]), 1 / 200)
    assert stamps[-1].host_t_s - stamps[0].host_t_s == pytest.approx(29 / 200, abs=0.1)
    assert stamps[0].host_t_s > began


def test_the_loop_comes_round(movie):
    pictures, _ = movie(24, steps_per_s=0.0)
    np.testing.assert_array_equal(pictures[:8], pictures[16:])


def test_successive_frames_differ_in_noise_and_by_no_more_at_the_seam(movie):
    pictures, _ = movie(17, pixel_format="Mono12", steps_per_s=0.0)
    steps = np.abs(np.diff(pictures.astype(float), axis=0)).mean(axis=(1, 2))
    assert steps.min() > 5.0  # DN: shot noise of some 10 000 electrons at 8 a DN
    assert steps[7] < 1.05 * np.median(steps)


def test_the_scene_goes_round_a_circle(movie):
    pictures, _ = movie(8, loop_frames=8, drift_px=2.0, pixel_format="Mono12", steps_per_s=0.0)
    light = np.clip(pictures.astype(float) - 1300, 0, None)  # above the background: particles
    y, x = np.mgrid[0:120, 0:160]
    centre = np.array([[(light[k] * axis).sum() / light[k].sum() for axis in (y, x)] for k in range(8)])
    turn = 2 * np.pi * np.arange(8) / 8
    wanted = 2.0 * np.stack([np.sin(turn), np.cos(turn)], axis=1)
    np.testing.assert_allclose(centre - centre.mean(axis=0), wanted, atol=0.4)


@pytest.mark.parametrize("name, dn_of_12_bits", [("Mono8", 1 / 16), ("Mono12", 1), ("Mono12p", 1), ("Mono16", 16)])
def test_formats_show_the_same_light_on_their_own_scale(movie, name, dn_of_12_bits):
    pictures, _ = movie(2, pixel_format=name)
    assert PixelFormat(name).payload_bytes(120, 160) > 0
    assert pictures.mean() / dn_of_12_bits == pytest.approx(movie(2, pixel_format="Mono12")[0].mean(), rel=0.01)


@pytest.mark.parametrize("name", ["Mono8", "Mono12", "Mono12p", "Mono16"])
def test_particles_step_by_turns(movie, name):
    """Ten steps a second: the first particle steps after frame 20, the second after frame 40."""
    pictures, _ = movie(48, pixel_format=name, steps_per_s=10.0, drift_px=0.0)
    levels = pictures.reshape(6, 8, 120, 160).mean(axis=1)  # a loop each: focus and light are the same
    ratio = levels[3] / levels[0]  # frames 24 to 31: one particle is dim
    dim = ratio < 1 - 0.4 * (1 - STEP_GAIN)
    assert 20 < dim.sum() < 600
    rows, columns = np.nonzero(dim)
    assert np.ptp(rows) < 50 and np.ptp(columns) < 50
    assert (levels[5] / levels[0] < 1 - 0.4 * (1 - STEP_GAIN)).sum() > 1.5 * dim.sum()  # frames 40 to 47: two


def test_a_step_is_undone_at_the_next_turn():
    assert [stepped(steps, 3) for steps in range(8)] == [[], [0], [0, 1], [0, 1, 2], [1, 2], [2], [], [0]]


def test_a_late_host_finds_a_gap():
    camera = build(buffer_mb=4 * 120 * 160 / 1e6)
    info = camera.open()
    slot = np.zeros(info.height_px * info.width_px, np.uint8)
    camera.start()
    camera.next_frame(slot, 1.0)
    time.sleep(0.2)
    assert camera.next_frame(slot, 1.0).block_id > 30
    camera.close()


def test_memory_is_bounded():
    with pytest.raises(CameraError, match=f"more than {MAX_LOOP_MB}") as caught:
        build(height_px=2000, width_px=2000, loop_frames=200).open()
    assert caught.value.reason is CameraReason.BAD_SETTING


def test_a_crowded_sample_is_a_sentence():
    with pytest.raises(CameraError, match="do not fit"):
        build(particles=3000).open()


def test_an_odd_width_is_refused():
    with pytest.raises(DriverError, match="width_px"):
        build(width_px=161)


def test_an_exposure_that_was_rendered_cannot_be_changed():
    camera = build()
    camera.open()
    with pytest.raises(CameraError, match="exposure_us"):
        camera.configure({"exposure_us": 1000.0})
    assert camera.configure({"frame_rate_hz": 50}).frame_rate_hz == 50.0
    with pytest.raises(CameraError, match="frame_rate_hz"):
        camera.configure({"frame_rate_hz": 501})  # longer than a frame
    camera.close()
