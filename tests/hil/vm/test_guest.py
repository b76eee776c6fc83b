"""Emulated devices as a kernel's own USB stack and udev meet them."""

from __future__ import annotations

import errno
import json

import pytest

from hw.twin.usb.loopback import BULK_IN, BULK_OUT, SOURCE_IN
from tests.hil.vm.machine import GuestError, Machine

LOOPBACK = "grep -l 1209 /sys/bus/usb/devices/*/idVendor"
OPEN = f"""
import sys, time, usb.core, usb.util
OUT, IN, SOURCE, WAIT_MS = {BULK_OUT}, {BULK_IN}, {SOURCE_IN}, 60000

def opened():
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        device = usb.core.find(idVendor=0x1209, idProduct=1)
        if device is not None:
            return device
        time.sleep(0.1)
    raise LookupError("no loopback")

def error_of(act, *given):
    try:
        act(*given)
    except usb.core.USBError as error:
        return error.errno
    return 0

device = opened()
"""


def told(guest: Machine, *names: str) -> list[str]:
    """Lines of its files in /sys."""
    return guest.sh(f"cd $(dirname $({LOOPBACK})) && cat {' '.join(names)}").splitlines()


@pytest.mark.parametrize(("superspeed", "speed_mbps"), [(False, "480"), (True, "5000")])
def test_the_kernel_enumerates_a_device(guest: Machine, superspeed: bool, speed_mbps: str) -> None:
    guest.plug("one", "loopback", serial="A1", superspeed=superspeed)
    guest.eventually(f"{LOOPBACK} && udevadm settle")
    seen = told(guest, "speed", "manufacturer", "product", "serial", "bNumInterfaces")
    assert seen == [speed_mbps, "photometryd", "Emulated loopback", "A1", " 2"]
    complaints = guest.sh("dmesg | grep -iE 'usb.*(error|fail|unable|not accepting)' || true")
    assert complaints == ""


TRANSFERS = """
assert device.ctrl_transfer(0x40, 1, 3, 0, b"hello", WAIT_MS) == 5
assert bytes(device.ctrl_transfer(0xC0, 2, 3, 0, 64, WAIT_MS)) == b"hello"
assert error_of(device.ctrl_transfer, 0xC0, 99, 0, 0, 8, WAIT_MS) == 32
for size in (1, 511, 512, 513, 1024, 70_001, 1_000_003):
    sent = bytes(k * 7 & 0xFF for k in range(size))
    assert device.write(OUT, sent, WAIT_MS) == size
    assert bytes(device.read(IN, size + 1, WAIT_MS)) == sent, size
assert bytes(device.read(SOURCE, 1 << 20, WAIT_MS)) == bytes(range(256)) * 4096
assert error_of(device.read, IN, 512, 300) == 110
device.write(OUT, b"later", WAIT_MS)
assert bytes(device.read(IN, 512, WAIT_MS)) == b"later"
print("done")
"""


@pytest.mark.parametrize("superspeed", [False, True])
def test_transfers_of_all_lengths_go_both_ways_and_a_timeout_takes_nothing(guest: Machine, superspeed: bool) -> None:
    guest.plug("one", "loopback", superspeed=superspeed)
    assert guest.python(OPEN + TRANSFERS) == "done\n"
    counts = guest.state("one")["counts"]
    assert counts["bytes out"] == counts["bytes in"] > 1_000_000


STALLED = """
device.write(OUT, b"x", WAIT_MS)
print([error_of(device.read, IN, 512, WAIT_MS) for _ in range(2)], bytes(device.ctrl_transfer(0x82, 0, 0, IN, 2)))
device.clear_halt(IN)
print(bytes(device.read(IN, 512, WAIT_MS)))
"""


def test_a_stall_halts_its_endpoint_until_it_is_cleared(guest: Machine) -> None:
    guest.plug("one", "loopback")
    guest.eventually(LOOPBACK)  # resets it
    guest.inject("one", "stall", endpoint=BULK_IN)
    assert guest.python(OPEN + STALLED) == "[32, 32] b'\\x01\\x00'\nb'x'\n"
    assert guest.state("one")["counts"]["halts cleared"] >= 1


WRITTEN = """
print(error_of(device.write, OUT, b"x", WAIT_MS))
"""


def test_the_kernel_repeats_what_failed_on_the_wire_and_gives_up_in_the_end(guest: Machine) -> None:
    guest.plug("one", "loopback")
    guest.inject("one", "usb.error", endpoint=BULK_OUT, times=1)
    assert guest.python(OPEN + WRITTEN) == "0\n"
    guest.inject("one", "usb.error", endpoint=BULK_OUT, times=100)
    assert guest.python(OPEN + WRITTEN) == f"{errno.EIO}\n"  # libusb's word for EPROTO


