"""Which camera is meant, and what it is called."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hw.errors import CameraError, CameraReason, UsbError, UsbReason
from hw.usb.bus import FoundDevice, UsbId, find
from hw.usb.device import UsbDevice

CONTROL, EVENT, STREAM = (0xEF, 5, 0), (0xEF, 5, 1), (0xEF, 5, 2)
DEVICE_INFO, SUBTYPE, INFO_BYTES = 0x24, 0x01, 20
GUID_INDEX, SERIAL_INDEX, USER_NAME_INDEX = 11, 17, 18
"""Offsets in the device info descriptor (AIA USB3 Vision 1.0, table 2)."""

REASONS = {
    UsbReason.NOT_FOUND: CameraReason.NOT_FOUND,
    UsbReason.UNPLUGGED: CameraReason.UNPLUGGED,
    UsbReason.STALLED: CameraReason.STALLED,
    UsbReason.BUSY: CameraReason.BUSY,
    UsbReason.DENIED: CameraReason.DENIED,
    UsbReason.TIMEOUT: CameraReason.STALLED,
    UsbReason.BABBLE: CameraReason.PROTOCOL,
    UsbReason.NO_MEMORY: CameraReason.NO_MEMORY,
    UsbReason.PROTOCOL: CameraReason.PROTOCOL,
    UsbReason.FAULT: CameraReason.FAULT,
}


def camera_error(error: UsbError) -> CameraError:
    """The same, as cameras tell it."""
    return CameraError(REASONS.get(error.reason, CameraReason.FAULT), error.detail)  # type: ignore[call-overload]


@dataclass(frozen=True)
class Identity:
    """What a camera calls itself in its descriptors; empty where it does not."""

    guid: str
    serial: str
    user_name: str


def pick(wanted: str, backend: Any = None) -> FoundDevice:
    """The camera whose serial number, GUID or user name is `wanted`; the only one there is when that is empty.

    Raises `CameraError`: NOT_FOUND naming those that are there, AMBIGUOUS, or why one could not be asked its name.
    """
    try:
        cameras = find(UsbId(interface=CONTROL), backend)
    except UsbError as error:
        raise camera_error(error) from error
    if not cameras:
        raise CameraError(CameraReason.NOT_FOUND, "there is no USB3 Vision camera on the bus")
    names = ", ".join(one.name for one in cameras)
    if not wanted:
        if len(cameras) > 1:
            raise CameraError(CameraReason.AMBIGUOUS, f"there are {len(cameras)} cameras: {names}")
        return cameras[0]
    refusals: list[UsbError] = []
    for camera in cameras:
        if wanted == camera.serial or wanted in _names(camera, refusals):
            return camera
    if refusals:
        raise camera_error(refusals[0]) from refusals[0]
    raise CameraError(CameraReason.NOT_FOUND, f"no camera is called '{wanted}'; there are: {names}")


def _names(camera: FoundDevice, refusals: list[UsbError]) -> set[str]:
    try:
        device = UsbDevice.open(camera, [])
        try:
            known = identity(device)
        finally:
            device.close()
    except UsbError as error:
        refusals.append(error)
        return set()
    return {known.guid, known.serial, known.user_name} - {""}


def identity(device: UsbDevice) -> Identity:
    """Read the strings that the device info descriptor names. Raises `UsbError`."""
    extra = device.found.interface(CONTROL).extra
    while len(extra) >= 2 and extra[0] >= 2:
        if extra[1] == DEVICE_INFO and len(extra) >= INFO_BYTES and extra[2] == SUBTYPE:
            return Identity(*(device.string(extra[at]) for at in (GUID_INDEX, SERIAL_INDEX, USER_NAME_INDEX)))
        extra = extra[extra[0] :]
    return Identity("", "", "")
