"""Control and features of the emulated USB3 Vision camera, as a plain host and the GenICam reference meet them."""

from __future__ import annotations

import hashlib
import re
import struct
import time
from collections.abc import Callable
from typing import Any

import pytest
import usb.core
from genicam.genapi import EAccessMode

from hw.camera.contract import PixelFormat
from hw.twin.usb.client import BusClient
from tests.hil.emulated import FORMATS, WIDTH
from tests.hil.gencp import IN, OUT, READ, STREAM, WRITE, Host, Status


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
