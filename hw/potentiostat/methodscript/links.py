"""Which link leads to the potentiostat."""

from __future__ import annotations

from hw.usb.bus import FoundDevice, UsbId, find
from hw.usb.errors import UsbError, UsbReason
from hw.usb.lines import CDC_DATA, CdcLines, FtdiLines, Lines, TtyLines

PRODUCTS = ("EmStat4*", "MultiEmStat4*", "Nexus*", "ESPicoDev*", "SensitBT*", "SensitSmart*")
"""What they call themselves: their links are generic serial chips."""
FTDI_VENDOR = 0x0403


def make_lines(link: str, device: str, serial: str, baud: int) -> tuple[Lines, str]:
    """The unopened link and the device's serial number on the USB. Raises `UsbError`."""
    if link == "tty":
        if not device:
            raise UsbError(UsbReason.NOT_FOUND, "the option device names no terminal")
        return TtyLines(device, baud), ""
    found = choose(find([UsbId(product=product, serial=serial or None) for product in PRODUCTS]), serial)
    if found.vendor_id == FTDI_VENDOR:
        return FtdiLines(found, baud), found.serial
    if any(one.triple[0] == CDC_DATA for one in found.interfaces):
        return CdcLines(found, baud), found.serial
    raise UsbError(UsbReason.PROTOCOL, f"{found.name} speaks neither CDC-ACM nor FTDI")


def choose(found: list[FoundDevice], serial: str) -> FoundDevice:
    """The only one. Raises `UsbError` (NOT_FOUND) when there is none, or which is meant cannot be told."""
    if not found:
        what = f"no potentiostat with the serial number '{serial}'" if serial else "no MethodSCRIPT potentiostat"
        raise UsbError(UsbReason.NOT_FOUND, f"{what} is on the USB")
    if len(found) > 1:
        names = ", ".join(f"'{one.serial}'" for one in found)
        raise UsbError(UsbReason.NOT_FOUND, f"{len(found)} potentiostats are on the USB: name one by serial ({names})")
    return found[0]
