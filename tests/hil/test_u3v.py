"""The driver `u3v` on an emulated camera: what it delivers, and the outcome of every fault."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from hw.camera.contract import Camera
from hw.errors import CameraError, CameraReason
from hw.twin.usb.client import BusClient
from tests.hil.u3v import SMALL, Playing, build, reason, unpacked
from tests.hw.camera.contract_tests import CameraContract


@pytest.fixture(autouse=True)
def _descriptions(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("CACHE_DIRECTORY", raising=False)


class TestContract(CameraContract):
    @pytest.fixture
    def camera(self, bus: BusClient) -> Iterator[Camera]:
        bus.plug("cam", "u3v", **SMALL)
        one = build()
        yield one
        one.close()


@pytest.mark.parametrize("name", ["Mono8", "Mono10p", "Mono12", "Mono12p", "Mono16"])
def test_every_format_brings_the_picture_bit_by_bit(bus: BusClient, name: str) -> None:
    bus.plug("cam", "u3v", **SMALL)
    with Playing(pixel_format=name) as playing:
        assert playing.info.pixel_format.value == name
        for stamp, payload in playing.frames(4):
            bits = playing.info.pixel_format.bit_depth
            sent = playing.picture(stamp)
            wanted = (
                sent << bits - 12 if bits >= 12 else np.minimum((sent + (1 << 11 - bits)) >> 12 - bits, 2**bits - 1)
            )
            np.testing.assert_array_equal(unpacked(payload, playing.info), wanted)


@pytest.mark.parametrize("alignment", [1, 4, 16, 1024])
@pytest.mark.parametrize("options", [{}, {"transfer_mb": 0.004}, {"width_px": 98, "height_px": 62}])
def test_every_cut_of_the_payload_brings_the_picture(bus: BusClient, alignment: int, options: dict[str, Any]) -> None:
    bus.plug("cam", "u3v", alignment_bytes=alignment, **SMALL)
    with Playing(**options) as playing:
        frames = playing.frames(4)
        assert len(frames) == 4 and playing.whole(frames)


def test_chunks_behind_the_image_do_no_harm(bus: BusClient) -> None:
    bus.plug("cam", "u3v", **SMALL)
    features = {"ChunkModeActive": True, "ChunkSelector": "ExposureTime", "ChunkEnable": True}
    with Playing(features=features, width_px=98) as playing:
        frames = playing.frames(4)
        assert len(frames) == 4 and playing.whole(frames)


def test_frames_are_dated_by_the_exposure_that_came_with_them(bus: BusClient) -> None:
    bus.plug("cam", "u3v", **SMALL)
    with Playing(chunks=True, exposure_us=6000.0, frame_rate_hz=20.0) as playing:
        frames = playing.frames(3)
        playing.camera._exposure_s = 1.0  # what is set does not matter
        sample = playing.camera.clock_sample
        frames = playing.frames(6)
        late = [stamp.host_t_s - sample.host_t_s - stamp.device_t_s + sample.device_t_s for stamp, _ in frames]
        assert 0.002 < min(late) < 0.1 and playing.whole(frames) and not playing.camera.counts


@pytest.mark.parametrize("options", [{"zip": True}, {"zip": False}, {"max_transfer_bytes": 64}])
def test_a_description_is_read_once_and_kept(bus: BusClient, tmp_path: Any, options: dict[str, Any]) -> None:
    bus.plug("cam", "u3v", **SMALL, **options)
    asked = []
    for _ in range(2):
        with Playing(cache=str(tmp_path)):
            asked.append(bus.state("cam")["counts"]["commands"])
    assert len(list(tmp_path.iterdir())) == 1
    if options == {"zip": False}:
        assert asked[1] - asked[0] < 0.7 * asked[0]


def test_stamps_are_mid_exposure_on_the_cameras_clock(bus: BusClient) -> None:
    bus.plug("cam", "u3v", **SMALL)
    with Playing(exposure_us=4000.0) as playing:
        sample = playing.camera.clock_sample
        assert 0 < sample.uncertainty_s < 0.05
        late = [
            stamp.host_t_s - (sample.host_t_s + stamp.device_t_s - sample.device_t_s) for stamp, _ in playing.frames(20)
        ]
        # read out half an exposure after its middle, then sent
        assert 0.0015 < min(late) < 0.05
        assert "clock of frames is another" not in playing.camera.counts


def test_a_camera_is_found_by_serial_number_and_guid_and_named_when_it_is_not(bus: BusClient) -> None:
    for serial in ("A1", "B2"):
        bus.plug(serial, "u3v", serial=serial, **SMALL)
    with Playing(serial="B2") as playing:
        assert playing.info.serial == "B2"
        guid = playing.info.clock_id.removeprefix("u3v-")
        assert guid
    with Playing(serial=guid) as playing:
        assert playing.info.serial == "B2"
    missing = reason(build(serial="C3").open)
    assert missing.reason is CameraReason.NOT_FOUND and "A1" in missing.detail and "B2" in missing.detail
    several = reason(build().open)
    assert several.reason is CameraReason.AMBIGUOUS and "A1" in several.detail
    bus.clear()
    assert reason(build().open).reason is CameraReason.NOT_FOUND


def test_everything_automatic_is_switched_off(bus: BusClient) -> None:
    bus.plug("cam", "u3v", automatic=True, **SMALL)
    with Playing(exposure_us=3000.0) as playing:
        assert playing.info.notes == ()
        assert bus.state("cam")["exposure_us"] == pytest.approx(3000.0)


def test_settings_are_made_while_it_streams(bus: BusClient) -> None:
    bus.plug("cam", "u3v", **SMALL)
    with Playing(frame_rate_hz=50.0) as playing:
        playing.frames(3)
        playing.camera.configure({"exposure_us": 1000.0, "frame_rate_hz": 20.0})
        state = bus.state("cam")
        assert state["frame_rate_hz"] == pytest.approx(20.0) and state["exposure_us"] == pytest.approx(1000.0)
        assert len(playing.frames(3)) == 3


def test_frames_wait_for_a_trigger(bus: BusClient) -> None:
    bus.plug("cam", "u3v", **SMALL)
    with Playing(trigger_source="Line0", frame_rate_hz=20.0, output_line="Line1") as playing:
        assert playing.frames(1, timeout_s=1.0) == []  # no remedy is tried: silence is what a trigger means
        for level in (True, False, True):
            bus.inject("cam", "line", number=0, level=level)
            time.sleep(0.1)
        assert len(playing.frames(2, timeout_s=2.0)) == 2 and not playing.camera.counts


def test_a_burst_trigger_left_on_is_switched_off(bus: BusClient) -> None:
    bus.plug("cam", "u3v", **SMALL)
    bus.inject("cam", "burst_trigger")
    with Playing() as playing:
        assert len(playing.frames(2)) == 2


def test_a_usb_2_port_is_said_and_refuses_what_it_cannot_carry(bus: BusClient) -> None:
    bus.plug("cam", "u3v", usb2=True, height_px=1200, width_px=1920, max_frame_rate_hz=200.0, frame_rate_hz=10.0)
    with Playing() as playing:
        assert any("USB 2" in note for note in playing.info.notes)
    slow = reason(build(frame_rate_hz=100.0).open)
    assert slow.reason is CameraReason.SLOW_PORT and "18 frames a second" in slow.detail


def test_a_limit_that_the_camera_holds_itself_to_is_said(bus: BusClient) -> None:
    bus.plug("cam", "u3v", **SMALL)
    with Playing(features={"DeviceLinkThroughputLimit": 1_000_000}) as playing:
        assert any("DeviceLinkThroughputLimit" in note for note in playing.info.notes)
        assert playing.info.frame_rate_hz == pytest.approx(1e6 / 19200, rel=0.01)


def test_a_camera_that_another_program_holds_names_it(bus: BusClient) -> None:
    bus.plug("cam", "u3v", **SMALL)
    with streaming_host() as other:
        busy = reason(build().open)
        assert busy.reason is CameraReason.BUSY and f"(pid {other.pid})" in busy.detail
        other.kill()


# -- faults ------------------------------------------------------------


@pytest.mark.parametrize(
    "fault, parameters",
    [
        ("pending_ack", {"announce_ms": 1500, "seconds": 1.0}),
        ("stray_ack", {}),
        ("slow_control", {"seconds": 0.2}),
        ("no_ack", {}),
        ("usb.error", {"endpoint": 0x81}),
    ],
)
def test_a_request_survives(bus: BusClient, fault: str, parameters: dict[str, Any]) -> None:
    bus.plug("cam", "u3v", **SMALL)
    with Playing() as playing:
        playing.frames(2)
        bus.inject("cam", fault, **parameters)
        playing.camera.configure({"exposure_us": 1234.0})
        assert bus.state("cam")["exposure_us"] == pytest.approx(1234.0, abs=0.2)
        frames = playing.frames(5)
        assert len(frames) == 5 and playing.whole(frames)


DROPPED = {"short_frame": "short", "wrong_size": "other format", "trailer_discarded": "discarded"}


@pytest.mark.parametrize("fault", DROPPED)
def test_damaged_frames_are_gaps(bus: BusClient, fault: str) -> None:
    bus.plug("cam", "u3v", **SMALL)
    with Playing(width_px=128) as playing:  # whole units of 1024 bytes: one transfer of payload
        frames = playing.frames(3)
        bus.inject("cam", fault, times=3)
        frames += playing.frames(12)
        counts = playing.camera._stream.counts
        assert counts[DROPPED[fault]] == 3 and playing.whole(frames) and not playing.camera.counts
        assert (np.diff([stamp.block_id for stamp, _ in frames]) - 1).sum() >= 3


@pytest.mark.parametrize("fault", ["short_frame", "wrong_size"])
def test_a_payload_cut_short_in_several_transfers_is_found_out_of_step(bus: BusClient, fault: str) -> None:
    bus.plug("cam", "u3v", **SMALL)
    with Playing(transfer_mb=0.004) as playing:
        frames = playing.frames(3)
        bus.inject("cam", fault)
        frames += playing.frames(30)
        assert len(frames) == 33 and playing.whole(frames) and playing.camera.counts == {"clear": 1}


@pytest.mark.parametrize(
    "fault, parameters, first",
    [
        ("stall", {}, "clear"),
        ("lost_trailer", {}, "clear"),
        ("usb.error", {"endpoint": 0x82}, "clear"),
        ("usb.babble", {"endpoint": 0x82}, "clear"),
        ("usb.nak", {"endpoint": 0x82, "seconds": 1.0}, "clear"),
    ],
)
def test_trouble_of_the_stream_is_mended_and_frames_go_on(
    bus: BusClient, fault: str, parameters: dict[str, Any], first: str
) -> None:
    bus.plug("cam", "u3v", **SMALL)
    with Playing() as playing:
        frames = playing.frames(3)
        bus.inject("cam", fault, **parameters)
        frames += playing.frames(40)
        assert len(frames) == 43 and playing.whole(frames)
        assert playing.camera.counts[first] >= 1 and not playing.camera.counts["reset"]
        assert (np.diff([stamp.block_id for stamp, _ in frames]) >= 1).all()


def test_frames_lost_in_the_camera_are_gaps(bus: BusClient) -> None:
    bus.plug("cam", "u3v", **SMALL)
    with Playing() as playing:
        frames = playing.frames(3)
        bus.inject("cam", "lost_frames", frames=7)
        frames += playing.frames(10)
        steps = np.diff([stamp.block_id for stamp, _ in frames])
        assert steps.max() >= 8 and playing.whole(frames)


def test_a_picture_that_repeats_is_an_error_and_a_constant_one_is_for_the_engine_to_flag(bus: BusClient) -> None:
    bus.plug("cam", "u3v", **SMALL)
    with Playing(frozen_after_s=0.3) as playing:
        bus.inject("cam", "constant_frames", times=50)
        assert len(playing.frames(60)) == 60
        bus.inject("cam", "repeated_frames", times=1000)
        with pytest.raises(CameraError) as caught:
            playing.frames(200)
        assert caught.value.reason is CameraReason.FROZEN


@pytest.mark.parametrize("fault", ["usb.gone", "unplug_mid_frame"])
def test_unplugged_is_said_and_all_slots_come_back(bus: BusClient, fault: str) -> None:
    bus.plug("cam", "u3v", **SMALL)
    with Playing() as playing:
        playing.frames(3)
        bus.inject("cam", fault)
        with pytest.raises(CameraError) as caught:
            playing.frames(100)
        assert caught.value.reason is CameraReason.UNPLUGGED
        playing.camera.close()
        assert sorted(playing.camera.reclaim()) == list(range(9))


def test_what_another_host_left_behind_is_cleared_away(bus: BusClient) -> None:
    bus.plug("cam", "u3v", **SMALL)
    bus.inject("cam", "dirty_start")
    with Playing() as playing:
        assert any("was streaming when it was opened" in note for note in playing.info.notes)
        frames = playing.frames(5)
        assert len(frames) == 5 and playing.whole(frames) and not playing.camera.counts


def test_a_small_usbfs_memory_means_fewer_frames_and_a_sentence(bus: BusClient) -> None:
    bus.plug("cam", "u3v", height_px=1200, width_px=1920, frame_rate_hz=20.0)
    bus.usbfs_memory(16)
    try:
        with Playing() as playing:
            assert (
                playing.camera.queue_frames == 6 and "usbfs_memory_mb = 16 holds 6 of 8" in playing.camera.memory_advice
            )
            assert playing.whole(playing.frames(10))
    finally:
        bus.usbfs_memory(1000)


# -- the life of a host ------------------------------------------------------------

HOST = """
import sys, time
from tests.hil.u3v import Playing
with Playing(**{options!r}) as playing:
    playing.frames(3)
    print("streaming", flush=True)
    while True:
        playing.frames(1)
