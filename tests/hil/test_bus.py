"""The emulated bus as plain pyusb meets it."""

from __future__ import annotations

import array
import errno
import os
import signal
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import usb.core
import usb.util

from hw.twin.usb.client import BusClient, BusError

OUT, IN, SOURCE = 0x01, 0x81, 0x82
WAIT_MS = 5000


def found(serial: str = "LOOP0001") -> usb.core.Device:
    for device in usb.core.find(find_all=True, idVendor=0x1209, idProduct=1):
        if usb.util.get_string(device, device.iSerialNumber) == serial:
            return device
        usb.util.dispose_resources(device)
    raise LookupError(serial)


def eventually(condition: Callable[[], bool], within_s: float = 5.0) -> bool:
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.01)
    return False


@pytest.fixture
def device(bus: BusClient) -> Iterator[usb.core.Device]:
    bus.plug("one", "loopback")
    one = found()
    yield one
    usb.util.dispose_resources(one)


def test_a_device_is_found_with_its_descriptors_and_strings(bus: BusClient) -> None:
    place = bus.plug("one", "loopback", superspeed=True)
    device = found()
    assert (device.bus, device.address, device.port_number) == (place.bus, place.address, place.port) == (2, 2, 1)
    assert device.speed == 4  # libusb's SuperSpeed
    assert (device.manufacturer, device.product) == ("photometryd", "Emulated loopback")
    assert [one.bEndpointAddress for one in device[0][0, 0]] == [OUT, IN]
    assert Path("/sys/bus/usb/devices/2-1/serial").read_text() == "LOOP0001\n"
    assert Path("/sys/devices/system/cpu/online").read_text()  # the machine's own is still there
    usb.util.dispose_resources(device)


def test_nothing_is_there_that_was_not_plugged_in(bus: BusClient) -> None:
    assert list(usb.core.find(find_all=True)) == []


def test_control_requests_go_both_ways_and_unknown_ones_stall(device: usb.core.Device) -> None:
    assert device.ctrl_transfer(0x40, 1, 3, 0, b"hello") == 5
    assert bytes(device.ctrl_transfer(0xC0, 2, 3, 0, 64)) == b"hello"
    assert bytes(device.ctrl_transfer(0xC0, 2, 3, 0, 2)) == b"he"
    with pytest.raises(usb.core.USBError) as caught:
        device.ctrl_transfer(0xC0, 99, 0, 0, 8)
    assert caught.value.errno == errno.EPIPE


@pytest.mark.parametrize("size", [0, 1, 511, 512, 513, 1_000_003])
def test_bulk_data_comes_back_whole(device: usb.core.Device, size: int) -> None:
    sent = bytes(k * 7 & 0xFF for k in range(size))
    assert device.write(OUT, sent, WAIT_MS) == size
    assert bytes(device.read(IN, size + 1, WAIT_MS)) == sent


def test_a_long_answer_fills_one_transfer_after_another(device: usb.core.Device) -> None:
    device.write(OUT, b"a" * 700, WAIT_MS)
    assert [len(device.read(IN, 512, WAIT_MS)), len(device.read(IN, 512, WAIT_MS))] == [512, 188]


def test_a_stall_halts_its_endpoint_until_it_is_cleared(bus: BusClient, device: usb.core.Device) -> None:
    bus.inject("one", "stall", endpoint=IN)
    device.write(OUT, b"x", WAIT_MS)
    for _ in range(2):
        with pytest.raises(usb.core.USBError) as caught:
            device.read(IN, 512, WAIT_MS)
        assert caught.value.errno == errno.EPIPE
    assert bytes(device.ctrl_transfer(0x82, 0, 0, IN, 2)) == b"\1\0"  # GET_STATUS: halted
    device.clear_halt(IN)
    assert bytes(device.read(IN, 512, WAIT_MS)) == b"x"


def test_a_host_may_halt_an_endpoint_itself(bus: BusClient, device: usb.core.Device) -> None:
    device.ctrl_transfer(0x02, 3, 0, IN)
    with pytest.raises(usb.core.USBError):
        device.read(IN, 512, WAIT_MS)
    device.ctrl_transfer(0x02, 1, 0, IN)
    device.write(OUT, b"x", WAIT_MS)
    assert bytes(device.read(IN, 512, WAIT_MS)) == b"x"
    assert bus.state("one")["counts"]["halts cleared"] == 1


def test_a_read_that_times_out_takes_nothing_with_it(device: usb.core.Device) -> None:
    with pytest.raises(usb.core.USBTimeoutError):
        device.read(IN, 512, 50)
    device.write(OUT, b"later", WAIT_MS)
    assert bytes(device.read(IN, 512, WAIT_MS)) == b"later"


