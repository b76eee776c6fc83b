"""Frames of the emulated camera, pixel by pixel, in every format and mode, and where its pictures come from."""

from __future__ import annotations

import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import usb.core
from genicam.genapi import EAccessMode

from hw.camera.twin import TwinCamera
from hw.potentiostat.twin import TwinPotentiostat
from hw.twin.usb.client import BusClient
from tests.hil.emulated import FORMATS, HEIGHT, WIDTH, pattern, unpacked
from tests.hil.gencp import STREAM, Host, Status


@pytest.mark.parametrize("pixel_format", FORMATS)
@pytest.mark.parametrize("transfer", [1 << 20, 2048])
def test_every_pixel_arrives_in_every_format(
    stream: Callable[..., tuple[Host, Any]], pixel_format: str, transfer: int
) -> None:
    host, _ = stream({"PixelFormat": pixel_format}, transfer, buffer_frames=1000)
    last = -1
    for _ in range(3):
        frame = host.frame()
        values = unpacked(frame.payload, pixel_format).reshape(HEIGHT, WIDTH)
        expected = pattern(frame.block_id)
        depth = {"Mono8": 8, "Mono10p": 10, "Mono16": 16}.get(pixel_format, 12)
        rounded = (
            np.minimum((expected + (1 << 12 - depth >> 1)) >> 12 - depth, (1 << depth) - 1) if depth < 12 else expected
        )
        assert np.array_equal(values, rounded << max(depth - 12, 0))
        assert frame.block_id > last and (frame.status, frame.valid_bytes) == (0, len(frame.payload))
        last = frame.block_id


def test_a_region_binned_and_amplified(stream: Callable[..., tuple[Host, Any]]) -> None:
    features = {"BinningHorizontal": 2, "BinningVertical": 2, "PixelFormat": "Mono12"}
    features |= {"Width": 20, "Height": 16, "OffsetX": 6, "OffsetY": 4, "Gain": 6.0, "BlackLevel": -5.0}
    host, _ = stream(features, buffer_frames=1000)
    frame = host.frame()
    binned = pattern(frame.block_id)[8:40, 12:52].reshape(16, 2, 20, 2).sum((1, 3)).clip(0, 4095)
    expected = np.rint(binned * 10 ** (6 / 20) - 5).clip(0, 4095)
    assert np.array_equal(unpacked(frame.payload, "Mono12").reshape(16, 20), expected)
    assert frame.geometry == (0x01100005, 20, 16, 6, 4)


def test_frames_come_at_their_rate_with_stamps_of_the_cameras_clock(stream: Callable[..., tuple[Host, Any]]) -> None:
    host, nodes = stream({"AcquisitionFrameRate": 50.0}, first_block_id=1, buffer_frames=1000)
    frames = [host.frame() for _ in range(10)]
    assert [frame.block_id for frame in frames] == list(range(1, 11))
    steps = np.diff([frame.timestamp_ns for frame in frames])
    assert steps == pytest.approx(20e6, abs=2000)
    assert nodes.AcquisitionResultingFrameRate.value == pytest.approx(50.0)


@pytest.mark.parametrize(
    ("features", "rate_hz"),
    [
        ({"ExposureTime": 9000.0, "AcquisitionFrameRateEnable": False}, 1e6 / 9000.0),
        ({"AcquisitionFrameRateEnable": False}, 200.0),
        ({"AcquisitionFrameRateEnable": False, "Height": 24}, 400.0),
        ({"DeviceLinkThroughputLimit": 1_000_000, "PixelFormat": "Mono16", "AcquisitionFrameRate": 190.0}, 1e6 / 6144),
    ],
)
def test_what_bounds_the_rate(
    bus: BusClient, plug: Callable[..., Host], features: dict[str, Any], rate_hz: float
) -> None:
    nodes = plug().nodes()
    for name, value in features.items():
        nodes.get_node(name).value = value
    assert nodes.AcquisitionResultingFrameRate.value == pytest.approx(rate_hz, rel=1e-3)
    assert bus.state("camera")["frame_rate_hz"] == pytest.approx(rate_hz, rel=1e-3)


def test_frames_that_nobody_fetches_are_lost_and_leave_a_gap(
    bus: BusClient, stream: Callable[..., tuple[Host, Any]]
) -> None:
    host, _ = stream(buffer_frames=3)
    first = host.frame().block_id
    time.sleep(0.3)
    after = [host.frame().block_id for _ in range(4)]
    assert after[0] - first > 20 and after == sorted(set(after))
    assert bus.state("camera")["counts"]["frames lost"] >= after[0] - first - 1


