"""The host's own USB code on an emulated bus: errors told apart, kernel drivers, the asynchronous queue."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator

import numpy as np
import pytest

from hw.errors import UsbError, UsbReason
from hw.twin.usb.client import BusClient
from hw.usb.bus import FoundDevice, UsbId, find
from hw.usb.device import UsbDevice
from hw.usb.queue import BulkQueue
from hw.usb.usbfs import memory_limit_mb

OUT, IN, SOURCE = 0x01, 0x81, 0x82
LOOPBACK = UsbId(vendor_id=0x1209, product_id=1)


def only(match: UsbId = LOOPBACK) -> FoundDevice:
    (found,) = find(match)
    return found


@pytest.fixture
def device(bus: BusClient) -> Iterator[UsbDevice]:
    bus.plug("one", "loopback", superspeed=True)
    one = UsbDevice.open(only(), [0, 1])
    yield one
    one.close()


def test_a_device_is_found_by_any_of_its_marks(bus: BusClient) -> None:
    place = bus.plug("one", "loopback", superspeed=True, serial="A1")
    bus.plug("two", "loopback", serial="B2")
    found = only(UsbId(serial="A1"))
    assert (found.bus, found.address, found.speed_mbps) == (place.bus, place.address, 5000.0)
    assert (found.product, found.serial) == ("Emulated loopback", "A1")
    assert [one.serial for one in find(UsbId(product="Emulated*"))] == ["B2", "A1"]
    assert find(UsbId(interface=(0xEF, 5, 0))) == []


def test_bytes_and_requests_come_back(device: UsbDevice) -> None:
    device.bulk_out(OUT, b"hello", 1.0)
    assert device.bulk_in(IN, 512, 1.0) == b"hello"
    device.control(0x40, 1, 3, 0, b"kept", 1.0)
    assert device.control(0xC0, 2, 3, 0, 64, 1.0) == b"kept"
    assert device.string(2) == "Emulated loopback"


@pytest.mark.parametrize(
    "fault, parameters, reason",
    [
        ("stall", {"endpoint": IN}, UsbReason.STALLED),
        ("usb.nak", {"endpoint": IN, "seconds": 5.0}, UsbReason.TIMEOUT),
        ("usb.babble", {"endpoint": IN}, UsbReason.BABBLE),
        ("usb.error", {"endpoint": IN}, UsbReason.FAULT),
        ("usb.gone", {}, UsbReason.UNPLUGGED),
    ],
)
def test_what_goes_wrong_is_told_apart(
    bus: BusClient, device: UsbDevice, fault: str, parameters: dict[str, object], reason: UsbReason
) -> None:
    device.bulk_out(OUT, b"hello", 1.0)
    bus.inject("one", fault, **parameters)
    with pytest.raises(UsbError) as caught:
        device.bulk_in(IN, 512, 0.3)
        device.bulk_in(IN, 512, 0.3)
    assert caught.value.reason is reason


def test_a_stall_ends_with_a_clear(bus: BusClient, device: UsbDevice) -> None:
    device.bulk_out(OUT, b"hello", 1.0)
    bus.inject("one", "stall", endpoint=IN)
    with pytest.raises(UsbError):
        device.bulk_in(IN, 512, 0.3)
    device.clear_halt(IN)
    assert device.bulk_in(IN, 512, 1.0) == b"hello"


def test_a_device_that_another_program_holds_is_busy_and_named(bus: BusClient) -> None:
    bus.plug("one", "loopback")
    code = (
        "import usb.core, usb.util, sys; d = usb.core.find(idVendor=0x1209); usb.util.claim_interface(d, 0);"
        "print('ready', flush=True); sys.stdin.read()"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", code], text=True, **pipes) as other:
        assert other.stdout and other.stdin and other.stdout.readline() == "ready\n"
        with pytest.raises(UsbError) as caught:
            UsbDevice.open(only(), [0])
        other.stdin.close()
    assert caught.value.reason is UsbReason.BUSY and f"(pid {other.pid})" in caught.value.detail
    UsbDevice.open(only(), [0]).close()  # free again


def test_a_kernel_driver_steps_aside_and_comes_back(bus: BusClient) -> None:
    bus.plug("one", "loopback", drivers={0: "cdc_acm"})
    found = only()
    for _ in range(2):
        device = UsbDevice.open(found, [0])
        device.bulk_out(OUT, b"x", 1.0)
        assert not found.handle.is_kernel_driver_active(0)
        device.close()
        assert found.handle.is_kernel_driver_active(0)


def test_after_unplugging_and_plugging_in_it_is_another_address(bus: BusClient, device: UsbDevice) -> None:
    before = device.found
    bus.unplug("one")
    with pytest.raises(UsbError) as caught:
        device.bulk_in(IN, 512, 0.3)
    assert caught.value.reason is UsbReason.UNPLUGGED
    device.close()
    bus.plug("one")
    deadline = time.monotonic() + 5
    while not (now := [one for one in find(LOOPBACK) if one.address != before.address]):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert now[0].port == before.port
    UsbDevice.open(now[0], [0]).close()


def queued(device: UsbDevice, count: int, size: int = 1 << 20) -> tuple[BulkQueue, list[np.ndarray]]:
    queue, memory = BulkQueue(device, SOURCE), [np.zeros(size, np.uint8) for _ in range(count)]
    for number, one in enumerate(memory):
        queue.prepare(number, [one[: size // 2], one[size // 2 :]])
        queue.submit(number)
    return queue, memory


def test_the_queue_brings_all_bytes_into_the_callers_memory(device: UsbDevice) -> None:
    queue, memory = queued(device, 4)
    for turn in range(40):
        done = queue.take(2.0)
        assert done is not None and done.number == turn % 4 and not done.failed
        assert done.lengths == (1 << 19, 1 << 19)
        assert (memory[done.number] == np.tile(np.arange(256, dtype=np.uint8), 1 << 12)).all()
        memory[done.number][:] = 0
        queue.submit(done.number)
    assert queue.stop() == set()


def test_control_transfers_go_on_beside_the_queue(device: UsbDevice) -> None:
    queue, _ = queued(device, 2)
    for k in range(20):
        device.control(0x40, 1, 3, 0, bytes([k]), 1.0)
        assert device.control(0xC0, 2, 3, 0, 64, 1.0) == bytes([k])
        done = queue.take(2.0)
        assert done is not None
        queue.submit(done.number)
    assert queue.stop() == set()


def test_all_transfers_end_when_the_device_is_pulled(bus: BusClient, device: UsbDevice) -> None:
    queue, _ = queued(device, 4)
    bus.inject("one", "usb.nak", endpoint=SOURCE, seconds=60.0)
    bus.unplug("one")
    ends = [done for _ in range(4) if (done := queue.take(2.0)) is not None]
    assert len(ends) == 4
    last = queue.error(ends[-1].failed, "a frame")
    assert last.reason is UsbReason.UNPLUGGED and queue.stop() == set()


def test_transfers_that_wait_are_taken_back(bus: BusClient, device: UsbDevice) -> None:
    bus.inject("one", "usb.nak", endpoint=SOURCE, seconds=60.0)
    queue, _ = queued(device, 4)
    began = time.monotonic()
    assert queue.cancel() == set() and time.monotonic() - began < 1.0
    bus.inject("one", "usb.nak", endpoint=SOURCE, seconds=0.0)
    queue.submit(0)
    assert queue.take(2.0) is not None and queue.stop() == set()


def test_no_more_is_queued_than_the_kernel_has_memory_for(bus: BusClient, device: UsbDevice) -> None:
    bus.usbfs_memory(2)
    assert memory_limit_mb() == 2
    bus.inject("one", "usb.nak", endpoint=SOURCE, seconds=60.0)
    queue = BulkQueue(device, SOURCE)
    for number in range(4):
        queue.prepare(number, [np.zeros(1 << 20, np.uint8)])
    with pytest.raises(UsbError) as caught:
        for number in range(4):
            queue.submit(number)
    assert caught.value.reason is UsbReason.NO_MEMORY and queue.stop() == set()
    bus.usbfs_memory(1000)