def test_waiting_takes_no_processor(bus: BusClient, device: usb.core.Device) -> None:
    bus.plug("one-again", "loopback", serial="SLOW", delay_s=0.5)
    slow = found("SLOW")
    slow.write(OUT, b"x", WAIT_MS)
    before_s, begun_s = time.process_time(), time.monotonic()
    assert bytes(slow.read(IN, 512, WAIT_MS)) == b"x"
    assert time.monotonic() - begun_s >= 0.5
    assert time.process_time() - before_s < 0.1
    usb.util.dispose_resources(slow)


def test_unplugging_ends_a_read_that_waits(bus: BusClient, device: usb.core.Device) -> None:
    errors: list[usb.core.USBError] = []

    def wait() -> None:
        try:
            device.read(IN, 512, 30_000)
        except usb.core.USBError as error:
            errors.append(error)

    thread = threading.Thread(target=wait)
    device.write(OUT, b"", WAIT_MS)  # claims, so that the thread does nothing but wait
    device.read(IN, 512, WAIT_MS)
    thread.start()
    time.sleep(0.1)
    bus.unplug("one")
    thread.join(5)
    assert [error.errno for error in errors] == [errno.ENODEV]
    with pytest.raises(usb.core.USBError) as caught:
        device.write(OUT, b"x", WAIT_MS)
    assert caught.value.errno == errno.ENODEV


def test_plugged_in_again_it_has_another_address_and_forgot_everything(bus: BusClient) -> None:
    first = bus.plug("one", "loopback")
    device = found()
    device.ctrl_transfer(0x40, 1, 0, 0, b"kept?")
    usb.util.dispose_resources(device)
    bus.unplug("one")
    assert eventually(lambda: usb.core.find(idVendor=0x1209) is None)
    assert not Path(first.node).exists()
    second = bus.plug("one")
    assert (second.bus, second.port) == (first.bus, first.port) and second.address != first.address
    assert eventually(lambda: usb.core.find(idVendor=0x1209) is not None)
    device = found()
    assert device.address == second.address
    assert bytes(device.ctrl_transfer(0xC0, 2, 0, 0, 64)) == b""
    usb.util.dispose_resources(device)


def test_another_program_does_not_take_the_news_of_devices_away(bus: BusClient) -> None:
    """Programs listen under the number of a descriptor, so two of them may have the same name for it."""
    code = "import usb.core, time; list(usb.core.find(find_all=True)); time.sleep(0.3)"
    for _ in range(3):
        subprocess.run([sys.executable, "-c", code], check=True)
    bus.plug("one", "loopback")
    assert eventually(lambda: usb.core.find(idVendor=0x1209) is not None)


def test_other_files_of_dev_are_the_machines_own(bus: BusClient) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(100):
        with open("/dev/urandom", "rb", buffering=0) as file:
            assert len(file.read(8)) == 8
    main, end = os.openpty()
    with open(os.ttyname(end), "rb", buffering=0) as terminal:
        assert termios.tcgetattr(terminal) == termios.tcgetattr(end)
    with open("/dev/null", "rb", buffering=0) as nothing, pytest.raises(termios.error):
        termios.tcgetattr(nothing)
    os.close(main)
    os.close(end)
    assert len(os.listdir("/proc/self/fd")) == before


def test_two_devices_do_not_mix(bus: BusClient) -> None:
    bus.plug("one", "loopback", serial="A")
    bus.plug("other", "loopback", serial="B", delay_s=0.05)
    one, other = found("A"), found("B")
    for k in range(20):
        other.write(OUT, b"other%d" % k, WAIT_MS)
        one.write(OUT, b"one%d" % k, WAIT_MS)
        assert bytes(one.read(IN, 512, WAIT_MS)) == b"one%d" % k
        assert bytes(other.read(IN, 512, WAIT_MS)) == b"other%d" % k
    bus.unplug("one")
    other.write(OUT, b"alone", WAIT_MS)
    assert bytes(other.read(IN, 512, WAIT_MS)) == b"alone"
    for device in (one, other):
        usb.util.dispose_resources(device)


HOLDER = """
import sys, usb.core, usb.util
device = usb.core.find(idVendor=0x1209)
usb.util.claim_interface(device, 0)
print("held", flush=True)
sys.stdin.read()
"""


def test_an_interface_belongs_to_one_program_until_that_dies(device: usb.core.Device) -> None:
    command = [sys.executable, "-c", HOLDER]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        with pytest.raises(usb.core.USBError) as caught:
            usb.util.claim_interface(device, 0)
        assert caught.value.errno == errno.EBUSY
        usb.util.claim_interface(device, 1)  # the other one is free
        holder.send_signal(signal.SIGKILL)
    assert eventually(lambda: _claims(device))
    device.write(OUT, b"mine", WAIT_MS)
    assert bytes(device.read(IN, 512, WAIT_MS)) == b"mine"


