import time

import numpy as np
import pytest

import hw.camera
from hw.drivers import build_driver
from hw.errors import CameraError, CameraReason
from tests.hw.camera.contract_tests import CameraContract
from tests.hw.camera.u3v.fake import AUTO, EXPOSURE, FORMAT, GAMMA, LOCKED, RATE, SIRM, FakeCamera, installed


@pytest.fixture
def fake(monkeypatch, tmp_path):
    one = FakeCamera()
    installed(monkeypatch, one, tmp_path)
    return one


@pytest.fixture
def build():
    ours = []

    def make(**options):
        ours.append(build_driver(hw.camera.DRIVERS, "u3v", options))
        return ours[-1]

    yield make
    for one in ours:
        one.close()


class TestContract(CameraContract):
    @pytest.fixture
    def camera(self, fake, build):
        return build()


def started(camera, slots=4):
    info = camera.open()
    memory = {
        n: np.zeros(info.pixel_format.payload_bytes(info.height_px, info.width_px), np.uint8) for n in range(slots)
    }
    for number, slot in memory.items():
        camera.lend(number, slot)
    camera.start()
    return info, memory


def frames(camera, memory, count, timeout_s=5.0):
    """(stamp, picture) of the next `count`; slots are lent again."""
    found, deadline = [], time.monotonic() + timeout_s
    while len(found) < count and time.monotonic() < deadline:
        taken = camera.take(0.25)
        if taken is not None:
            number, stamp = taken
            found.append((stamp, memory[number].copy()))
            camera.lend(number, memory[number])
    return found


def test_pictures_end_in_the_slots_whole(fake, build):
    camera = build()
    info, memory = started(camera)
    assert (info.model, info.serial, info.width_px, info.height_px) == ("Maker Fake", "F001", 64, 48)
    assert info.clock_id == "u3v-ABCD00000001" and info.frame_rate_hz == 200.0 and info.clock_rate == 1.0
    for stamp, picture in frames(camera, memory, 10):
        np.testing.assert_array_equal(picture, fake.image(stamp.block_id))


@pytest.mark.parametrize("chunk_bytes", [0, 40])
@pytest.mark.parametrize("alignment_log2", [0, 3, 8, 10, 12])
@pytest.mark.parametrize("transfer_mb", [0.001, 0.0021, 8.0])
def test_every_cut_of_the_payload_brings_the_same_picture(
    monkeypatch, tmp_path, build, chunk_bytes, alignment_log2, transfer_mb
):
    fake = FakeCamera(alignment_log2=alignment_log2, chunk_bytes=chunk_bytes)
    installed(monkeypatch, fake, tmp_path)
    camera = build(transfer_mb=transfer_mb, width_px=44, height_px=35)
    _, memory = started(camera)
    found = frames(camera, memory, 3)
    assert len(found) == 3
    for stamp, picture in found:
        np.testing.assert_array_equal(picture, fake.image(stamp.block_id))
    assert camera._stream.counts == {"frame": camera._stream.counts["frame"]}


@pytest.mark.parametrize("fault, count", [("cut", "short"), ("overrun", "overrun"), ("other format", "other format")])
def test_a_damaged_frame_is_a_gap_and_nothing_more(fake, build, fault, count):
    camera = build()
    _, memory = started(camera)
    found = frames(camera, memory, 2)
    fake.faults.append(fault)
    found += frames(camera, memory, 8)
    ids = [stamp.block_id for stamp, _ in found]
    assert len(found) == 10 and ids[-1] - ids[0] == 10  # one of eleven is missing
    assert all((picture == fake.image(stamp.block_id)).all() for stamp, picture in found)
    assert camera._stream.counts[count] == 1 and not camera.counts


@pytest.mark.parametrize("fault", ["torn", "stall", "babble", "io"])
def test_a_stream_out_of_step_is_cleared_and_goes_on(fake, build, fault):
    camera = build()
    _, memory = started(camera)
    frames(camera, memory, 2)
    fake.faults.append(fault)
    found = frames(camera, memory, 20)
    assert len(found) == 20 and camera.counts == {"clear": 1}
    assert all((picture == fake.image(stamp.block_id)).all() for stamp, picture in found)
    assert (np.diff([stamp.block_id for stamp, _ in found]) >= 1).all()


def test_frames_that_the_camera_lost_are_gaps(fake, build):
    camera = build()
    _, memory = started(camera)
    found = frames(camera, memory, 2)
    fake.faults.append("lose 3")
    steps = np.diff([stamp.block_id for stamp, _ in found + frames(camera, memory, 10)])
    assert sorted(set(steps)) == [1, 4] and (steps == 4).sum() == 1