def test_a_number_of_frames(bus: BusClient, stream: Callable[..., tuple[Host, Any]]) -> None:
    host, nodes = stream({"AcquisitionMode": "MultiFrame", "AcquisitionFrameCount": 3}, buffer_frames=10)
    assert [host.frame().block_id for _ in range(3)] == [0, 1, 2]
    with pytest.raises(usb.core.USBTimeoutError):
        host.frame(wait_ms=100)
    nodes.Width.value = 32  # it stopped by itself


def test_triggers_by_software_and_by_line(bus: BusClient, stream: Callable[..., tuple[Host, Any]]) -> None:
    host, nodes = stream({"TriggerSelector": "FrameStart", "TriggerMode": "On"})
    with pytest.raises(usb.core.USBTimeoutError):
        host.frame(wait_ms=100)
    for k in range(3):
        nodes.TriggerSoftware.execute()
        assert host.frame().block_id == k
        time.sleep(0.02)
    nodes.TriggerSource.value = "Line0"
    nodes.TriggerSoftware.execute() if nodes.TriggerSoftware.get_access_mode() == EAccessMode.WO else None
    bus.inject("camera", "line", number=0, level=1)
    assert host.frame().block_id == 3
    assert nodes.LineStatusAll.value == 1
    bus.inject("camera", "line", number=0, level=0)
    with pytest.raises(usb.core.USBTimeoutError):
        host.frame(wait_ms=100)
    nodes.TriggerActivation.value = "FallingEdge"
    nodes.TriggerDelay.value = 50_000.0
    bus.inject("camera", "line", number=0, level=1)
    begun = time.monotonic()
    bus.inject("camera", "line", number=0, level=0)
    assert host.frame().block_id == 4 and time.monotonic() - begun >= 0.05
    assert bus.state("camera")["counts"]["triggers"] == 5


def test_triggers_too_close_are_missed_and_a_burst_trigger_holds_all_up(
    bus: BusClient, stream: Callable[..., tuple[Host, Any]]
) -> None:
    _, nodes = stream({"TriggerMode": "On", "AcquisitionFrameRateEnable": True, "AcquisitionFrameRate": 1.0})
    nodes.TriggerSoftware.execute()
    nodes.TriggerSoftware.execute()
    assert bus.state("camera")["counts"]["triggers missed"] == 1
    nodes.AcquisitionStop.execute()
    bus.inject("camera", "burst_trigger")
    nodes.AcquisitionStart.execute()
    assert not bus.state("camera")["acquiring"]


def test_chunks_follow_the_image(bus: BusClient, stream: Callable[..., tuple[Host, Any]], plug: Any) -> None:
    host = plug(alignment_bytes=4)
    nodes = host.nodes()
    nodes.ChunkModeActive.value = True
    for name in ("FrameID", "Timestamp", "ExposureTime", "Gain", "LineStatusAll"):
        nodes.ChunkSelector.value = name
        nodes.ChunkEnable.value = True
    nodes.ExposureTime.value, nodes.Gain.value = 777.7, 1.5
    bus.inject("camera", "line", number=2, level=1)
    host.enable()
    nodes.AcquisitionStart.execute()
    frame = host.frame()
    assert struct.unpack_from("<H", frame.leader, 18) == (0x4001,) and frame.valid_bytes == len(frame.payload)
    found, rest = {}, frame.payload
    while rest:
        chunk_id, size = struct.unpack("<II", rest[-8:])
        found[chunk_id] = rest[-8 - size : -8]
        rest = rest[: -8 - size]
    assert list(found) == [0x14, 0x13, 0x12, 0x11, 0x10, 0x01] and len(found[1]) == HEIGHT * WIDTH
    assert struct.unpack("<Q", found[0x10]) == (frame.block_id,)
    assert struct.unpack("<Q", found[0x11]) == (frame.timestamp_ns,)
    assert struct.unpack("<dd", found[0x12] + found[0x13]) == (pytest.approx(777.7), 1.5)
    assert struct.unpack("<I", found[0x14]) == (4,)