def _claims(device: usb.core.Device) -> bool:
    try:
        usb.util.claim_interface(device, 0)
    except usb.core.USBError:
        return False
    return True


def test_a_kernel_driver_holds_its_interface_until_it_is_detached(bus: BusClient) -> None:
    bus.plug("one", "loopback", drivers={0: "cdc_acm"})
    device = found()
    assert device.is_kernel_driver_active(0) and not device.is_kernel_driver_active(1)
    with pytest.raises(usb.core.USBError) as caught:
        usb.util.claim_interface(device, 0)
    assert caught.value.errno == errno.EBUSY
    device.detach_kernel_driver(0)
    usb.util.claim_interface(device, 0)
    usb.util.release_interface(device, 0)
    device.attach_kernel_driver(0)
    assert device.is_kernel_driver_active(0)
    usb.util.dispose_resources(device)


def test_faults_of_the_wire(bus: BusClient, device: usb.core.Device) -> None:
    for fault, code in (("usb.error", errno.EIO), ("usb.babble", errno.EOVERFLOW)):
        bus.inject("one", fault, endpoint=SOURCE)
        with pytest.raises(usb.core.USBError) as caught:
            device.read(SOURCE, 512, WAIT_MS)
        assert caught.value.errno == code
        assert len(device.read(SOURCE, 512, WAIT_MS)) == 512
    bus.inject("one", "usb.nak", endpoint=OUT, seconds=0.3)
    with pytest.raises(usb.core.USBTimeoutError):
        device.write(OUT, b"x", 50)
    assert device.write(OUT, b"y", WAIT_MS) == 1
    assert bytes(device.read(IN, 512, WAIT_MS)) == b"y"
    bus.inject("one", "usb.gone")
    assert eventually(lambda: not bus.state("one")["plugged"])


def test_a_device_may_unplug_itself(bus: BusClient, device: usb.core.Device) -> None:
    bus.inject("one", "gone")
    with pytest.raises(usb.core.USBError) as caught:
        device.write(OUT, b"x", WAIT_MS)
    assert caught.value.errno == errno.ENODEV
    assert eventually(lambda: not bus.state("one")["plugged"])


def test_a_reset_powers_the_device_up_anew(device: usb.core.Device) -> None:
    device.ctrl_transfer(0x40, 1, 0, 0, b"kept?")
    device.reset()
    assert bytes(device.ctrl_transfer(0xC0, 2, 0, 0, 64)) == b""


def test_the_kernels_memory_for_transfers_is_bounded(bus: BusClient) -> None:
    parameter = Path("/sys/module/usbcore/parameters/usbfs_memory_mb")
    assert parameter.read_text() == "1000\n"
    bus.usbfs_memory(1)
    assert parameter.read_text() == "1\n"
    bus.plug("one", "loopback", source_bytes=4 << 20)
    device = found()
    with pytest.raises(usb.core.USBError) as caught:
        device.read(SOURCE, (1 << 20) + 1, WAIT_MS)
    assert caught.value.errno == errno.ENOMEM
    assert len(device.read(SOURCE, 1 << 20, WAIT_MS)) == 1 << 20
    assert len(device.read(SOURCE, 1 << 20, WAIT_MS)) == 1 << 20  # given back
    usb.util.dispose_resources(device)


def test_bad_orders_are_refused_with_a_reason(bus: BusClient) -> None:
    with pytest.raises(BusError, match=r"no driver 'loopbak'.*did you mean 'loopback'"):
        bus.plug("one", "loopbak")
    with pytest.raises(BusError, match="no option 'seriall'"):
        bus.plug("one", "loopback", seriall="x")
    with pytest.raises(BusError, match="no device 'one'"):
        bus.plug("one")
    bus.plug("one", "loopback")
    with pytest.raises(BusError, match="plugged in already"):
        bus.plug("one", "loopback")
    with pytest.raises(BusError, match="has no fault 'fire'"):
        bus.inject("one", "fire")
    with pytest.raises(BusError, match="lacks 'endpoint'"):
        bus.inject("one", "usb.error")
    with pytest.raises(BusError, match="no order 'dance'"):
        bus._order("dance")
    assert "loopback" in bus.kinds()


def test_data_is_right_at_full_rate(bus: BusClient) -> None:
    bus.plug("one", "loopback", superspeed=True, source_bytes=4 << 20)
    device = found()
    buffer = array.array("B", bytes(4 << 20))
    pattern = bytes(range(256)) * (4 << 12)
    for _ in range(10):
        assert device.read(SOURCE, buffer, WAIT_MS) == 4 << 20
        assert buffer.tobytes() == pattern
    assert bus.state("one")["counts"]["bytes of source"] == 40 << 20
    usb.util.dispose_resources(device)