def test_a_silent_camera_is_cleared_then_restarted_then_reset(fake, build, monkeypatch):
    monkeypatch.setattr("hw.camera.u3v.camera.SILENT_S", 0.05)
    monkeypatch.setattr("hw.camera.u3v.camera.FIRST_S", 0.05)
    camera = build(exposure_us=3000.0)
    _, memory = started(camera)
    before = frames(camera, memory, 3)
    fake.faults.append("mute until reset")
    after = frames(camera, memory, 3, timeout_s=8.0)
    assert camera.counts["clear"] == camera.counts["restart"] == camera.counts["reset"] == 1
    assert fake.counts["reset"] == 1 and fake.opens == 2
    assert after[-1][0].block_id > before[-1][0].block_id + 2  # the time that passed is reckoned with
    assert np.frombuffer(fake.memory[EXPOSURE : EXPOSURE + 8])[0] == 3000.0  # set again after the reset
    camera.stop()
    assert sorted(camera.reclaim()) == [0, 1, 2, 3]


def test_a_reset_that_changes_the_format_is_an_error_and_no_frame_follows(fake, build, monkeypatch):
    monkeypatch.setattr("hw.camera.u3v.camera.SILENT_S", 0.05)
    monkeypatch.setattr("hw.camera.u3v.camera.FIRST_S", 0.05)
    fake.put(FORMAT, 0x010C0047)  # no option names it: a reset brings back the Mono8 of its power-up
    camera = build()
    info, memory = started(camera)
    assert info.pixel_format == "Mono12p" and len(frames(camera, memory, 3)) == 3
    fake.faults.append("mute until reset")
    with pytest.raises(CameraError, match="pixel_format Mono8, was Mono12p") as caught:
        frames(camera, memory, 3, timeout_s=8.0)
    assert caught.value.reason is CameraReason.CHANGED and fake.counts["reset"] == 1
    camera.close()
    assert sorted(camera.reclaim()) == [0, 1, 2, 3]


def test_a_camera_that_stays_silent_is_given_up_in_time(fake, build, monkeypatch):
    monkeypatch.setattr("hw.camera.u3v.camera.SILENT_S", 0.05)
    monkeypatch.setattr("hw.camera.u3v.camera.FIRST_S", 0.05)
    camera = build()
    _, memory = started(camera)
    fake.faults.append("mute")
    began = time.monotonic()
    with pytest.raises(CameraError) as caught:
        frames(camera, memory, 1, timeout_s=20.0)
    assert caught.value.reason is CameraReason.STALLED and time.monotonic() - began < 10
    camera.close()
    assert sorted(camera.reclaim()) == [0, 1, 2, 3]


def test_unplugging_is_told_at_once_and_slots_come_back(fake, build):
    camera = build()
    _, memory = started(camera)
    frames(camera, memory, 2)
    fake.plugged = False
    with pytest.raises(CameraError) as caught:
        frames(camera, memory, 50)
    assert caught.value.reason is CameraReason.UNPLUGGED
    camera.close()
    assert sorted(camera.reclaim()) == [0, 1, 2, 3]
    with pytest.raises(CameraError) as caught:
        build().open()
    assert caught.value.reason is CameraReason.NOT_FOUND


def test_a_busy_camera_is_told(fake, build):
    fake.faults.append("busy")
    with pytest.raises(CameraError) as caught:
        build().open()
    assert caught.value.reason is CameraReason.BUSY


def test_a_camera_left_streaming_is_silenced_and_said_so(fake, build):
    fake.put(SIRM + 4, 1)
    fake.put(LOCKED, 1)
    info, _ = started(build())
    assert any("was streaming when it was opened" in note for note in info.notes)
    assert fake.number(SIRM + 4) == 0


def test_one_that_cannot_be_silenced_is_dirty(fake, build, monkeypatch):
    written = fake.written
    monkeypatch.setattr(fake, "written", lambda address, data: 0 if address == SIRM + 4 else written(address, data))
    fake.put(SIRM + 4, 1)
    with pytest.raises(CameraError) as caught:
        build().open()
    assert caught.value.reason is CameraReason.DIRTY and not fake.is_open


