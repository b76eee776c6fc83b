import time

import numpy as np
import pytest
from pydantic import ValidationError

import hw.camera
from hw.camera.contract import PixelFormat
from hw.camera.replay import ReplayCamera, ReplaySettings
from hw.drivers import DriverError, build_driver
from hw.errors import CameraError, CameraReason, RecordingReason
from tests.hw.camera.contract_tests import CameraContract
from tests.hw.recording.builders import HEIGHT, WIDTH, movie, write_h5, write_tiff


@pytest.fixture
def path(tmp_path):
    return write_h5(tmp_path / "r.h5", attrs={"bit_depth": 12, "pixel_size_nm": 96.0})


@pytest.fixture
def camera():
    """Build and open cameras that are closed with the test."""
    made = []

    def build(path, **options):
        options.setdefault("speed", 0)
        made.append(build_driver(hw.camera.DRIVERS, "replay", {"path": str(path), **options}))
        return made[-1]

    yield build
    for one in made:
        one.close()


def played(camera, count, timeout_s=1.0):
    info = camera.open()
    camera.start()
    slot = np.zeros(info.pixel_format.payload_bytes(info.height_px, info.width_px), np.uint8)
    return [(camera.next_frame(slot, timeout_s), slot.copy()) for _ in range(count)]


def as_frame(payload, dtype="u2"):
    return payload.view(dtype).reshape(HEIGHT, WIDTH)


def test_frames_come_as_they_were_recorded(path, camera):
    frames = played(camera(path), 20)
    for i, (stamp, payload) in enumerate(frames):
        np.testing.assert_array_equal(as_frame(payload), movie()[i])
        assert stamp.block_id == i and stamp.device_t_s == pytest.approx(0.01 * i)
        assert 0 <= time.monotonic() - stamp.host_t_s < 10


@pytest.mark.parametrize(("dtype", "pixel_format"), [("u1", PixelFormat.MONO8), ("u2", PixelFormat.MONO16)])
def test_formats(tmp_path, camera, dtype, pixel_format):
    path = write_h5(tmp_path / "r.h5", movie(dtype=dtype))
    one = camera(path)
    assert one.open().pixel_format is pixel_format
    np.testing.assert_array_equal(as_frame(played(one, 3)[2][1], dtype), movie(dtype=dtype)[2])


@pytest.mark.parametrize(
    ("bits", "pixel_format"), [(10, PixelFormat.MONO16), (12, PixelFormat.MONO12), (14, PixelFormat.MONO16)]
)
def test_full_scale_is_the_recordings_own_whatever_holds_its_pixels(tmp_path, camera, bits, pixel_format):
    info = camera(write_h5(tmp_path / "r.h5", movie(), attrs={"bit_depth": bits})).open()
    assert (info.pixel_format, info.bit_depth) == (pixel_format, bits)


def test_the_info_is_the_recordings(path, camera):
    info = camera(path, overrides={"exposure_us": 1500}).open()
    assert (info.height_px, info.width_px, info.pixel_size_nm, info.exposure_us) == (HEIGHT, WIDTH, 96.0, 1500)
    assert info.pixel_format is PixelFormat.MONO12 and info.clock_id.startswith("recording:")


def test_the_end_is_said_again_and_again(path, camera):
    one = camera(path)
    played(one, 20)
    for _ in range(2):
        with pytest.raises(CameraError) as caught:
            one.next_frame(np.zeros(HEIGHT * WIDTH * 2, np.uint8), 0.1)
        assert caught.value.reason is CameraReason.ENDED


def test_a_loop_goes_on_with_rising_times_and_ids(path, camera):
    frames = played(camera(path, loop=True), 65)
    t_s = [stamp.device_t_s for stamp, _ in frames]
    np.testing.assert_allclose(t_s, 0.01 * np.arange(65), atol=1e-9)
    assert [stamp.block_id for stamp, _ in frames] == list(range(65))
    np.testing.assert_array_equal(as_frame(frames[61][1]), movie()[1])


def test_a_start_begins_anew(path, camera):
    one = camera(path)
    played(one, 7)
    one.stop()
    one.stop()
    one.start()
    assert one.next_frame(np.zeros(HEIGHT * WIDTH * 2, np.uint8), 1.0).block_id == 0


