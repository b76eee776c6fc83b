"""What pyusb and libusb raise, as a `UsbError` that says what happened and to which device."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from hw.errors import UsbError, UsbReason

__all__ = ["NODES", "UsbError", "UsbReason", "holders", "node", "status_error", "usb_error"]

NODES = Path("/dev/bus/usb")
PROCESSES = Path("/proc")

_REASONS = {
    errno.ENODEV: UsbReason.UNPLUGGED,
    errno.ENXIO: UsbReason.UNPLUGGED,
    errno.EACCES: UsbReason.DENIED,
    errno.EPERM: UsbReason.DENIED,
    errno.EBUSY: UsbReason.BUSY,
    errno.EPIPE: UsbReason.STALLED,
    errno.ETIMEDOUT: UsbReason.TIMEOUT,
    errno.EOVERFLOW: UsbReason.BABBLE,
    errno.ENOMEM: UsbReason.NO_MEMORY,
}
_STATUS = {1: errno.EIO, 2: errno.ETIMEDOUT, 3: errno.ECANCELED, 4: errno.EPIPE, 5: errno.ENODEV, 6: errno.EOVERFLOW}
"""libusb_transfer_status -> errno; 0 is completed."""


def node(bus: int, address: int) -> Path:
    """The device's file of usbfs."""
    return NODES / f"{bus:03d}" / f"{address:03d}"


def usb_error(error: Exception, what: str, bus: int, address: int) -> UsbError:
    """`error` of pyusb, met while doing `what` with the device, as ours.

    A failed transfer (EIO) of a device whose file is gone counts as unplugged: the kernel cancels transfers first and
    says so later. A busy device is named with the processes that hold it, as far as /proc may be read.
    """
    number = getattr(error, "errno", None)
    place = node(bus, address)
    reason = _REASONS.get(number, UsbReason.FAULT) if number is not None else UsbReason.FAULT
    if reason is UsbReason.FAULT and not place.exists():
        reason = UsbReason.UNPLUGGED
    told = getattr(error, "strerror", None) or str(error) or type(error).__name__
    detail = f"{what}: {told} (USB device {bus:03d}/{address:03d})"
    if reason is UsbReason.BUSY and (found := holders(place)):
        detail += f"; held by {', '.join(found)}"
    return UsbError(reason, detail)


def status_error(status: int, what: str, bus: int, address: int) -> UsbError:
    """The same for the status that an asynchronous transfer ended with."""
    number = _STATUS.get(status, errno.EIO)
    return usb_error(OSError(number, os.strerror(number)), what, bus, address)


def holders(place: Path) -> list[str]:
    """``name (pid N)`` of every other process that has `place` open; only those that we may look into."""
    try:
        wanted = place.stat()
    except OSError:
        return []
    processes = sorted(PROCESSES.glob("[0-9]*"), key=lambda one: int(one.name))
    others = [one for one in processes if int(one.name) != os.getpid() and _holds(one, wanted)]
    return [f"{_name(one)} (pid {one.name})" for one in others]


def _holds(process: Path, wanted: os.stat_result) -> bool:
    try:
        return any(_same(link, wanted) for link in (process / "fd").iterdir())
    except OSError:  # it ended, or is another user's
        return False


def _same(link: Path, wanted: os.stat_result) -> bool:
    """By what the file is, not by its name: that depends on who looks."""
    try:
        return os.path.samestat(link.stat(), wanted)
    except OSError:  # closed meanwhile, or a socket that has no name
        return False


def _name(process: Path) -> str:
    try:
        return (process / "comm").read_text(encoding="utf-8").strip()
    except OSError:
        return "a process"