BLOCKED = """
device.write(OUT, b"", WAIT_MS)
device.read(IN, 512, WAIT_MS)
open("/run/waits", "w").close()
print(error_of(device.read, IN, 512, 600_000), error_of(device.write, OUT, b"x", WAIT_MS))
"""


@pytest.mark.parametrize("fault", [None, "usb.gone"])
def test_pulling_the_plug_ends_a_read_that_waits_and_it_comes_back_empty(guest: Machine, fault: str | None) -> None:
    guest.plug("one", "loopback")
    program = guest.start("/usr/bin/python3", "-c", OPEN + "device.ctrl_transfer(0x40, 1, 0, 0, b'kept?')" + BLOCKED)
    guest.eventually("test -e /run/waits")
    before = int(told(guest, "devnum")[0])
    if fault is None:
        guest.unplug("one")
    else:
        guest.inject("one", fault)
    assert program.result() == f"{errno.ENODEV} {errno.ENODEV}\n"
    guest.eventually(f"! {LOOPBACK}")
    assert not guest.state("one")["plugged"]
    guest.plug("one")
    guest.eventually(LOOPBACK)
    assert int(told(guest, "devnum")[0]) > before
    assert guest.python(OPEN + "print(bytes(device.ctrl_transfer(0xC0, 2, 0, 0, 64)))") == "b''\n"


def test_two_devices_do_not_mix(guest: Machine) -> None:
    guest.plug("one", "loopback", serial="A")
    guest.plug("other", "loopback", serial="B", superspeed=True)
    guest.eventually(f"test $({LOOPBACK} | wc -l) = 2")
    code = """
found = {device.serial_number: device for device in usb.core.find(find_all=True, idVendor=0x1209)}
for k in range(10):
    for name, device in found.items():
        device.write(OUT, f"{name}{k}".encode(), WAIT_MS)
for name, device in sorted(found.items()):
    print(*[bytes(device.read(IN, 512, WAIT_MS)).decode() for _ in range(10)])
"""
    assert guest.python(OPEN + code) == "".join(" ".join(f"{name}{k}" for k in range(10)) + "\n" for name in "AB")


def test_udev_gives_the_group_to_the_camera_and_not_to_others(guest: Machine) -> None:
    guest.plug("camera", "u3v", height_px=64, width_px=64)
    guest.plug("other", "loopback")
    guest.eventually(f"{LOOPBACK} && grep -l ef /sys/bus/usb/devices/*/bDeviceClass && udevadm settle")
    seen = json.loads(guest.python(ACCESS))
    camera = next(one for one in seen if one["class"] == "ef0201")
    other = next(one for one in seen if one["class"] == "000000")
    assert "ef0500" in camera["interfaces"] and ":ef0500:" in camera["udev"]
    assert (camera["group"], camera["mode"], camera["speed"]) == ("photometryd", "0o660", "5000")
    assert (other["group"], other["mode"]) == ("root", "0o664")
    with pytest.raises(GuestError, match="Permission denied"):
        guest.sh(f"setpriv --reuid nobody --clear-groups --regid nogroup sh -c 'exec 3<>{camera['node']}'")
    guest.sh(f"setpriv --reuid photometryd --regid photometryd --clear-groups sh -c 'exec 3<>{camera['node']}'")


ACCESS = """
import glob, grp, json, os, stat, subprocess

def read(path):
    with open(path) as file:
        return file.read().strip()

def triple(at, prefix):
    return "".join(read(f"{at}/{prefix}{part}") for part in ("Class", "SubClass", "Protocol"))

seen = []
for at in glob.glob("/sys/bus/usb/devices/[0-9]*-[0-9]"):
    node = "/dev/bus/usb/%03d/%03d" % (int(read(at + "/busnum")), int(read(at + "/devnum")))
    about = os.stat(node)
    told = subprocess.run(["udevadm", "info", "--query=property", "--property=ID_USB_INTERFACES", "--value", at],
                          capture_output=True, text=True, check=True).stdout.strip()
    interfaces = [triple(one, "bInterface") for one in glob.glob(at + ":*")]
    seen.append({"class": triple(at, "bDevice"), "interfaces": interfaces,
                 "udev": told, "node": node, "group": grp.getgrgid(about.st_gid).gr_name,
                 "mode": oct(stat.S_IMODE(about.st_mode)), "speed": read(at + "/speed")})
print(json.dumps(seen))
"""
