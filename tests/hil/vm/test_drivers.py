"""Emulated instruments with the kernel's drivers, and our drivers on the kernel's USB stack."""

from __future__ import annotations

import re
import sys
import time

import pytest

from hw.twin.usb import MODELS
from tests.hil.vm.machine import Command, GuestError, Machine

LISTED = "grep -l {} /sys/bus/usb/devices/*/idVendor && udevadm settle"
AS_SERVICE = "cd /mnt && setpriv --reuid photometryd --regid photometryd --clear-groups env HOME=/tmp python3 -B"
"""Our code in the guest, as the service's user."""


def require(kind: str, module: str | None = None) -> None:
    if kind not in MODELS:
        pytest.skip(f"there is no emulated device '{kind}'")
    if module is not None:
        pytest.importorskip(module)
        if sys.version_info[:2] != (3, 11):
            pytest.skip("Debian's Python is 3.11: what is compiled for another does not run there")


def groups(guest: Machine) -> list[str]:
    """Of all USB devices, root hubs among them."""
    return guest.sh("stat -c %G /dev/bus/usb/*/* | sort -u").split()


USBTMC = """
import os
with open("/dev/usbtmc0", "r+b", buffering=0) as instrument:
    for _ in range(3):
        instrument.write(b"*IDN?\\n")
        print(instrument.read(1024).decode().strip())
"""


def test_the_kernels_usbtmc_driver_talks_to_the_source_measure_unit(guest: Machine) -> None:
    require("smu")
    guest.plug("smu", "smu", serial="SN1")
    guest.eventually("test -c /dev/usbtmc0 && udevadm settle")
    answers = guest.python(USBTMC).splitlines()
    assert len(answers) == 3 and len(set(answers)) == 1 and "KEITHLEY" in answers[0] and "SN1" in answers[0]
    assert groups(guest) == ["photometryd", "root"]
    guest.unplug("smu")
    guest.eventually("! test -e /dev/usbtmc0")


ACM = """
import os, select, termios, tty
terminal = os.open("/dev/ttyACM0", os.O_RDWR | os.O_NOCTTY)
tty.setraw(terminal)
settings = termios.tcgetattr(terminal)
settings[2] &= ~termios.HUPCL  # leave the lines as they are on closing
termios.tcsetattr(terminal, termios.TCSANOW, settings)
for _ in range(2):
    os.write(terminal, b"t\\n")
    answer = b""
    while not answer.endswith(b"*\\n"):
        assert select.select([terminal], [], [], 60)[0], answer
        answer += os.read(terminal, 256)
    print(answer)
"""


def test_the_kernels_serial_driver_talks_to_the_potentiostat(guest: Machine) -> None:
    require("methodscript-cdc")
    guest.plug("potentiostat", "methodscript-cdc")
    guest.eventually("test -c /dev/ttyACM0 && udevadm settle")
    answers = guest.python(ACM).splitlines()
    assert len(answers) == 2 and all(re.fullmatch(r"b't\w+#.*\\nR\*\\n'", one) for one in answers)
    assert guest.state("potentiostat")["lines"] == 3  # the driver raised DTR and RTS
    assert groups(guest) == ["photometryd", "root"]
    at = guest.sh("dirname $(grep -l PalmSens /sys/bus/usb/devices/*/manufacturer)").strip()
    assert "ID_MM_DEVICE_IGNORE=1" in guest.sh(f"udevadm info {at}")
    guest.unplug("potentiostat")
    guest.eventually("! test -e /dev/ttyACM0")


TAKEN = """
from pathlib import Path
from hw.usb.bus import UsbId, find
from hw.usb.device import UsbDevice
from hw.usb.usbtmc import UsbTmc

node = Path("/dev/usbtmc0")
(found,) = find(UsbId(interface=(0xFE, 3, 1)))
before = node.exists()
device = UsbDevice.open(found, [0])
taken = node.exists()
answer = UsbTmc(device, UsbTmc.interface_of(device)).query(b"*IDN?", 60.0)
device.close()
print(before, taken, node.exists(), b"KEITHLEY" in answer)
"""


def test_our_usb_layer_takes_an_instrument_from_the_kernels_driver_and_gives_it_back(guest: Machine) -> None:
    require("smu", "hw.usb.usbtmc")
    guest.plug("smu", "smu")
    guest.eventually("test -c /dev/usbtmc0 && udevadm settle && mount -o ro /dev/vdb /mnt")
    assert guest.sh(f"{AS_SERVICE} -c '{TAKEN}'") == "True False True True\n"


def camera(guest: Machine, seconds: float) -> Command:
    """Our driver on the emulated camera, streaming: what it says at the end."""
    require("u3v", "hw.camera.u3v.__main__")
    guest.plug("camera", "u3v", height_px=120, width_px=160, frame_rate_hz=5.0)
    guest.eventually(LISTED.format("1209"))
    guest.sh("mount -o ro /dev/vdb /mnt")
    return guest.start("/bin/sh", "-c", f"{AS_SERVICE} -m hw.camera.u3v --seconds {seconds:g}")


def test_the_camera_driver_streams_on_the_kernels_usb_stack(guest: Machine) -> None:
    told = camera(guest, 10.0).result(600.0)
    assert "160 x 120" in told and re.search(r"link +5000(\.0)? Mbit/s", told)
    received = re.search(r"received +(\d+) frames", told)
    assert received is not None and int(received[1]) >= 2, told


def test_the_camera_driver_tells_that_its_camera_was_pulled_and_finds_it_again(guest: Machine) -> None:
    program = camera(guest, 600.0)
    deadline = time.monotonic() + 300
    while guest.state("camera")["counts"].get("frames sent", 0) < 5:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    guest.unplug("camera")
    with pytest.raises(GuestError, match=r"camera\.unplugged"):
        program.result(600.0)
    guest.plug("camera")
    guest.eventually(LISTED.format("1209"))
    assert "received" in guest.sh(f"{AS_SERVICE} -m hw.camera.u3v --seconds 5", 600.0)
