"""What the emulated camera does wrong when told to, and what a dead or slow host makes of it."""

from __future__ import annotations

import errno
import itertools
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import usb.core

from hw.twin.usb.client import BusClient
from tests.hil.emulated import HEIGHT, WIDTH
from tests.hil.gencp import STREAM, WAIT_MS, Host, Received


def test_a_short_frame_ends_early_and_its_trailer_says_so(
    bus: BusClient, stream: Callable[..., tuple[Host, Any]]
) -> None:
    """A payload of 3 x 1024: cut within a transfer, and at a transfer's end, where one of no length ends it."""
    host, _ = stream(transfer=1024, buffer_frames=1000)
    host.frame()
    for cut, lengths in ((1500, [1024, 476]), (2048, [1024, 1024, 0])):
        bus.inject("camera", "short_frame", bytes=cut)
        got = [host.transfer(1024)]
        while got[-1][:4] != b"U3VT":
            got.append(host.transfer(1024))
        frame = Received(got[0], got[1:-1], got[-1])
        assert [len(part) for part in frame.parts] == lengths
        assert frame.valid_bytes == cut and frame.geometry[2] == HEIGHT
        assert struct.unpack_from("<I", frame.trailer, 28)[0] == HEIGHT * cut // 3072
        assert len(host.frame().payload) == 3072


def test_a_stream_that_stalls_goes_on_at_the_next_leader(
    bus: BusClient, stream: Callable[..., tuple[Host, Any]]
) -> None:
    host, _ = stream(transfer=1024)
    bus.inject("camera", "stall")
    with pytest.raises(usb.core.USBError) as caught:
        host.frame()
    assert caught.value.errno == errno.EPIPE
    host.device.clear_halt(STREAM)
    assert len(host.frame().payload) == 3072


def test_unplugged_in_mid_frame_and_back(bus: BusClient, stream: Callable[..., tuple[Host, Any]]) -> None:
    host, _ = stream(transfer=1024)
    bus.inject("camera", "unplug_mid_frame")
    with pytest.raises(usb.core.USBError) as caught:
        host.frame()
    assert caught.value.errno == errno.ENODEV
    host.close()
    bus.plug("camera")
    deadline = time.monotonic() + 5
    while usb.core.find(idVendor=0x1209, idProduct=2) is None and time.monotonic() < deadline:
        time.sleep(0.01)
    again = Host()
    again.enable()
    again.set(0x4_0028, 1)
    assert again.frame().block_id == 0
    again.close()


@pytest.mark.parametrize(
    ("fault", "check"),
    [
        ("trailer_discarded", lambda frame, before: frame.status == 0xA100),
        ("repeated_frames", lambda frame, before: frame.payload == before.payload and frame.block_id > before.block_id),
        ("constant_frames", lambda frame, before: set(frame.payload) == {0x55}),
        ("lost_frames", lambda frame, before: frame.block_id >= before.block_id + 2),
    ],
)
def test_faults_of_one_frame(
    bus: BusClient, stream: Callable[..., tuple[Host, Any]], fault: str, check: Callable[[Received, Received], bool]
) -> None:
    host, _ = stream(buffer_frames=1000)
    frames = [host.frame() for _ in range(2)]
    bus.inject("camera", fault)
    frames += [host.frame() for _ in range(12)]
    hits = [check(frame, before) for before, frame in itertools.pairwise(frames)]
    assert sum(hits) == 1 and not hits[0]


def test_a_frame_of_another_size_and_one_without_trailer(
    bus: BusClient, stream: Callable[..., tuple[Host, Any]]
) -> None:
    host, _ = stream(transfer=4096, buffer_frames=1000)
    bus.inject("camera", "wrong_size")
    frame = host.frame()
    while len(frame.payload) == HEIGHT * WIDTH:
        frame = host.frame()
    assert frame.geometry[2] == HEIGHT // 2 and len(frame.payload) == frame.valid_bytes == HEIGHT * WIDTH // 2
    bus.inject("camera", "lost_trailer")
    kinds = [host.transfer(4096)[:4] for _ in range(12)]
    starts = [k for k, kind in enumerate(kinds) if kind == b"U3VL"]
    assert 2 in np.diff(starts) and 3 in np.diff(starts)