def test_sizes_that_do_not_fit_are_refused(plug: Callable[..., Host]) -> None:
    host = plug()
    sizes = host.set_sizes()
    for at, value, status in (
        (0x1C, 1000, 0xA003),
        (0x18, 0, 0xA004),
        (0x2C, 0, 0xA004),
        (0x20, 0, 0xA004),
    ):
        before = host.number(host.sirm + at)
        host.set(host.sirm + at, value)
        with pytest.raises(Status) as caught:
            host.set(host.sirm + 4, 1)
        assert caught.value.status == status and host.number(host.sirm + 4) == 0
        host.set(host.sirm + at, before)
    host.device.ctrl_transfer(2, 3, 0, STREAM)
    with pytest.raises(Status) as caught:
        host.set(host.sirm + 4, 1)
    assert caught.value.status == 0xA002
    host.device.clear_halt(STREAM)
    host.set(host.sirm + 4, 1)
    with pytest.raises(Status) as caught:
        host.set(host.sirm + 0x1C, sizes[0])
    assert caught.value.status == 0x8006


SCENE = {"particles": 6, "height_px": 120, "width_px": 160, "static": True, "noise": "none", "c_rate": 0.0}


def test_the_simulated_electrode_looks_the_same_as_through_the_twins_own_driver(
    stream: Callable[..., tuple[Host, Any]],
) -> None:
    host, nodes = stream({"PixelFormat": "Mono12"}, source="twin", optics=SCENE, frame_rate_hz=20.0)
    frame = host.frame()
    twin = TwinCamera(TwinCamera.Settings(**SCENE))
    twin.open()
    twin.start()
    slot = np.empty(120 * 160 * 2, np.uint8)
    assert twin.next_frame(slot, 5.0) is not None
    twin.close()
    here, there = (np.frombuffer(one, "<u2").astype(float) for one in (frame.payload, slot.tobytes()))
    assert there.std() > 100 and np.abs(here - there).max() <= 1
    nodes.AcquisitionStop.execute()
    nodes.ExposureTime.value = 1000.0
    nodes.AcquisitionStart.execute()
    brightness = [np.frombuffer(host.frame().payload, "<u2").mean() - 64 for _ in range(6)]
    assert brightness[-1] == pytest.approx((there.mean() - 64) / 2, rel=0.01)


def test_what_the_twins_cell_does_shows_in_the_frames(stream: Callable[..., tuple[Host, Any]], tmp_path: Path) -> None:
    sample = {"particles": 6, "height_px": 120, "width_px": 160, "seed": 9}
    cell = TwinPotentiostat(TwinPotentiostat.Settings(world=str(tmp_path / "world"), speed=60.0, **sample))
    cell.open()
    optics = {"world": str(tmp_path / "world"), "static": True, "noise": "none", "timestamp_jitter_us": 0.0}
    host, nodes = stream({"PixelFormat": "Mono12"}, source="twin", optics=optics, frame_rate_hz=10.0)
    cell.set_current(5.0)  # 10C at 60-fold speed
    first = host.frame()
    time.sleep(1.0)
    for _ in range(8):  # what the camera kept, and more
        last = host.frame()
    change = np.frombuffer(last.payload, "<u2").astype(float) - np.frombuffer(first.payload, "<u2")
    assert change.max() > 100
    nodes.TimestampLatch.execute()
    latched_s, sample_t = nodes.TimestampLatchValue.value * 1e-9, cell.read(0.5)[-1]
    now_s = sample_t.device_t_s + (time.monotonic() - sample_t.host_t_s) * 60.0
    assert now_s - 60.0 * 2.0 < latched_s < now_s  # the world's clock, 60-fold
    cell.close()


def test_a_loop_is_played_as_rendered(stream: Callable[..., tuple[Host, Any]]) -> None:
    optics = {"particles": 6, "height_px": 120, "width_px": 160, "loop_frames": 4, "pixel_format": "Mono12p"}
    features = {"PixelFormat": "Mono12p"}
    host, _ = stream(features, source="loop", optics=optics, frame_rate_hz=150.0, buffer_frames=1000)
    frames = [host.frame() for _ in range(8)]
    assert [frame.block_id for frame in frames] == list(range(8))
    assert [frame.payload for frame in frames[:4]] == [frame.payload for frame in frames[4:]]
    values = unpacked(frames[0].payload, "Mono12p")
    assert frames[0].payload != frames[1].payload and values.std() > 100 and values.max() < 4096