"""


def streaming_host(**options: Any) -> Any:
    """Another process that streams; a `Popen`."""
    command = [sys.executable, "-c", HOST.format(options=options)]
    host = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert host.stdout is not None and host.stdout.readline() == "streaming\n"
    return host


def test_after_kill_9_of_a_streaming_host_the_next_one_streams_within_5_s(bus: BusClient) -> None:
    bus.plug("cam", "u3v", **SMALL)
    rng = random.Random(5)
    times = []
    for _ in range(3):
        with streaming_host() as host:
            time.sleep(rng.random() * 0.05)
            host.kill()
            host.wait()
        began = time.monotonic()
        with Playing() as playing:
            frames = playing.frames(3, timeout_s=5.0)
            times.append(time.monotonic() - began)
            assert len(frames) == 3 and playing.whole(frames)
    print(f"streams again after {max(times):.2f} s at most, {len(times)} of {len(times)}")
    assert max(times) <= 5.0


def test_pulled_at_any_moment_of_a_frame_and_put_back_it_resumes(bus: BusClient) -> None:
    bus.plug("cam", "u3v", **SMALL)
    rng = random.Random(7)
    for _ in range(6):
        with Playing() as playing:
            playing.frames(rng.randrange(1, 5))
            time.sleep(rng.random() * 0.02)
            bus.unplug("cam")
            with pytest.raises(CameraError) as caught:
                playing.frames(100)
            assert caught.value.reason is CameraReason.UNPLUGGED
            playing.camera.close()
            assert sorted(playing.camera.reclaim()) == list(range(9))
        bus.plug("cam")
        deadline = time.monotonic() + 5
        while True:
            try:
                with Playing() as playing:
                    frames = playing.frames(3)
                    assert len(frames) == 3 and playing.whole(frames)
                break
            except CameraError as error:
                assert error.reason is CameraReason.NOT_FOUND and time.monotonic() < deadline
                time.sleep(0.05)