def test_frames_keep_their_pace(path, camera):
    started = time.monotonic()
    frames = played(camera(path, speed=1.0), 11)
    assert time.monotonic() - started >= 0.1
    host = np.array([stamp.host_t_s for stamp, _ in frames])
    assert (host - host[0] >= 0.01 * np.arange(11) - 0.005).all()


def test_speed_divides_the_time(path, camera):
    frames = played(camera(path, speed=4.0), 20)
    assert frames[-1][0].host_t_s - frames[0][0].host_t_s >= 0.19 / 4 - 0.005
    assert frames[-1][0].device_t_s == pytest.approx(0.19)


def test_a_frame_that_is_not_due_is_waited_for_in_vain(path, camera):
    one = camera(path, speed=0.001)
    info = one.open()
    one.start()
    slot = np.zeros(info.pixel_format.payload_bytes(HEIGHT, WIDTH), np.uint8)
    assert one.next_frame(slot, 0.01).block_id == 0
    started = time.monotonic()
    assert one.next_frame(slot, 0.03) is None
    assert 0.02 < time.monotonic() - started < 1.0


def test_a_late_caller_loses_nothing(path, camera):
    one = camera(path, speed=1.0)
    info = one.open()
    one.start()
    slot = np.zeros(info.pixel_format.payload_bytes(HEIGHT, WIDTH), np.uint8)
    time.sleep(0.25)
    started = time.monotonic()
    assert [one.next_frame(slot, 1.0).block_id for _ in range(20)] == list(range(20))
    assert time.monotonic() - started < 0.15


def test_frames_that_were_lost_are_gaps_of_the_block_ids(tmp_path, camera):
    timing = 0.01 * np.arange(20)
    timing[[3, 4]] = np.nan
    path = write_h5(tmp_path / "r.h5", camera_timing=timing)
    ids = [stamp.block_id for stamp, _ in played(camera(path, loop=True), 20)]
    assert ids[:4] == [0, 1, 2, 5] and ids[17:] == [19, 20, 21][: len(ids[17:])]


@pytest.mark.parametrize(
    ("content", "reason"), [(b"nonsense", RecordingReason.UNREADABLE), (None, RecordingReason.UNREADABLE)]
)
def test_what_cannot_be_played_is_a_camera_error(tmp_path, camera, content, reason):
    path = tmp_path / "r.h5"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CameraError) as caught:
        camera(path).open()
    assert caught.value.reason is reason and "r.h5" in caught.value.detail


def test_order_of_calls_is_kept(path, camera):
    one = camera(path)
    one.close()
    with pytest.raises(CameraError, match="not open"):
        one.start()
    one.open()
    with pytest.raises(CameraError, match="not started"):
        one.next_frame(np.zeros(10, np.uint8), 0.0)


def test_a_recording_cannot_be_configured(path, camera):
    one = camera(path)
    one.open()
    with pytest.raises(CameraError) as caught:
        one.configure({"exposure_us": 5.0})
    assert caught.value.reason is CameraReason.BAD_SETTING


def test_constructing_touches_nothing(tmp_path):
    ReplayCamera(ReplaySettings(path=tmp_path / "gone.h5")).close()


def test_options_are_checked():
    with pytest.raises(DriverError, match="speed"):
        build_driver(hw.camera.DRIVERS, "replay", {"path": "x", "speed": -1})
    with pytest.raises(DriverError, match=r"did you mean 'speed'"):
        build_driver(hw.camera.DRIVERS, "replay", {"path": "x", "sped": 1})
    with pytest.raises(ValidationError):
        ReplaySettings.model_validate({})


def test_tiff_plays_too(tmp_path, camera):
    path = write_tiff(tmp_path / "r.tif", compression="zlib")
    frames = played(camera(path, overrides={"frame_interval_s": 0.5}), 20)
    np.testing.assert_array_equal(as_frame(frames[9][1], "u1"), movie(dtype="u1")[9])
    assert frames[9][0].device_t_s == pytest.approx(4.5)


class TestReplayContract(CameraContract):
    """A recording is a camera like any other."""

    @pytest.fixture
    def camera(self, path):
        one = build_driver(hw.camera.DRIVERS, "replay", {"path": str(path)})
        yield one
        one.close()
