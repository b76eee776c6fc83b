"""The emulated USB3 Vision camera, as a plain host, the GenICam reference implementation and Aravis meet it."""

from __future__ import annotations

import errno
import hashlib
import itertools
import re
import shutil
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import usb.core
from genicam.genapi import EAccessMode, EInterfaceType

from hw.camera.contract import PixelFormat
from hw.camera.twin import TwinCamera
from hw.potentiostat.twin import TwinPotentiostat
from hw.twin.usb.client import BusClient
from tests.hil.gencp import IN, OUT, READ, STREAM, WAIT_MS, WRITE, Host, Received, Status

HEIGHT, WIDTH = 48, 64
FORMATS = ["Mono8", "Mono10p", "Mono12", "Mono12p", "Mono16"]
needs_aravis = pytest.mark.skipif(
    shutil.which("arv-tool-0.8") is None or shutil.which("arv-camera-test-0.8") is None,
    reason="Aravis' tools are missing: apt-get install aravis-tools aravis-tools-cli",
)


@pytest.fixture
def plug(bus: BusClient) -> Iterator[Callable[..., Host]]:
    """Plugs a small camera in and opens it."""
    hosts: list[Host] = []

    def open_camera(**options: Any) -> Host:
        given = {"height_px": HEIGHT, "width_px": WIDTH, "max_transfer_bytes": 16384}  # fewer round trips
        bus.plug("camera", "u3v", **given | options)
        hosts.append(Host())
        return hosts[-1]

    yield open_camera
    for host in hosts:
        host.close()