def test_a_camera_that_a_dead_host_left_streaming(bus: BusClient, plug: Callable[..., Host]) -> None:
    host = plug()
    bus.inject("camera", "dirty_start")
    assert host.read(0x4, 11) == b"photometryd"  # past an acknowledge that was somebody else's
    assert host.number(host.sirm + 4) == 1
    assert host.transfer()[:4] != b"U3VL"
    host.set(host.sirm + 4, 0)
    host.set(0x4_002C, 1)
    host.enable()
    host.set(0x4_0028, 1)
    assert host.frame().block_id == 0


STREAMER = """
from tests.hil.gencp import Host
host = Host()
host.enable()
host.set(0x4_0028, 1)
while True:
    print(host.frame().block_id, flush=True)
"""


def test_a_host_that_is_killed_leaves_a_camera_that_the_next_one_can_use(
    bus: BusClient, plug: Callable[..., Host]
) -> None:
    plug().close()
    with subprocess.Popen([sys.executable, "-c", STREAMER], stdout=subprocess.PIPE) as killed:
        assert killed.stdout is not None and killed.stdout.readline() == b"0\n"
        killed.kill()
    host = Host()
    assert bus.state("camera")["streaming"] and host.number(host.sirm + 4) == 1
    host.set(host.sirm + 4, 0)
    host.set(0x4_002C, 1)
    host.device.ctrl_transfer(2, 3, 0, STREAM)
    host.device.clear_halt(STREAM)
    host.enable()
    host.set(0x4_0028, 1)
    assert [host.frame().block_id for _ in range(2)] == [0, 1]
    host.close()


def test_on_a_port_of_usb_2(bus: BusClient, plug: Callable[..., Host]) -> None:
    host = plug(usb2=True, height_px=480, width_px=640)
    nodes = host.nodes()
    assert host.device.speed == 3 and host.current_speed == 4
    nodes.AcquisitionFrameRateEnable.value = False
    assert nodes.AcquisitionResultingFrameRate.value == pytest.approx(40e6 / (640 * 480))


def test_a_wire_that_carries_less_than_the_sensor_gives_loses_frames(
    bus: BusClient, stream: Callable[..., tuple[Host, Any]]
) -> None:
    host, _ = stream(frame_rate_hz=200.0, buffer_frames=2)
    bus.inject("camera", "bandwidth", mb_per_s=0.2)
    begun = time.monotonic()
    blocks = [host.frame().block_id for _ in range(12)]
    assert time.monotonic() - begun > 10 * HEIGHT * WIDTH / 0.2e6
    assert blocks[-1] - blocks[0] > 20
    assert bus.state("camera")["counts"]["frames lost"] > 10


def test_a_streaming_camera_does_not_hold_another_device_up(
    bus: BusClient, stream: Callable[..., tuple[Host, Any]]
) -> None:
    bus.plug("other", "loopback")
    other = usb.core.find(idVendor=0x1209, idProduct=1)
    host, _ = stream(height_px=1200, width_px=1920, frame_rate_hz=150.0, transfer=1 << 20)
    frames: list[Received] = []
    streamer = threading.Thread(target=lambda: frames.extend(host.frame() for _ in range(20)))
    streamer.start()
    echoes = 0
    while streamer.is_alive() or echoes < 10:
        other.write(0x01, b"%d" % echoes, WAIT_MS)
        assert bytes(other.read(0x81, 512, WAIT_MS)) == b"%d" % echoes
        echoes += 1
    streamer.join()
    assert all(frame.valid_bytes == len(frame.payload) == 1200 * 1920 for frame in frames)
    assert len({frame.block_id for frame in frames}) == 20
    usb.util.dispose_resources(other)
