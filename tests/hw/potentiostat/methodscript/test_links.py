from __future__ import annotations

import pytest

from hw.potentiostat.methodscript import links
from hw.usb.bus import FoundDevice, Interface
from hw.usb.errors import UsbError, UsbReason
from hw.usb.lines import CdcLines, FtdiLines, TtyLines


def a_device(vendor_id, *classes, serial="A1"):
    interfaces = tuple(Interface(n, 0, (one, 0, 0), ()) for n, one in enumerate(classes))
    return FoundDevice(1, 2, "1-1", vendor_id, 1, 480.0, "PalmSens", "EmStat4", serial, interfaces, None)


@pytest.mark.parametrize(
    ("device", "lines"), [(a_device(0x2AD4, 2, 10), CdcLines), (a_device(0x0403, 0xFF), FtdiLines)]
)
def test_the_link_follows_the_descriptors(monkeypatch, device, lines):
    monkeypatch.setattr(links, "find", lambda match: [device])
    made, serial = links.make_lines("usb", "", "", 921600)
    assert isinstance(made, lines) and serial == "A1"


def test_a_terminal_needs_a_path():
    assert isinstance(links.make_lines("tty", "/dev/ttyACM0", "", 921600)[0], TtyLines)
    with pytest.raises(UsbError, match="names no terminal"):
        links.make_lines("tty", "", "", 921600)


def test_which_one_is_meant_must_be_clear(monkeypatch):
    monkeypatch.setattr(links, "find", lambda match: [])
    with pytest.raises(UsbError, match="serial number 'B7'") as caught:
        links.make_lines("usb", "", "B7", 921600)
    assert caught.value.reason is UsbReason.NOT_FOUND
    with pytest.raises(UsbError, match=r"2 potentiostats .*'A', 'B'"):
        links.choose([a_device(1, serial="A"), a_device(1, serial="B")], "")
    monkeypatch.setattr(links, "find", lambda match: [a_device(1, 3)])
    with pytest.raises(UsbError) as caught:
        links.make_lines("usb", "", "", 921600)
    assert caught.value.reason is UsbReason.PROTOCOL