def pattern(number: int, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """The picture that the camera's documentation promises, 12 bits."""
    y, x = np.mgrid[:height, :width]
    return ((5 * (number % 16) + 3 * x + 7 * y) % 4096).astype(np.int64)


def unpacked(payload: bytes, pixel_format: str) -> np.ndarray:
    """Values of a payload, bit by bit."""
    if pixel_format == "Mono8":
        return np.frombuffer(payload, np.uint8).astype(np.int64)
    if not pixel_format.endswith("p"):
        return np.frombuffer(payload, "<u2").astype(np.int64)
    bits = np.unpackbits(np.frombuffer(payload, np.uint8), bitorder="little")
    depth = int(pixel_format[4:6])
    return bits[: bits.size // depth * depth].reshape(-1, depth) @ (1 << np.arange(depth))


# -- control ------------------------------------------------------------


def test_descriptors_are_those_of_a_usb3_vision_camera(plug: Callable[..., Host]) -> None:
    device = plug().device
    triple = (device.bDeviceClass, device.bDeviceSubClass, device.bDeviceProtocol)
    control, stream = device[0]
    assert triple == (0xEF, 2, 1) and bytes(device[0].extra_descriptors) == bytes([8, 11, 0, 2, 0xEF, 5, 0, 0])
    for interface, protocol, endpoints in ((control, 0, [OUT, IN]), (stream, 2, [STREAM])):
        assert (interface.bInterfaceClass, interface.bInterfaceSubClass, interface.bInterfaceProtocol) == (
            0xEF,
            5,
            protocol,
        )
        assert [one.bEndpointAddress for one in interface] == endpoints
    extra = bytes(control.extra_descriptors)
    assert extra[:3] == b"\x14\x24\1" and len(extra) == 20
    assert re.fullmatch("1209[0-9A-F]{8}", usb.util.get_string(device, extra[11]))
    assert usb.util.get_string(device, extra[17]) == "EMU0001"


@pytest.mark.parametrize("options", [{}, {"zip": True}, {"zip": True, "max_transfer_bytes": 128}])
def test_the_description_is_found_by_the_manifest(plug: Callable[..., Host], options: dict[str, Any]) -> None:
    host = plug(**options)
    stored, text = host.file()
    entries = host.manifest()
    assert entries[0] == max(entries) and entries[0][4] == hashlib.sha1(stored).digest()
    assert stored.startswith(b"PK") == bool(options) and text.startswith(b"<?xml") and b"{" not in text


@pytest.mark.parametrize(
    ("command", "payload", "status"),
    [
        (READ, struct.pack("<QHH", 0x9999_0000, 0, 4), 0x8003),
        (READ, struct.pack("<QHH", 0x24E, 0, 4), 0x8003),
        (READ, struct.pack("<QHH", 0x1F8, 0, 4), 0x8006),
        (READ, struct.pack("<QHH", 0, 0, 16372), 0x8003),
        (READ, struct.pack("<QHH", 0x10_0000, 0, 16376), 0x8002),
        (READ, b"short", 0x8002),
        (WRITE, struct.pack("<Q4s", 0x4, b"mine"), 0x8004),
        (WRITE, struct.pack("<Q4s", 0x10_0000, b"mine"), 0x8004),
        (WRITE, struct.pack("<Q4s", 0x186, b"mine"), 0x8005),
        (WRITE, struct.pack("<Q3s", 0x184, b"odd"), 0x8005),
        (WRITE, struct.pack("<QI", 0x4_0008, 17), 0x8002),
        (WRITE, struct.pack("<QI", 0x4_0020, 0x12345678), 0x8002),
        (0x0806, b"", 0x8001),
    ],
)
def test_what_a_camera_refuses_has_its_status(
    plug: Callable[..., Host], command: int, payload: bytes, status: int
) -> None:
    host = plug()
    before = host.read(0x4_0000, 0x20)
    with pytest.raises(Status) as caught:
        host.exchange(command, payload)
    assert hex(caught.value.status) == hex(status)
    assert host.read(0x4_0000, 0x20) == before


def test_headers_that_are_none_and_resends_are_refused(plug: Callable[..., Host]) -> None:
    host = plug()
    for options, status in (({"magic": 1}, 0x800E), ({"flags": 0xC000}, 0xA001)):
        with pytest.raises(Status) as caught:
            host.exchange(READ, struct.pack("<QHH", 0, 0, 4), **options)
        assert caught.value.status == status


def test_hesitating_stray_and_late_acknowledges(bus: BusClient, plug: Callable[..., Host]) -> None:
    host = plug()
    for fault, waits in (("pending_ack", True), ("stray_ack", False), ("slow_control", True)):
        bus.inject("camera", fault, seconds=0.2)
        begun = time.monotonic()
        assert host.read(0x4, 11) == b"photometryd"
        assert (time.monotonic() - begun >= 0.2) == waits
    bus.inject("camera", "no_ack")
    with pytest.raises(usb.core.USBTimeoutError):
        host.device.write(OUT, struct.pack("<IHHHHQHH", 0x43563355, 0x4000, READ, 12, 9, 0, 0, 4))
        host.device.read(IN, 1024, 200)
    assert host.read(0x4, 11) == b"photometryd"


# -- features, as two independent implementations read them ------------------------------------------------------------

STATES: dict[str, list[str]] = {
    "power-on": [],
    "binned": ["BinningHorizontal=2", "BinningVertical=2", "PixelFormat=Mono12p", "Width=20", "OffsetX=6", "OffsetY=2"],
    "triggered": [
        "TriggerSelector=FrameStart", "TriggerMode=On", "TriggerSource=Line2", "TriggerActivation=FallingEdge",
        "TriggerDelay=123.4", "AcquisitionMode=MultiFrame", "AcquisitionFrameCount=7",
    ],
    "other selectors": ["TriggerSelector=FrameBurstStart", "LineSelector=Line1", "LineSource=ExposureActive"],
    "analogue": ["Gain=7.3", "BlackLevel=-17", "ExposureTime=1234.5", "AcquisitionFrameRate=33.25"],
    "automatic": ["GainAuto=Continuous", "ExposureAuto=Continuous"],
    "unlimited": ["DeviceLinkThroughputLimitMode=Off", "AcquisitionFrameRateEnable=0", "ExposureTime=20000"],
    "limited": ["DeviceLinkThroughputLimit=1000000", "PixelFormat=Mono16"],
    "chunks": ["ChunkModeActive=1", "ChunkSelector=Gain", "ChunkEnable=1", "ChunkSelector=FrameID"],
}  # fmt: skip
LINE = re.compile(r"\s+(\w+)\s*: \[(\w\w)\] '(\w+)'(?: = (.*))?")
LIMITS = re.compile(r"(\w+) = (\S+).*? min:(\S+) max:(\S+?)(?: inc:(\S+))?$")


def arv(*arguments: str) -> str:
    told = subprocess.run(["arv-tool-0.8", *arguments], capture_output=True, text=True, timeout=30, check=False)
    assert told.returncode == 0 and "rror" not in told.stderr, told.stderr
    return told.stdout


@needs_aravis
@pytest.mark.parametrize("state", STATES)
def test_aravis_and_the_reference_read_equal_features(plug: Callable[..., Host], state: str) -> None:
    plug().close()
    set_up = STATES[state]
    if set_up:
        arv("control", *set_up)
    aravis = {match[3]: match for match in map(LINE.match, arv("values").splitlines()) if match}
    values = [name for name, match in aravis.items() if match[4] is not None]
    limits = {match[1]: match for match in map(LIMITS.match, arv("control", *values).splitlines()) if match}
    host = Host()
    nodes = host.nodes()
    readable = {name for name, node in _features(nodes) if node.get_access_mode() in (EAccessMode.RO, EAccessMode.RW)}
    assert set(values) == {name for name in readable if not _is_command(nodes, name)}
    assert len(values) > 45 and len(limits) > 10
    locked = set(re.findall(r'Name="(\w+)"[^>]*>\s*<pIsLocked>', host.file()[1].decode()))
    assert 5 < len(locked) < 20
    for name in sorted(values):
        node = nodes.get_node(name)
        assert _equal(aravis[name][4], node), (name, aravis[name][4], node.to_string())
        if name not in locked:  # Aravis' tool does not show locks
            assert aravis[name][2] == ("RW" if node.get_access_mode() == EAccessMode.RW else "RO"), name
    for name, match in limits.items():
        node = nodes.get_node(name)
        expected = [node.min, node.max, *([node.inc] if match[5] else [])]
        assert [float(one) for one in match.groups()[2:] if one] == pytest.approx(expected, rel=1e-5), name
    host.close()


def _features(nodes: Any) -> Iterator[tuple[str, Any]]:
    for category in nodes.Root.features:
        for node in category.features:
            yield node.node.name, node


def _is_command(nodes: Any, name: str) -> bool:
    return nodes.get_node(name).node.principal_interface_type == EInterfaceType.intfICommand


def _equal(text: str, node: Any) -> bool:
    kind = node.node.principal_interface_type
    if kind == EInterfaceType.intfIString or kind == EInterfaceType.intfIEnumeration:
        return text.strip("'") == str(node.value)
    if kind == EInterfaceType.intfIBoolean:
        return (text == "true") == node.value
    return float(text.split(maxsplit=1)[0]) == pytest.approx(float(node.value), rel=1e-5, abs=1e-9)


@pytest.mark.parametrize("pixel_format", FORMATS)
@pytest.mark.parametrize("chunks", [False, True])
def test_the_payload_of_the_description_is_that_of_the_stream(
    plug: Callable[..., Host], pixel_format: str, chunks: bool
) -> None:
    host = plug(width_px=62, height_px=46)
    nodes = host.nodes()
    nodes.PixelFormat.value = pixel_format
    nodes.ChunkModeActive.value = chunks
    image = PixelFormat(pixel_format).payload_bytes(46, 62)
    assert nodes.PayloadSize.value == host.number(host.sirm + 8, 8) == image + (8 if chunks else 0)
    nodes.BinningVertical.value = 2
    nodes.Width.value = 30
    assert nodes.Height.value == 22
    assert nodes.PayloadSize.value == host.number(host.sirm + 8, 8)


def test_features_are_locked_where_the_description_says_and_by_the_camera_itself(plug: Callable[..., Host]) -> None:
    host = plug(automatic=True)
    nodes = host.nodes()
    assert nodes.ExposureTime.get_access_mode() == EAccessMode.RO and nodes.Gain.get_access_mode() == EAccessMode.RO
    nodes.ExposureAuto.value = nodes.GainAuto.value = "Off"
    nodes.ExposureTime.value, nodes.Gain.value = 500.0, 6.0
    assert (nodes.ExposureTime.value, nodes.Gain.value) == (500.0, 6.0)
    nodes.TLParamsLocked.value = 1
    assert nodes.Width.get_access_mode() == EAccessMode.RO
    nodes.AcquisitionStart.execute()
    with pytest.raises(Status) as caught:
        host.set(0x4_0008, 32)
    assert caught.value.status == 0x8006
    nodes.AcquisitionStop.execute()
    host.set(0x4_0008, 32)
    nodes.TLParamsLocked.value = 0
    nodes.UserSetLoad.execute()
    nodes = host.nodes()  # as a host that has read nothing yet
    assert nodes.Width.value == WIDTH and nodes.ExposureAuto.value == "Continuous"


def test_the_latched_clock_runs_as_fast_as_ordered(plug: Callable[..., Host]) -> None:
    nodes = plug(clock_ppm=500_000.0).nodes()

    def latch() -> tuple[float, float, float]:
        begun_s = time.monotonic()
        nodes.TimestampLatch.execute()
        return begun_s, time.monotonic(), nodes.TimestampLatchValue.value * 1e-9

    first, _, last = latch(), time.sleep(0.5), latch()
    assert 1.5 * (last[0] - first[1]) <= last[2] - first[2] <= 1.5 * (last[1] - first[0])


# -- the stream ------------------------------------------------------------


@pytest.fixture
def stream(plug: Callable[..., Host]) -> Callable[..., tuple[Host, Any]]:
    """Opens a camera, sets features, starts it."""

    def start(features: dict[str, Any] | None = None, transfer: int = 1 << 20, **options: Any) -> tuple[Host, Any]:
        host = plug(**options)
        nodes = host.nodes()
        for name, value in (features or {}).items():
            nodes.get_node(name).value = value
        host.enable(transfer)
        nodes.AcquisitionStart.execute()
        return host, nodes

    return start


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


# -- faults ------------------------------------------------------------


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


# -- where pictures come from ------------------------------------------------------------

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


# -- Aravis streams ------------------------------------------------------------


def arv_stream(*arguments: str) -> dict[str, int]:
    command = ["arv-camera-test-0.8", "--duration=2", *arguments]
    told = subprocess.run(command, capture_output=True, text=True, timeout=40, check=False)
    assert told.returncode == 0, told.stdout + told.stderr
    found = {name: int(count) for name, count in re.findall(r"^(n_\w+)\s+= (\d+)$", told.stdout, re.M)}
    assert found.pop("n_completed_buffers") > 10, told.stdout + told.stderr
    return {name: found[name] for name in ("n_failures", "n_underruns", "n_aborted", "n_ignored_bytes")}


NO_FAULT = {"n_failures": 0, "n_underruns": 0, "n_aborted": 0, "n_ignored_bytes": 0}


# frames of 170 kB at least: Aravis queues 8 MB of its 50 buffers, and counts an underrun each time it finds none left
@needs_aravis
@pytest.mark.parametrize("mode", ["async", "sync"])
@pytest.mark.parametrize(
    ("options", "arguments"),
    [
        ({"height_px": 1200, "width_px": 1920, "frame_rate_hz": 40.0}, []),
        (
            {"zip": True, "first_block_id": 1, "alignment_bytes": 4, "height_px": 480, "width_px": 640},
            ["--width=600", "--height=300", "--frequency=50", "--exposure=500"],
        ),
        ({"height_px": 480, "width_px": 640, "source": "pattern"}, ["--software-trigger=25"]),
        ({"alignment_bytes": 4, "height_px": 480, "width_px": 640}, ["--chunks=FrameID,Timestamp,ExposureTime"]),
        ({"automatic": True, "usb2": True, "height_px": 480, "width_px": 640}, []),
    ],
)
def test_aravis_streams_without_a_failed_frame(
    bus: BusClient, plug: Callable[..., Host], mode: str, options: dict[str, Any], arguments: list[str]
) -> None:
    plug(**options).close()
    assert arv_stream(f"--usb-mode={mode}", *arguments) == NO_FAULT
    assert not bus.state("camera")["streaming"] and not bus.state("camera")["acquiring"]
    assert "faults of the model" not in bus.state("camera")["counts"]


@needs_aravis
def test_aravis_counts_the_frames_that_are_broken(bus: BusClient, plug: Callable[..., Host]) -> None:
    plug().close()
    bus.inject("camera", "short_frame", times=5)
    assert arv_stream("--usb-mode=async")["n_failures"] >= 1