def test_a_frozen_picture_is_an_error_and_a_plain_one_is_not(fake, build):
    camera = build(frozen_after_s=0.2)
    _, memory = started(camera)
    fake.image = lambda block_id: np.full(fake.image_bytes, 255, np.uint8)
    assert len(frames(camera, memory, 80)) == 80  # saturated: the engine flags it
    fake.image = lambda block_id: np.arange(fake.image_bytes, dtype=np.uint8)
    with pytest.raises(CameraError) as caught:
        frames(camera, memory, 200)
    assert caught.value.reason is CameraReason.FROZEN
    camera.close()
    assert sorted(camera.reclaim()) == [0, 1, 2, 3]


def test_everything_automatic_is_off(fake, build):
    info = build().open()
    assert fake.number(GAMMA) == 0 and fake.number(AUTO) == 0 and info.notes == ()


def test_what_cannot_be_switched_off_is_noted(monkeypatch, tmp_path, build):
    installed(monkeypatch, FakeCamera(stubborn=True), tmp_path)
    assert any("GammaEnable" in note for note in build().open().notes)


def test_a_usb_2_port_is_noted_and_refuses_what_it_cannot_carry(monkeypatch, tmp_path, build):
    installed(monkeypatch, FakeCamera(speed=4), tmp_path)
    assert any("USB 2" in note for note in build().open().notes)
    monkeypatch.setattr("hw.camera.u3v.camera.USB2_BYTES_PER_S", 1e5)
    with pytest.raises(CameraError) as caught:
        build(frame_rate_hz=100.0).open()
    assert caught.value.reason is CameraReason.SLOW_PORT


def test_settings_hold_while_streaming_and_move_the_stamps(fake, build):
    camera = build(frame_rate_hz=100.0, exposure_us=1000.0)
    _, memory = started(camera)
    frames(camera, memory, 2)
    info = camera.configure({"exposure_us": 8000.0, "frame_rate_hz": 50})
    assert (info.exposure_us, info.frame_rate_hz) == (8000.0, 50.0) and info.serial == "F001"
    assert np.frombuffer(fake.memory[RATE : RATE + 8])[0] == 50.0
    stamp, _ = frames(camera, memory, 2)[-1]
    now_s = time.monotonic()
    assert stamp.device_t_s == pytest.approx(now_s + 0.004, abs=0.5)
    assert camera.clock_sample.device_t_s == pytest.approx(camera.clock_sample.host_t_s, abs=0.1)
    with pytest.raises(CameraError, match="outside of 10 to 100000"):
        camera.configure({"exposure_us": 5.0})
    with pytest.raises(CameraError, match="frame_rate_hz"):
        camera.configure({"exposure_us": 2000.0, "frame_rate_hz": 5000.0})
    assert camera.configure({}).exposure_us == 8000.0  # all of it, or nothing


@pytest.mark.parametrize(
    "options, told",
    [
        ({"width_px": 65}, "width_px"),
        ({"pixel_format": "Mono16"}, "pixel_format.*Mono12p"),
        ({"binning": 2}, "binning: BinningHorizontal is not a feature"),
        ({"frame_rate_hz": 5000.0}, "frame_rate_hz = 5000 is outside of 1 to 500"),
        ({"features": {"Nope": 1}}, "features.Nope"),
        ({"trigger_source": "Line0", "frame_rate_hz": 10.0}, "trigger_source"),
    ],
)
def test_options_the_camera_cannot_take_are_refused_by_name(fake, build, options, told):
    with pytest.raises(CameraError, match=told) as caught:
        build(**options).open()
    assert caught.value.reason is CameraReason.BAD_SETTING and not fake.is_open


def test_memory_for_few_frames_means_few_frames(fake, build, monkeypatch):
    monkeypatch.setattr("hw.camera.u3v.camera.memory_limit_mb", lambda: 2)
    camera = build()
    _, memory = started(camera)
    assert camera.queue_frames == 2 and "usbfs_memory_mb = 2 holds 2 of 8" in camera.memory_advice
    fake.library.refuse_after = 7  # two frames of three transfers, and a part of the third
    found = frames(camera, memory, 10)
    assert len(found) == 10 and all((p == fake.image(s.block_id)).all() for s, p in found)


def test_not_even_one_frame_of_memory_is_an_error(fake, build):
    camera = build()
    _, memory = started(camera)
    fake.library.refuse_after = 1
    with pytest.raises(CameraError) as caught:
        frames(camera, memory, 1)
    assert caught.value.reason is CameraReason.NO_MEMORY


def test_requests_survive_what_control_transfers_do(fake, build):
    fake.faults += ["stray", "pending", "garbage", "busy register", "lost", "no resend"]
    camera = build()
    _, memory = started(camera)
    assert not fake.faults and len(frames(camera, memory, 3)) == 3
